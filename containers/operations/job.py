"""One running operation, as its handler sees it: progress, log, cancellation, and what it must remember."""

from __future__ import annotations

import time
from typing import Any, Final

from django.utils import timezone

from ..asking import configuration
from ..asking import nics as asked_nics
from ..bookkeeping import records, specs
from ..core.errors import Cancelled, NotFound
from ..core.host import Host
from ..core.model.spec import Spec
from ..core.model.states import Status
from ..models import Container, Image, Network, Operation
from .runtime import Observed, Runtime

TELL_EVERY_SEC: Final = 0.3
LOOK_EVERY_SEC: Final = 0.3


class Job:
    """operation: claimed by this process. runtime: the host. What it tells is written at most every 0.3 seconds."""

    def __init__(self, operation: Operation, runtime: Runtime, host: Host) -> None:
        self.operation = operation
        self.runtime = runtime
        self.host = host
        self.message = ""
        self._told_at = time.monotonic()
        self._untold: dict[str, Any] = {}
        self._log = operation.log
        self._looked_at = 0.0
        self._cancel_requested = operation.cancel_requested

    @property
    def resumed(self) -> bool:
        """Whether an earlier process died while it ran the operation."""
        return self.operation.attempts > 1

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for."""
        found: dict[str, Any] = self.operation.arguments
        return found

    @property
    def journal(self) -> dict[str, Any]:
        """What was remembered, by this or an earlier process."""
        found: dict[str, Any] = self.operation.journal
        return found

    @property
    def container(self) -> Container:
        """The container it is about."""
        if self.operation.container is None:
            raise NotFound("The container is gone.")
        return self.operation.container

    @property
    def target(self) -> Container:
        """The container that a clone makes."""
        if self.operation.target is None:
            raise NotFound("The container is gone.")
        return self.operation.target

    @property
    def image(self) -> Image:
        """The image it is about."""
        if self.operation.image is None:
            raise NotFound("The image is gone.")
        return self.operation.image

    @property
    def network(self) -> Network:
        """The network it is about."""
        if self.operation.network is None:
            raise NotFound("The network is gone.")
        return self.operation.network

    def progress(self, pct: int, message: str) -> None:
        """Tell how far it is, 0..100."""
        self._tell(progress_pct=max(0, min(100, int(pct))), message=message)

    def log(self, text: str) -> None:
        """Add to the log, whose last 64 KiB are kept."""
        self._log = (self._log + text)[-records.LOG_MAX_CHARS :]
        self._tell(log=self._log)

    def copy_log(self, text: str) -> None:
        """Make another operation's log this one's."""
        if text != self._log:
            self._log = text
            self._tell(log=text)

    def _tell(self, **fields: Any) -> None:
        self._untold.update(fields)
        if time.monotonic() - self._told_at >= TELL_EVERY_SEC:
            self.tell_now()

    def tell_now(self) -> None:
        """Write what was told and not written yet."""
        if self._untold:
            records.save_progress(self.operation, **self._untold)
            self._untold = {}
        self._told_at = time.monotonic()

    def remember(self, **values: Any) -> None:
        """Write down, at once, what whoever resumes the operation must know."""
        self.operation.journal = {**self.operation.journal, **values}
        records.save_progress(self.operation, journal=self.operation.journal)

    def removed_before(self) -> bool:
        """Tell whether an earlier process was lost after it had forgotten the row of what was to go, not before."""
        self.message = self.journal.get("removed", self.message)
        return "removed" in self.journal

    def no_more_cancel(self) -> None:
        """From here on it cannot be cancelled; raises Cancelled if somebody was faster."""
        self.operation.cancellable = False
        records.save_progress(self.operation, cancellable=False)
        self.refuse_if_cancelled(at_once=True)

    def cancelled(self) -> bool:
        """Whether somebody asked to stop it. Cheap enough to be called often."""
        if time.monotonic() - self._looked_at >= LOOK_EVERY_SEC:
            self._look()
        return self._cancel_requested

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        self._cancel_requested = Operation.objects.filter(pk=self.operation.pk, cancel_requested=True).exists()

    def refuse_if_cancelled(self, *, at_once: bool = False) -> None:
        """Raise Cancelled if somebody asked to stop it."""
        if at_once:
            self._look()
        if self.cancelled():
            raise Cancelled("Cancelled.")

    def observe(self, container: Container) -> Observed:
        """Return what the host says of a container now."""
        return self.runtime.observe([container.pk]).get(container.pk) or Observed(status=Status.ABSENT)

    def final_spec(self, container: Container, nics: list[dict[str, Any]] | None = None) -> Spec:
        """Return the container's merged spec, checked against the host's policy; raises SpecError, PolicyDenied.

        nics: rows in the making (asking.nics), instead of the network interfaces that it has.
        """
        interfaces = asked_nics.unsaved(container, nics) if nics is not None else None
        spec = specs.spec_of(container, self.host, interfaces)
        spec.check()
        configuration.check_limits(container.limits, container.host, container.limits)
        self.runtime.check_policy(spec)
        return spec

    def settle(self, container: Container, reason: str = "", **fields: Any) -> Observed:
        """Write what the host says of the container now into its row."""
        observed = self.observe(container)
        write_observed(container, observed, reason, operation=self.operation, **fields)
        return observed


def write_observed(
    container: Container,
    observed: Observed,
    reason: str = "",
    *,
    operation: Operation | None = None,
    guarded: bool = False,
    **fields: Any,
) -> bool:
    """Write what was observed into the row, as it was loaded; False where the row has moved meanwhile.

    guarded: a change there and back since the row was loaded counts as moved.
    """
    new = {"init_pid": observed.init_pid, "started_at": observed.started_at, **fields}
    if "last_exit" not in fields and another_exit(container.last_exit, observed.last_exit):
        new["last_exit"] = observed.last_exit
    values = {name: value for name, value in new.items() if getattr(container, name) != value}
    why = reason or observed.reason
    if not why and observed.status == Status.STOPPED and observed.last_exit:
        why = str(observed.last_exit.get("reason", ""))
    return records.set_status(
        container,
        observed.status,
        why,
        operation=operation,
        seen_at=container.status_at if guarded else None,
        **values,
    )


def another_exit(known: dict[str, Any] | None, seen: dict[str, Any] | None) -> bool:
    """Whether the end that the host shows is one that the row does not know of.

    They are told apart by being different, not by being later: the clock may have been stepped between two of them.
    """
    if seen is None:
        return False
    return known is None or seen["at"] not in (known["at"], known.get("after"))


def exit_told_here(
    reason: str, *, after: dict[str, Any] | None, at: str | None = None, console: str | None = None
) -> dict[str, Any]:
    """Return the record of an end that no supervisor could tell. after: what the host shows, which is older."""
    return {
        "at": at or timezone.now().isoformat(),
        "reason": reason,
        "exit_code": None,
        "signal": None,
        "console": console,
        "after": after["at"] if after else None,
    }
