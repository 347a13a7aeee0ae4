"""DHCP, router advertisements and names: one dnsmasq per instance, on its bridges and nowhere else.

It serves only what is registered: a container gets the address reserved for its MAC and nobody else gets any; the
names it gives are the containers' own names, never what a client says it is called. It runs in a session of its own and
outlives the panel. Source: dnsmasq(8), version 2.90.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import pwd
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ..errors import HostUnsupported, SetupFailed, TimedOut
from ..host import Host
from ..kernel.pids import opened, start_time
from ..model.network_config import NetworkConfig, bridged, plain
from ..model.spec import Spec
from ..sentences import say
from . import dnsconf, leasing, sysctls

START_SEC: Final = 30.0
STOP_SEC: Final = 10.0
"""How long it may take to end when asked to; then it is killed."""
RELEASE_TRIES: Final = 20
RELEASE_WAIT_SEC: Final = 0.05
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def directory(host: Host) -> Path:
    """Return where dnsmasq's files of the instance are."""
    return host.run_dir / "dnsmasq"


def ensure(host: Host, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> None:
    """Make dnsmasq run with exactly these networks and containers; without any network it does not run.

    Raises HostUnsupported where it is not installed, SetupFailed with its own words where it refuses.
    """
    if not any(config.ipv4 or config.ipv6 for config in configs):
        stop(host)
        return
    user = _user()
    _make_directories(host)
    changed = _write_all(host, specs)
    # what the store has was made after the specs were read: it stays, that dnsmasq may read it at this very moment
    unknown = registered(host) - {spec.id for spec in specs}
    bare = {spec.id for spec in specs if not spec.nics}
    _forget(host, {one for one in unknown if not host.spec_path(one).exists()} | bare)
    text = dnsconf.render(host, directory(host), configs, user, ipv6=sysctls.has_ipv6())
    _write(directory(host) / "dnsmasq.conf", text)
    if pid := running(host, configuration=_digest(text)):
        if changed:
            _signal(host, pid, signal.SIGHUP)
        known = {nic.mac for spec in specs for nic in spec.nics}
        forget_leases(host, [mac for mac, _address in leases(host) if mac not in known])
        return
    stop(host)
    _forget_while_stopped(host, specs)
    _start(host, text)


def _forget_while_stopped(host: Host, specs: Sequence[Spec]) -> None:
    """Leave no lease of a container that is gone, or of an address that its network has not any more.

    Whoever was deleted while dnsmasq did not run had nobody to give a lease back to; and what is on no subnet of a
    bridge cannot be given back at all.
    """
    nics = [nic for spec in specs for nic in spec.nics]
    reserved = {(nic.mac, plain(nic.ipv4)) for nic in nics if nic.ipv4}
    leasing.keep(directory(host) / "leases", reserved, {plain(nic.ipv6) for nic in nics if nic.ipv6})


def register(host: Host, spec: Spec) -> None:
    """Let DHCP and DNS know a container; what is known already changes nothing."""
    if not any(nic.addresses for nic in spec.nics) and not bridged(spec):
        unregister(host, spec.id)
        return
    here = directory(host)
    texts = {
        f"{here}/reservations/{spec.id}": dnsconf.reservations(spec),
        f"{here}/names/{spec.id}": dnsconf.names(spec),
    }
    before = [_content(path) for path in texts]
    if before == list(texts.values()):
        return
    _make_directories(host)
    for path, text in texts.items():
        _write(Path(path), text)
    reload(host)
    gone = {mac for mac, _address in _reserved(before[0] or "")} - {nic.mac for nic in spec.nics}
    if gone:
        forget_leases(host, gone)


def _content(path: str) -> str | None:
    """Return what is in a file, None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def unregister(host: Host, container_id: str) -> None:
    """Forget a container; twice is once."""
    _forget(host, [container_id])


def _forget(host: Host, container_ids: Iterable[str]) -> None:
    """Take these containers' reservations and names away, and give back what was leased by them."""
    here = directory(host)
    found = False
    reserved: list[tuple[str, str]] = []
    for container_id in container_ids:
        with contextlib.suppress(FileNotFoundError):
            reserved += _reserved((here / "reservations" / container_id).read_text())
        for path in (here / "reservations" / container_id, here / "names" / container_id):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                found = True
    if found:
        reload(host)
        # A request may still wait in dnsmasq's socket, of which nothing is written down yet. What is given back here
        # waits behind it, so in the end there is no lease.
        for mac, address in reserved:
            leasing.give_back(host, mac, address)
        time.sleep(RELEASE_WAIT_SEC)
        forget_leases(host, [mac for mac, _address in reserved])


def _reserved(text: str) -> list[tuple[str, str]]:
    """Return (MAC, IPv4 address) of what reservations() wrote."""
    lines = [line.split(",") for line in text.splitlines()]
    return [(words[0], word) for words in lines for word in words[2:-1] if "." in word]


def registered(host: Host) -> set[str]:
    """Return the ids of the containers that DHCP or DNS know."""
    here = directory(host)
    found: set[str] = set()
    for name in ("reservations", "names"):
        with contextlib.suppress(FileNotFoundError):
            found |= {entry for entry in os.listdir(here / name) if not entry.startswith(".")}
    return found


def leases(host: Host) -> list[tuple[str, str]]:
    """Return (MAC, IPv4 address) of the leases that dnsmasq has written down."""
    return leasing.read(directory(host) / "leases")


def forget_leases(host: Host, macs: Iterable[str]) -> None:
    """Give up the leases of these MACs, so that their addresses are free for others. Nothing where there are none."""
    gone = set(macs)
    for _attempt in range(RELEASE_TRIES):
        held = [(mac, address) for mac, address in leases(host) if mac in gone]
        if not held or running(host) is None:
            return
        for mac, address in held:
            leasing.give_back(host, mac, address)
        # it is written down when dnsmasq has read the message, some milliseconds later
        time.sleep(RELEASE_WAIT_SEC)


def reload(host: Host) -> None:
    """Make dnsmasq read its reservations and names again; nothing where it does not run."""
    if pid := running(host):
        _signal(host, pid, signal.SIGHUP)


def running(host: Host, *, configuration: str | None = None) -> int | None:
    """Return the pid of the instance's dnsmasq, or None.

    configuration: only one that was started with this configuration counts. A pid that was reused is never taken for
    it: the start time and the command line must fit.
    """
    try:
        state = json.loads((directory(host) / "state.json").read_text())
        pid = int(state["pid"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if start_time(pid) != state.get("start_time"):
        return None
    if configuration is not None and state.get("configuration") != configuration:
        return None
    return pid


def stop(host: Host) -> None:
    """End the instance's dnsmasq; twice is once. Raises TimedOut where it does not end."""
    pid = running(host)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            pidfd = opened(pid)
            try:
                if running(host) == pid:
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    _wait_gone(pidfd)
            finally:
                os.close(pidfd)
    for name in ("state.json", "dnsmasq.pid"):
        (directory(host) / name).unlink(missing_ok=True)
    for controllers, root in _hierarchies().items():
        with contextlib.suppress(OSError):
            Path(root, host.cgroup_name, "dnsmasq").rmdir()
            if controllers:
                # nothing else of the instance is in systemd's own
                Path(root, host.cgroup_name).rmdir()


def nameservers(path: Path) -> list[str]:
    """Return the addresses of a resolv.conf that are not the host's own loopback."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(words[1].partition("%")[0])
                if not address.is_loopback:
                    found.append(str(address))
    return found


def _user() -> str:
    for name in ("dnsmasq", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise HostUnsupported("The host has neither a user dnsmasq nor nobody.", feature="dnsmasq")


def _make_directories(host: Host) -> None:
    # dnsmasq reads its directories again after it has dropped its privileges
    for path in (host.run_dir, directory(host), directory(host) / "names", directory(host) / "reservations"):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)


def _write(path: Path, text: str) -> bool:
    """Replace a file's content; return whether it changed. dnsmasq skips the names that begin with a dot."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(path)
    return True


def _write_all(host: Host, specs: Iterable[Spec]) -> bool:
    here = directory(host)
    known = {spec.id: spec for spec in specs if spec.nics}
    changed = False
    for spec in known.values():
        changed |= _write(here / "reservations" / spec.id, dnsconf.reservations(spec))
        changed |= _write(here / "names" / spec.id, dnsconf.names(spec))
    return changed


def _start(host: Host, text: str) -> None:
    here = directory(host)
    pid_path = here / "dnsmasq.pid"
    command = ["dnsmasq", f"--conf-file={here}/dnsmasq.conf"]
    environment = {**_ENVIRONMENT, "BOXROOM_STATE_DIR": str(host.state_dir)}
    try:
        # it goes to the background by itself, once its sockets are open and its files read
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            timeout=START_SEC,
            check=False,
        )
    except FileNotFoundError:
        raise HostUnsupported("dnsmasq is not installed: apt install dnsmasq-base.", feature="dnsmasq") from None
    except subprocess.TimeoutExpired:
        raise TimedOut(say("dnsmasq did not start within %(seconds)s s.", seconds=START_SEC), step="dnsmasq") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise SetupFailed(say("dnsmasq does not start: %(words)s", words=words), step="dnsmasq", console=words)
    pid = int(pid_path.read_text())
    _leave_service(host, pid)
    state = {"pid": pid, "start_time": start_time(pid), "configuration": _digest(text)}
    _write(here / "state.json", json.dumps(state))


def _leave_service(host: Host, pid: int) -> None:
    """Move dnsmasq out of the panel's service into the instance's own cgroup: it outlives the service.

    Where the panel runs in no service (the root cgroup) nothing is to be done.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        root = _hierarchies().get(controllers)
        if path == "/" or root is None or not (Path(root) / "cgroup.procs").exists():
            continue
        own = Path(root) / host.cgroup_name / "dnsmasq"
        own.mkdir(parents=True, exist_ok=True)
        (own / "cgroup.procs").write_text(str(pid))


def _hierarchies() -> dict[str, str]:
    """Return where the hierarchies are mounted by which systemd knows its services."""
    return {"": _first_dir("/sys/fs/cgroup/unified", "/sys/fs/cgroup"), "name=systemd": "/sys/fs/cgroup/systemd"}


def _first_dir(*paths: str) -> str:
    return next((path for path in paths if Path(path, "cgroup.procs").exists()), paths[-1])


def _signal(host: Host, pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = opened(pid)
        try:
            # looked at again while the pidfd holds the pid: it is still ours
            if running(host) == pid:
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _wait_gone(pidfd: int) -> None:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(STOP_SEC * 1000):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not poller.poll(START_SEC * 1000):
            raise TimedOut("dnsmasq does not end.", step="dnsmasq")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
