"""How often somebody may try to sign in. The audit trail is the memory, so that the count holds over processes.

Per account: 10 failures in 15 minutes; per neighbourhood of addresses (/24, /64): 30. Beyond that the answer is 429
until the oldest failure is 15 minutes old. What is refused so is not counted again, so nobody is shut out for longer.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.utils import timezone

from . import audit
from .addresses import neighbourhood
from .models import AuditRecord

PERIOD: Final = dt.timedelta(minutes=15)
PER_ACCOUNT: Final = 10
PER_NEIGHBOURHOOD: Final = 30
ACTION: Final = "sign-in"
ACTIONS: Final = (ACTION, "sign-in.link", "sign-in.second-factor")


def too_many(username: str | None, source_ip: str | None) -> bool:
    """Whether another try is refused. username None: a try that names nobody, as a link's."""
    now = timezone.now()
    # none of the future: after the clock was set back nobody is shut out until it gets there again
    failures = AuditRecord.objects.filter(
        at__range=(now - PERIOD, now), action__in=ACTIONS, outcome=audit.Outcome.DENIED
    )
    if username is not None and failures.filter(object_name=username).count() >= PER_ACCOUNT:
        return True
    near = neighbourhood(source_ip)
    # a count by network is beyond what both databases can do with addresses kept as text
    addresses = failures.order_by("-at").values_list("source_ip", flat=True)[:1000]
    return sum(1 for address in addresses if neighbourhood(address) == near) >= PER_NEIGHBOURHOOD


def failed(username: str, source_ip: str | None, *, action: str = ACTION) -> None:
    """Note a failure."""
    audit.record_attempt(action, username, source_ip=source_ip, outcome=audit.Outcome.DENIED)


def succeeded(username: str, source_ip: str | None, *, action: str = ACTION) -> None:
    """Note a success."""
    audit.record_attempt(action, username, source_ip=source_ip, outcome=audit.Outcome.SUCCEEDED)
