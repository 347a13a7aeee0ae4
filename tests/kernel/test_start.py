"""Starting, stopping and ending, seen from outside."""

from __future__ import annotations

import os
from pathlib import Path

from containers.core.lifecycle import running
from containers.core.states import Status

from .conftest import NoNetwork


def test_a_started_container_runs_in_its_own_id_range(host, container):
    spec = container()
    state = running.start(host, spec, network=NoNetwork())
    seen = running.observe(host)[spec.id]
    assert (seen.status, seen.init_pid) == (Status.RUNNING, state.init_pid)
    assert os.stat(f"/proc/{state.init_pid}").st_uid >= 2**28
    last = running.stop(host, spec.id, timeout_sec=5)
    assert (last.reason, last.exit_code) == ("stopped", 0)
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert not Path(f"/proc/{state.init_pid}").exists()
