"""What somebody chose to write to a cgroup, and what there is to be limited: for both versions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import SpecError
from ..plans.cgroup_files import Write, former
from .places import read_file, write_file


def page_sizes(path: Path) -> tuple[str, ...]:
    """Return the sizes of huge pages that a cgroup's directory has a limit for."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return ()
    found = {name.split(".")[1] for name in names if name.startswith("hugetlb.") and "rsvd" not in name}
    return tuple(sorted(found))


@contextlib.contextmanager
def all_or_none(done: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Write former values back, the last first, where not all could be written. done: (file, former value) by then."""
    try:
        yield
    except BaseException as error:
        for file, old in reversed(done):
            try:
                write_file(file, old)
            except OSError as failed:
                error.add_note(f"undo failed: {failed}")
        raise


def write_raw(write: Write, path: str, done: list[tuple[str, str]]) -> None:
    """Write what somebody chose to a file of their choice; done gets the file, with its old value, where it has one.

    Raises SpecError where this host has no such file, or where the kernel does not take the value.
    """
    old = None
    with contextlib.suppress(OSError):
        old = read_file(path)
    try:
        write_file(path, write.value)
    except OSError as error:
        # creating files is not for anybody: in a cgroup a missing one is EACCES or EPERM
        missing = old is None and not os.path.exists(path)
        reason = "this host has no such file" if missing else os.strerror(error.errno or 0)
        text = f"{write.file}: {write.value!r} is not taken: {reason}."
        raise SpecError(text, field=f"limits.cgroup.{write.file}") from error
    if old is not None and (undone := former(write, old)) is not None:
        done.append((path, undone))
