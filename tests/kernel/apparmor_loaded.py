"""AppArmor in force. Not collected by its name: run by tests/vm, in a machine whose kernel has AppArmor switched on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core.host import Host
from containers.core.lifecycle import labels
from containers.core.model.security import Security
from containers.core.plans import apparmor
from containers.core.proc.records import RunFile

from ..packages import CACHE
from .test_confinement import Start, confined, execute, instance_of_host, says

__all__ = ["confined", "instance_of_host"]
SECURITY = Path("/sys/kernel/security")


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have what a host has that uses AppArmor: its file system mounted, and the program that loads profiles."""
    [package] = CACHE.glob("apparmor-*")
    program = shutil.which("apparmor_parser", path=f"{package}/usr/sbin:{package}/sbin")
    assert program is not None
    monkeypatch.setattr(labels, "_PATH", str(Path(program).parent))
    subprocess.run(["mount", "-t", "securityfs", "securityfs", str(SECURITY)], check=True)
    yield
    subprocess.run(["umount", str(SECURITY)], check=True)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("nesting", [False, True])
def test_a_container_is_held_by_the_profile_that_is_made_for_it(host: Host, confined: Start, nesting: bool) -> None:
    assert labels.present()
    rules = "[containers]\nnesting = true\n"
    spec = confined(Security(apparmor="generated", nesting=nesting), rules)
    name = apparmor.name_of(host.instance, nesting=nesting)
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    assert Path(f"/proc/{run.init.pid}/attr/apparmor/current").read_text().strip() == f"{name} (enforce)"
    assert says(spec, "cat", "/proc/self/attr/apparmor/current") == f"{name} (enforce)"
    # the kernel itself refuses what the profile does, by its path, to root over a file of its own
    says(spec, "sh", "-c", "mount -t tmpfs none /sys && mkdir -p /sys/bus/x && echo 1 > /sys/bus/x/other")
    refused = execute(spec.id, ["sh", "-c", "echo 1 > /sys/bus/x/reset"])
    assert refused.exit_code != 0
    assert b"Permission denied" in refused.stderr
    assert execute(spec.id, ["kill", "-0", "1"]).exit_code == 0
    subprocess.run(
        [shutil.which("apparmor_parser", path=labels._PATH) or "", "--remove"],
        input=apparmor.profile(name, nesting=nesting), text=True, check=False,
    )  # fmt: skip
