"""What can go wrong in the runtime, as types.

CoreError
├── SpecError            a value is not acceptable; names the field
├── NotFound             the object is not on this host
├── AlreadyExists        the name or the object is taken
├── InvalidTransition    the action does not fit the status
├── Busy                 another operation holds the object
├── InUse                something depends on the object
├── Changed              it is not what it was when the caller looked
├── PolicyDenied         the host's policy file forbids it
├── HostUnsupported      the kernel or the host lacks a feature
├── SetupFailed          a step of a multi-step operation failed; names step, path and errno
├── StorageFull          no space, inodes or quota left
├── TimedOut             a deadline passed
└── Cancelled            somebody asked to stop it

Every class has a stable kebab-case ``code``, which the API, the WebSockets and the operation rows carry.
"""

from __future__ import annotations

import errno as errno_names
from typing import Any, ClassVar

from .sentences import as_json, say


class CoreError(Exception):
    """Base of everything the runtime raises on purpose.

    message: one sentence for a person: what happened and what to do; one with values in it is made by sentences.say().
    field: the input at fault, dotted, or None.
    details: JSON values for the API, such as ``{"operation": id}`` or ``{"users": [...]}``.
    """

    code: ClassVar[str] = "internal-error"

    def __init__(self, message: str, *, field: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """Return the error as JSON values: code, message, field and the details."""
        return {"code": self.code, "message": self.message, "field": self.field, **self.details}

    def kept(self) -> dict[str, Any]:
        """Return it as as_dict(), with `said` where its message can be said in other languages: see sentences."""
        said = as_json(self.message)
        return {**self.as_dict(), "said": said} if said else self.as_dict()


class SpecError(CoreError):
    """A value has the right type but is not acceptable."""

    code = "invalid-value"


class NotFound(CoreError):
    """The object is not there."""

    code = "not-found"


class AlreadyExists(CoreError):
    """The name is taken, or the object is there already."""

    code = "already-exists"


class InvalidTransition(CoreError):
    """The action does not fit the present status."""

    code = "invalid-transition"


class Busy(CoreError):
    """Another unfinished operation holds the object; details carry ``operation``."""

    code = "busy"


class InUse(CoreError):
    """Something depends on the object; details carry ``users``."""

    code = "in-use"


class Changed(CoreError):
    """What is to be replaced is not what it was when the caller looked."""

    code = "changed"


class PolicyDenied(CoreError):
    """The root-owned policy file forbids it."""

    code = "policy"


class HostUnsupported(CoreError):
    """This kernel or host lacks what is needed; details carry ``feature``."""

    code = "host-unsupported"


class SetupFailed(CoreError):
    """A step failed. details: step, path, errno (number or None), console (last lines of output or None)."""

    code = "setup-failed"

    def __init__(
        self,
        message: str,
        *,
        step: str,
        path: str | None = None,
        errno: int | None = None,
        console: str | None = None,
    ) -> None:
        super().__init__(message, step=step, path=path, errno=errno, console=console)

    @classmethod
    def from_oserror(cls, step: str, error: OSError, *, console: str | None = None) -> SetupFailed:
        """Translate a failed system call; the message names the step, the path and the errno's name."""
        path = error.filename if isinstance(error.filename, str) else None
        name = errno_names.errorcode.get(error.errno or 0, "")
        why = error.strerror or f"{error}"
        told = say("%(step)s failed: %(why)s", step=step, why=why)
        if path:
            told = say("%(step)s failed: %(why)s (%(path)s)", step=step, why=why, path=path)
        return cls(
            say("%(told)s [%(name)s]", told=told, name=name) if name else told,
            step=step,
            path=path,
            errno=error.errno,
            console=console,
        )


class StorageFull(SetupFailed):
    """No space, inodes or quota left while writing."""

    code = "storage-full"


class TimedOut(CoreError):
    """A deadline passed before the step ended; details carry ``step``."""

    code = "timed-out"


class Cancelled(CoreError):
    """Somebody asked to stop the operation, and it did."""

    code = "cancelled"
