"""`manage.py test`: the whole suite. More arguments go to pytest, and then only what they name is run.

`manage.py test --distributions`: every system that containers are known to run, here and in the emulated machine; takes
two hours, and as much room as their images.

The whole suite is cut into parts, each a pytest with a state directory of its own, and they run beside each other: the
kernel's tests in an emulated machine with cgroup v2, whole instances, those of the kernel here, and everything else.
The web's tests run twice: on SQLite, and, those that may look at a database, on a PostgreSQL that is started for them
(as the user postgres, on a unix socket, without TCP) and removed afterwards. What a part printed is shown when it has
ended.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium-headless-shell")
"""Debian's, without what makes windows: starting it and opening pages costs a third. environment.py says where it is
not to be had; Playwright's own is alike."""
E2E_TESTS = "tests/e2e"
KERNEL_TESTS = "tests/kernel"
VM_TESTS = "tests/vm"
WEB_TESTS = "tests/web"
SYSTEMS_TESTS = ("tests/kernel/test_distributions.py", f"{VM_TESTS}/test_cgroup2.py", "-k", "not of_the_kernel")


def run(project: Path, arguments: list[str]) -> int:
    """Run pytest; the exit status is the first one that is not 0."""
    if os.geteuid() != 0:
        sys.stderr.write("The tests make namespaces, cgroups and links: run them as root.\n")
        return 1
    os.umask(0o022)  # what tests make, the web's user must be able to enter
    if not CHROMIUM.exists():
        sys.stderr.write("Installing Chromium for the end-to-end tests, as Playwright has it: Ubuntu's own is a snap\n")
        install = [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]
        if status := subprocess.run(install, check=False).returncode:
            return status
    # what somebody is still writing when all has been told makes no run a failure
    with tempfile.TemporaryDirectory(prefix="boxroom-test-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o711)
        environment = {
            **os.environ,
            "BOXROOM_ROLE": "test",
            "BOXROOM_STATE_DIR": scratch,
            "BOXROOM_TEST_STRICT": os.environ.get("BOXROOM_TEST_STRICT", "1"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": LOCALE,
        }
        for name in ("DATABASE_URL", "LANGUAGE"):
            environment.pop(name, None)
        if arguments == ["--distributions"]:
            return _pytest(project, ["-v", "-m", "distributions or not distributions", *SYSTEMS_TESTS], environment)
        if arguments:
            return _pytest(project, arguments, environment)
        return _whole(project, Path(scratch), environment)


@dataclass(frozen=True)
class Part:
    """What one pytest runs. what: a line above what it printed. postgresql: with a server of its own."""

    name: str
    what: str
    words: tuple[str, ...]
    postgresql: bool = False


PARTS = (
    Part("vm", "The kernel's tests on cgroup v2, in a machine of their own", (VM_TESTS,)),
    Part("e2e", "Whole instances", (E2E_TESTS,)),
    Part("kernel", "The kernel's tests, A to K", (KERNEL_TESTS, "--ignore-glob=*/kernel/test_[l-z]*")),
    Part("kernel2", "The kernel's tests, L to Z", (KERNEL_TESTS, "--ignore-glob=*/kernel/test_[a-k]*")),
    Part("rest", "Everything else", ("tests", *(f"--ignore={tests}" for tests in (VM_TESTS, E2E_TESTS, KERNEL_TESTS)))),
    Part("postgresql", "The web's tests once more, on PostgreSQL", (WEB_TESTS,), postgresql=True),
)
"""The longest first."""
PATIENCE = "4"
"""By how much deadlines are stretched where so much runs at once: tests/kernel/patience.py."""
STUCK_SEC = 1800
"""When a test is ended that does not end; a slow mirror may take long to give what the first one that asks needs."""
LOCALE = "C.UTF-8"
"""Programs are asked in English, and PostgreSQL sorts alike, whatever language whoever runs this speaks."""
SERVER_SEC = 120.0
"""How long PostgreSQL may take to start and to end."""


def _whole(project: Path, scratch: Path, environment: dict[str, str]) -> int:
    """Run every part, one for each core at a time; returns the exit status of one that failed, or 0.

    Told to end, it has the parts clear away what they made.
    """
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    environment = {"BOXROOM_TEST_SLOW": PATIENCE, **environment}
    # a fresh clone holds nothing compiled, and the tests' many processes would each compile for themselves
    compiling = [sys.executable, "-m", "compileall", "-q", "-j", "0", "containers", "panel"]
    subprocess.run(compiling, cwd=project, check=False)
    status, running = 0, set[subprocess.Popen[bytes]]()
    with ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0)))) as pool:
        parts = [pool.submit(_run_part, project, scratch, part, environment, running) for part in PARTS]
        try:
            for done in as_completed(parts):
                part, its_status, seconds = done.result()
                sys.stdout.write(f"\n{part.what} ({seconds:.0f} s):\n")
                sys.stdout.write((scratch / f"{part.name}.log").read_text(errors="replace"))
                sys.stdout.flush()
                status = status or its_status
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise
    return status


