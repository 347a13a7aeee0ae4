"""`manage.py import-lxc [NAME…]`: takes containers of LXC's over, and says for each of their keys what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from containers.asking import importing as asking
from containers.asking import services
from containers.asking.configuration import CHANGEABLE
from containers.asking.importing import ImportRequest
from containers.asking.nics import held
from containers.core import cgroups
from containers.core.errors import CoreError, SpecError
from containers.core.host import Host as CoreHost
from containers.core.hoststore import rootfiles
from containers.core.lifecycle import importing, labels
from containers.core.lxc import finding, reading, source, translating
from containers.core.lxc.draft import Facts, Interface
from containers.core.lxc.reading import Config
from containers.core.lxc.source import Source
from containers.core.lxc.translating import Translation
from containers.core.plans import seccomp_profile
from containers.core.rules import policy, policy_file
from containers.core.rules.grants import given_to
from containers.models import Network, Operation, local_host

WAIT_SEC: Final = 1.0
_WIDTH: Final = 11
_HOST_HAS: Final = ("memory_bytes", "cpus", "pids", "online")


@dataclass(slots=True)
class Plan:
    """One container of LXC's. config_path: what is read; the rest is known as far as it got."""

    lxc_path: str
    lxc_name: str
    config_path: str
    name: str = ""
    config: Config = field(default_factory=lambda: Config(entries=()))
    translation: Translation | None = None
    request: ImportRequest | None = None
    source: Source | None = None
    error: dict[str, Any] | None = None
    operation: Operation | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        outcomes = self.translation.outcomes if self.translation else ()
        return {
            "lxc": self.lxc_name,
            "name": self.name,
            "files": list(self.config.files),
            "keys": [outcome.as_dict() for outcome in outcomes],
            "problems": [{"file": one.file, "line": one.line, "what": one.what} for one in self.config.problems],
            "values": self.request.values if self.request else None,
            "layers": list(self.source.layers) if self.source else None,
            "operation": str(self.operation.pk) if self.operation else None,
            "status": self.operation.status if self.operation else None,
            "error": self.error,
        }


