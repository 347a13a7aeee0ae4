"""Debian, made on this host by debootstrap from its configured mirror, and made fit for a container."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import HostUnsupported, SpecError
from ..model import recipes
from ..rules import policy, policy_file
from ..sentences import say
from . import apt_sources, debian_inits, sandbox
from .base import Order
from .debian_fit import FIT

SCRIPTS: Final = Path("/usr/share/debootstrap/scripts")
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_PROGRAMS: Final = ("/usr/sbin/debootstrap", "/usr/bin/unshare", "/usr/bin/setpriv", "/usr/sbin/chroot")
TTYS: Final = 4
ROOM_BYTES: Final = 400 << 20
"""What the least of them takes while it is made, packages and lists included."""
_ROLLING: Final = ("sid", "unstable", "experimental")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked source. security: the mirror for security updates; None where the suite has none."""

    suite: str
    variant: str
    init: str
    packages: tuple[str, ...]
    mirror: str
    security: str | None


@dataclass(slots=True)
class Meter:
    """Turns debootstrap's lines into a percentage; its phases come in this order, of known average lengths."""

    order: Order
    packages: int
    seen: dict[str, int] = field(default_factory=dict)
    highest: int = 0

    # (what the line begins with, percentage at its first line, at its last one, lines for each package)
    PHASES = (
        ("I: Retrieving ", 2, 35, 1.0),
        ("I: Extracting ", 35, 45, 0.7),
        ("I: Unpacking ", 45, 68, 0.95),
        ("I: Configuring ", 55, 90, 0.95),
    )

    def line(self, text: str) -> None:
        """Take one line of output and tell how far it is; never backward."""
        for begin, start, stop, share in self.PHASES:
            if text.startswith(begin):
                self.seen[begin] = self.seen.get(begin, 0) + 1
                if begin == self.PHASES[0][0]:
                    self.packages = max(self.packages, self.seen[begin])
                part = min(1.0, self.seen[begin] / (self.packages * share))
                self.highest = max(self.highest, int(start + (stop - start) * part))
                self.order.progress(self.highest, text.removeprefix("I: "))
                return
        if text.startswith("I: Resolving "):  # takes a while, at any time before the packages
            self.order.progress(self.highest, text.removeprefix("I: "))


def build(order: Order, rootfs: Path) -> dict[str, Any]:
    """Fill rootfs with a Debian that boots in a container; one to two minutes, mostly dpkg's.

    debootstrap, and every script of every package, runs in namespaces of its own (images/sandbox.py).
    """
    recipe = parse(order.source, policy_file.load(order.host))
    require_programs()
    sandbox.require_room("debootstrap", rootfs, ROOM_BYTES)
    own_root = rootfs.parent / "sandbox"
    own_root.mkdir(mode=0o700)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "container": "lxc",  # debootstrap: device nodes are there, and cannot be made
        "DEBIAN_FRONTEND": "noninteractive",
        **proxies(),
    }
    order.progress(1, f"Debian {recipe.suite} from {recipe.mirror}")
    _prepare(rootfs)
    meter = Meter(order, packages=100 + len(recipe.packages))
    program = arguments(recipe)
    sandbox.run(order, "debootstrap", program, environment=environment, watch=meter.line, room=rootfs)
    order.progress(91, "Making it fit for a container")
    inside = environment | {"SUITE": recipe.suite, "MIRROR": recipe.mirror, "SECURITY": recipe.security or ""}
    inside["LATER"] = " ".join(debian_inits.INITS[recipe.init].later)
    shell = ["/usr/sbin/chroot", sandbox.ROOTFS, "/bin/sh", "-eu", "-s"]
    sandbox.run(order, "fit", shell, environment=inside, script=FIT, room=rootfs)
    own_root.rmdir()
    halt_signal = debian_inits.INITS[recipe.init].halt_signal
    return {
        "init_command": ["/sbin/init"],
        "halt_signal": halt_signal,
        "environment": {"LANG": "C.UTF-8"},
        # as many as LXC's own configuration for distributions has
        "console": {"ttys": TTYS},
    }


