"""What a starter does while it waits for its request: it goes through a start that nobody has asked for.

After a fork every page that is touched for the first time costs microseconds, and a start touches a thousand: those are
a process's own already when it is asked. Nothing of it is seen outside of this process.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Final

from ..cgroups.base import Cgroups
from ..cgroups.places import write_file
from ..host import Host
from ..kernel.pids import boot_id
from ..kernel.script import Script
from ..model.nics import Nic
from ..model.spec import Limits, Spec
from ..plans.start_plan import StartPlan
from . import child_plan, messages, records, seccomp_files, setup, spawn
from .handing import Keeper
from .records import Process
from .starting import Starter, take_nics

_ID: Final = "000000000000"


def sample(host: Host) -> str:
    """Return the plan of a start as most are, as JSON text."""
    limits = Limits(memory_bytes=2**26, cpus=1, pids=100)
    nic = Nic(name="eth0", network="default", bridge="b", host_link="v", mac="02:00:00:00:00:01", ipv4="192.0.2.2/24")
    spec = Spec(
        id=_ID, name="a", project="default", slot=0, image="i", layers=("l",), machine_id="0" * 32, created_at="",
        limits=limits, nics=(nic,),
    )  # fmt: skip
    plan = StartPlan(
        state_dir=str(host.state_dir), instance=host.instance, spec=spec, id_base=2**16, lowers=("/l",), upper="/c/u",
        work="/c/w",
    )  # fmt: skip
    return plan.to_json()


def rehearse(cgroups: Cgroups, text: str) -> None:
    """Do what a start does up to where others would see it. text: as sample() returned it. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with ours, theirs:
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        messages.send(ours, {"cmd": "start"}, (null_fd,))
        os.close(null_fd)
        _, (fd,) = messages.receive(theirs, fds_max=1)
        with open(fd, "rb") as file:
            file.read().decode()
        plan = StartPlan.from_json(text)
        starter = Starter(plan, cgroups, Keeper(ours, os.getppid()), text)
        try:
            _go_through(starter, ours)
        finally:
            starter.close()


def _go_through(starter: Starter, connection: socket.socket) -> None:
    plan = starter.plan
    starter.hooks.run("pre-start")
    birth = starter.cgroups.birth(_ID, privileged=False)
    bpf = seccomp_files.contents(starter.filter_fd)
    setup.compose(Script(), child_plan.of(plan, bpf, birth.tasks), connection.fileno(), ())
    spawn.Equipment(plan)
    child = spawn.Child(pid=os.getpid(), pidfd=-1, connection=connection)
    child.patience_sec = starter.hooks.patience_sec()
    for name in ("uid_map", "gid_map"):
        write_file("/dev/null", f"/proc/{child.pid}/{name}")
    Process.of(child.pid)
    boot_id()
    records.now()
    take_nics(plan, {}, {})
    json.dumps({"type": "finish"})
