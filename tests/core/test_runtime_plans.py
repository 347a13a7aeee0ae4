"""The pure half of the runtime: ids, mounts, ends, signals."""

from __future__ import annotations

import signal

import pytest

from containers.core.kernel import halt
from containers.core.model import capabilities, exits, idmap
from containers.core.plans import mount_plan
from containers.core.plans.mount_flags import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY


def targets(plan):
    return [operation.target for operation in plan]


def test_a_range_of_ids_maps_and_ends():
    ids = idmap.for_container(2**28)
    assert ids.line() == "0 268435456 65536\n"
    assert ids.to_host(65535) == 2**28 + 65535
    assert ids.to_host(65536) is None
    assert not ids.overlaps(idmap.for_container(2**28 + 65536))
    assert ids.overlaps(idmap.for_container(2**28 + 65535))


@pytest.mark.parametrize("base", [0, -1, 2**32 - 65536])
def test_a_range_never_holds_the_hosts_root_nor_leaves_the_ids(base):
    with pytest.raises(ValueError, match=r"range|ids"):
        idmap.for_container(base)


def test_the_layers_are_attached_before_the_overlay_and_in_order():
    plan = mount_plan.before_network(layers=3, upper="rootfs", work="work")
    attached = [operation.target for operation in plan if isinstance(operation, mount_plan.Attach)]
    assert attached == ["l0", "l1", "l2", "own"]
    overlay = next(op for op in plan if isinstance(op, mount_plan.Mount) and op.fstype == "overlay")
    assert overlay.data == "lowerdir=l0:l1:l2,upperdir=own/rootfs,workdir=own/work,userxattr"
    assert plan.index(overlay) > max(plan.index(op) for op in plan if isinstance(op, mount_plan.Attach))


def test_every_mount_of_proc_and_sys_refuses_devices_and_programs():
    plan = (*mount_plan.before_network(layers=1, upper="u", work="w", nesting=True), *mount_plan.after_cgroups())
    for operation in plan:
        if isinstance(operation, mount_plan.Mount) and operation.fstype in ("proc", "sysfs", "cgroup2", "mqueue"):
            assert operation.flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC) == MS_NOSUID | MS_NODEV | MS_NOEXEC


def test_sys_is_read_only_and_masks_come_after_what_they_mask():
    plan = mount_plan.before_network(layers=1, upper="u", work="w")
    sysfs = next(op for op in plan if isinstance(op, mount_plan.Mount) and op.fstype == "sysfs")
    assert sysfs.flags & MS_RDONLY
    order = targets(plan)
    for path in (*mount_plan.MASKED_FILES, *mount_plan.MASKED_DIRECTORIES, *mount_plan.READ_ONLY):
        assert order.index(path) > order.index(path.split("/", 1)[0])
    assert order.index("proc/sys/net") > order.index("proc/sys")


def test_only_nesting_shows_an_unmasked_proc():
    plain = targets(mount_plan.before_network(layers=1, upper="u", work="w"))
    nested = targets(mount_plan.before_network(layers=1, upper="u", work="w", nesting=True))
    assert "dev/.lxc/proc" not in plain
    assert "dev/.lxc/proc" in nested


def test_every_operation_tells_what_it_does():
    for operation in mount_plan.before_network(layers=2, upper="u", work="w", nesting=True):
        assert operation.target in operation.describe()


@pytest.mark.parametrize(
    ("status", "expected", "oom", "result"),
    [
        (0, None, False, ("exit", 0, None)),
        (7 << 8, None, False, ("exit", 7, None)),
        (0, "stopped", False, ("stopped", 0, None)),
        (signal.SIGINT, None, False, ("poweroff", None, 2)),
        (signal.SIGINT, "stopped", False, ("stopped", None, 2)),
        (signal.SIGHUP, None, False, ("reboot", None, 1)),
        (signal.SIGHUP, "stopped", False, ("stopped", None, 1)),
        (signal.SIGKILL, "killed", False, ("killed", None, 9)),
        (signal.SIGKILL, "killed", True, ("killed", None, 9)),
        (signal.SIGKILL, None, True, ("oom", None, 9)),
        (signal.SIGKILL, None, False, ("signal", None, 9)),
        (signal.SIGSEGV | 0x80, None, False, ("signal", None, 11)),
    ],
)
def test_an_end_is_classified(status, expected, oom, result):
    assert exits.classify(int(status), expected=expected, oom_killed=oom) == result


