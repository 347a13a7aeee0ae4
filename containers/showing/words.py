"""The pages' words for actions, states and events, in one place, so that each idea has one word everywhere."""

from __future__ import annotations

from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.accounts.models import Role

from ..core.model.states import TRANSITIONS, Action, Status

ACTIONS = {
    "create": gettext_lazy("Create"),
    "import": gettext_lazy("Import"),
    "start": gettext_lazy("Start"),
    "stop": gettext_lazy("Stop"),
    "restart": gettext_lazy("Restart"),
    "freeze": gettext_lazy("Freeze"),
    "unfreeze": gettext_lazy("Unfreeze"),
    "update": gettext_lazy("Change settings"),
    "rename": gettext_lazy("Rename"),
    "snapshot": gettext_lazy("Take snapshot"),
    "snapshot-change": gettext_lazy("Change snapshot"),
    "snapshot-delete": gettext_lazy("Delete snapshot"),
    "restore": gettext_lazy("Restore snapshot"),
    "put-back": gettext_lazy("Put files back"),
    "clone": gettext_lazy("Clone"),
    "delete": gettext_lazy("Delete"),
    "trash-restore": gettext_lazy("Take out of the trash"),
    "trash-purge": gettext_lazy("Delete for good"),
    "backup-export": gettext_lazy("Back up"),
    "backup-verify": gettext_lazy("Verify backup"),
    "backup-delete": gettext_lazy("Delete backup"),
    "backup-import": gettext_lazy("Restore backup as new"),
    "backup-restore": gettext_lazy("Restore backup in place"),
    "backup-scan": gettext_lazy("Look for backups"),
    "image-build": gettext_lazy("Make image"),
    "image-catalogue": gettext_lazy("Fetch list of images"),
    "image-delete": gettext_lazy("Delete image"),
    "network-create": gettext_lazy("Create network"),
    "network-change": gettext_lazy("Change network"),
    "network-delete": gettext_lazy("Delete network"),
}

DOING = {
    "create": gettext_lazy("Creating…"),
    "import": gettext_lazy("Importing…"),
    "start": gettext_lazy("Starting…"),
    "stop": gettext_lazy("Stopping…"),
    "restart": gettext_lazy("Restarting…"),
    "freeze": gettext_lazy("Freezing…"),
    "unfreeze": gettext_lazy("Unfreezing…"),
    "update": gettext_lazy("Changing settings…"),
    "rename": gettext_lazy("Renaming…"),
    "snapshot": gettext_lazy("Taking snapshot…"),
    "snapshot-change": gettext_lazy("Changing snapshot…"),
    "snapshot-delete": gettext_lazy("Deleting snapshot…"),
    "restore": gettext_lazy("Restoring…"),
    "put-back": gettext_lazy("Putting files back…"),
    "clone": gettext_lazy("Cloning…"),
    "delete": gettext_lazy("Deleting…"),
    "trash-restore": gettext_lazy("Taking out of the trash…"),
    "trash-purge": gettext_lazy("Deleting for good…"),
    "backup-export": gettext_lazy("Backing up…"),
    "backup-verify": gettext_lazy("Verifying backup…"),
    "backup-delete": gettext_lazy("Deleting backup…"),
    "backup-import": gettext_lazy("Restoring backup…"),
    "backup-restore": gettext_lazy("Restoring backup in place…"),
    "backup-scan": gettext_lazy("Looking for backups…"),
    "image-build": gettext_lazy("Making image…"),
    "image-catalogue": gettext_lazy("Fetching list of images…"),
    "image-delete": gettext_lazy("Deleting image…"),
    "network-create": gettext_lazy("Creating network…"),
    "network-change": gettext_lazy("Changing network…"),
    "network-delete": gettext_lazy("Deleting network…"),
}

STATES = {
    "absent": gettext_lazy("Not made yet"),
    "stopped": gettext_lazy("Stopped"),
    "running": gettext_lazy("Running"),
    "frozen": gettext_lazy("Frozen"),
    "error": gettext_lazy("Error"),
    "queued": gettext_lazy("Waiting"),
    "working": gettext_lazy("Running"),
    "succeeded": gettext_lazy("Succeeded"),
    "failed": gettext_lazy("Failed"),
    "cancelled": gettext_lazy("Cancelled"),
    "pending": gettext_lazy("Running"),
    "denied": gettext_lazy("Denied"),
}

