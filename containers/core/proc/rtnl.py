"""What a supervisor does to its container's links: deletes them, and moves them over at a reboot."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from ..host import Host
from ..kernel import rtnetlink
from ..model.nics import Nic
from ..network import inside, lending
from ..plans.start_plan import StartPlan


def delete_link(name: str) -> bool:
    """Delete a link of this network namespace; returns False where there is none. Takes about 20 ms."""
    with rtnetlink.connect() as sock:
        return rtnetlink.delete(sock, name)


class Unlinking:
    """Deletes links beside what else is to be done at a container's end: the kernel mostly waits while it does.

    clear_away() finds what could not be deleted, and tells of it.
    """

    def __init__(self) -> None:
        self._ended: _thread.LockType | None = None

    def begin_when_over(self, links: Sequence[str], init_pidfd: int) -> None:
        """Begin where init, a child of this process, has ended for good; it stays to be reaped."""
        if not links or self._ended is not None:
            return
        with contextlib.suppress(ChildProcessError):
            over = os.waitid(os.P_PIDFD, init_pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # by SIGHUP the kernel ends one that boots again, and its links move over (see model.exits.classify)
            if over is None or (over.si_code != os.CLD_EXITED and over.si_status == signal.SIGHUP):
                return
            self._ended = _thread.allocate_lock()
            self._ended.acquire()
            try:
                _thread.start_new_thread(self._delete, (tuple(links), self._ended))
            except RuntimeError:  # no more threads: it is done in its turn
                self._ended.release()

    @staticmethod
    def _delete(links: Sequence[str], ended: _thread.LockType) -> None:
        try:
            for name in links:
                with contextlib.suppress(OSError):
                    delete_link(name)
        finally:
            ended.release()

    def wait(self) -> None:
        """Wait until all have been tried."""
        if self._ended is not None:
            self._ended.acquire()
            self._ended = None


def clear_away(host: Host, container_id: str, nics: tuple[Nic, ...], placed: dict[int, int], netns_fd: int) -> None:
    """Take away what a container that has ended had on the host, and give back what it was lent.

    placed: the numbers of links inside that would stay until the kernel clears their namespace away. netns_fd: that
    namespace, -1 where it is closed. What cannot be done is told in the log, and left to the reconciler.
    """
    for nic in nics:
        if nic.host_link:
            try:
                delete_link(nic.host_link)
            except OSError as error:
                _log(f"link {nic.host_link} stays: {error}")
    if placed and netns_fd >= 0:
        try:
            with rtnetlink.connect(netns_fd) as there:
                for index in placed.values():
                    rtnetlink.delete(there, index=index)
        except OSError as error:
            _log(f"links of {container_id} are left to the kernel: {error}")
    try:
        lending.tell(container_id, lending.give_back(host, container_id))
    except OSError as error:
        _log(f"what {container_id} was lent is not given back yet: {error}")


def move_over(plan: StartPlan, placed: dict[int, int], old_fd: int, new_fd: int) -> dict[int, int]:
    """Move every NIC to a container's new network namespace, under its name and address; borrows both descriptors.

    Links arrive down and without addresses; what is ours to configure is configured again. Returns placed as it is now.
    """
    nics = {nic.index: nic for nic in plan.spec.nics}
    now: dict[int, int] = {}
    with rtnetlink.connect(old_fd) as old, rtnetlink.connect() as here, rtnetlink.connect(new_fd) as new:
        for nic in nics.values():
            index = placed.get(nic.index, 0)
            if nic.host_link:
                outside = rtnetlink.find(here, nic.host_link)
                index = outside.peer if outside else 0
            if index and nic.type != "phys":
                rtnetlink.change(
                    old, index, netns_fd=new_fd, name=nic.name, mac=nic.mac if nic.type != "ipvlan" else ""
                )
        lending.move_on(plan.host, plan.spec.id, old_fd, new_fd, {nic.index: nic.name for nic in nics.values()})
        for nic in nics.values():
            found = rtnetlink.find(new, nic.name)
            if found is None:
                continue
            if nic.index in placed:
                now[nic.index] = found.index
            if nic.mac and nic.type == "phys":
                rtnetlink.change(new, found.index, mac=nic.mac)
            if inside.is_set(nic):
                inside.configure(new, nic, found.index)
    return now


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the log
