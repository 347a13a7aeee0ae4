"""One run of all measurements: `.venv/bin/python -m tests.bench [--only SECTION,...] [--rounds N] [--out FILE]`.

As root, on a quiet machine. It makes an instance of its own and removes it; it takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from . import many, pages, roots, runtimes, terminals
from .measure import FIGURES, TURNS, Table, machine, say
from .ours import Ours

MANY: Final = int(os.environ.get("BENCH_MANY", "200"))


def _life(ours: Ours, work: Path, rounds: int, table: Table) -> None:
    with runtimes.tools(ours, work, table) as found:
        runtimes.measure(ours, found, rounds, table)
    runtimes.operations(ours, work, rounds, table)


def _many(ours: Ours, work: Path, _rounds: int, table: Table) -> None:
    with runtimes.tools(ours, work, table) as found:
        took = many.start_in_a_row(ours, found, MANY, table)
    with runtimes.lxd(ours, work) as tool:
        if tool is not None:
            many.beside_lxd(tool, MANY, took, table)
    many.memory(ours, MANY, table)
    many.watching(ours, MANY, table)
    many.clear(ours, MANY, table)


Section = Callable[[Ours, Path, int, Table], None]
SECTIONS: Final[dict[str, tuple[str, tuple[str, ...], Section]]] = {
    "life": ("One container", TURNS, _life),
    "terminal": ("Web terminals", FIGURES, terminals.measure),
    "pages": (
        "The containers page, cold in Chromium",
        FIGURES,
        lambda ours, _work, _n, table: pages.measure(ours, table),
    ),
    "many": (f"{MANY} containers", FIGURES, _many),
    "roots": ("A root of 1 GB and 30 000 files", TURNS, roots.measure),
    "lists": (
        f"{roots.LISTED} containers with {roots.POINTS} snapshots each",
        FIGURES,
        lambda ours, _work, _n, table: roots.lists(ours, table),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables as Markdown. The exit status is the number of sections that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"which of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of each measurement")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("run it as root")
    if unknown := set(options.only.split(",")) - set(SECTIONS):
        parser.error(f"--only: there is no {', '.join(unknown)}")
    # whoever ends it gets the tables that there are, and nothing is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, about, failed = time.monotonic(), machine(), 0
    tables: list[Table] = []
    with tempfile.TemporaryDirectory(prefix="boxroom-bench-") as scratch:
        work = Path(scratch)
        work.chmod(0o711)
        ours = Ours()
        try:
            for name in options.only.split(","):
                title, columns, measure = SECTIONS[name]
                tables.append(Table(title, columns))
                try:
                    measure(ours, work, options.rounds, tables[-1])
                except KeyboardInterrupt:
                    tables[-1].notes.append("Interrupted.")
                    break
                except Exception:  # noqa: BLE001 - one section that fails takes no other with it
                    failed += 1
                    tables[-1].notes.append("It failed on the way: see the messages.")
                    traceback.print_exc()
        finally:
            ours.close()
    about += f"; load after: {os.getloadavg()[0]:.1f}; {time.monotonic() - began:.0f} s for all"
    text = "\n".join([about + "\n", *(table.markdown() for table in tables)])
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text)
    say("done")
    return failed


if __name__ == "__main__":
    sys.exit(main())