EXITS = {
    "poweroff": gettext_lazy("it was powered off from inside"),
    "exit": gettext_lazy("its init ended"),
    "signal": gettext_lazy("its init was ended by a signal"),
    "oom": gettext_lazy("it ran out of memory"),
    "stopped": gettext_lazy("it was stopped"),
    "killed": gettext_lazy("it was stopped by force"),
    "start-failed": gettext_lazy("it did not start"),
    "reboot": gettext_lazy("it was to start again from inside, and that failed"),
    "host-reboot": gettext_lazy("the host was restarted"),
    "supervisor-lost": gettext_lazy("its supervisor was lost"),
}
BAD_EXITS: Final = ("oom", "reboot", "signal", "start-failed", "supervisor-lost")
"""Those that nobody can have meant."""

EVENTS = {
    "rebooted": gettext_lazy("Rebooted from inside"),
    "oom": gettext_lazy("Ran out of memory; the kernel ended a process"),
    "limits": gettext_lazy("Limits changed"),
    "snapshot": gettext_lazy("Snapshot taken"),
    "snapshot-deleted": gettext_lazy("Snapshot deleted"),
    "backup": gettext_lazy("Backup written"),
    "renamed": gettext_lazy("Renamed"),
    "found": gettext_lazy("Found on the host"),
    "restored": gettext_lazy("Restored from a snapshot"),
    "put-back": gettext_lazy("Files put back from a snapshot"),
    "session": gettext_lazy("Terminal opened"),
    "created": gettext_lazy("Created"),
}


AUDITED = {
    "snapshot.create": ACTIONS["snapshot"],
    "snapshot.change": ACTIONS["snapshot-change"],
    "trash.restore": ACTIONS["trash-restore"],
    "trash.purge": ACTIONS["trash-purge"],
    "trash.days": gettext_lazy("Change how long the trash keeps"),
    "snapshot.restore": ACTIONS["restore"],
    "backup.export": ACTIONS["backup-export"],
    "backup.verify": ACTIONS["backup-verify"],
    "backup.delete": ACTIONS["backup-delete"],
    "backup.import": ACTIONS["backup-import"],
    "backup.restore": ACTIONS["backup-restore"],
    "backup.scan": ACTIONS["backup-scan"],
    "backup.download": gettext_lazy("Download backup"),
    "file.put-back": ACTIONS["put-back"],
    "snapshot.read": gettext_lazy("Take out of snapshot"),
    "file.read": gettext_lazy("Read file"),
    "file.write": gettext_lazy("Write file"),
    "file.make": gettext_lazy("Make directory"),
    "file.rename": gettext_lazy("Rename file"),
    "file.delete": gettext_lazy("Delete file"),
    "file.change": gettext_lazy("Change owner or mode"),
    "schedule.create": gettext_lazy("Make schedule"),
    "schedule.change": gettext_lazy("Change schedule"),
    "schedule.delete": gettext_lazy("Delete schedule"),
    "session.open": gettext_lazy("Open terminal"),
    "session.close": gettext_lazy("End terminal"),
    "session.end-others": gettext_lazy("End other sessions"),
    "user.create": gettext_lazy("Invite user"),
    "user.link": gettext_lazy("Make sign-in link"),
    "user.disable": gettext_lazy("Shut out"),
    "user.enable": gettext_lazy("Let in"),
    "sign-in": gettext_lazy("Sign in"),
    "sign-in.link": gettext_lazy("Sign in by link"),
    "sign-in.second-factor": gettext_lazy("Second factor"),
    "sign-out": gettext_lazy("Sign out"),
    "member.set": gettext_lazy("Give role"),
    "member.remove": gettext_lazy("Take role"),
    "project.create": gettext_lazy("Create project"),
    "project.change": gettext_lazy("Change project"),
    "project.delete": gettext_lazy("Delete project"),
    "user.delete": gettext_lazy("Remove user"),
    "password.set": gettext_lazy("Set password"),
    "token.create": gettext_lazy("Make token"),
    "token.delete": gettext_lazy("Delete token"),
    "operation.cancel": gettext_lazy("Cancel"),
    "container.exec": gettext_lazy("Run command"),
    "container.cgroup": gettext_lazy("Read a cgroup file"),
    "audit.begin-anew": gettext_lazy("Seal the audit trail anew"),
}

