"""System call profiles of the host's administrator, compiled for a start that uses one. For the worker."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from ..errors import SetupFailed
from ..host import Host
from ..hoststore.rootfiles import read_own
from ..proc import seccomp_files
from ..sentences import say

_CORE: Final = Path(__file__).parents[1]
_STEP: Final = "compile the system call profile"
_COMPILE_SEC: Final = 120.0


def compiled(host: Host, name: str, *, instead: bool, nesting: bool, keyctl: bool) -> str:
    """Return the file's name, in the run directory, of an administrator's profile; it is compiled when it has changed.

    Raises SetupFailed with the profile's path: it is missing, not root's, or cannot be compiled.
    """
    source = host.seccomp_dir / name
    text = read_own(host.seccomp_dir, name, step=_STEP)
    wanted = {"text": text, "instead": instead, "nesting": nesting, "keyctl": keyctl}
    # of a program that was changed, too: an instance may outlive an update of the panel
    stamp = [os.stat(_CORE / one).st_mtime_ns for one in ("kernel/seccomp.py", "plans/seccomp_profile.py")]
    digest = hashlib.sha256(json.dumps([wanted, stamp], sort_keys=True).encode()).hexdigest()[:32]
    target = host.run_dir / f"seccomp-{digest}.bpf"
    if not target.exists():
        command = [os.path.realpath(sys.executable), "-I", "-S", str(_CORE / "proc/compiling.py")]
        try:
            done = subprocess.run(
                command, input=json.dumps(wanted).encode(), capture_output=True, timeout=_COMPILE_SEC, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupFailed(
                say("It could not be compiled: %(error)s", error=error), step=_STEP, path=str(source)
            ) from error
        if done.returncode:
            message = done.stderr.decode(errors="replace").strip()[-500:]
            raise SetupFailed(message or "The compiler ended early.", step=_STEP, path=str(source))
        seccomp_files.write(target, done.stdout)
    return target.name
