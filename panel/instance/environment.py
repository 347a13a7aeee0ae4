"""The environment that everything else needs: Debian packages and a virtual environment. Standard library only.

What is installed is said before it is installed. A stamp in the virtual environment holds a digest of the pinned
requirements, so that a changed pin is installed at the next run and an unchanged one costs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

STAMP: Final = ".boxroom-stamp"
TRIES: Final = 4
"""How often something is downloaded before that is given up: mirrors fail, and somebody else may hold apt's lock."""
PAUSE_SEC: Final = 10.0
APT_GET: Final = ("apt-get", "-q", "-y", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=600")
PIP_OPTIONS: Final = ("--quiet", "--disable-pip-version-check", "--retries", "10", "--timeout", "60")
SYSTEM_PYTHON: Final = Path("/usr/bin/python3")

PACKAGES: Final[dict[str, str]] = {
    "python3-venv": "the virtual environment",
    "redis-server": "the doorbell between web and worker (a private one, on a unix socket)",
    "dnsmasq-base": "DHCP and DNS for the containers",
    "nftables": "NAT, and keeping containers apart",
    "iproute2": "looking at links and routes",
    "busybox-static": "the busybox image",
    "debootstrap": "Debian images",
    "debian-archive-keyring": "whether what Debian images are made of is Debian's",
    "libseccomp2": "system call filters",
    "xz-utils": "archives packed by xz",
    "zstd": "archives packed by zstd",
    "squashfs-tools-ng": "squashfs archives, read without mounting them",
    "e2fsprogs": "disk limits: file systems in files",
    "gpgv": "signatures of image servers' lists",
}
TEST_PACKAGES: Final[dict[str, str]] = {
    "chromium-headless-shell": "the end-to-end tests",
    "postgresql": "the tests on PostgreSQL",
    "qemu-system-x86": "the tests on cgroup v2, in a machine of their own",
    "docker-compose": "checking docker-compose.dev.yml",
    "gettext": "checking the translations",
    "cpio": "the test machine's initial file system",
    "iputils-ping": "the network tests",
    "kmod": "the test machine's kernel modules",
    "git": "checking what is in the tree",
    "crun": "a container runtime inside of a container",
    "openssl": "passwords for logins in containers",
    "docker-registry": "the tests of registries",
    "skopeo": "the tests of OCI images",
    "umoci": "the tests of OCI images",
    "gnupg": "signing lists of images for tests",
    "squashfs-tools": "making squashfs archives for tests",
    "xfsprogs": "the tests of storage on xfs",
    "btrfs-progs": "the tests of storage on btrfs",
}
NOT_ON_UBUNTU: Final = ("chromium-headless-shell",)
"""Chromium is a snap there, which is not for a service's user; testing.py takes Playwright's own."""

NEVER_INSTALLING: Final = ("halt",)
"""Commands that take the environment as it is: a host that goes down waits for nothing."""
ADMIN_PATHS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def complete_path() -> None:
    """Add the directories of root's programs to PATH: `su` without `-` and cron leave them out."""
    words = [word for word in os.environ.get("PATH", os.defpath).split(os.pathsep) if word]
    os.environ["PATH"] = os.pathsep.join([*words, *(path for path in ADMIN_PATHS if path not in words)])


def inside(project: Path, command: str) -> bool:
    """Return whether this interpreter is the project's environment and holds what command needs."""
    venv = project / ".venv"
    if Path(sys.prefix).resolve() != venv.resolve():
        return False
    if command in NEVER_INSTALLING:
        return True
    if command in ("up", "test") and os.geteuid() == 0 and missing_packages(command):
        return False
    try:
        return _wanted_stamp(project, command) in (venv / STAMP).read_text().splitlines()
    except FileNotFoundError:
        return False


def prepare(project: Path, command: str) -> Path:
    """Install what is missing and return the environment's interpreter. Exits with a message where it cannot."""
    with _locked(project):
        missing = missing_packages(command) if command in ("up", "test") else []
        if not (project / ".venv/bin/python").exists() and not _has_venv() and "python3-venv" not in missing:
            missing.insert(0, "python3-venv")
        if missing:
            _install_packages(missing)
        return _make_venv(project, command)


def missing_packages(command: str) -> list[str]:
    """Return the Debian packages that command needs and the machine lacks."""
    wanted = [*PACKAGES, *(TEST_PACKAGES if command == "test" else ())]
    if _distribution() == "ubuntu":
        wanted = [name for name in wanted if name not in NOT_ON_UBUNTU]
    query = subprocess.run(
        ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {
        name for name, _, status in (row.partition(" ") for row in query.stdout.splitlines()) if status == "installed"
    }
    return [name for name in wanted if name not in installed]


def _distribution() -> str:
    """Return which distribution this is, as os-release(5) calls it; "" where it does not say."""
    try:
        return platform.freedesktop_os_release().get("ID", "")
    except OSError:
        return ""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _has_venv() -> bool:
    probe = [str(_interpreter()), "-c", "import ensurepip, venv"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _interpreter() -> Path:
    """Return the interpreter for the environment: the system's, because every user may run it."""
    if SYSTEM_PYTHON.exists():
        return SYSTEM_PYTHON
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def _install_packages(names: list[str]) -> None:
    why = {**PACKAGES, **TEST_PACKAGES}
    _say("Installing Debian packages:")
    for name in names:
        _say(f"  {name:20} {why.get(name, '')}")
    if os.geteuid() != 0:
        sys.exit("This needs root: run it again with sudo.")
    if not shutil.which("apt-get"):
        sys.exit(f"There is no apt-get here. Install by hand: {' '.join(names)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        # the lists are loaded anew each time: a package that is not where they say it is was replaced. Where somebody
        # else's source of packages is broken that fails, and ours may be there all the same
        install = (*APT_GET, "install", "--no-install-recommends", *names)
        _persist(install, "apt-get install", before=(*APT_GET, "update"), env=quiet)
    if "redis-server" in names and shutil.which("systemctl"):
        # Boxroom runs a Redis of its own; the system's would only listen on a port that nobody asked for
        subprocess.run(["systemctl", "disable", "redis-server.service"], capture_output=True, check=False)


def _persist(
    command: Sequence[str], name: str, *, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> None:
    """Run a command, again where it fails: what it downloads from may be slow, or away for a moment.

    before: what is run first each time, whatever comes of it. Exits with what both said where nothing helped.
    """
    for left in reversed(range(TRIES)):
        said = ""
        for words in filter(None, (before, command)):
            done = subprocess.run(
                words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
            )
            if done.returncode:
                said += done.stdout[-2000:] + done.stderr[-4000:]
        if not done.returncode:
            return
        _say(said)
        failed = f"{name} failed (exit status {done.returncode}); its last words are above."
        if not left:
            sys.exit(f"{failed} It was tried {TRIES} times, and is given up.")
        _say(f"{failed} Trying again in {PAUSE_SEC:.0f} s.")
        time.sleep(PAUSE_SEC)


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep the packages' own services from starting while they are installed (Debian policy-rc.d)."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def _requirements(project: Path, command: str) -> Path:
    return project / ("requirements-dev.txt" if command == "test" else "requirements.txt")


def _wanted_stamp(project: Path, command: str) -> str:
    name = _requirements(project, command)
    return f"{name.name} {hashlib.sha256(name.read_bytes()).hexdigest()} {_python_version()}"


def _python_version() -> str:
    """Return the version that the environment's packages are for: a new release of Debian brings another."""
    interpreter = _interpreter().resolve()
    if interpreter == Path(sys._base_executable).resolve():  # type: ignore[attr-defined]
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    ask = [str(interpreter), "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def _make_venv(project: Path, command: str) -> Path:
    venv = project / ".venv"
    python = venv / "bin/python"
    stamp = venv / STAMP
    wanted = _wanted_stamp(project, command)
    if python.exists() and stamp.exists() and wanted in stamp.read_text().splitlines():
        return python
    # the web process runs as another user and must be able to read what is made here
    os.umask(0o022)
    usable = (
        python.exists()
        and subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0
    )
    if not usable:
        _say(f"Making a virtual environment in {venv}")
        subprocess.run([str(_interpreter()), "-m", "venv", "--clear", str(venv)], check=True)
    requirements = _requirements(project, command)
    _say(f"Installing the pinned packages of {requirements.name}")
    _persist([str(python), "-m", "pip", "install", *PIP_OPTIONS, "-r", str(requirements)], "pip")
    kept = [
        line
        for line in (stamp.read_text().splitlines() if stamp.exists() else ())
        if line.split()[0] != requirements.name
    ]
    stamp.write_text("\n".join([*kept, wanted]) + "\n")
    return python


@contextlib.contextmanager
def _locked(project: Path) -> Iterator[None]:
    """Let one process at a time prepare the environment."""
    with (project / "pyproject.toml").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
