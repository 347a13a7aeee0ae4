"""What an LXC container's configuration is here, key by key. Pure; what is read goes in, what it becomes comes out.

Every key in force has an outcome: taken, translated (to what), or left out (why). Nothing is dropped in silence.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..errors import SpecError
from ..kernel import halt
from ..model.idmap import IdMap
from ..model.spec import check_environment, check_init_command
from . import behaviour, limits, mounts, network, rights, source
from .draft import Draft, Facts, Interface, Outcome, Told, left_out, taken, translated
from .reading import Config, Entry

_Translate = Callable[[Draft, Entry], Told]
_NAME_UNSAFE: Final = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """values: as a request names them, JSON values. rootfs: as LXC wrote it.

    uids, gids: container's and host's ids, empty where owners on disk are not shifted. nics: all interfaces, as
    asking.nics takes them, None where the configuration says nothing of any. interface: None where there was
    no veth. outcomes: one for each setting in force, in order.
    """

    values: dict[str, Any]
    rootfs: str | None
    uids: tuple[IdMap, ...]
    gids: tuple[IdMap, ...]
    interface: Interface | None
    nics: tuple[dict[str, Any], ...] | None
    outcomes: tuple[Outcome, ...]


def translate(config: Config, facts: Facts) -> Translation:
    """Return what a configuration is here."""
    draft = Draft(config=config, facts=facts)
    told = [(entry, _one(draft, entry)) for entry in config.entries]
    nics = network.finished(draft)
    ids = {kind: tuple(one for which, one in draft.idmap if which == kind) for kind in "ug"}
    return Translation(
        values={**draft.values, "privileged": facts.privileged},
        rootfs=source.written(config),
        uids=ids["u"],
        gids=ids["g"],
        interface=draft.interface,
        nics=nics,
        outcomes=tuple(Outcome(entry=entry, told=draft.revised.get(entry.key, one)) for entry, one in told),
    )


def suggested_name(name: str) -> str:
    """Return the nearest name that a container can have here; empty where nothing of it can stand in one."""
    return _NAME_UNSAFE.sub("-", name.lower()).strip("-")[:63].rstrip("-")


def _one(draft: Draft, entry: Entry) -> Told:
    told = _function(entry)(draft, entry)
    fields = draft.facts.fields
    unknown = sorted(draft.values.keys() - fields) if fields is not None else []
    for name in unknown:
        del draft.values[name]
    return left_out(f"a container's {unknown[0]} cannot be asked for yet") if unknown else told


def _function(entry: Entry) -> _Translate:
    exact = _KEYS.get(entry.key)
    if exact is not None:
        return exact
    for prefix, function in _PREFIXES:
        if entry.key.startswith(prefix):
            return function
    return _says(left_out("LXC knows no such key, or one that is unknown here"))


def _says(told: Told) -> _Translate:
    return lambda _draft, _entry: told


def _hostname(draft: Draft, entry: Entry) -> Told:
    if entry.value == draft.facts.name:
        return taken("the name of the container, inside too")
    return translated(f"inside it is called as the container is: {draft.facts.name}")


def _rootfs(_draft: Draft, _entry: Entry) -> Told:
    return translated("a layer of its own in Boxroom's store")


def _init(draft: Draft, entry: Entry) -> Told:
    try:
        command = tuple(shlex.split(entry.value))
        check_init_command(command)
    except (SpecError, ValueError) as error:
        return left_out(str(getattr(error, "message", error)).rstrip("."))
    draft.values["init_command"] = list(command)
    return taken("the command that is started first")


def _environment(draft: Draft, entry: Entry) -> Told:
    name, equals, value = entry.value.partition("=")
    if not equals:
        return left_out("nothing of the host's environment comes in")
    known: dict[str, str] = draft.values.get("environment", {})
    try:
        check_environment({**known, name: value})
    except SpecError as error:
        return left_out(error.message.rstrip("."))
    draft.values["environment"] = {**known, name: value}
    return taken("in the environment of all that is started inside")


def _halt(draft: Draft, entry: Entry) -> Told:
    name = entry.value.upper()
    if not name.isdigit() and not name.startswith("SIG"):
        name = f"SIG{name}"
    try:
        halt.parse(name)
    except ValueError:
        return left_out("there is no such signal")
    draft.values["halt_signal"] = name
    return taken("the signal that asks its init to shut down")


def _flag(field: str, yes: str, no: str) -> _Translate:
    def function(draft: Draft, entry: Entry) -> Told:
        if entry.value not in ("0", "1"):
            return left_out("this is 0 or 1")
        draft.values[field] = entry.value == "1"
        return taken(yes if entry.value == "1" else no)

    return function


def _namespaces(_draft: Draft, entry: Entry) -> Told:
    if entry.key.startswith("lxc.namespace.share."):
        return left_out("no container shares a namespace of another, or of the host")
    return left_out("every container has every kind of namespace here")


_CONSOLE: Final = left_out("terminals stand where they always stand, below /dev")
_LOG: Final = left_out("what happens to a container is told by its events, and by Boxroom's own logs")
_HOOK: Final = left_out("a hook's variables are LXC's own here, and no others")
_SIGNAL: Final = left_out("Boxroom asks as it asks every container; forces by SIGKILL")
_SECCOMP: Final = left_out("Boxroom's own list of system calls that are allowed holds for every container")

_KEYS: Final[dict[str, _Translate]] = {
    "lxc.arch": rights.architecture,
    "lxc.autodev": _says(taken("/dev is made for each start")),
    "lxc.autodev.tmpfs.size": _says(left_out("/dev is made for each start, with a size of its own")),
    "lxc.cap.drop": rights.capability,
    "lxc.cap.keep": rights.capability,
    "lxc.environment": _environment,
    "lxc.environment.hooks": _says(_HOOK),
    "lxc.environment.runtime": _environment,
    "lxc.ephemeral": _flag("ephemeral", "removed when it has stopped", "kept when it has stopped"),
    "lxc.execute.cmd": _says(left_out("this is for lxc-execute; give the container a command of its own")),
    "lxc.group": behaviour.group,
    "lxc.hook.clone": _says(left_out("Boxroom gives each clone its own name, keys and machine id by itself")),
    "lxc.idmap": rights.idmap,
    "lxc.init.cmd": _init,
    "lxc.init.cwd": behaviour.cwd,
    "lxc.init.gid": behaviour.gid,
    "lxc.init.groups": behaviour.groups,
    "lxc.init.uid": behaviour.uid,
    "lxc.keyring.session": rights.keyring,
    "lxc.mount.auto": mounts.auto,
    "lxc.mount.entry": mounts.entry,
    "lxc.mount.fstab": _says(translated("each of its lines by itself")),
    "lxc.no_new_privs": rights.no_new_privs,
    "lxc.pty.max": _says(translated("every container has as many pseudo terminals as it needs, up to Boxroom's bound")),
    "lxc.rootfs.backend": _says(translated("a layer of its own in Boxroom's store")),
    "lxc.rootfs.managed": _says(left_out("what is in Boxroom's store is removed with its container")),
    "lxc.rootfs.mount": _says(left_out("where it is mounted during a start is Boxroom's")),
    "lxc.rootfs.options": _says(left_out("how it is mounted is Boxroom's")),
    "lxc.rootfs.path": _rootfs,
    "lxc.sched.core": _says(left_out("core scheduling cannot be chosen")),
    "lxc.seccomp.allow_nesting": _says(_SECCOMP),
    "lxc.seccomp.profile": rights.seccomp,
    "lxc.signal.halt": _halt,
    "lxc.signal.reboot": behaviour.reboot_signal,
    "lxc.signal.stop": _says(_SIGNAL),
    "lxc.start.auto": _flag("autostart", "starts with the panel", "does not start by itself"),
    "lxc.start.delay": behaviour.delay,
    "lxc.start.order": behaviour.order,
    "lxc.tty.max": behaviour.ttys,
    "lxc.uts.name": _hostname,
}
_PREFIXES: Final[tuple[tuple[str, _Translate], ...]] = (
    ("lxc.apparmor.", rights.apparmor),
    ("lxc.cgroup.", limits.translate),
    ("lxc.cgroup2.", limits.translate),
    ("lxc.console.", behaviour.console),
    ("lxc.hook.", rights.hook),
    ("lxc.log.", _says(_LOG)),
    ("lxc.monitor.", _says(left_out("LXC's monitor is not there; a supervisor of Boxroom's holds the container"))),
    ("lxc.namespace.", _namespaces),
    ("lxc.net.", network.translate),
    ("lxc.prlimit.", rights.prlimit),
    ("lxc.proc.", rights.proc),
    ("lxc.seccomp.", _says(_SECCOMP)),
    ("lxc.selinux.", _says(left_out("Boxroom sets no SELinux label"))),
    ("lxc.sysctl.", rights.sysctl),
    ("lxc.time.", rights.clock),
    ("lxc.tty.", _says(_CONSOLE)),
)
"""Looked at after the whole keys."""
