"""LXC's containers on this host: their configuration files, whether they run, what they call themselves."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from pathlib import Path
from typing import Final

from ..errors import InvalidTransition, NotFound, SpecError
from ..kernel import files
from .source import Source

DEFAULT_PATH: Final = "/var/lib/lxc"
_FILE_MAX_BYTES: Final = 1 << 20
_SUN_PATH_MAX: Final = 107
_MACHINE_ID: Final = re.compile(rb"[0-9a-f]{32}", re.ASCII)
_NAME: Final = re.compile(r"[^/\0]{1,200}")


def names(path: str) -> list[str]:
    """Return the names of the containers that have a configuration below LXC's directory, sorted."""
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        return []
    return sorted(name for name in found if os.path.isfile(os.path.join(path, name, "config")))


def config_path(path: str, name: str) -> str:
    """Return a container's configuration file; raises NotFound."""
    config = os.path.join(path, name, "config")
    if not _NAME.fullmatch(name) or name in (".", "..") or not os.path.isfile(config):
        raise NotFound(f"There is no LXC container {name!r} in {path}.", field="name")
    return config


def read(path: str) -> str | tuple[str, ...]:
    """Return a configuration file's text, or a directory's ``*.conf``, sorted; raises OSError. See reading.Read."""
    if os.path.isdir(path):
        found = sorted(name for name in os.listdir(path) if name.endswith(".conf") and not name.startswith("."))
        return tuple(os.path.join(path, name) for name in found)
    file_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file_fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        data = file.read(_FILE_MAX_BYTES + 1)
    if len(data) > _FILE_MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return data.decode(errors="surrogateescape")


def check(source: Source) -> None:
    """Raise what speaks against taking it over now: SpecError, NotFound, or InvalidTransition while it runs."""
    for layer in source.layers:
        try:
            status = os.stat(layer)
        except OSError as error:
            raise NotFound(f"{layer}: {error.strerror}. Mount it, if it is to be mounted.", field="rootfs") from None
        if not stat.S_ISDIR(status.st_mode):
            raise SpecError(
                f"{layer} is no directory: mount it, and name the place by lxc.rootfs.path in a copy of its "
                "configuration that --config is given.",
                field="rootfs",
            )
    if os.path.exists(os.path.join(source.directory, "partial")):
        raise InvalidTransition(f"{source.name} is being made by LXC, or was given up half made ({source.directory}).")
    if reason := alive(source):
        raise InvalidTransition(
            f"{source.name} runs under LXC ({reason}): end it first (lxc-stop -P {source.path} -n {source.name})."
        )
    if source.move:
        _check_move(source)


def _check_move(source: Source) -> None:
    """Raise SpecError where more would go than the container itself."""
    inside = os.path.realpath(source.directory)
    if len(source.layers) > 1 or not os.path.realpath(source.layers[0]).startswith(f"{inside}/"):
        raise SpecError(
            f"Its root file system does not lie in {inside}, and may be others' too: copy it instead.", field="move"
        )
    for name in ("snaps", "lxc_snapshots"):
        with contextlib.suppress(FileNotFoundError):
            place = os.path.join(inside, name)
            if os.listdir(place) if os.path.isdir(place) else os.path.getsize(place):
                raise SpecError(f"It has snapshots or clones ({place}), which would be lost: copy it.", field="move")


def alive(source: Source) -> str:
    """Return by what it is seen that LXC's container runs; empty where it does not.

    LXC's monitor listens on an abstract socket while the container lives; where that belongs to another network
    namespace, a process whose root directory is the container's gives it away.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(command_socket(source.path, source.name))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except OSError as error:
            return f"its monitor's socket says {error.strerror or error}"
        else:
            return "its monitor answers"
    roots = {(status.st_dev, status.st_ino) for status in map(os.stat, source.layers)}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{entry}/root")
                if (status.st_dev, status.st_ino) in roots:
                    return f"process {entry} is in it"
    return ""


def command_socket(path: str, name: str) -> str:
    """Return the abstract address of a container's monitor: its name, or a hash of it where that is too long."""
    plain = f"{path}/{name}/command"
    if len(os.fsencode(plain)) < _SUN_PATH_MAX:
        return f"\0{plain}"
    return f"\0lxc/{_fnv1a_64(os.fsencode(f'{path}/{name}')):016x}/command"


def _fnv1a_64(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash. Source: RFC 9923."""
    number = 0xCBF29CE484222325
    for byte in data:
        number = (number ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return number


def machine_id(source: Source) -> str:
    """Return what the container calls itself in /etc/machine-id, empty where it has none; follows no symbolic link."""
    for layer in reversed(source.layers):
        with (
            contextlib.suppress(OSError),
            files.opened(Path(layer)) as top_fd,
            files.entered(top_fd, ["etc"]) as etc_fd,
        ):
            file_fd = os.open("machine-id", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc_fd)
            with open(file_fd, "rb") as file:
                text = file.read(64).strip()
            return text.decode() if _MACHINE_ID.fullmatch(text) else ""
    return ""
