"""Application containers: a small init as process 1, whose command's end is the container's, and its exit code too."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from containers.core.errors import SetupFailed
from containers.core.lifecycle import running
from containers.core.model.behaviour import Init
from containers.core.model.spec import Limits
from containers.core.model.states import Status

from .conftest import NoNetwork
from .patience import patient, wait_until


@pytest.fixture
def run(host, container):
    """Return a function that starts a command as an application: ``run("exit 7", user="alice")``."""

    def start(script, *arguments, command=None, environment=None, limits=None, halt_signal=None, **init):
        spec = container(
            init_command=command or ("sh", "-c"),
            init=Init(kind="application", arguments=(script, *arguments), **init),
            environment=environment or {},
            limits=limits or Limits(),
            halt_signal=halt_signal,
        )
        return spec, running.start(host, spec, network=NoNetwork())

    return start


def ended(host, spec):
    wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the container ends")
    return running.observe(host)[spec.id].last_exit


def log(host, spec):
    return (host.container_dir(spec.id) / "console.log").read_text().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$; sleep 9", 143)],
)
def test_its_exit_code_is_the_commands(host, run, script, code):
    spec, _ = run(script)
    last = ended(host, spec)
    assert (last.reason, last.exit_code, last.signal) == ("exit", code, None)


def test_process_1_is_ours_and_the_command_is_its_child(host, run):
    spec, state = run(
        "echo \"$$ $PPID [$(tr -d '\\0' < /proc/1/cmdline)] $(cat /proc/1/comm)\"; ls -l /proc/1/fd; exit 3"
    )
    assert ended(host, spec).exit_code == 3
    shown = log(host, spec)
    assert shown.startswith("2 1 [init] init\n"), shown
    assert "Permission denied" in shown, "nobody inside may look at process 1's descriptors"
    del state


def test_what_is_left_to_it_is_reaped(host, run):
    # each subshell leaves a child behind, which ends at once; who never reaps them lets the script go on for ever
    script = "i=0; while [ $i -lt 20 ]; do (true & ); i=$((i+1)); done;"
    script += " while ps -o stat | grep -q '^Z'; do sleep 0.01; done; echo done"
    spec, _ = run(script)
    ended(host, spec)
    assert log(host, spec) == "done\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGPWR])
def test_signals_are_handed_on(host, run, number):
    spec, state = run(
        f"trap 'echo got; exit 42' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    )
    wait_until(lambda: (host.container_dir(spec.id) / "console.log").exists() and "ready" in log(host, spec))
    os.kill(state.init_pid, number)
    assert ended(host, spec).exit_code == 42
    assert log(host, spec) == "ready\ngot\n"


def test_a_stop_is_sigterm_or_what_is_configured(host, run):
    for configured, name in ((None, "TERM"), ("SIGUSR2", "USR2")):
        spec, _ = run(f"trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done", halt_signal=configured)
        wait_until(
            lambda spec=spec: (host.container_dir(spec.id) / "console.log").exists() and "ready" in log(host, spec)
        )
        last = running.stop(host, spec.id, timeout_sec=patient(60))
        assert (last.reason, last.exit_code) == ("stopped", 9)


def test_what_outlives_the_command_is_asked_and_then_killed(host, run):
    script = (
        "(trap 'echo asked; exit' TERM; >/a; sleep 1000 & wait) & (trap '' TERM; >/b; sleep 1000) &"
        " until [ -e /a -a -e /b ]; do sleep 0.02; done"
    )
    for _ in range(5):  # a second is all that they have, and one that stands still for so long does not answer
        spec, _ = run(script)
        last = ended(host, spec)
        assert (last.reason, last.exit_code) == ("exit", 0)
        assert last.ran_sec >= 1.0
        if log(host, spec) == "asked\n":
            return
    pytest.fail("nobody was asked")


def test_output_written_just_before_the_end_is_kept(host, run):
    spec, _ = run("head -c 300000 /dev/zero | tr '\\0' x; echo; echo -n end")
    ended(host, spec)
    assert log(host, spec) == f"{'x' * 300000}\nend"


def test_it_may_wait_for_the_last_process(host, run):
    spec, _ = run("(sleep 0.4; echo last) & exit 5", wait_for_all=True)
    last = ended(host, spec)
    assert last.exit_code == 5
    assert log(host, spec) == "last\n"


def test_user_groups_directory_and_environment(host, run):
    script = 'id -u; id -g; id -G; pwd; echo "$HOME $A"; echo reopened > /dev/console; grep CapEff /proc/self/status'
    spec, _ = run(script, user="alice:alice", groups=(7, 9), cwd="/srv/new/place", environment={"A": "b"})
    assert ended(host, spec).exit_code == 0
    assert log(host, spec).split("\n") == [
        "1000",
        "1000",
        "1000 7 9",
        "/srv/new/place",
        "/tmp b",
        "reopened",
        "CapEff:\t0000000000000000",
        "",
    ]


def test_a_systems_init_may_be_another_user_too(host, container):
    spec = container(init_command=("/bin/sh", "-c", "id -u; echo $$; exit 4"), init=Init(user="1000:1000", cwd="/tmp"))
    running.start(host, spec, network=NoNetwork())
    assert ended(host, spec).exit_code == 4
    assert log(host, spec) == "1000\n1\n"


@pytest.mark.parametrize(
    ("command", "init", "step", "path", "number"),
    [
        (("nothing",), {}, "run the init command", "nothing", errno.ENOENT),
        (("/etc/passwd",), {}, "run the init command", "/etc/passwd", errno.EACCES),
        (("sh",), {"user": "nobody-here"}, "look up the user", "/etc/passwd", errno.ENOENT),
        (("sh",), {"cwd": "/etc/passwd/x"}, "make the working directory", "/etc/passwd/x", errno.ENOTDIR),
    ],
)
def test_what_cannot_begin_is_told_and_leaves_nothing(host, container, command, init, step, path, number):
    spec = container(init_command=command, init=Init(kind="application", **init))
    with pytest.raises(SetupFailed) as failed:
        running.start(host, spec, network=NoNetwork())
    assert (failed.value.details["step"], failed.value.details["errno"]) == (step, number)
    assert str(failed.value.details["path"]).startswith(path.rsplit("/", 1)[0])
    assert running.observe(host)[spec.id].status is Status.STOPPED
    assert not host.run_path(spec.id).exists()


def test_want_of_memory_is_told(host, run):
    spec, _ = run("a=x; while :; do a=$a$a; done", limits=Limits(memory_bytes=32 * 1024**2))
    last = ended(host, spec)
    assert (last.reason, last.exit_code) == ("oom", 137)


def test_a_shell_inside_sees_the_command_and_cannot_reach_process_1(host, run):
    spec, state = run("sleep 1000")
    running.freeze(host, spec.id)
    running.thaw(host, spec.id)
    assert Path(f"/proc/{state.init_pid}/exe").readlink().name.startswith("python")
    assert os.stat(f"/proc/{state.init_pid}/environ").st_uid == 0, "not dumpable: the host's root, not the container's"
    assert running.stop(host, spec.id, timeout_sec=patient(60)).reason == "stopped"
