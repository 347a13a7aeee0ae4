"""A test that waits, to be ended from outside: test_nursery.py runs it in a pytest of its own."""

from __future__ import annotations

import os
import signal

from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.spec import Spec


def test_that_waits_to_be_ended(host: Host, running_container: Spec) -> None:
    launcher = host.__dict__["test_launcher"].process.pid
    init_pid = running.observe(host)[running_container.id].init_pid
    with open(os.environ["BOXROOM_TEST_TOLD"], "w") as file:
        file.write(f"{host.state_dir} {host.run_dir} {launcher} {init_pid}\n")
    signal.pause()
