"""`manage.py up`: everything, from an empty machine to a panel that answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from containers.core.host import Host
from panel.instance import code, greeting, layout, programs, running
from panel.instance.options import DEFAULT_STATE_DIR
from panel.instance.processes import Watcher, finish

PROJECT: Final = Path(__file__).resolve().parents[3]
SLOW_SEC: Final = 60.0
READY_SEC: Final = 900.0
"""A small machine that boots, or a busy one, takes minutes; a process that does not stay up is told of at once."""
FAILURES_MAX: Final = 6
PARTS: Final = ("redis", "launcher", "worker", "ticker", "web")


def pause_sec(waited_sec: float) -> float:
    """Return how long to wait before asking again: where it takes long, on one slow core, asking makes it longer."""
    return min(1.0, max(0.05, waited_sec / 60))


class Command(BaseCommand):
    help = (
        "Set everything up and run the panel: web, worker, ticker, launcher, Redis. Ctrl-C leaves containers running."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bind", default=None, metavar="HOST:PORT", help="default 127.0.0.1:8080")
        parser.add_argument(
            "--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR", help=f"default {DEFAULT_STATE_DIR}"
        )
        parser.add_argument("--detach", action="store_true", help="return once the panel is ready")
        parser.add_argument(
            "--parts", default=",".join(PARTS), metavar="PART,PART",
            help=f"run these only, for a panel spread over several machines or containers: {','.join(PARTS)}",
        )  # fmt: skip
        parser.add_argument(
            "--no-link", action="store_true", help="make no sign-in link, but name the command that does: for services"
        )
        parser.add_argument(
            "--origin", action="append", default=[], metavar="URL",
            help="an address under which a reverse proxy serves the panel, such as https://panel.example.org",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        if os.geteuid() != 0:
            raise CommandError("`up` needs root: run it with sudo.")
        state_dir = Path(options["state_dir"]).resolve()
        self.parts = [part for part in options["parts"].split(",") if part]
        if unknown := set(self.parts) - set(PARTS):
            raise CommandError(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}.")
        self.no_link = options["no_link"] or greeting.read_by_others()
        os.umask(0o022)
        name = "up" if set(self.parts) == set(PARTS) else "up-" + "-".join(sorted(self.parts))
        if self._runs_already(state_dir, name):
            return
        try:
            bind = self._bind(state_dir, options["bind"])
            host = layout.ensure(state_dir, bind, extra_origins=options["origin"])
        except OSError as error:
            raise CommandError(f"{state_dir} cannot be made ready: {error}.") from error
        lock = running.Lock(host, name)
        if not lock.take():
            self._runs_already(state_dir, name)
            return
        if options["detach"]:
            lock.release()
            self._detach(host, options)
            return
        try:
            self._run(host, lock, bind)
        finally:
            lock.release()

    def _runs_already(self, state_dir: Path, name: str) -> bool:
        """Say so where another `up` runs; nothing of its settings is touched then."""
        try:
            info = running.Lock(Host.open(state_dir), name).holder()
        except FileNotFoundError:
            return False
        if info is None:
            return False
        self.stdout.write(f"Boxroom runs already on {state_dir}: {info.get('address', 'it is starting')}")
        return True

    def _bind(self, state_dir: Path, given: str | None) -> layout.Bind:
        """Return where to listen: what is asked for, else what was last used here, else the default."""
        path = state_dir / "bind.json"
        text = given or layout.read_json(path).get("bind") or "127.0.0.1:8080"
        try:
            bind = layout.Bind.parse(text)
        except ValueError as error:
            raise CommandError(str(error)) from None
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        layout.write_json(path, {"bind": text}, mode=0o644)
        return bind

    def _run(self, host: Host, lock: running.Lock, bind: layout.Bind) -> None:
        if "launcher" in self.parts:
            self._check_host(host)
        if set(self.parts) == set(PARTS):
            running.end(running.panel_processes(host), timeout_sec=5.0)
        if "web" in self.parts:
            self._check_port(bind)
        lock.announce(address=bind.address)
        watcher = Watcher(host, PROJECT, self._say)
        stopping: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda got, _frame: stopping.append(got))
        try:
            name = layout.read_json(host.state_dir / "instance.json")["host"]
            report = self._start(watcher, host, bind, name, stopping)
            if "web" in self.parts:
                self._wait_ready(watcher, bind, stopping)
            if not stopping:
                self._greet(host, bind, report)
                self._follow(watcher, stopping)
        finally:
            self._say("Stopping the panel; containers run on.")
            watcher.stop()

    def _check_host(self, host: Host) -> None:
        """Look whether this host can do what is needed, and say plainly what is missing."""
        from containers.core import doctor

        findings = doctor.examine(host.state_dir)
        layout.write_json(host.doctor_path, {"checks": [found.as_dict() for found in findings]}, mode=0o644)
        for finding in findings:
            if not finding.ok and finding.level != "info":
                self._say(f"{finding.level}: {finding.what} {finding.why} Mend: {finding.mend}")
        if any(not finding.ok and finding.level == "required" for finding in findings):
            raise CommandError("This host lacks what is named above. `manage.py doctor` shows everything it looked at.")

    def _check_port(self, bind: layout.Bind) -> None:
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind.host, bind.port))
            except OSError as error:
                raise CommandError(
                    f"Cannot listen on {bind.host}:{bind.port}: {error.strerror}. Choose another with --bind HOST:PORT."
                ) from None

    def _program(self, part: str, host: Host, bind: layout.Bind, name: str) -> programs.Program:
        if part == "redis":
            return programs.redis(host)
        if part == "launcher":
            return programs.launcher(host, PROJECT)
        if part == "worker":
            return programs.worker(host, PROJECT, name)
        if part == "ticker":
            return programs.ticker(host, PROJECT)
        return programs.web(host, PROJECT, bind)

    def _start(self, watcher: Watcher, host: Host, bind: layout.Bind, name: str, stopping: list[int]) -> dict[str, Any]:
        """Start the processes; return what `prepare` told, of a sign-in link above all.

        Where the database was brought up to date by this very code before, the web and the worker load meanwhile.
        """

        def start(*parts: str) -> None:
            for part in parts:
                if part in self.parts:
                    watcher.add(self._program(part, host, bind, name))

        if "worker" not in self.parts:
            start(*PARTS)
            return {}
        done, now = host.state_dir / "prepared", code.digest(PROJECT) + layout.database_mark(host)
        as_before = done.exists() and done.read_text() == now
        preparing = self._prepare()
        try:
            start("redis", "launcher", *(("worker", "web") if as_before else ()))
        finally:
            output, errors = finish(preparing, stopping)
        if stopping:
            return {}
        if preparing.returncode:
            raise CommandError(f"Preparing the database failed:\n{errors[-4000:]}")
        done.write_text(now)
        start("ticker", *(() if as_before else ("worker", "web")))
        return dict(json.loads(output.strip().splitlines()[-1]))

    def _prepare(self) -> subprocess.Popen[str]:
        """Begin to bring the database and the static files up to date."""
        quiet = ["--no-link"] if self.no_link else []
        return subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "prepare", "--json", *quiet],
            env={**os.environ, "BOXROOM_ROLE": "command"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _wait_ready(self, watcher: Watcher, bind: layout.Bind, stopping: list[int]) -> None:
        began = told = time.monotonic()
        answer = "nothing"
        while time.monotonic() < began + READY_SEC and not stopping:
            watcher.tend()
            for process in watcher.processes:
                if process.failures >= FAILURES_MAX:
                    tail = watcher.log_path(process.name).read_text(errors="replace")[-2000:]
                    raise CommandError(f"{process.name} does not stay up. The end of its log:\n{tail}")
            # the slower the machine has been so far, the longer an answer may take
            patience = min(15.0, max(2.0, (time.monotonic() - began) / 4))
            try:
                with urllib.request.urlopen(f"{bind.address}/healthz", timeout=patience) as response:
                    if response.status == 200:
                        return
            except urllib.error.HTTPError as error:
                answer = error.read(500).decode(errors="replace")
            except (OSError, ValueError) as error:
                answer = str(error)
            if time.monotonic() - told > SLOW_SEC:
                told = time.monotonic()
                self._say(f"Not ready after {told - began:.0f} s; waiting on. It answers: {answer}")
            time.sleep(pause_sec(time.monotonic() - began))
        if not stopping:
            raise CommandError(f"The panel did not get ready in {READY_SEC:.0f} s; it answered: {answer}. "
                               f"Look into {watcher.host.log_dir}.")  # fmt: skip

    def _greet(self, host: Host, bind: layout.Bind, report: dict[str, Any]) -> None:
        # behind a reverse proxy cookies are taken at its address only
        served = next(iter(layout.read_json(host.panel_dir / "web.json").get("extra_origins", ())), bind.address)
        link = str(report.get("sign_in_path") or "")
        command = greeting.link_command(host.state_dir) if report.get("no_password") else ""
        greeting.greet(bind.address, served, link, command)
        if ready := os.environ.get("BOXROOM_READY_FD"):
            text = json.dumps({"address": bind.address, "link": f"{served}{link}" if link else ""})
            os.write(int(ready), text.encode())
            os.close(int(ready))

    def _follow(self, watcher: Watcher, stopping: list[int]) -> None:
        """Keep the processes running, and show what they log."""
        logs = {process.name: watcher.log_path(process.name) for process in watcher.processes}
        places = {name: path.stat().st_size for name, path in logs.items()}
        while not stopping:
            watcher.tend()
            for name, path in logs.items():
                places[name] = self._show(name, path, places[name])
            time.sleep(0.1)

    def _show(self, name: str, path: Path, place: int) -> int:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return 0
        if size <= place:
            return min(place, size)
        with path.open("rb") as log:
            log.seek(place)
            data = log.read(64 * 1024)
        whole = data[: data.rfind(b"\n") + 1] or data
        for line in whole.decode(errors="replace").splitlines():
            self._say(f"{name:8} {line}")
        return place + len(whole)

    def _say(self, text: str) -> None:
        # past all buffers: on a full disk, or without its terminal, the panel runs on, and what it said is lost
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), f"{text}\n".encode(errors="replace"))

    def _detach(self, host: Host, options: dict[str, Any]) -> None:
        """Start `up` in a session of its own and return when it is ready."""
        read_fd, write_fd = os.pipe()
        command = [sys.executable, str(PROJECT / "manage.py"), "up", "--state-dir", str(host.state_dir)]
        if set(self.parts) != set(PARTS):
            command += ["--parts", ",".join(self.parts)]
        command += ["--no-link"] if self.no_link else []
        for origin in options["origin"]:
            command += ["--origin", origin]
        with (host.log_dir / "up.log").open("ab") as log:
            before = log.tell()
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                pass_fds=[write_fd], env={**os.environ, "BOXROOM_READY_FD": str(write_fd)}, cwd="/",
            )  # fmt: skip
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as pipe:
            answer = pipe.read()
        if not answer:
            child.wait()
            tail = (host.log_dir / "up.log").read_bytes()[before:].decode(errors="replace")[-3000:]
            raise CommandError(f"The panel did not start:\n{tail}")
        ready = json.loads(answer)
        self.stdout.write(f"Boxroom is ready: {ready['address']}")
        if ready["link"]:
            self.stdout.write(greeting.VALID)
            self.stdout.write(f"  {ready['link']}")
