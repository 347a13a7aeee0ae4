"""The kernel's tests once more, on a machine with cgroup v2 only (this host may have the v1-hybrid layout)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from containers.core.errors import CoreError

from .. import debian, packages
from . import machine
from .told import NOT_BOOTED, Ended

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT_SEC = 5400
SYSTEMS_TIMEOUT_SEC = 10800
PREPARING_SEC = 3600
"""What is downloaded and built before the machine boots, where that was never done and the mirror is slow."""
SYSTEMS = "tests/kernel/test_distributions.py"
WHOLE = "cgroups handing_over reboot start systemd"
"""The files that have to do with cgroups and processes; storage, images and networks are the same on both versions."""

SOME = {
    "attachments": (
        "what_was_added_is_there_after_a_reboot_inside a_device_can_be_used_while_it_is_given "
        "a_privileged_container_may_open_only_what_it_is_given what_is_no_device_is_not_given "
        "a_change_that_a_file_system_inside_holds_up_is_given_up_and_taken_back "
        "owners_are_the_same_inside_and_on_the_host read_only_stays_read_only_for_root_inside "
        "shares_come_and_go_while_it_runs"
    ),
    "confinement": (
        "a_profile_of_lxcs_holds_by_every_way_into_the_kernel keys_of_the_hosts_are_not_found_inside "
        "clocks_are_offset_for_init_for_what_is_started_later_and_after_a_reboot "
        "a_personality_is_inits_and_of_what_is_started_later"
    ),
    "exec_basics": (
        "exit_codes_are_exact a_background_child_does_not_hold_the_call time_out_kills_everything "
        "a_client_that_goes_takes_its_command_along rights_and_descriptors_are_those_of_init no_zombie_is_left "
        "into_a_frozen_container_it_says_so frozen_while_it_runs_the_time_out_still_kills "
        "the_commands_cgroup_is_gone_afterwards many_at_once a_container_at_its_limit_of_processes_says_so "
        "the_containers_init_may_take_a_command_over_into_a_scope_of_its_own"
    ),
    "isolation": (
        "init_is_alone_in_its_namespaces namespaces_differ_from_the_hosts what_a_system_needs_works "
        "out_of_memory_is_told many_start_at_once a_reboot_inside_keeps_the_nic"
    ),
    "field_security": (
        "cri_o_3229_a_supervisor_is_not_in_its_containers_memory lxc_453_memory_and_swap_up_and_down "
        "cve_2023_25809_the_hosts_control_groups_are_not_to_be_written"
    ),
    "distributions": "busybox",
    "disk_limits": "while_it_runs_a_disk_grows_or_says_that_it_cannot",
    "hooks": "a_hook_whose_time_is_up_is_ended_with_all_that_it_started",
    "nics": "ipvlan_and_vlan_where_the_kernel_has_them",
    "races": "many_starts_at_once_make_one a_frozen_one_is_deleted_after_a_stop_by_force",
    "rights": (
        "a_privileged_container_has_root_but_not_the_hosts_disks_memory_or_limits "
        "a_privileged_container_is_the_hosts_root_and_stops_like_any_other writing_is_slowed_down_to_the_limit"
    ),
    "security": (
        "with_nesting_an_inner_runtimes_mounts_work without_nesting_they_do_not "
        "an_inner_runtime_runs_where_nesting_is_on settings_hold_after_a_reboot_inside "
        "a_privileged_containers_score_may_be_below_zero_where_the_host_may "
        "capabilities_are_those_of_init_and_of_what_is_started_later with_no_new_privs_a_set_uid_program_gives_nothing "
        "sysctls_are_set_in_the_container_and_nowhere_else limits_are_those_of_init_and_of_what_is_started_later "
        "ids_beyond_the_usual_are_one_containers_alone"
    ),
    "stats": (
        "memory_processes_and_limits the_limits_that_the_kernel_holds_it_to cpu_is_a_counter_whose_rate_is_cores "
        "what_is_written_to_a_disk_is_counted a_container_that_ends_and_comes_back "
        "network_from_the_containers_view the_host_as_a_whole "
        "the_ticker_samples_on_beside_a_chore_that_takes_long a_nic_that_is_plugged_in_later_is_counted"
    ),
    "sessions_terminal": (
        "a_session_outlives_its_viewer_and_replays "
        "sessions_end_with_their_container the_console_shows_the_boot_and_takes_input"
    ),
}
"""Of the others, those where a command enters the container's cgroup, where its devices or what it used are told, or
the end of all its processes. Floods through a pty are none of them: they take longer than their time-out under software
emulation."""
KERNEL = "tests/kernel"
ALSO = "apparmor_loaded.py"


def listed() -> list[str]:
    """Return the tests that run in there, as ids below tests/kernel without parameters."""
    found = []
    for name in (*(f"test_{name}.py" for name in WHOLE.split()), ALSO):
        nodes = ast.parse((PROJECT / KERNEL / name).read_text()).body
        functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found += [f"{name}::{function}" for function in functions if function.startswith("test_")]
    found += [f"test_{name}.py::test_{test}" for name, tests in SOME.items() for test in tests.split()]
    return found


def chosen() -> str:
    """Return what pytest is to run, as words of a command line."""
    packages.unpacked("apparmor")
    return " ".join(f"{KERNEL}/{test}" for test in listed())


def boot(pytest_words: str, slow: int, *names: str, timeout_sec: float, kernel_arguments: str = "") -> Ended:
    """Run tests in the machine, with these Debians at hand; returns how it ended."""
    kept = {f"images/{image.name}": image for image in map(debian.cached, names)}
    command = f"""
    export BOXROOM_ROLE=test BOXROOM_STATE_DIR=/tmp/state BOXROOM_TEST_STRICT=1 BOXROOM_TEST_SLOW={slow} HOME=/root
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
    export BOXROOM_TEST_IMAGES=/tmp/images BOXROOM_TEST_WARM=1
    mkdir -p /tmp/state
    test ! -d /sys/fs/cgroup/memory && test -f /sys/fs/cgroup/cgroup.controllers || exit 99
    cd {machine.shell(PROJECT)}
    {machine.shell(sys.executable)} -m pytest -v --tb=short --color=no -p no:cacheprovider -p tests.vm.telling \
        --timeout=1800 {pytest_words}
    """
    return machine.run(
        command, timeout_sec=timeout_sec, kernel_arguments=kernel_arguments, files=kept, tests=pytest_words
    )


def run(pytest_words: str, slow: int, *names: str, timeout_sec: float) -> str:
    """Run tests in the machine, with these Debians at hand; returns what was printed, fails where one fails."""
    ended = boot(pytest_words, slow, *names, timeout_sec=timeout_sec)
    assert not ended.status, ended.failures()
    return ended.console


def passed(output: str) -> int:
    found = re.search(r"(\d+) passed", output)
    assert found, output[-12000:]
    return int(found[1])


@pytest.fixture(scope="module")
def ended() -> Ended:
    """The machine, booted once, after all its tests. Why it could not be is told once, and not by each of them."""
    try:
        return boot(chosen(), 10, debian.NAME, timeout_sec=TIMEOUT_SEC)
    except (AssertionError, CoreError, OSError, RuntimeError, subprocess.SubprocessError):
        return Ended(NOT_BOOTED, traceback.format_exc(), "")


@pytest.mark.vm
@pytest.mark.timeout(TIMEOUT_SEC + PREPARING_SEC)
def test_what_is_of_the_kernel_came_to_its_end(ended: Ended) -> None:
    failed = any(ended.wrong(f"{KERNEL}/{test}") for test in listed())
    if ended.status != int(failed):
        pytest.fail(ended.end(), pytrace=False)
    assert {name.partition("[")[0] for name in ended.collected} == {f"{KERNEL}/{test}" for test in listed()}


@pytest.mark.vm
@pytest.mark.timeout(TIMEOUT_SEC + PREPARING_SEC)
@pytest.mark.parametrize("test", listed())
def test_of_the_kernel_passes(ended: Ended, test: str) -> None:
    if wrong := ended.wrong(f"{KERNEL}/{test}"):
        pytest.fail(wrong, pytrace=False)


@pytest.mark.vm
@pytest.mark.distributions
@pytest.mark.timeout(SYSTEMS_TIMEOUT_SEC + PREPARING_SEC)
@pytest.mark.parametrize("rights", ["unprivileged", "privileged"])
def test_whole_systems_run_on_cgroup_v2(rights: str) -> None:
    words = f"--timeout=2400 -m 'distributions or not distributions' -k '[{rights} or -{rights}' "
    output = run(words + SYSTEMS, 10, *debian.SOURCES, timeout_sec=SYSTEMS_TIMEOUT_SEC)
    assert passed(output) == len(debian.SOURCES) + 1