def status_of(*, name="init", blocked=(), caught=()):
    def mask(numbers):
        return f"{sum(1 << (number - 1) for number in numbers):016x}"

    return f"Name:\t{name}\nSigBlk:\t{mask(blocked)}\nSigIgn:\t{mask(())}\nSigCgt:\t{mask(caught)}\n"


@pytest.mark.lxc(
    "The halt signal fits the init, whichever it is", "L#2342", "D#584", "lxc.signal.halt", "systemd#34059"
)
@pytest.mark.parametrize(
    ("status", "program", "choice"),
    [
        (status_of(name="systemd", blocked=[signal.SIGRTMIN + 3]), "systemd", (signal.SIGRTMIN + 3, True)),
        (status_of(), "busybox", (signal.SIGUSR2, False)),
        (status_of(name="sh"), "busybox", None),
        (status_of(name="sh", caught=[signal.SIGTERM]), "busybox", (signal.SIGTERM, True)),
        (status_of(caught=[signal.SIGPWR, signal.SIGTERM]), "init", (signal.SIGPWR, True)),
        (status_of(name="app"), "app", None),
        # in the midst of a fork: everything is blocked, and says nothing
        (status_of(blocked=range(1, 65), caught=[signal.SIGPWR]), "init", None),
    ],
)
def test_the_halt_signal_fits_the_init(status, program, choice):
    assert halt.choose(status, program) == choice


@pytest.mark.parametrize(
    ("caught", "age_sec", "choice"),
    [
        ([signal.SIGINT], halt.TRAPS_SEC / 2, None),
        ([signal.SIGINT], halt.TRAPS_SEC * 2, (signal.SIGINT, True)),
        ([signal.SIGINT, signal.SIGTERM], halt.TRAPS_SEC / 2, (signal.SIGTERM, True)),
    ],
)
def test_a_script_has_the_time_to_set_its_traps(caught, age_sec, choice):
    assert halt.choose(status_of(name="sh", caught=caught), "busybox", age_sec) == choice


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGPWR", signal.SIGPWR), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("SIGRTMAX-1", signal.SIGRTMAX - 1), ("9", 9)],
)
def test_signals_are_named(name, number):
    assert halt.parse(name) == number


@pytest.mark.parametrize("name", ["SIGNOTHING", "SIGRTMIN+99", "SIG", "99"])
def test_signals_that_do_not_exist_are_refused(name):
    with pytest.raises(ValueError, match=r"signal|Signals"):
        halt.parse(name)


def test_a_privileged_container_has_fewer_capabilities():
    assert capabilities.kept(privileged=True) & ~capabilities.kept(privileged=False) == 0
    for name in ("sys_module", "sys_rawio", "dac_read_search"):
        assert not capabilities.kept(privileged=True) >> capabilities.NAMES.index(name) & 1


@pytest.mark.parametrize(
    ("status", "age_sec", "sure"),
    [
        ("SigBlk:\t0000000000000000\nSigCgt:\t0000000000000002\n", 0.1, True),
        ("SigBlk:\t0000000000000002\nSigCgt:\t0000000000000000\n", 0.1, True),
        ("SigBlk:\t0000000000000000\nSigCgt:\t0000000000000000\n", 0.1, False),
        ("SigBlk:\t0000000000000000\nSigCgt:\t0000000000000000\n", 11.0, True),
        ("SigBlk:\tfffffffe7ffbfeff\nSigCgt:\t0000000000000000\n", 0.1, False),
    ],
)
def test_a_configured_signal_is_sure_where_init_hears_it_or_is_old_enough(status, age_sec, sure):
    assert halt.given(signal.SIGINT, status, age_sec) == halt.Choice(signal.SIGINT, sure=sure)
