"""Any file of a container's own cgroup, as the kernel gives it: what nothing else here has a word for."""

from __future__ import annotations

import errno
from typing import Final

from ..errors import NotFound
from ..model.limits import check_file
from ..sentences import say
from .base import Cgroups

MAX_BYTES: Final = 256 * 1024
_UNREADABLE: Final = (errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def read(groups: Cgroups, container_id: str, file: str) -> str:
    """Return the text of a file of the cgroup where the container's limits are, at most MAX_BYTES of it.

    file: as in limits.check_file, by the names of this host's cgroup version; on v1 what no v1 controller has is
    looked for in the cgroup2 tree (cgroup.events, cpu.pressure). Raises SpecError, and NotFound, whose field is
    ``file`` where the container runs and has no such file, or none to read.
    """
    check_file(file)
    for place in groups.places(container_id, file.partition(".")[0]):
        try:
            with open(place / file, "rb") as opened:
                return opened.read(MAX_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in _UNREADABLE:
                raise NotFound(
                    say("%(file)s is there to be written, not to be read.", file=file), field="file"
                ) from error
            if error.errno != errno.ENODEV:
                raise
    if not groups.container_tree(container_id).exists():
        raise NotFound("The container has no cgroup: it does not run.")
    raise NotFound(
        say("The container's cgroup has no file %(file)s (cgroup v%(version)s).", file=file, version=groups.version),
        field="file",
    )
