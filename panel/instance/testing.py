"""`manage.py test`: the whole suite. More arguments go to pytest, and then only what they name is run.

`manage.py test --distributions`: every system that containers are known to run, here and in the emulated machine; takes
two hours, and as much room as their images.

The tests run in a state directory of their own. Beside them run those of the kernel once more in an emulated machine
with cgroup v2, and then those of the web on a PostgreSQL that is started for it (as the user postgres, on a unix
socket, without TCP) and removed afterwards.
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
from collections.abc import Callable, Iterator
from pathlib import Path

WEB_TESTS = "tests/web"
VM_TESTS = "tests/vm"
SYSTEMS_TESTS = ("tests/kernel/test_distributions.py", f"{VM_TESTS}/test_cgroup2.py", "-k", "not kernel_tests_pass")


def run(project: Path, arguments: list[str]) -> int:
    """Run pytest; the exit status is the first one that is not 0."""
    if os.geteuid() != 0:
        sys.stderr.write("The tests make namespaces, cgroups and links: run them as root.\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="boxroom-test-") as scratch:
        Path(scratch).chmod(0o711)
        environment = {
            **os.environ,
            "BOXROOM_ROLE": "test",
            "BOXROOM_STATE_DIR": scratch,
            "BOXROOM_TEST_STRICT": os.environ.get("BOXROOM_TEST_STRICT", "1"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("DATABASE_URL", None)
        if arguments == ["--distributions"]:
            return _pytest(project, ["-v", "-m", "distributions or not distributions", *SYSTEMS_TESTS], environment)
        if arguments:
            return _pytest(project, arguments, environment)
        with _beside(project, Path(scratch), environment) as others:
            status = _pytest(project, ["tests", f"--ignore={VM_TESTS}"], environment)
            again = others()
        return status or again


@contextlib.contextmanager
def _beside(project: Path, scratch: Path, environment: dict[str, str]) -> Iterator[Callable[[], int]]:
    """Run what needs little of this machine beside everything else: the emulated one, then the web on PostgreSQL.

    Yields what waits for its end, shows what it printed, and returns its exit status.
    """
    log = scratch / "beside.log"
    script = [sys.executable, "-m", __name__, str(project), str(scratch)]
    with log.open("wb") as output:
        process = subprocess.Popen(script, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def wait() -> int:
        status = process.wait()
        sys.stdout.write(log.read_text(errors="replace"))
        return status

    try:
        yield wait
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()


def _main(project: Path, scratch: Path) -> int:
    environment = dict(os.environ)
    sys.stdout.write("\nThe kernel's tests on cgroup v2, in a machine of their own:\n")
    sys.stdout.flush()
    state_dir = scratch / "vm"
    state_dir.mkdir(mode=0o711)
    status = _pytest(project, [VM_TESTS], {**environment, "BOXROOM_STATE_DIR": str(state_dir)})
    with _postgresql(scratch) as url:
        sys.stdout.write("\nThe web's tests once more, on PostgreSQL:\n")
        sys.stdout.flush()
        state_dir = scratch / "web"
        state_dir.mkdir(mode=0o711)
        more = {"BOXROOM_STATE_DIR": str(state_dir), "DATABASE_URL": url}
        again = _pytest(project, [WEB_TESTS], {**environment, **more})
    return status or again


def _pytest(project: Path, arguments: list[str], environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=project, env=environment, check=False).returncode


@contextlib.contextmanager
def _postgresql(scratch: Path) -> Iterator[str]:
    """Run a PostgreSQL of our own and yield its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    owner = pwd.getpwnam("postgres")
    data, sockets = scratch / "pg", scratch / "pgs"
    for path in (data, sockets):
        path.mkdir(mode=0o700)
        os.chown(path, owner.pw_uid, owner.pw_gid)
    as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "boxroom", "-E", "UTF8", "--no-sync"],
        check=True, capture_output=True, **as_owner,  # type: ignore[call-overload]
    )  # fmt: skip
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_owner,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", sockets, "-U", "boxroom"]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start within 30 s")
            time.sleep(0.1)
        yield f"postgresql://boxroom@/postgres?host={sockets}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
