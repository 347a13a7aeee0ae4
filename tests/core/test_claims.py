"""Claims of ids and subnets, in a registry of the test's own."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from containers.core.errors import HostUnsupported, InUse
from containers.core.host import Host
from containers.core.hoststore import claims


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "run" / "registry"


def host(tmp_path: Path, instance: str) -> Host:
    state = tmp_path / instance
    state.mkdir(exist_ok=True)
    return Host(state, instance)


def test_two_instances_get_blocks_that_do_not_touch(tmp_path: Path, registry: Path) -> None:
    one, two = host(tmp_path, "aaaaa"), host(tmp_path, "bbbbb")
    first, second = claims.id_block(one, registry=registry), claims.id_block(two, registry=registry)
    assert abs(first - second) >= claims.ID_BLOCK_SIZE
    assert claims.id_block(one, registry=registry) == first
    assert claims.id_base(one, 3, registry=registry) == first + 3 * 65536
    with pytest.raises(ValueError, match="slot 1024"):
        claims.id_base(one, 1024, registry=registry)


def test_instances_that_claim_at_the_same_time_do_not_clash(tmp_path: Path, registry: Path) -> None:
    hosts = [host(tmp_path, f"aaaa{letter}") for letter in "abcdefgh"]
    found: list[int] = []
    threads = [threading.Thread(target=lambda h=h: found.append(claims.id_block(h, registry=registry))) for h in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(hosts)


@pytest.mark.parametrize("gone", ["state_dir", "boot"])
def test_a_stale_claim_does_not_count(tmp_path: Path, registry: Path, gone: str) -> None:
    one, two = host(tmp_path, "aaaaa"), host(tmp_path, "bbbbb")
    first = claims.id_block(one, registry=registry)
    claims.claim_subnets(one, ["10.1.2.1/24"], registry=registry)
    if gone == "state_dir":
        shutil.rmtree(one.state_dir)
    else:
        path = registry / "aaaaa.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
    assert claims.foreign_subnets(two, registry=registry) == ()
    assert claims.id_block(two, registry=registry) == first
    claims.claim_subnets(two, ["10.1.2.1/24"], registry=registry)


def test_damaged_and_foreign_files_are_ignored(tmp_path: Path, registry: Path) -> None:
    claims.id_block(host(tmp_path, "aaaaa"), registry=registry)
    (registry / "bbbbb.json").write_text("{")
    (registry / "ccccc.json").write_text('{"what": 1}')
    (registry / "ddddd.json").write_text((registry / "aaaaa.json").read_text())
    assert set(claims.claims(registry)) == {"aaaaa"}


def test_an_overlapping_subnet_is_refused_and_nothing_changes(tmp_path: Path, registry: Path) -> None:
    one, two = host(tmp_path, "aaaaa"), host(tmp_path, "bbbbb")
    claims.claim_subnets(one, ["10.1.2.1/24", "fd00:1::1/64"], registry=registry)
    claims.claim_subnets(two, ["10.9.0.1/24"], registry=registry)
    for subnet, field in (("10.1.0.0/16", "ipv4"), ("fd00:1::/48", "ipv6")):
        with pytest.raises(InUse) as caught:
            claims.claim_subnets(two, [subnet], registry=registry)
        assert caught.value.field == field
    assert claims.foreign_subnets(one, registry=registry) == ("10.9.0.0/24",)
    claims.release(one, registry=registry)
    claims.claim_subnets(two, ["10.1.0.0/16"], registry=registry)


def test_a_copied_state_directory_is_refused(tmp_path: Path, registry: Path) -> None:
    original = host(tmp_path, "aaaaa")
    claims.id_block(original, registry=registry)
    copy = Host(tmp_path / "copy", "aaaaa")
    copy.state_dir.mkdir()
    with pytest.raises(InUse):
        claims.id_block(copy, registry=registry)


def test_the_hosts_own_ids_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nfar:x:{2**28 + 5}:100::/:/bin/sh\nbroken\n")
    (tmp_path / "subuid").write_text(f"alice:100000:65536\nbob:{2**28 + 2**26}:10\n::\n")
    ranges = list(claims.host_id_ranges(tmp_path))
    assert (100000, 65536) in ranges
    assert claims.choose_id_block(ranges) == 2**28 + 2 * 2**26


def test_a_range_that_ends_where_a_block_begins_does_not_block_it() -> None:
    assert claims.choose_id_block([(2**28 - 10, 10)]) == 2**28
    assert claims.choose_id_block([(2**28 - 10, 11)]) == 2**28 + 2**26
    with pytest.raises(HostUnsupported):
        claims.choose_id_block([(0, 2**32)])


def test_ids_that_processes_run_as_are_not_given_away(tmp_path: Path) -> None:
    first = claims.FIRST_ID_BLOCK + 70_000
    for number, text in (("1", f"Name:\tx\nUid:\t{first}\t{first}\t0\t0\nGid:\t5\t5\t5\t5\n"), ("self", "Uid:\t7\n")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "status").write_text(text)
    (tmp_path / "2").mkdir()  # a process that has ended meanwhile
    found = set(claims.live_ids(tmp_path))
    assert found == {(first, 1), (0, 1), (5, 1)}
    assert claims.choose_id_block(found) == claims.FIRST_ID_BLOCK + claims.ID_BLOCK_SIZE
