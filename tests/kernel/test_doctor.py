"""doctor on the host that runs the tests, and on one that lacks something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from containers.core import doctor
from containers.core.doctor import this_host
from containers.core.host import Host

PROJECT = Path(__file__).resolve().parents[2]


def by_id(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    found = {check.id: check for check in checks}
    assert len(found) == len(checks), "every id is there once"
    return found


@pytest.mark.lxc("The host is probed, not its configuration read", "lxc-checkconfig")
def test_everything_required_is_here_and_nothing_is_left(tmp_path: Path) -> None:
    checks = by_id(doctor.examine(tmp_path))
    assert doctor.missing(list(checks.values())) == []
    of_checkconfig = {"namespace-time", "link-macvlan", "link-vlan", "fuse", "keyrings", "unix-diag", "packet-diag"}
    of_checkconfig |= {"file-handles", "file-capabilities", "event-files", "devpts", "lxcfs", "apparmor", "selinux"}
    assert of_checkconfig <= set(checks)
    assert checks["lxcfs"].ok is os.path.ismount("/var/lib/lxcfs")
    assert checks["apparmor"].ok is (
        Path("/sys/kernel/security/apparmor").exists() and bool(shutil.which("apparmor_parser"))
    )
    assert checks["keyrings"].ok
    assert checks["event-files"].ok
    assert {"kernel", "namespace-user", "idmapped-mount", "overlay", "nftables", "links", "dnsmasq"} <= set(checks)
    assert list(tmp_path.iterdir()) == []
    assert all(check.what and check.why for check in checks.values())
    assert all(check.mend for check in checks.values() if not check.ok)
    assert not [check.what for check in checks.values() if "Errno" in check.what]


def test_a_state_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    doctor.examine(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_program_is_told_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "dnsmasq" else real(name, **more))
    check = by_id(doctor.examine(tmp_path))["dnsmasq"]
    assert (check.ok, check.level) == (False, "required")
    assert "dnsmasq-base" in check.mend


def test_a_probe_that_is_not_done_in_time_is_one_finding_and_no_feature_is_said_to_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_host, "PROBE_SEC", 0)
    checks = by_id(this_host.checks(tmp_path))
    assert (checks["probe"].ok, checks["probe"].level) == (False, "required")
    assert "could not be tried" in checks["probe"].what
    assert not {"namespace-user", "overlay", "pidfd", "disk-limits"} & set(checks)
    assert {"kernel", "lxcfs", "disk-space"} <= set(checks), "what is only looked at is told all the same"


def test_an_unprivileged_user_is_told_and_nothing_breaks(tmp_path: Path) -> None:
    code = (
        "import os,sys,json;sys.path.insert(0,sys.argv[1]);from containers.core import doctor;os.setuid(65534);"
        "print(json.dumps([c.id for c in doctor.missing(doctor.examine(sys.argv[2]))]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(PROJECT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "root" in json.loads(done.stdout)


def test_a_namespace_kind_that_the_host_forbids_is_found() -> None:
    """Within a namespace that allows no network namespaces more, the probe says which."""
    probe = PROJECT / "containers/core/proc/probe.py"
    script = f"echo 0 >/proc/sys/user/max_net_namespaces && exec {sys.executable} -I -S {probe} /dev/shm"
    done = subprocess.run(["unshare", "-U", "-r", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert "space" in results["namespace-network"]
    assert results["namespace-uts"] is None


def test_an_overlay_that_the_host_refuses_is_found_by_trying(tmp_path: Path) -> None:
    """On a file system that takes no idmapped mounts the probe of overlay fails too, whatever the kernel's number."""
    probe = PROJECT / "containers/core/proc/probe.py"
    script = f"mount -t ramfs none {tmp_path} && exec {sys.executable} -I -S {probe} {tmp_path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["idmapped-mount"]
    assert results["overlay"]
    assert results["namespace-uts"] is None


def test_the_command_needs_no_database_and_prints_json(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "BOXROOM_STATE_DIR": str(tmp_path / "nothing")}
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), "doctor", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert {"id", "ok", "level", "what", "why", "mend"} <= set(checks[0])
    assert list(tmp_path.iterdir()) == []


def test_what_was_found_is_written_and_looked_at_again_when_it_is_old(tmp_path: Path) -> None:
    host = Host(tmp_path, "test0")
    assert doctor.refresh(host)
    checks = json.loads(host.doctor_path.read_text())["checks"]
    assert {check["id"] for check in checks} >= {"root", "kernel", "nftables"}
    assert not doctor.refresh(host, older_sec=3600)
    os.utime(host.doctor_path, (0, 0))
    assert doctor.refresh(host, older_sec=3600)


def test_what_others_change_is_looked_at_again(tmp_path: Path) -> None:
    host = Host(tmp_path, "test0")
    assert not doctor.refresh_changing(host)  # nobody has looked yet
    doctor.refresh(host)
    assert not doctor.refresh_changing(host)
    before = read(host)
    assert before["policy"].ok
    host.policy_path.write_text("[containers]\nprivilegd = true\n")
    assert doctor.refresh_changing(host)
    after = read(host)
    assert "privilegd" in after["policy"].what
    assert str(host.policy_path) in after["policy"].mend
    assert after.keys() == before.keys()
    for text in (b"\xff\xfe", b"[containers"):
        host.policy_path.write_bytes(text)
        doctor.refresh_changing(host)
        assert not read(host)["policy"].ok
    host.policy_path.unlink()
    assert doctor.refresh_changing(host)
    assert read(host) == before


def read(host: Host) -> dict[str, doctor.Check]:
    found = json.loads(host.doctor_path.read_text())["checks"]
    return by_id([doctor.Check(**{key: check[key] for key in check if key != "said"}) for check in found])
