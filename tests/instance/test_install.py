"""The systemd unit that `manage.py install` makes: systemd itself takes it, whatever is in the paths."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from panel.management.commands.install import containers_unit, unit


@pytest.mark.parametrize("state", ["/var/lib/boxroom", '/srv/a "b" $HOME 100%', "/srv/über"])
def test_systemd_takes_the_unit(tmp_path: Path, state: str) -> None:
    project = tmp_path / "pro ject"
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    path, other = tmp_path / "boxroom.service", tmp_path / "boxroom-containers.service"
    path.write_text(unit(project, Path(state), ["--bind", "127.0.0.1:8080"]))
    other.write_text(containers_unit(project, Path(state)))
    verify = shutil.which("systemd-analyze")
    assert verify, "systemd-analyze is part of Debian's systemd package"
    done = subprocess.run([verify, "verify", "--man=no", path, other], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "boxroom" in line]
    assert not ours, ours


def test_stopping_the_unit_leaves_containers_alone() -> None:
    text = unit(Path("/srv/boxroom"), Path("/var/lib/boxroom"), [])
    assert "KillMode=process" in text
    assert "up --no-link --state-dir /var/lib/boxroom" in text, "the journal is read by more people than root"


def test_containers_are_halted_after_the_panel_when_the_host_goes_down() -> None:
    panel, halting = unit(Path("/srv/b"), Path("/srv/state"), []), containers_unit(Path("/srv/b"), Path("/srv/state"))
    assert "boxroom-containers.service" in next(line for line in panel.splitlines() if line.startswith("Wants="))
    assert "Before=boxroom.service" in halting, "what starts before is stopped after"
    assert "ExecStop=/srv/b/.venv/bin/python /srv/b/manage.py halt --state-dir /srv/state\n" in halting
    for text in (panel, halting):
        assert "RequiresMountsFor=/srv/b /srv/state\n" in text, "either may be a mount of its own"
        after = next(line for line in text.splitlines() if line.startswith("After=")).removeprefix("After=").split()
        needed = {"network-online.target", "remote-fs.target", "apparmor.service", "lxcfs.service"}
        assert needed <= set(after), "containers that start with the host find these, and lose them after their halt"
