"""`manage.py install`: systemd units, so that the panel runs at boot, and containers end cleanly before a halt."""

from __future__ import annotations

import os
import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from containers.core.host import Host
from panel.instance import greeting, running
from panel.instance.options import DEFAULT_STATE_DIR

PROJECT: Final = Path(__file__).resolve().parents[3]
UNITS: Final = Path("/etc/systemd/system")
AFTER: Final = " ".join([
    "network-online.target", "remote-fs.target", "nftables.service", "apparmor.service", "lxcfs.service",
    "docker.service", "postgresql.service",
])  # fmt: skip
"""What containers that start with the host may need, and still have while they halt: where it is not there, none of it
is waited for. A pool may lie on a remote file system; what lxcfs shows is given to a container at its start."""


def unit(project: Path, state_dir: Path, arguments: list[str], *, name: str = "boxroom") -> str:
    """Return the text of the panel's unit. Stopping it leaves containers alone: KillMode=process."""
    return f"""[Unit]
Description=Boxroom, a panel for Linux containers ({_plain(state_dir)})
After={AFTER}
Wants=network-online.target {name}-containers.service
RequiresMountsFor={_mounts(project, state_dir)}

[Service]
Type=exec
ExecStart={_command(project, ["up", "--no-link", "--state-dir", str(state_dir), *arguments])}
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


def containers_unit(project: Path, state_dir: Path, *, name: str = "boxroom") -> str:
    """Return the text of the unit that halts containers when the host goes down: after the panel, before all else.

    The panel's unit pulls it in. It does nothing until the host's shutdown stops it.
    """
    return f"""[Unit]
Description=Containers of Boxroom ({_plain(state_dir)}): halted when this host goes down
After={AFTER}
Before={name}.service
RequiresMountsFor={_mounts(project, state_dir)}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop={_command(project, ["halt", "--state-dir", str(state_dir)])}
TimeoutStopSec=180
"""


def _command(project: Path, words: list[str]) -> str:
    return " ".join(_quote(word) for word in [str(project / ".venv/bin/python"), str(project / "manage.py"), *words])


def _plain(path: Path) -> str:
    return str(path).replace("%", "%%")


def _mounts(*paths: Path) -> str:
    # no variables are put in here, as they are in a command line: a $ stands for itself
    return " ".join(_quote(str(path)).replace("$$", "$") for path in paths)


def _quote(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word


class Command(BaseCommand):
    help = "Make and enable the systemd units that run the panel at boot. --print only shows them."
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
        name, state_dir = options["name"], Path(options["state_dir"]).resolve()
        units = {
            f"{name}.service": unit(PROJECT, state_dir, arguments, name=name),
            f"{name}-containers.service": containers_unit(PROJECT, state_dir, name=name),
        }
        if options["show"]:
            for file, text in units.items():
                self.stdout.write(f"# {UNITS / file}\n{text}")
            return
        if os.geteuid() != 0:
            raise CommandError("`install` needs root: run it with sudo.")
        if not shutil.which("systemctl") or not Path("/run/systemd/system").is_dir():
            raise CommandError("systemd does not run here. --print shows the units for another init to learn from.")
        if not (PROJECT / ".venv/bin/python").exists():
            raise CommandError("Run `manage.py up` once first: it makes the environment that the unit uses.")
        self._make_room(name, state_dir)
        for file, text in units.items():
            (UNITS / file).write_text(text)
        for step in (["daemon-reload"], ["enable", f"{name}.service"], ["restart", f"{name}.service"]):
            subprocess.run(["systemctl", *step], check=True)
        self.stdout.write(f"{UNITS / name}.service is enabled and started. `journalctl -u {name}` shows its log.")
        self.stdout.write(f"While the administrator has no password, this prints a sign-in link, valid once:\n"
                          f"  {greeting.link_command(state_dir)}")  # fmt: skip

    def _make_room(self, name: str, state_dir: Path) -> None:
        """End an `up` that was started by hand on the same directory: the unit's could only say that it runs."""
        try:
            host = Host.open(state_dir)
        except FileNotFoundError:
            return
        if subprocess.run(["systemctl", "is-active", "-q", name], check=False).returncode == 0:
            return  # its own; systemd restarts it
        if running.stop_panel(host):
            self.stdout.write("The panel that was started by hand is stopped; containers run on.")