OBJECTS = {
    "container": gettext_lazy("container"),
    "image": gettext_lazy("image"),
    "schedule": gettext_lazy("schedule"),
    "trash": gettext_lazy("trash"),
    "backup": gettext_lazy("backup"),
    "network": gettext_lazy("network"),
    "user": gettext_lazy("user"),
    "project": gettext_lazy("project"),
    "token": gettext_lazy("token"),
    "host": gettext_lazy("host"),
    "operation": "",  # its name says what it is
}

DONE = {
    "snapshot": gettext_lazy("The snapshot of %(name)s is taken."),
    "snapshot-delete": gettext_lazy("A snapshot of %(name)s is deleted."),
    "restore": gettext_lazy("%(name)s is restored."),
    "put-back": gettext_lazy("Files of %(name)s are back."),
    "clone": gettext_lazy("%(name)s is cloned."),
    "rename": gettext_lazy("The container is called %(name)s now."),
    "delete": gettext_lazy("%(name)s is deleted."),
    "image-build": gettext_lazy("The image %(name)s is made."),
    "image-catalogue": gettext_lazy("The list of %(name)s is here."),
}
"""What is said to who asked for it, of those whose end the page does not show by itself."""


def not_now(status: str, action: str) -> str:
    """Return why an action does not fit a container's status, or "" where it does."""
    if (Status(status), Action(action)) in TRANSITIONS:
        return ""
    if action == "start":
        return _("It is running already.") if status == "running" else _("Unfreeze it instead: it is frozen.")
    if action in ("stop", "restart", "freeze", "exec"):
        return _("It is frozen: unfreeze it first.") if status == "frozen" else _("It is not running.")
    if action == "unfreeze":
        return _("It is not frozen.")
    if action in ("delete", "rename"):
        return _("Stop it first.")
    return _("This does not fit a container that is “%(state)s”.") % {"state": STATES.get(status, status)}


def not_allowed(least: str) -> str:
    """Return the reason for somebody whose role is too small; least is the smallest role that may."""
    if least == "operator":
        return _("Your role in this project does not allow it: operators and administrators may.")
    return _("Your role in this project does not allow it: administrators may.")


def exit_words(last: dict[str, Any]) -> str:
    """Return how a run ended (a container's last_exit), as a clause; "" where that is what somebody asked for."""
    reason = last.get("reason")
    if reason in (None, "stopped", "poweroff"):
        return ""
    text = str(EXITS.get(reason, reason))
    if last.get("exit_code"):
        text += " " + _("(exit code %(code)s)") % {"code": last["exit_code"]}
    if last.get("signal"):
        text += f" ({last['signal']})"
    return text


def event_sentence(event: Any) -> str:
    """Return one sentence for an Event row."""
    if event.kind == "status" and event.new == "stopped" and event.reason == "created":
        return str(EVENTS["created"])
    if event.kind == "status" and event.new:
        text = str(STATES.get(event.new, event.new))
    else:
        text = str(EVENTS.get(event.kind, event.kind.replace("-", " ").capitalize()))
    told = event.reason and (event.new, event.reason) != (Status.STOPPED, "stopped")  # who stopped it stands beside it
    return f"{text}: {EXITS.get(event.reason, event.reason)}" if told else text


def audit_action(value: str) -> str:
    """Return the words of an audit action such as container.start."""
    kind, _dot, verb = value.partition(".")
    known = AUDITED.get(value) or ACTIONS.get(f"{kind}-{verb}") or ACTIONS.get(verb)
    return f"{known}" if known else value.replace(".", " ").replace("-", " ").capitalize()


def audit_object(record: Any) -> str:
    """Return what an audit record is about, by its name; of an operation, what it does and to which."""
    if record.object_type == "operation" and record.detail.get("object"):
        action = record.detail.get("action", "")
        return f"{ACTIONS.get(action, action)} {record.detail['object']}"
    return str(record.object_name)


def audit_detail(record: Any) -> str:
    """Return what an audit record adds: the role that was given, why something failed; mostly what its object is."""
    detail = record.detail
    if detail.get("message"):
        return _(str(detail["message"]))
    if detail.get("role"):
        return str(dict(Role.choices).get(detail["role"], detail["role"]))
    if detail.get("host_admin"):
        return _("host administrator")
    return str(OBJECTS.get(record.object_type, record.object_type))
