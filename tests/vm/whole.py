"""The whole panel on cgroup v2. By hand, as root: `python3 -m tests.vm.whole [--no-ipv6] [--one-cpu] [TESTS]`.

Not part of the suite: under software emulation the first `up` alone takes minutes, and the main job another ten. The
machine is the one of the kernel's tests (tests/vm/machine.py), so this needs their environment: run it with
`.venv/bin/python` once `manage.py test` has made that. TESTS are words for pytest; none that uses a browser can run.

--no-ipv6 boots with `ipv6.disable=1`, --one-cpu with `maxcpus=1`.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from .test_cgroup2 import boot

MAIN_JOB: Final = "tests/e2e/test_main_job.py"
TIMEOUT_SEC: Final = 7200.0


def main() -> int:
    """Return 0 where all tests passed in there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tests", nargs="*", default=[MAIN_JOB])
    parser.add_argument("--no-ipv6", action="store_true")
    parser.add_argument("--one-cpu", action="store_true")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("This needs root.")
    arguments = " ".join(["ipv6.disable=1"] * asked.no_ipv6 + ["maxcpus=1"] * asked.one_cpu)
    ended = boot(" ".join(asked.tests), 10, timeout_sec=TIMEOUT_SEC, kernel_arguments=arguments)
    for test in ended.collected:
        sys.stdout.write(f"{ended.seconds(test):8.1f} s  {test}\n")
    if ended.status:
        sys.stdout.write(f"{ended.failures()}\n")
    return int(bool(ended.status))


if __name__ == "__main__":
    sys.exit(main())