def _run_part(
    project: Path, scratch: Path, part: Part, environment: dict[str, str], running: set[subprocess.Popen[bytes]]
) -> tuple[Part, int, float]:
    """Run one part into a log of its own; returns it, its exit status, and how long it took in seconds."""
    state_dir, began = scratch / f"state-{part.name}", time.monotonic()
    state_dir.mkdir(mode=0o711)
    values = {**environment, "BOXROOM_STATE_DIR": str(state_dir)}
    with contextlib.ExitStack() as stack:
        if part.postgresql:
            values["DATABASE_URL"] = stack.enter_context(_postgresql(scratch))
        output = stack.enter_context((scratch / f"{part.name}.log").open("wb"))
        words = (*part.words, f"--timeout={STUCK_SEC}")
        sys.stdout.write(f"Begun: {part.what}\n")
        sys.stdout.flush()
        # a group of its own: what is typed at the terminal reaches it once, from here
        process = subprocess.Popen(
            _command(words), cwd=project, env=values, stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
        running.add(process)
        try:
            status = process.wait()
        finally:
            running.discard(process)
    return part, status, time.monotonic() - began


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", *words]


def _pytest(project: Path, arguments: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(_command(arguments), cwd=project, env=environment, check=False).returncode


@contextlib.contextmanager
def _postgresql(scratch: Path) -> Iterator[str]:
    """Run a PostgreSQL of our own and yield its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    owner = pwd.getpwnam("postgres")
    data, sockets = scratch / "pg", scratch / "pgs"
    for path in (data, sockets):
        path.mkdir(mode=0o700)
        os.chown(path, owner.pw_uid, owner.pw_gid)
    log = scratch / "pg.log"
    options: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}
    make: list[str | Path] = [
        programs / "initdb",
        "-D",
        data,
        "-A",
        "trust",
        "-U",
        "boxroom",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    with log.open("wb") as output:
        options |= {"stdout": output, "stderr": subprocess.STDOUT, "env": {**os.environ, "LC_ALL": LOCALE}}
        made = subprocess.run([*make, f"--locale={LOCALE}"], check=False, **options)
        if made.returncode:
            raise RuntimeError(f"initdb failed (exit status {made.returncode}): {_end_of(log)}")
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses=", "-c", "fsync=off"], **options
        )
    try:
        deadline = time.monotonic() + SERVER_SEC
        ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", sockets, "-U", "boxroom"]
        while subprocess.run(ready, check=False).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start within {SERVER_SEC:.0f} s: {_end_of(log)}")
            time.sleep(0.1)
        yield f"postgresql://boxroom@/postgres?host={sockets}"
    finally:
        # at once, whoever is still connected; then without a farewell. Source: postgres(1), "Notes"
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(SERVER_SEC)
                break
        shutil.rmtree(data, ignore_errors=True)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
