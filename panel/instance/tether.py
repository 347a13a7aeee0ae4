"""Become a command that ends with its parent, optionally as another user who sees a few directories elsewhere.

    tether.py OPTIONS COMMAND [ARGUMENT ...]        OPTIONS: a JSON object, {} for none

Options: uid, gid (numbers; all other groups are dropped), binds: [[source, target], ...] (read-write),
read_only_binds. Binds are made in a mount namespace of the command's own, so a clone under /root and a state directory
anywhere can be read by an unprivileged process without changing a mode on disk.

prctl(PR_SET_PDEATHSIG) must be called in the child, after the last change of user (which clears it), and no Python may
run between fork and exec in a threaded parent: so this small program is exec'ed, does it, and execs the command.
Sources: prctl(2), mount(2), unshare(2).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from containers.core.kernel import syscalls
from containers.core.plans import mount_flags as flags


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Bind source on target, without set-uid programs and devices."""
    syscalls.mount(source, target, None, flags.MS_BIND | flags.MS_REC, None)
    kept = flags.MS_NOSUID | flags.MS_NODEV | (flags.MS_RDONLY if read_only else 0)
    syscalls.mount(None, target, None, flags.MS_BIND | flags.MS_REMOUNT | kept, None)


def main() -> None:
    """Do what the options say, arm the signal, look once whether the parent is gone already, become the command."""
    parent = os.getppid()
    options = json.loads(sys.argv[1])
    command = sys.argv[2:]
    pairs = [(*pair, False) for pair in options.get("binds", ())]
    pairs += [(*pair, True) for pair in options.get("read_only_binds", ())]
    if pairs:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        # what the host unmounts is unmounted here too: this process pins no disk
        syscalls.mount(None, "/", None, flags.MS_REC | flags.MS_SLAVE, None)
        for source, target, read_only in pairs:
            bind(source, target, read_only=read_only)
    if "uid" in options:
        os.setgroups([])
        os.setresgid(options["gid"], options["gid"], options["gid"])
        os.setresuid(options["uid"], options["uid"], options["uid"])
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvpe(command[0], command, os.environ)


if __name__ == "__main__":
    main()
