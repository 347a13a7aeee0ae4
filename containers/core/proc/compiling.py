"""Compiles an administrator's system call profile in a process of its own, for what libseccomp allocates.

``python -I -S compiling.py``: reads {"text", "instead", "nesting", "keyctl"} as JSON, writes what load_seccomp takes.
"""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.errors import SpecError
from containers.core.kernel import seccomp
from containers.core.kernel.syscalls import pack_filters
from containers.core.plans import seccomp_profile


def main() -> int:
    """Compile what stands on standard input; returns the exit status, and says on standard error what is wrong."""
    wanted = json.load(sys.stdin)
    try:
        programs = seccomp.compile_profile(
            nesting=wanted["nesting"],
            keyctl=wanted["keyctl"],
            custom=seccomp_profile.parse(wanted["text"]),
            instead=wanted["instead"],
        )
    except SpecError as error:
        sys.stderr.write(error.message)
        return 1
    except OSError as error:
        sys.stderr.write(f"libseccomp does not take it: {error.strerror or error}")
        return 1
    sys.stdout.buffer.write(pack_filters(programs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
