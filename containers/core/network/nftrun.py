"""Running nftables: JSON in, JSON out, one transaction for each call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from ..errors import HostUnsupported, SetupFailed
from ..kernel.rtnetlink import in_netns
from ..sentences import say
from . import nfnetlink
from .ruleset import Json

TIMEOUT_SEC: Final = 60
CRASHES: Final = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
CRASHED: Final = "nft crashed: a table that another program has made on this host is too new for it. Update nftables."
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class Transaction:
    """An `nft` that works beside the caller; wait() before anything depends on it.

    Raises HostUnsupported where nft is not installed.
    """

    def __init__(self, commands: Sequence[Json]) -> None:
        text_fd = os.memfd_create("nft", os.MFD_CLOEXEC)
        try:
            with open(text_fd, "wb", closefd=False) as text:
                text.write(json.dumps({"nftables": list(commands)}).encode())
            os.lseek(text_fd, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                ["nft", "-j", "-f", "-"],
                stdin=text_fd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
            )
        except FileNotFoundError:
            raise HostUnsupported("nft is not installed: apt install nftables.", feature="nftables") from None
        finally:
            os.close(text_fd)

    def wait(self) -> bool:
        """Return when the kernel has taken it; False where nft has crashed instead.

        Raises SetupFailed with nft's words. Either way nothing was changed then.
        """
        _out, errors = _said(self._process)
        if self._process.returncode in CRASHES:
            return False
        if self._process.returncode:
            words = errors.decode(errors="replace").strip() or f"no word, exit code {self._process.returncode}"
            raise SetupFailed(
                say("nft refused the packet filter: %(words)s", words=words), step="packet filter", console=words
            )
        return True


def _said(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Wait for an nft, and return what it wrote; raises SetupFailed where it does not end."""
    try:
        return process.communicate(timeout=TIMEOUT_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise SetupFailed(
            say("nft did not end within %(seconds)s s.", seconds=TIMEOUT_SEC), step="packet filter"
        ) from None


def run(commands: Sequence[Json]) -> None:
    """Apply the commands in one transaction; raises SetupFailed with nft's words."""
    if Transaction(commands).wait():
        return
    _run_apart(commands)


def _run_apart(commands: Sequence[Json]) -> None:
    """Apply the commands where nft sees our tables alone, and put what came of them in place, in one transaction.

    For an nft that a table of somebody else's is too new for: it ends by a signal before it has done anything.
    """
    tables = _tables_of(commands)
    if not all(family in nfnetlink.FAMILIES for family, _name in tables):
        raise SetupFailed(CRASHED, step="packet filter")
    try:
        with nfnetlink.connect() as here, nfnetlink.scratch() as apart_fd, nfnetlink.connect(apart_fd) as there:
            seen = nfnetlink.generation()
            nfnetlink.commit(there, [one for table in tables for one in nfnetlink.contents(here, *table)])
            with in_netns(apart_fd):
                apart = Transaction(commands)
            if not apart.wait():
                raise SetupFailed(CRASHED, step="packet filter")
            after = [one for table in tables for one in nfnetlink.contents(there, *table)]
            nfnetlink.commit(here, [*(one for table in tables for one in nfnetlink.gone(*table)), *after], seen=seen)
    except OSError as error:
        raise SetupFailed.from_oserror("packet filter", error) from error


def _tables_of(commands: Sequence[Json]) -> list[tuple[str, str]]:
    """Return the (family, name) of every table that commands change."""
    found = set()
    for command in commands:
        (objects,) = command.values()
        for kind, values in objects.items():
            found.add((values["family"], values["name" if kind == "table" else "table"]))
    return sorted(found)


class Listing:
    """An `nft list` that works beside the caller."""

    def __init__(self, *what: str) -> None:
        try:
            self._process = subprocess.Popen(
                ["nft", "-j", "list", *what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
            )
        except FileNotFoundError:
            raise HostUnsupported("nft is not installed: apt install nftables.", feature="nftables") from None

    def entries(self) -> list[Json]:
        """Return what it said, without the header; empty where there is no such table or set.

        Raises SetupFailed where nft has crashed.
        """
        out, _errors = _said(self._process)
        if self._process.returncode in CRASHES:
            raise SetupFailed(CRASHED, step="packet filter")
        if self._process.returncode:
            return []
        objects: list[Json] = json.loads(out)["nftables"]
        return [entry for entry in objects if "metainfo" not in entry]


def listing(*what: str) -> list[Json]:
    """Return what `nft -j list WHAT` says, without the header; empty where there is no such table or set."""
    return Listing(*what).entries()
