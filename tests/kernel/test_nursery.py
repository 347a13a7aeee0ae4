"""Launchers of the emulated machine's tests are where the tests are, as if each had been run by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from containers.core.host import Host
from containers.core.hoststore import store
from containers.core.lifecycle import running
from containers.core.plans.start_plan import TITLE_ROOM

from .conftest import PROJECT, clear_away
from .netns import Place, set_netns
from .nursery import Forked, Nursery
from .patience import patient, wait_until


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


@pytest.mark.parametrize("warm", ["0", "1"], ids=["of its own", "of the nursery"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_launcher(tmp_path: Path, number: signal.Signals, warm: str) -> None:
    told = tmp_path / "told"
    environment = {**os.environ, "BOXROOM_TEST_WARM": warm, "BOXROOM_TEST_TOLD": str(told)}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent / "interrupted.py"),
    ]
    with subprocess.Popen(words, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as run:
        try:
            wait_until(lambda: run.poll() is not None or (told.exists() and told.read_text()), what="its test waits")
            state_dir, run_dir, *pids = told.read_text().split()
            run.send_signal(number)
            launcher, init = (Path("/proc") / pid for pid in pids)
            wait_until(lambda: not launcher.exists(), what="the launcher ends")
            assert run.wait(patient(60)) == (2 if number == signal.SIGTERM else -number)
        finally:
            run.kill()
    if number == signal.SIGTERM:
        assert [path for path in (Path(state_dir), Path(run_dir), init) if path.exists()] == []
        return
    # nothing was left that could clear it away
    host = Host.open(state_dir)
    for container_id in store.container_ids(host):
        running.stop(host, container_id, kill=True)
    clear_away(host)
