"""Launchers of the emulated machine's tests are where the tests are, as if each had been run by itself."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from containers.core.host import Host
from containers.core.plans.start_plan import TITLE_ROOM

from .netns import Place, set_netns
from .nursery import Forked, Nursery
from .patience import wait_until


def test_a_launcher_is_in_the_network_of_the_thread_that_asked_for_it(host: Host) -> None:
    host.__dict__["test_launcher"].stop()
    socket = Path(host.launcher_socket)
    socket.unlink(missing_ok=True)
    nursery, place = Nursery(TITLE_ROOM), Place()

    def launch() -> Forked:
        set_netns(place.netns_fd)
        made = nursery.fork(host.state_dir, {"PATH": os.environ["PATH"]})
        wait_until(socket.exists, what="the launcher listens")
        return made

    try:
        with ThreadPoolExecutor(1) as pool:
            launcher = pool.submit(launch).result()
        assert os.stat(f"/proc/{launcher.pid}/ns/net").st_ino == os.fstat(place.netns_fd).st_ino
        launcher.terminate()
        launcher.wait(60)
    finally:
        nursery.close()
        place.close()
