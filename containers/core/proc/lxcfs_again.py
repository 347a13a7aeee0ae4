"""Puts lxcfs over a running container's files anew, or takes it away, after lxcfs itself ended or was started again.

``python -I -S lxcfs_again.py INIT_PIDFD INIT_PID PLACE``, as root, as a process of its own; PLACE "" takes it away.
Where lxcfs has ended, what it showed answers "Transport endpoint is not connected"; beneath lies what the kernel shows.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from containers.core.kernel import mount_api
from containers.core.kernel.syscalls import CLONE_NEWNS, CLONE_NEWUSER, MNT_DETACH, open_tree, setns, umount
from containers.core.plans import lxcfs

_TOP = mount_api.RESOLVE_IN_ROOT | mount_api.RESOLVE_NO_SYMLINKS | mount_api.RESOLVE_NO_MAGICLINKS


def _there(mounts_fd: int) -> list[str]:
    """Return where the container has lxcfs mounted: those of our places that are, once for each time."""
    os.lseek(mounts_fd, 0, os.SEEK_SET)
    data = b""
    while more := os.read(mounts_fd, 65536):
        data += more
    places = {f"/{path}" for path in lxcfs.targets()}
    found = []
    for line in data.decode(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("fuse.lxcfs ") and left.split(" ")[4] in places:
            found.append(left.split(" ")[4])
    return found


def main(pidfd: int, pid: int, place: str) -> None:
    """Do it. Raises OSError; ProcessLookupError where the container has ended."""
    mounts_fd = os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    signal.pidfd_send_signal(pidfd, 0)
    own_users = os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    copies: dict[str, int] = {}
    for path in lxcfs.targets() if place else ():
        with contextlib.suppress(OSError):
            copies[path] = open_tree(f"{place}/{path}")
    if own_users:
        os.setgroups([])
    setns(pidfd, CLONE_NEWNS | (CLONE_NEWUSER if own_users else 0))
    if own_users:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    for target in _there(mounts_fd):
        with contextlib.suppress(OSError):
            umount(target, MNT_DETACH | mount_api.UMOUNT_NOFOLLOW)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for path, mount_fd in copies.items():
        with contextlib.suppress(OSError):
            mount_api.attach(mount_fd, mount_api.open_path(root_fd, path, _TOP))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
