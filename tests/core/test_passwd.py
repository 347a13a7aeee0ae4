"""Whatever a container writes into its passwd and group files, the answer is an account or a plain refusal."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.model.passwd import FILE_MAX_BYTES, GROUPS_MAX, Account, UnknownUser, resolve

PASSWD = b"root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1001:A,,,:/home/alice:/bin/zsh\nodd:x:5:6::relative:sh\n"
GROUP = b"root:x:0:\nalice:x:1001:\nwheel:x:10:bob,alice\nsudo:x:27:alice\nmalice:x:28:malice\n"


def test_names_uids_and_pairs() -> None:
    alice = Account(1000, 1001, (10, 27), "alice", "/home/alice", "/bin/zsh")
    assert resolve(None, PASSWD, GROUP) == Account(0, 0, (), "root", "/root", "/bin/bash")
    assert resolve("alice", PASSWD, GROUP) == alice
    assert resolve("1000", PASSWD, GROUP) == alice
    assert resolve("1000:5", PASSWD, GROUP) == Account(1000, 5, (), "alice", "/home/alice", "/bin/zsh")
    assert resolve("alice:wheel", PASSWD, GROUP) == Account(1000, 10, (), "alice", "/home/alice", "/bin/zsh")
    assert resolve("77:sudo", PASSWD, GROUP) == Account(77, 27)
    assert resolve("77", PASSWD, GROUP) == Account(77, 0)
    assert resolve("odd", PASSWD, GROUP) == Account(5, 6, (), "odd", "/", "/bin/sh")


@pytest.mark.parametrize(
    "user", ["", "bob", "alice:nobody", "1:", ":", ":5", "-1", "+5", "٣", "1 ", "a\0b", "4294967295", "x" * 300]
)
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(UnknownUser):
        resolve(user, PASSWD, GROUP)


def test_an_empty_container_still_has_root() -> None:
    assert resolve(None, b"", b"") == Account(0, 0)


def test_groups_and_sizes_are_bounded() -> None:
    many = b"".join(b"g%d:x:%d:alice\n" % (n, n) for n in range(50000, 60000))
    assert len(resolve("alice", PASSWD, many).groups) == GROUPS_MAX
    began = time.process_time()
    assert resolve(None, b":" * (4 * FILE_MAX_BYTES), b"\n" * FILE_MAX_BYTES) == Account(0, 0)
    assert time.process_time() - began < 2
    late = b"#" * FILE_MAX_BYTES + b"\n" + PASSWD
    with pytest.raises(UnknownUser):
        resolve("alice", late, b"")


@given(st.text(max_size=20), st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_give_an_account_in_range_or_a_refusal(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve(user, PASSWD + passwd, GROUP + group)
    except UnknownUser:
        return
    assert all(0 <= number < 2**32 - 1 for number in (found.uid, found.gid, *found.groups))
    assert found.home.startswith("/")
    assert found.shell.startswith("/")