def parse(source: dict[str, Any], rules: policy.Policy = policy.DEFAULT) -> Recipe:
    """Check a source as the API gives it; raises SpecError naming the field."""
    recipes.check(source)
    suite = source.get("suite", recipes.SUITES[0])
    init = source.get("init") or recipes.INITS[0]
    own, security = apt_sources.mirrors()
    mirror = _public(source["mirror"], rules) if source.get("mirror") else own
    return Recipe(
        suite=suite,
        variant=source.get("variant") or recipes.VARIANTS[0],
        init=init,
        packages=tuple(sorted({*debian_inits.packages(suite, init), *(source.get("packages") or ())})),
        mirror=mirror,
        security=None if suite in _ROLLING else security,
    )


def _public(mirror: str, rules: policy.Policy) -> str:
    """Return a mirror that somebody asked for, and that recipes.check() has let pass.

    Raises PolicyDenied for one that is not of the public network, unless the host's policy names it. The host's own
    mirror is not asked: whoever set it up may use what he likes.
    """
    uri = recipes.split_mirror(mirror)
    host = str(uri.hostname)
    try:
        found = socket.getaddrinfo(host, uri.port or uri.scheme, type=socket.SOCK_STREAM)
    except OSError:
        raise SpecError(say("%(host)s has no address.", host=host), field="source.mirror") from None
    policy.check_source(rules, host, [str(address[0]) for *_rest, address in found])
    return mirror.rstrip("/")


def require_programs() -> None:
    """Raise HostUnsupported naming what is missing."""
    for program in _PROGRAMS:
        if not os.access(program, os.X_OK):
            name = program.rpartition("/")[2]
            raise HostUnsupported(
                say("%(program)s is missing: install the package that has it.", program=program), feature=name
            )
    if not KEYRING.is_file():
        raise HostUnsupported("Install debian-archive-keyring: packages are not taken unchecked.", feature="keyring")


def arguments(recipe: Recipe) -> list[str]:
    """Return debootstrap's command line; the script is named, for a debootstrap older than the suite."""
    variant = [] if recipe.variant == "standard" else [f"--variant={recipe.variant}"]
    script = SCRIPTS / recipe.suite
    unwanted = debian_inits.INITS[recipe.init].excluded
    exclude = [f"--exclude={','.join(unwanted)}"] if unwanted else []
    return [
        *("/usr/sbin/debootstrap", "--verbose", *variant, *exclude),
        *(f"--include={','.join(recipe.packages)}", f"--keyring={KEYRING}", "--components=main"),
        *(recipe.suite, sandbox.ROOTFS, recipe.mirror, str(script if script.exists() else SCRIPTS / "sid")),
    ]


def proxies() -> dict[str, str]:
    """Return the proxy variables for downloads: those of the environment, else those that apt was told."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    if found or not os.access("/usr/bin/apt-config", os.X_OK):
        return found
    asked = ["http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
    command = ["/usr/bin/apt-config", "shell", *asked]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    return {name: value for name, value in re.findall(r"^(\w+)='(.*)'$", told, re.MULTILINE) if value != "DIRECT"}


def _prepare(rootfs: Path) -> None:
    """Lay down what must be there before the first package: no service starts, and dpkg need not sync each file.

    fit removes both again; the whole tree is synced at the end.
    """
    for directory in ("dev", "proc", "sys", "usr/sbin", "etc/dpkg/dpkg.cfg.d"):
        path = rootfs / directory
        path.mkdir(parents=True, exist_ok=True)
        for part in (path, *path.parents):
            if part == rootfs:
                break
            part.chmod(0o755)  # whatever the umask is
    policy = rootfs / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    unsafe = rootfs / "etc/dpkg/dpkg.cfg.d/boxroom-build"
    unsafe.write_text("force-unsafe-io\n")
    unsafe.chmod(0o644)
