"""The host goes down: containers end in the opposite order of their starting, in the time that there is."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from containers.core.hoststore import store
from containers.core.kernel import halt
from containers.core.lifecycle import hostdown, running
from containers.core.model.spec import Boot
from containers.core.model.states import Status
from containers.core.proc import records
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until

TERM = halt.Choice(signal.SIGTERM, sure=True)


def begin(host, container, order, **changes):
    """Start a container whose place in the order is given, and wait until its init can be asked to end."""
    spec = replace(container(**changes), boot=Boot(order=order))
    store.save(host, spec)
    state = running.start(host, spec, network=NoNetwork())
    wait_until(lambda: halt.choose_for(state.init_pid) == TERM, what="init catches SIGTERM")
    return spec


@pytest.mark.lxc("The last that was started is halted first where the host goes down", "L#465", "lxc-autostart")
def test_the_highest_order_is_halted_first_and_equal_ones_together(host, container):
    first, last, beside = (begin(host, container, order) for order in (-5, 7, 7))
    gone = []
    for line in hostdown.halt_all(host, timeout_sec=patient(120)):
        seen = running.observe(host)
        gone.append({spec.id for spec in (first, last, beside) if seen[spec.id].status is Status.STOPPED})
        assert line.startswith("Halted: ")
        assert "not in time" not in line
    assert gone == [{last.id, beside.id}, {first.id, last.id, beside.id}]
    assert {records.read_last_exit(host, spec.id).reason for spec in (first, last, beside)} == {"host-reboot"}
    assert list(hostdown.halt_all(host, timeout_sec=1)) == []


def test_a_frozen_one_is_halted_too(host, container):
    spec = begin(host, container, 0)
    running.freeze(host, spec.id)
    assert list(hostdown.halt_all(host, timeout_sec=patient(120))) == [f"Halted: {spec.name}"]
    assert records.read_last_exit(host, spec.id).reason == "host-reboot"


def test_who_does_not_end_holds_the_others_up_no_longer_than_the_time_that_is_given(host, container):
    deaf = ("/bin/sh", "-c", "trap 'ended=1' TERM; while :; do sleep 0.1; done")
    stuck, other = begin(host, container, 3, init_command=deaf), begin(host, container, 1)
    lines = list(hostdown.halt_all(host, timeout_sec=0.3))  # comes back, though it never ends by itself
    assert lines[0] == f"Halted: {stuck.name}; not in time: {stuck.name}"
    wait_until(lambda: RunFile.read(host.run_path(other.id)) is None, what="the other was asked all the same")
    assert records.read_last_exit(host, other.id).reason == "host-reboot"
    running.stop(host, stuck.id, kill=True)
