"""The directories, users and secrets of an instance, made once and checked at every start."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from containers.core.host import RUN_ROOT, WEB_USER, Host

INSTANCE_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class Bind:
    """Where the panel listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Parse HOST:PORT ([::1]:8080 for IPv6); raises ValueError with a sentence for the user."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080.")
        return cls(host, int(port))

    @property
    def address(self) -> str:
        """The address to open in a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def origins(self) -> list[str]:
        """Every full origin under which a browser may reach this address."""
        names = {self.host, "localhost"} if self.host in ("127.0.0.1", "::1") else {self.host}
        if self.host in ("0.0.0.0", "::"):
            names = {"127.0.0.1", "localhost", socket.gethostname(), *_own_addresses()}
        return sorted(f"http://{f'[{name}]' if ':' in name else name}:{self.port}" for name in names)


def _own_addresses() -> set[str]:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout
        return {
            address["local"]
            for link in json.loads(listed)
            for address in link.get("addr_info", ())
            if address.get("scope") == "global"
        }
    return set()


def write_json(path: Path, value: dict[str, Any], *, mode: int, group: int | None = None) -> None:
    """Write a JSON file atomically with the given mode, owned by root and group; into a directory of root's only."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(value, file, indent=1, sort_keys=True)
            file.flush()
            os.fchown(file.fileno(), 0, group if group is not None else 0)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return value


def ensure_user(name: str = WEB_USER) -> pwd.struct_passwd:
    """Return the unprivileged system user that the web process runs as, making it where it is missing."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    subprocess.run(
        ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", name],
        check=True, capture_output=True,
    )  # fmt: skip
    return pwd.getpwnam(name)


def ensure(state_dir: Path, bind: Bind, *, extra_origins: list[str]) -> Host:
    """Make or check everything that an instance needs on disk; running it twice changes nothing.

    state_dir may lie anywhere, on any file system. Returns the instance. Raises OSError where the disk says no.
    """
    web = ensure_user()
    state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    state_dir.chmod(0o711)
    identity = state_dir / "instance.json"
    if not identity.exists():
        name = "".join(secrets.choice(INSTANCE_LETTERS) for _ in range(5))
        write_json(identity, {"id": name, "host": "local"}, mode=0o644)
    host = Host.open(state_dir)
    for path in (host.store_dir, host.containers_dir, host.layers_dir, host.images_dir, host.tmp_dir, host.trash_dir,
                 host.stats_dir, host.log_dir):  # fmt: skip
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    for path, mode, uid in ((host.panel_dir, 0o750, 0), (host.web_dir, 0o700, web.pw_uid)):
        path.mkdir(mode=mode, exist_ok=True)
        os.chown(path, uid, web.pw_gid)
        path.chmod(mode)
    ensure_run_dir(host, web)
    _ensure_secrets(host, web, bind, extra_origins)
    _ensure_database_file(host, web)
    return host


def ensure_run_dir(host: Host, web: pwd.struct_passwd) -> None:
    """Make the run directory, which does not outlive the boot."""
    RUN_ROOT.mkdir(mode=0o755, exist_ok=True)
    host.run_dir.mkdir(mode=0o755, exist_ok=True)
    host.run_dir.chmod(0o755)
    for path, mode, uid, gid in (
        (host.locks_dir, 0o700, 0, 0),
        (host.supervisor_dir(), 0o750, 0, web.pw_gid),
        (host.redis_socket.parent, 0o750, redis_user().pw_uid, web.pw_gid),
    ):
        path.mkdir(mode=mode, exist_ok=True)
        os.chown(path, uid, gid)
        path.chmod(mode)


def redis_user() -> pwd.struct_passwd:
    """Return the user that Redis runs as: Debian's, else the web's."""
    try:
        return pwd.getpwnam("redis")
    except KeyError:
        return pwd.getpwnam(WEB_USER)


def _ensure_secrets(host: Host, web: pwd.struct_passwd, bind: Bind, extra_origins: list[str]) -> None:
    """Keep the web's secrets (readable by it) and root's apart; both are written by root only, who believes them."""
    identity = read_json(host.state_dir / "instance.json")
    root_path, web_path = host.state_dir / "root.json", host.panel_dir / "web.json"
    root, known = read_json(root_path), read_json(web_path)
    if "redis_password" not in root:
        write_json(root_path, {**root, "redis_password": secrets.token_urlsafe(32)}, mode=0o600)
    origins = extra_origins or known.get("extra_origins", [])
    wanted = {
        **known,
        "secret_key": known.get("secret_key") or secrets.token_urlsafe(50),
        "redis_password": known.get("redis_password") or secrets.token_urlsafe(32),
        "instance": host.instance,
        "host": identity["host"],
        "extra_origins": origins,
        "origins": [*origins, *bind.origins()] if not any(o.startswith("https://") for o in origins) else origins,
        "own_origins": bind.origins(),
        "database_url": os.environ.get("DATABASE_URL", known.get("database_url", "")),
    }
    if wanted != known:
        write_json(web_path, wanted, mode=0o640, group=web.pw_gid)


def _ensure_database_file(host: Host, web: pwd.struct_passwd) -> None:
    """Make the SQLite file the web user's: SQLite, run by root, gives its journal files the same owner."""
    path = host.web_dir / "db.sqlite3"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(fd, web.pw_uid, web.pw_gid)
    finally:
        os.close(fd)


def database_mark(host: Host) -> str:
    """Return what tells one database from another: a digest of its URL, or the file that SQLite keeps."""
    url = os.environ.get("DATABASE_URL") or read_json(host.panel_dir / "web.json").get("database_url")
    if url:
        # the URL holds a password, and the mark is kept where others may read
        return hashlib.sha256(str(url).encode()).hexdigest()
    status = (host.web_dir / "db.sqlite3").lstat()
    # an empty file is a new one, whichever inode it was given
    return f"{status.st_dev}:{status.st_ino}:{status.st_size > 0}"


def web_group() -> int:
    """Return the group id of the web user."""
    return grp.getgrnam(WEB_USER).gr_gid
