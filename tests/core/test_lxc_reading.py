"""LXC's configuration files as they are read: what is in force at their end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.core.errors import SpecError
from containers.core.lxc import finding, keys, reading
from containers.core.lxc.reading import Config, lines, parse


def reader(tree: Mapping[str, str | tuple[str, ...]]) -> reading.Read:
    def read(path: str) -> str | tuple[str, ...]:
        if path not in tree:
            raise FileNotFoundError(2, "No such file or directory", path)
        return tree[path]

    return read


def config(text: str, **others: str | tuple[str, ...]) -> Config:
    return parse("/c/config", reader({"/c/config": text, **others}))


def pairs(found: Config) -> list[tuple[str, str]]:
    return [(entry.key, entry.value) for entry in found.entries]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lxc.uts.name = a", [("lxc.uts.name", "a")]),
        ("  lxc.uts.name=a  \n", [("lxc.uts.name", "a")]),
        ("#lxc.uts.name = a\n # b\n\nother = 1\n", []),
        ("lxc.uts.name = a # no comment", [("lxc.uts.name", "a # no comment")]),
        ("lxc.uts.name = 'a b'\nlxc.init.cmd = \"/x 'y'\"", [("lxc.uts.name", "a b"), ("lxc.init.cmd", "/x 'y'")]),
        ("lxc.uts.name = \"a'", [("lxc.uts.name", "\"a'")]),
        ("lxc.uts.name = a\nlxc.uts.name = b", [("lxc.uts.name", "b")]),
        ("lxc.uts.name = a\nlxc.uts.name =", []),
        ("lxc.cap.drop = a b\nlxc.cap.drop = c", [("lxc.cap.drop", "a b"), ("lxc.cap.drop", "c")]),
        ("lxc.cap.drop = a\nlxc.cap.drop =\nlxc.cap.drop = c", [("lxc.cap.drop", "c")]),
        ("lxc.cap.drop = a\nlxc.cap.keep = b\nlxc.cap =", []),
        ("lxc.environment = A=b=c", [("lxc.environment", "A=b=c")]),
        ("lxc.cgroup2.devices.deny = a\nlxc.cgroup2.memory.max = 1\nlxc.cgroup2.devices.deny =",
         [("lxc.cgroup2.memory.max", "1")]),
        ("lxc.cgroup.pids.max = 1\nlxc.cgroup2.pids.max = 2\nlxc.cgroup =", [("lxc.cgroup2.pids.max", "2")]),
        ("lxc.hook.version = 0\nlxc.hook.version = 1\nlxc.hook.start = /a\nlxc.hook.start = /b",
         [("lxc.hook.version", "1"), ("lxc.hook.start", "/a"), ("lxc.hook.start", "/b")]),
        # the names of before LXC 2.1
        ("lxc.utsname = a\nlxc.rootfs = /r\nlxc.id_map = u 0 1 2\nlxc.limit.nofile = 9\nlxc.tty = 4\nlxc.pts = 5",
         [("lxc.uts.name", "a"), ("lxc.rootfs.path", "/r"), ("lxc.idmap", "u 0 1 2"), ("lxc.prlimit.nofile", "9"),
          ("lxc.tty.max", "4"), ("lxc.pty.max", "5")]),
        ("lxc.utsname = a\nlxc.uts.name = b", [("lxc.uts.name", "b")]),
        # interfaces: by number, and of old each type begins one
        ("lxc.net.0.type = veth\nlxc.net.07.type = empty", [("lxc.net.0.type", "veth"), ("lxc.net.7.type", "empty")]),
        ("lxc.net.0.type = veth\nlxc.net.1.type = empty\nlxc.net.0 =", [("lxc.net.1.type", "empty")]),
        ("lxc.net.1.type = veth\nlxc.net.10.type = veth\nlxc.net.1 =", [("lxc.net.10.type", "veth")]),
        ("lxc.net.1.type = veth\nlxc.net =", []),
        ("lxc.network.type = veth\nlxc.network.ipv4 = 10.0.0.1/8\nlxc.network.type = empty\nlxc.network.flags = up",
         [("lxc.net.0.type", "veth"), ("lxc.net.0.ipv4.address", "10.0.0.1/8"), ("lxc.net.1.type", "empty"),
          ("lxc.net.1.flags", "up")]),
        ("lxc.network.type = veth\nlxc.network =\nlxc.network.type = empty", [("lxc.net.0.type", "empty")]),
        ("lxc.network.3.type = veth\nlxc.network.3.ipv4.gateway = auto",
         [("lxc.net.3.type", "veth"), ("lxc.net.3.ipv4.gateway", "auto")]),
        ("lxc.network.3.type = veth\nlxc.network.type = empty",
         [("lxc.net.3.type", "veth"), ("lxc.net.4.type", "empty")]),
    ],
)  # fmt: skip
def test_what_is_in_force(text: str, expected: list[tuple[str, str]]) -> None:
    found = config(text)
    assert pairs(found) == expected
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lxc.uts.name", "no ="),
        ("lxc.net.type = veth", "by its number"),
        ("lxc.net = veth", "takes no value"),
        ("lxc.net. = veth", "takes no value"),
        ("lxc.net.0 = veth", "say what of the interface"),
        ("lxc.net.0. = veth", "say what of the interface"),
        ("lxc.network.0 = veth", "say what of the interface"),
        ("lxc.network.flags = up", "before any lxc.network.type"),
        ("lxc.network.type = veth\nlxc.network =\nlxc.network.flags = up", "before any lxc.network.type"),
        ("lxc.net.99999999999.type = veth", "numbers from 0"),
        ("lxc.net.1000.type = veth", "numbers from 0"),
        ("lxc.uts.name = a\x1bb", "characters"),
        ("lxc.uts\u00e9.name = a", "characters"),
        ("lxc.include = /none", "/none could not be read: No such file"),
    ],
)
def test_what_says_nothing_is_reported_with_its_line(text: str, words: str) -> None:
    found = config(f"lxc.arch = x86_64\n{text}\nlxc.uts.name = last")
    assert [entry.key for entry in found.entries if not entry.key.startswith("lxc.net")] == ["lxc.arch", "lxc.uts.name"]
    (problem,) = found.problems
    assert words in problem.what
    assert (problem.file, problem.line) == ("/c/config", 1 + len(text.split("\n")))


def test_includes_are_read_where_they_stand() -> None:
    found = config(
        "lxc.arch = a\nlxc.include = /i/dir\nlxc.include = near.conf\nlxc.tty.max = 9",
        **{
            "/i/dir": ("/i/dir/1.conf", "/i/dir/2.conf"),
            "/i/dir/1.conf": "lxc.arch = b\nlxc.cap.drop = x",
            "/i/dir/2.conf": "lxc.cap.drop =\nlxc.tty.max = 1",
            "/c/near.conf": "lxc.uts.name = near",
        },
    )
    assert pairs(found) == [("lxc.arch", "b"), ("lxc.uts.name", "near"), ("lxc.tty.max", "9")]
    assert found.files == ("/c/config", "/i/dir", "/i/dir/1.conf", "/i/dir/2.conf", "/c/near.conf")
    assert [(entry.file, entry.line) for entry in found.entries] == [
        ("/i/dir/1.conf", 1), ("/c/near.conf", 1), ("/c/config", 4)]  # fmt: skip


@pytest.mark.lxc("Includes are read where they stand, and never by themselves", "L#655", "lxc.include")
def test_the_same_file_may_be_included_twice_but_never_by_itself() -> None:
    twice = config("lxc.include = /a\nlxc.include = /a", **{"/a": "lxc.cap.drop = x"})
    assert pairs(twice) == [("lxc.cap.drop", "x"), ("lxc.cap.drop", "x")]
    for ring in (
        {"/a": "lxc.include = /c/config"},
        {"/a": "lxc.include = ../a"},
        {"/a": ("/d/1.conf",), "/d/1.conf": "lxc.include = /a"},
    ):
        with pytest.raises(SpecError, match="includes itself") as caught:
            config("lxc.include = /a", **ring)
        assert caught.value.field == "config"


def test_depth_and_number_of_files_end_somewhere() -> None:
    chain = {f"/{n}": f"lxc.include = /{n + 1}" for n in range(40)}
    with pytest.raises(SpecError, match="deeply"):
        config("lxc.include = /0", **chain)
    with pytest.raises(SpecError, match="too many"):
        config("lxc.include = /a\n" * 1000, **{"/a": ""})


def test_the_lines_of_an_fstab_stand_where_it_is_named() -> None:
    found = config(
        "lxc.mount = fstab\nlxc.mount.entry = last",
        **{"/c/fstab": "# a comment\n\nshm  dev/shm\ttmpfs\n/a b none bind\n\x1b"},
    )
    assert pairs(found) == [
        ("lxc.mount.fstab", "fstab"), ("lxc.mount.entry", "shm dev/shm tmpfs"),
        ("lxc.mount.entry", "/a b none bind"), ("lxc.mount.entry", "last")]  # fmt: skip
    assert [(one.file, one.line) for one in found.entries[1:3]] == [("/c/fstab", 3), ("/c/fstab", 4)]
    assert [(one.file, one.line) for one in found.problems] == [("/c/fstab", 5)]
    (missing,) = config("lxc.mount.fstab = /none").problems
    assert "/none could not be read" in missing.what
    assert not config("lxc.mount.fstab = /none\nlxc.mount.fstab =").problems


def test_a_value_that_is_no_text_is_told_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_bytes(b"# caf\xe9\nlxc.environment = A=caf\xe9\nlxc.uts.name = c1\n")
    found = parse(str(file), finding.read)
    assert pairs(found) == [("lxc.uts.name", "c1")]
    assert [one.line for one in found.problems] == [2]


def test_a_file_that_is_not_there_is_the_callers_to_tell() -> None:
    with pytest.raises(FileNotFoundError):
        parse("/none", reader({}))


NAMES = st.sampled_from(
    ["lxc.uts.name", "lxc.utsname", "lxc.cap.drop", "lxc.environment", "lxc.net.0.type", "lxc.net.3.ipv4.address",
     "lxc.network.type", "lxc.network.ipv4", "lxc.cgroup2.memory.max", "lxc.idmap", "lxc.net", "lxc.network",
     "lxc.net.0", "lxc.hook.start", "lxc.cgroup2", "lxc.rootfs"]
)  # fmt: skip
VALUES = st.one_of(st.just(""), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
LINES = st.lists(st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"), max_size=30)


@pytest.mark.lxc("What is in force says the same when it is written and read again", "L#694")
@given(LINES)
def test_what_is_in_force_says_the_same_when_it_is_written_and_read_again(content: list[str]) -> None:
    first = config("\n".join(content))
    again = config("\n".join(lines(first)))
    assert pairs(again) == pairs(first)
    assert again.problems == ()
    scalars = [entry.key for entry in first.entries if not keys.is_list(entry.key)]
    assert len(scalars) == len(set(scalars))


@given(LINES, LINES)
def test_an_include_says_what_its_lines_would_say(before: list[str], included: list[str]) -> None:
    flat = config("\n".join([*before, *included]))
    nested = config("\n".join([*before, "lxc.include = /i"]), **{"/i": "\n".join(included)})
    assert pairs(nested) == pairs(flat)


@given(st.text())
def test_nothing_that_is_written_breaks_it(text: str) -> None:
    for entry in config(text).entries:
        assert entry.key.startswith("lxc.")
        assert entry.value
