"""What the host's policy refuses while its file cannot be understood: the file is the reason, not what it would say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..core.errors import PolicyDenied
from ..core.sentences import Sentence
from ..models import Host


def policy_problem(host: Host) -> str:
    """Return why the host's policy file could not be understood when its worker last read it; "" where it could."""
    told = host.facts.get("policy_problem") or ""
    return Sentence(**told) if isinstance(told, dict) else str(told)


@contextlib.contextmanager
def policy_of(host: Host) -> Iterator[None]:
    """Give the policy file's own trouble as the reason where something is refused that only that file can give."""
    try:
        yield
    except PolicyDenied as error:
        problem = policy_problem(host)
        if not problem:
            raise
        raise PolicyDenied(problem, field=error.field) from None
