"""The systemd unit that `manage.py install` makes: systemd itself takes it, whatever is in the paths."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from panel.management.commands.install import unit


@pytest.mark.parametrize("state", ["/var/lib/boxroom", '/srv/a "b" $HOME 100%', "/srv/über"])
def test_systemd_takes_the_unit(tmp_path: Path, state: str) -> None:
    project = tmp_path / "pro ject"
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    path = tmp_path / "boxroom.service"
    path.write_text(unit(project, Path(state), ["--bind", "127.0.0.1:8080"]))
    verify = shutil.which("systemd-analyze")
    assert verify, "systemd-analyze is part of Debian's systemd package"
    done = subprocess.run([verify, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "boxroom.service" in line]
    assert not ours, ours


def test_stopping_the_unit_leaves_containers_alone() -> None:
    text = unit(Path("/srv/boxroom"), Path("/var/lib/boxroom"), [])
    assert "KillMode=process" in text
    assert "up --state-dir /var/lib/boxroom" in text
