"""Reads the host's policy file, which belongs to root and is not written by the panel."""

from __future__ import annotations

from .errors import SpecError
from .host import Host
from .policy import DEFAULT, Policy, parse
from .sentences import say


def load(host: Host) -> Policy:
    """Return what the host's policy file says, the defaults where there is none.

    Raises SpecError (field ``policy`` or below) where it cannot be understood.
    """
    try:
        text = host.policy_path.read_text()
    except FileNotFoundError:
        return DEFAULT
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(say("policy.toml cannot be read: %(error)s", error=error), field="policy") from None
    return parse(text)
