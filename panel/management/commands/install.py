"""`manage.py install`: makes a systemd unit, so that the panel runs at boot."""

from __future__ import annotations

import os
import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from panel.instance.options import DEFAULT_STATE_DIR

PROJECT: Final = Path(__file__).resolve().parents[3]
UNITS: Final = Path("/etc/systemd/system")


def unit(project: Path, state_dir: Path, arguments: list[str]) -> str:
    """Return the text of the unit. Containers live in cgroups of their own, so KillMode=process leaves them alone."""
    words = " ".join(_quote(word) for word in ["up", "--state-dir", str(state_dir), *arguments])
    return f"""[Unit]
Description=Boxroom, a panel for Linux containers ({state_dir})
After=network-online.target nftables.service docker.service
Wants=network-online.target

[Service]
Type=exec
ExecStart={_quote(str(project / ".venv/bin/python"))} {_quote(str(project / "manage.py"))} {words}
Restart=always
RestartSec=2
KillMode=process
TimeoutStopSec=60
OOMScoreAdjust=-600
OOMPolicy=continue
LimitNOFILE=65536
TasksMax=infinity
UMask=0022

[Install]
WantedBy=multi-user.target
"""


def _quote(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word


class Command(BaseCommand):
    help = "Make and enable a systemd unit that runs the panel at boot. --print only shows it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR")
        parser.add_argument("--bind", metavar="HOST:PORT")
        parser.add_argument("--origin", action="append", default=[], metavar="URL")
        parser.add_argument("--name", default="boxroom", help="the unit's name (boxroom)")
        parser.add_argument("--print", action="store_true", dest="show", help="print the unit and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        arguments = ["--bind", options["bind"]] if options["bind"] else []
        for origin in options["origin"]:
            arguments += ["--origin", origin]
        text = unit(PROJECT, Path(options["state_dir"]).resolve(), arguments)
        if options["show"]:
            self.stdout.write(text, ending="")
            return
        if os.geteuid() != 0:
            raise CommandError("`install` needs root: run it with sudo.")
        if not shutil.which("systemctl") or not Path("/run/systemd/system").is_dir():
            raise CommandError("systemd does not run here. --print shows the unit for another init to learn from.")
        if not (PROJECT / ".venv/bin/python").exists():
            raise CommandError("Run `manage.py up` once first: it makes the environment that the unit uses.")
        path = UNITS / f"{options['name']}.service"
        path.write_text(text)
        for step in (["daemon-reload"], ["enable", "--now", path.name]):
            subprocess.run(["systemctl", *step], check=True)
        self.stdout.write(f"{path} is enabled and started. `journalctl -u {path.stem}` shows its log.")
