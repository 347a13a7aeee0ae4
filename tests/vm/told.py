"""What the machine told of its tests, and what that means for each of them."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any, Final

NO_STATUS, LATE, NOT_BOOTED = -1, -2, -3
HOW: Final = {
    NO_STATUS: "the machine ended by itself",
    LATE: "the machine's time was over",
    NOT_BOOTED: "the machine could not be booted",
}
PHASES: Final = ("setup", "call", "teardown")
CONSOLE_LINES: Final = 40
"""How much of a console is shown where the machine did not come to its end."""


@dataclass(frozen=True)
class Ended:
    """A machine that has ended. status: of what it ran, or one of HOW.

    console: what was printed. told: the lines that tests/vm/telling.py wrote; the last one may be cut off.
    """

    status: int
    console: str
    told: str

    @functools.cached_property
    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.told.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"cut": line})
        return found

    @functools.cached_property
    def collected(self) -> list[str]:
        """The tests that pytest found in there, by their ids."""
        return [name for line in self._lines for name in line.get("collected", ())]

    @functools.cached_property
    def _reports(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self._lines:
            if "test" in line:
                found.setdefault(line["test"], []).append(line)
        return found

    def seconds(self, test: str) -> float:
        """How long a test took by the machine's own clock, with what was arranged for it and cleared away."""
        return float(sum(line["sec"] for line in self._reports.get(test, ())))

    def wrong(self, function: str) -> str:
        """Say what is wrong with a function's tests; empty where nothing is. function: an id without parameters."""
        tests = [name for name in self.collected if name.partition("[")[0] == function]
        if not tests:
            return f"it was not found in the machine: {self.how()}"
        return "\n\n".join(filter(None, map(self._wrong, tests)))

    def _wrong(self, test: str) -> str:
        reports = self._reports.get(test, [])
        bad = [line for line in reports if line["outcome"] != "passed"]
        if bad:
            # what it is about stands first: this is the line that a list of what failed shows
            last = next((line[1:].strip() for line in bad[0]["text"].splitlines() if line.startswith("E ")), "")
            texts = [f"{line['when']} {line['outcome']}:\n{line['text']}" for line in bad]
            return "\n".join([f"{last or bad[0]['outcome']} ({test})", *texts])
        if [line["when"] for line in reports] == list(PHASES):
            return ""
        if any(line.get("begins") == test for line in self._lines):
            return f"it did not end ({test}): {self.end()}"
        return f"it was not begun ({test}): {self.how()}"

    def failures(self) -> str:
        """Say everything that is wrong, one test after the other."""
        functions = dict.fromkeys(name.partition("[")[0] for name in self.collected)
        return "\n\n".join(filter(None, map(self.wrong, functions))) or self.end()

    def how(self) -> str:
        """Say in a line how the machine ended."""
        words = [HOW.get(self.status, f"the exit status in there was {self.status}")]
        begun = [line["begins"] for line in self._lines if "begins" in line]
        if self.status in HOW and begun:
            words.append(f"in {begun[-1]}")
        words += re.findall(r"Kernel panic.*", self.console)[-1:]
        return ", ".join(words)

    def end(self) -> str:
        """Say how the machine ended, and what it printed last."""
        uncollected = [f"{line['uncollected']}: {line['text']}" for line in self._lines if "uncollected" in line]
        return "\n".join([self.how(), *uncollected, "Its console:", *self.console.splitlines()[-CONSOLE_LINES:]])
