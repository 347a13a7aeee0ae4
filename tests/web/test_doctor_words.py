"""What the doctor finds is said in German as well, with its numbers and names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.utils import translation

from containers.core import doctor
from containers.core.doctor import this_host
from containers.core.doctor.check import Check, works
from containers.core.network import findings
from containers.core.sentences import say
from containers.showing.sentences import of_finding, translated

SAME = {"kernel"}
"""Names and numbers alone."""


def german(check: Check, key: str) -> str:
    """Return a sentence of a finding as the page shows it, through JSON as it comes there."""
    return translated(of_finding(json.loads(json.dumps(check.as_dict())), key))


def test_all_that_is_found_here(tmp_path: Path) -> None:
    with translation.override("de"):
        for check in doctor.examine(tmp_path):
            for key in ("what", "why", "mend"):
                english = getattr(check, key)
                if not english or check.id in SAME or (key == "mend" and english[0].islower()):
                    continue
                assert german(check, key) != english, (check.id, key)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (works("VLAN links", "vlan: 100%"), "Nicht möglich: VLAN-Verbindungen (vlan: 100%)."),
        (
            this_host.untried(say("it was not done after %(seconds)s s", seconds=120)).what,
            "ließ sich nicht ausprobieren: nach 120 s war die Probe nicht fertig.",
        ),
        (works("pidfds", "was not tried"), "Nicht möglich: Pidfds (nicht versucht)."),
        (works("pidfds", None), "Pidfds gehen."),
    ],
)
def test_what_fails(what: str, said: str) -> None:
    check = Check(id="x", ok=False, level="info", what=what, why="Each container has users of its own.")
    with translation.override("de"):
        assert said in german(check, "what")
    with translation.override("en"):
        assert german(check, "what") == what == check.as_dict()["what"]


def test_another_firewall(tmp_path: Path) -> None:
    drop = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    (found,) = findings.blocked_chains([{"chain": drop}], ["boxbr0"])
    check = Check(id="x", ok=False, level="recommended", what=found.what, why=found.why)
    with translation.override("de"):
        assert german(check, "what").startswith("Die Kette ip filter FORWARD verwirft")
        assert "boxbr0" in german(check, "what")
        assert german(check, "why") != check.why
