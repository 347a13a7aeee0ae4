"""The copy of the code that the web process runs: readable whatever the clone's modes are, compiled beforehand."""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

from containers.core.host import Host

PARTS: Final = ("containers", "locale", "panel", "static", "templates", "manage.py")
"""What of the clone the web process needs to read."""
_STAMP: Final = ".digest"


def digest(project: Path) -> str:
    """Return a digest of the code's names, sizes and times, and of the pinned packages: the same as long as they are.

    Takes some milliseconds: no content is read but requirements.txt's.
    """
    seen = hashlib.sha256((project / "requirements.txt").read_bytes())
    for path in _files(project):
        status = os.stat(path)
        seen.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _files(project: Path) -> Iterator[str]:
    for part in PARTS:
        path = project / part
        if path.is_file():
            yield str(path)
        for directory, names, files in os.walk(path):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                yield os.path.join(directory, name)


def copy(host: Host, project: Path) -> Path:
    """Copy the code into the run directory and compile it, unless what is there is the same; return where it is."""
    target, wanted = host.run_dir / "app", digest(project)
    stamp = target / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return target
    fresh = host.run_dir / "app.new"
    shutil.rmtree(fresh, ignore_errors=True)
    old = os.umask(0o022)
    try:
        fresh.mkdir()
        for part in PARTS:
            source = project / part
            if source.is_dir():
                shutil.copytree(source, fresh / part, copy_function=shutil.copyfile,
                                ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
            elif source.exists():
                shutil.copyfile(source, fresh / part)
        for directory, _names, _files in os.walk(fresh):
            Path(directory).chmod(0o755)
        # nobody but root writes here, and root only whole: the compiled files need no look at their sources
        compileall.compile_dir(fresh, quiet=2, stripdir=str(fresh), prependdir=str(target),
                               invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)  # fmt: skip
        (fresh / _STAMP).write_text(wanted)
    finally:
        os.umask(old)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target
