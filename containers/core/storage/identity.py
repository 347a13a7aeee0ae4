"""What makes a container itself and not its twin: the files that name it, written into its writable layer at rest."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Final

from ..host import Host
from ..hoststore import store
from ..kernel import files
from ..model.spec import Spec
from .stack import Stack
from .static_addresses import without_addresses, without_static

TWIN_FILES: Final = (
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssh/ssh_host_*_key.pub",
    "/etc/dhcpcd.duid",
    "/var/lib/dhcp/*.leases*",
    "/var/lib/dhclient/*.lease*",
    "/var/lib/dhcpcd/*",
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
)
"""A copy must not keep these: keys that prove who it is, leases and seeds. Patterns stand in the last name only."""

_LOOPBACK_NAME: Final = re.compile(rb"^127\.0\.1\.1[ \t].*$", re.MULTILINE)


def write(host: Host, spec: Spec, root: store.Root, *, twin: bool, fresh: bool = False) -> None:
    """Write name and machine id of a stopped or new container into its writable layer, where they differ.

    twin: its files come from another container: what only that one may have is removed. fresh: nothing refers to that
    layer yet, so that its files need not be on the disk one by one. Directories that an image does
    not have are left out, and so is everything that could be reached through a symbolic link only. Raises StorageFull.
    """
    try:
        _write(host, spec, root, twin=twin, fresh=fresh)
    except OSError as error:
        raise files.translated(error, "write", f"{spec.name}/etc") from error


def _write(host: Host, spec: Spec, root: store.Root, *, twin: bool, fresh: bool) -> None:
    name = spec.hostname or spec.name
    with Stack(host, root, fresh=fresh) as stack:
        _put(stack, "/etc/hostname", f"{name}\n".encode())
        hosts = stack.read("/etc/hosts")
        if hosts is not None:
            _put(stack, "/etc/hosts", with_name(hosts, name))
        _put(stack, "/etc/machine-id", f"{spec.machine_id}\n".encode(), mode=0o444)
        if stack.read("/var/lib/dbus/machine-id") is not None:
            _put(stack, "/var/lib/dbus/machine-id", f"{spec.machine_id}\n".encode())
        if twin:
            _remove_matching(stack, TWIN_FILES)
            _automatic_addresses(stack)


def forget(host: Host, root: store.Root) -> None:
    """Take away what makes a container itself, in the writable layer of a root that is to become an image.

    Whatever is made of it gets a name and a machine id of its own when it is made.
    """
    with Stack(host, root) as stack:
        for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
            if stack.read(path):
                stack.write(path, b"", mode=0o444)
        _remove_matching(stack, TWIN_FILES)


def with_name(hosts: bytes, name: str) -> bytes:
    """Return the text of /etc/hosts in which 127.0.1.1 is name: Debian's place for the machine's own name."""
    line = b"127.0.1.1\t" + name.encode()
    if _LOOPBACK_NAME.search(hosts):
        return _LOOPBACK_NAME.sub(line, hosts)
    lines = hosts.splitlines()
    after = next((number for number, text in enumerate(lines) if text.startswith(b"127.0.0.1")), -1)
    return b"\n".join([*lines[: after + 1], line, *lines[after + 1 :]]) + b"\n"


def _automatic_addresses(stack: Stack) -> None:
    """Have no address of the one it was copied from: what is static in its files becomes automatic."""
    named = [f"/etc/network/interfaces.d/{name}" for name in stack.names("/etc/network/interfaces.d")]
    for path in ("/etc/network/interfaces", *named):
        _rewrite(stack, path, without_static)
    for name in stack.names("/etc/systemd/network"):
        if name.endswith(".network"):
            _rewrite(stack, f"/etc/systemd/network/{name}", without_addresses)


def _rewrite(stack: Stack, path: str, change: Callable[[str], str]) -> None:
    data = stack.read(path)
    if data is None:
        return
    text = data.decode(errors="surrogateescape")
    changed = change(text)
    if changed != text:
        stack.write(path, changed.encode(errors="surrogateescape"))


def _put(stack: Stack, path: str, data: bytes, *, mode: int = 0o644) -> None:
    if stack.read(path) != data:
        stack.write(path, data, mode=mode)


def _remove_matching(stack: Stack, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        directory, _, last = pattern.rpartition("/")
        for name in stack.names(directory):
            if fnmatch.fnmatchcase(name, last):
                stack.remove(f"{directory}/{name}")