class Command(BaseCommand):
    """Take LXC's containers over."""

    help = "Makes containers of LXC's containers, and prints what became of each key of their configuration."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="containers of LXC's; none: all that there are")
        parser.add_argument("--path", default=finding.DEFAULT_PATH, help=f"LXC's directory ({finding.DEFAULT_PATH})")
        parser.add_argument("--config", metavar="FILE", help="read this file instead of PATH/NAME/config")
        parser.add_argument("--project", default="default", help="the project that they become part of (default)")
        parser.add_argument("--network", default="default", help="the network that they join (default)")
        parser.add_argument("--name", metavar="NEW", help="the name here, of one container")
        parser.add_argument("--move", action="store_true", help="remove LXC's container when ours is there")
        parser.add_argument(
            "--privileged", action="store_true", help="without a user namespace, if the policy allows it"
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and only say what would be done")
        parser.add_argument("--json", action="store_true", help="print a list of JSON objects")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            host = CoreHost.open(settings.STATE_DIR)
        except FileNotFoundError:
            raise CommandError(f"There is no Boxroom in {settings.STATE_DIR}.") from None
        plans = self._plans(options)
        for plan in plans:
            try:
                _prepare(plan, options)
                if not options["dry_run"]:
                    self._import(host, plan, quiet=options["json"])
            except (CoreError, OSError) as error:
                plan.error = error.as_dict() if isinstance(error, CoreError) else {"message": str(error)}
            if not options["json"]:
                self._print(plan, dry=options["dry_run"])
        if options["json"]:
            self.stdout.write(json.dumps([plan.as_dict() for plan in plans], indent=1))
        if any(plan.error for plan in plans):
            raise SystemExit(1)

    def _plans(self, options: dict[str, Any]) -> list[Plan]:
        path, names, config = os.path.abspath(options["path"]), options["names"], options["config"]
        if config and len(names) > 1:
            raise CommandError("--config is one container's: name one.")
        if config and options["move"]:
            raise CommandError("--move needs the container's own configuration, not --config.")
        if config:
            config = os.path.abspath(config)
            place = os.path.dirname(config)
            where, name = (path, names[0]) if names else os.path.split(place)
            return [Plan(where, name, config)]
        names = names or finding.names(path)
        if not names:
            raise CommandError(f"There is no container of LXC's in {path}.")
        if options["name"] and len(names) > 1:
            raise CommandError("--name is one container's: name one.")
        try:
            return [Plan(path, name, finding.config_path(path, name)) for name in dict.fromkeys(names)]
        except CoreError as error:
            raise CommandError(error.message) from error

    def _import(self, host: CoreHost, plan: Plan, *, quiet: bool) -> None:
        """Ask for it and wait for its end."""
        assert plan.request is not None
        assert plan.source is not None
        ordered: list[str] = []

        def order(container_id: str) -> None:
            assert plan.source is not None
            ordered.append(container_id)
            importing.order(host, container_id, plan.source)

        try:
            plan.operation = asking.import_container(plan.request, order)
        finally:
            kept = plan.operation.container_id if plan.operation else None
            for container_id in ordered:
                if container_id != kept:
                    importing.forget(host, container_id)
        self._follow(plan, quiet=quiet)
        if plan.operation.finished and plan.operation.status != Operation.Status.SUCCEEDED:
            plan.error = plan.operation.error or {"message": plan.operation.message}
            importing.forget(host, str(kept))

    def _follow(self, plan: Plan, *, quiet: bool) -> None:
        assert plan.operation is not None
        told = ""
        while not plan.operation.finished:
            plan.operation = services.wait(plan.operation.pk, WAIT_SEC)
            if plan.operation.message != told and not quiet and not plan.operation.finished:
                told = plan.operation.message
                self.stderr.write(f"{plan.name}: {told}")
            if plan.operation.status == Operation.Status.QUEUED and not services.worker_answers(plan.operation.host):
                return

    def _print(self, plan: Plan, *, dry: bool) -> None:
        self.stdout.write(f"{plan.lxc_name} -> {plan.name or '?'}")
        for outcome in plan.translation.outcomes if plan.translation else ():
            entry, told = outcome.entry, outcome.told
            self.stdout.write(f"  {told.fate:<{_WIDTH}} {entry.written} = {entry.value}: {told.words}")
        for problem in plan.config.problems:
            self.stdout.write(f"  {'problem':<{_WIDTH}} {problem.file}, line {problem.line}: {problem.what}")
        if plan.error:
            self.stdout.write(f"  {'failed':<{_WIDTH}} {plan.error['message']}")
        elif dry:
            self.stdout.write(f"  {'dry run':<{_WIDTH}} nothing was changed")
        elif plan.operation is not None:
            message = plan.operation.message
            if not plan.operation.finished:
                message = "The panel does not run: it will be done as soon as `manage.py up` does."
            self.stdout.write(f"  {'done' if plan.operation.finished else 'waits':<{_WIDTH}} {message}")


def _prepare(plan: Plan, options: dict[str, Any]) -> None:
    """Read, translate and check one container; raises CoreError or OSError saying what speaks against it."""
    plan.config = reading.parse(plan.config_path, finding.read)
    row = local_host()
    plan.name = options["name"] or translating.suggested_name(plan.lxc_name)
    host_has = {name: row.facts[name] for name in _HOST_HAS if row.facts.get(name)}
    core = CoreHost.open(settings.STATE_DIR)
    rules = policy_file.load(core)
    macs, addresses = held(row)
    facts = Facts(
        name=plan.name,
        project=options["project"],
        network=options["network"],
        network_ipv6=Network.objects.filter(host=row, name=options["network"]).exclude(ipv6="").exists(),
        privileged=options["privileged"],
        machine=os.uname().machine,
        shares=rules.shares,
        devices=rules.devices,
        parents=rules.parents,
        host_network=rules.containers.host_network,
        macs=macs,
        addresses=addresses,
        nodes=_nodes(rules, options["project"]),
        profiles=_profiles(rules, plan.config, options["project"]),
        hooks=_hooks(rules, plan.config, options["project"]),
        cgroup_files=rules.containers.cgroup_files,
        capabilities=rules.containers.capabilities,
        cgroup_version=cgroups.open(core).version,
        apparmor=rules.containers.apparmor if labels.present() else None,
        fields=CHANGEABLE,
        **host_has,
    )
    plan.translation = found = translating.translate(plan.config, facts)
    plan.source = Source(
        path=plan.lxc_path,
        name=plan.lxc_name,
        layers=source.layers(found.rootfs),
        uids=found.uids,
        gids=found.gids,
        move=options["move"],
    )
    for maps in (found.uids, found.gids):
        source.reversed_map(maps)
    nic = found.interface or Interface()
    plan.request = ImportRequest(
        name=plan.name,
        project=options["project"],
        network=options["network"],
        values=found.values,
        nics=found.nics,
        nic=nic.name,
        mac=nic.mac or "",
        machine_id=finding.machine_id(plan.source),
    )
    if not plan.name:
        raise SpecError(f"Nothing of {plan.lxc_name!r} can be a name here: give one by --name.", field="name")
    asking.check(plan.request, row)
    finding.check(plan.source)


def _profiles(rules: policy.Policy, config: Config, project: str) -> dict[str, str]:
    """Return the policy's system call profile that says the same as the configuration's, by its path."""
    host = CoreHost.open(settings.STATE_DIR)
    wanted = config.get("lxc.seccomp.profile")
    if not wanted:
        return {}
    try:
        asked = seccomp_profile.parse(str(finding.read(wanted)))
    except (CoreError, OSError):
        return {}
    for name, given in rules.seccomp.items():
        with contextlib.suppress(CoreError):
            text = rootfiles.read_own(host.seccomp_dir, name, step="read the system call profile")
            if given_to(given.projects, project) and seccomp_profile.parse(text) == asked:
                return {wanted: name}
    return {}


def _hooks(rules: policy.Policy, config: Config, project: str) -> dict[str, str]:
    """Return the policy's hooks that are the same programs as the configuration's, by their paths there."""
    host = CoreHost.open(settings.STATE_DIR)
    own = {}
    for name, given in rules.hooks.items():
        with contextlib.suppress(CoreError):
            if given_to(given.projects, project):
                own[rootfiles.read_own(host.hooks_dir, name, step="read the hook")] = name
    found = {}
    for entry in config.entries:
        path = entry.value.split(" ")[0]
        if entry.key.startswith("lxc.hook.") and path.startswith("/"):
            with contextlib.suppress(CoreError, OSError):
                text = str(finding.read(path))
                if text in own:
                    found[path] = own[text]
    return found


def _nodes(rules: policy.Policy, project: str) -> dict[str, str]:
    """Return the policy's devices by type and numbers, as far as this host has them; of two names one that is given."""
    found = {}
    for name, device in sorted(rules.devices.items(), key=lambda one: given_to(one[1].projects, project)):
        with contextlib.suppress(OSError):
            status = os.stat(device.path)
            kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
            found[f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"] = name
    return found
