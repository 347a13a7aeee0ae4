"""`manage.py ct`: the verbs, their exit statuses, and that they go the way of everybody's wishes."""

from __future__ import annotations

import io
import json
import os
import signal
import time

import pytest
from django.core.management import CommandError, call_command

from containers.asking import services
from containers.bookkeeping import records
from containers.core.errors import SetupFailed
from containers.management.commands.ct import Command
from containers.management.ct import base, inside, limiting, looking
from containers.models import Backup, Container, Event, Operation, local_host
from containers.operations import runner
from panel.accounts.models import AuditRecord
from tests.web.world import CORE_HOST, make_container, make_host

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker(root, runtime, monkeypatch):
    """A worker that is there when somebody waits."""
    make_host()

    def wait(operation_id, _seconds):
        runner.run(operation_id, runtime, CORE_HOST)
        return Operation.objects.get(pk=operation_id)

    monkeypatch.setattr(services, "wait", wait)


@pytest.fixture
def ct(capsys):
    """Return a function that runs a verb: ``status, output, told = ct("ls", "-f")``."""

    def run(*words):
        capsys.readouterr()
        try:
            call_command("ct", *words)
            status = 0
        except SystemExit as left:
            status = left.code
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("attach web-1 -- sh -c id", {"command": ["sh", "-c", "id"]}),
        ("attach web-1 -u nobody -v A=b -- sh -u -- x", {"command": ["sh", "-u", "--", "x"], "user": "nobody"}),
        ("attach -u nobody web-1 ls", {"command": ["ls"], "user": "nobody"}),
        ("attach web-1 -s PID", {"command": []}),
        ("execute web-1 --image busybox -- ls -l", {"command": ["ls", "-l"], "image": "busybox"}),
        ("cgroup web-1 pids.max", {"value": None}),
        ("wait web-1 -s STOPPED -t 5", {"name": "web-1"}),
        ("snapshot web-1 -c note s2", {"snapshot": "s2"}),
    ],
)
def test_options_stand_where_one_likes(words, expected):
    found = vars(Command().create_parser("manage.py", "ct").parse_args(words.split()))
    assert found["name"] == "web-1"
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "words", ["attach", "wait web-1", "execute web-1 --image busybox", "ls --bogus", "cgroup web-1"]
)
def test_what_is_missing_or_unknown_is_told(words):
    with pytest.raises(CommandError, match=r"required|unrecognized"):
        Command().create_parser("manage.py", "ct").parse_args(words.split())


def make(team, runtime, name="web-1", status="stopped", **more):
    return make_container(team, name, runtime=runtime, status=status, **more)


def status_of(name):
    return Container.objects.get(name=name).status


def test_ls_and_its_filters(ct, team, runtime):
    make(team, runtime, "db", "running", boot={"groups": ["data"]}, autostart=True)
    make(team, runtime, "web-1", "frozen", boot={"groups": ["www", "data"]})
    make(team, runtime, "web-2")
    for words, names in (
        ((), ["db", "web-1", "web-2"]),
        (("--running",), ["db"]),
        (("--active",), ["db", "web-1"]),
        (("--stopped", "--frozen"), ["web-1", "web-2"]),
        (("-g", "www,other"), ["web-1"]),
        (("--filter", "^web"), ["web-1", "web-2"]),
    ):
        assert ct("ls", "-1", *words)[1].split() == names
    table = ct("ls", "-F", "name,state,autostart,groups,unprivileged")[1].splitlines()
    assert table[0].split() == ["NAME", "STATE", "AUTOSTART", "GROUPS", "UNPRIVILEGED"]
    assert table[1].split() == ["db", "RUNNING", "1", "data", "true"]
    assert [one["name"] for one in json.loads(ct("ls", "--json")[1])] == ["db", "web-1", "web-2"]
    assert ct("ls", "-F", "wings")[0] == 1
    assert ct("ls", "--filter", "(")[0] == 1


def test_info(ct, team, runtime):
    make(team, runtime, limits={"pids": 7})
    assert ct("info", "web-1", "-s", "-H")[1] == "STOPPED\n"
    assert ct("info", "web-1", "-c", "limits.pids", "-c", "restart")[1] == "limits.pids = 7\nrestart = no\n"
    assert json.loads(ct("info", "web-1", "--json")[1])["stats"] is None
    assert ct("info", "web-1", "-c", "wings")[0] == 1
    status, _out, told = ct("info", "nobody")
    assert (status, told) == (1, "There is no such container.\n")


def test_the_life_of_a_container(ct, team, runtime):
    assert ct("create", "web-1", "--image", "busybox", "--project", "team", "--start")[0] == 0
    assert status_of("web-1") == "running"
    assert ct("start", "web-1") == (0, "", "web-1 runs already.\n")
    for verb, after in (("freeze", "frozen"), ("freeze", "frozen"), ("unfreeze", "running"), ("restart", "running")):
        assert ct(verb, "web-1")[0] == 0
        assert status_of("web-1") == after
    assert ct("stop", "web-1", "-t", "5")[0] == 0
    assert status_of("web-1") == "stopped"
    assert ct("stop", "web-1") == (2, "", "web-1 is not running.\n")
    assert ct("destroy", "web-1")[0] == 0
    assert not Container.objects.exists()


def test_what_is_asked_for_stands_in_the_audit_trail(ct, team, runtime, root):
    make(team, runtime)
    ct("start", "web-1")
    operation = Operation.objects.get()
    assert (operation.actor, operation.action, operation.source_ip) == (root, "start", None)
    assert AuditRecord.objects.get(operation_id=operation.pk).actor_name == "root"
    assert ct("--as", "nobody", "start", "web-1")[0] == 1


def test_stop_takes_the_options_of_its_model(ct, team, runtime):
    for words, arguments in (
        (("-k",), {"timeout": 60, "force": True, "kill": True}),
        (("-t", "7", "--nokill"), {"timeout": 7, "force": False, "kill": False}),
    ):
        make(team, runtime, "web-1", "running")
        assert ct("stop", "web-1", *words)[0] == 0
        assert Operation.objects.latest("created_at").arguments == arguments
        Container.objects.all().delete()
    make(team, runtime, "web-1", "running")
    assert ct("stop", "web-1", "-W")[0] == 0
    assert Operation.objects.latest("created_at").status == "queued"
    assert ct("stop", "web-1", "-k", "-r")[0] == 1
    assert ct("stop", "web-1", "-t", "3601")[0] == 1


def test_of_several_some_may_fail(ct, team, runtime):
    make(team, runtime, "a")
    make(team, runtime, "b")
    status, _out, told = ct("start", "a", "nobody", "b")
    assert (status, told) == (1, "nobody: There is no such container.\n")
    assert (status_of("a"), status_of("b")) == ("running", "running")
    assert ct("start", "nobody")[0] == 1


def test_a_failed_start_tells_step_path_errno_and_console(ct, team, runtime):

    make(team, runtime)

    def fail():
        raise SetupFailed("No such file", step="run the init command", path="/sbin/x", errno=2, console="oops\n")

    runtime.before["start"] = fail
    status, _out, told = ct("start", "web-1")
    assert status == 1
    for words in ("No such file", "step run the init command", "path /sbin/x", "errno 2", "| oops"):
        assert words in told, told


def test_snapshots_and_copies(ct, team, runtime):
    make(team, runtime)
    assert ct("snapshot", "web-1")[1] == "snap0\n"
    assert ct("snapshot", "web-1", "-c", "a note", "before")[1] == "before\n"
    assert [line.split()[0] for line in ct("snapshot", "web-1", "-L", "-C")[1].splitlines()] == [
        "NAME",
        "snap0",
        "before",
    ]
    assert ct("snapshot", "web-1", "-c", "two\nlines, \tand a tab", "lines")[0] == 0
    assert ct("snapshot", "web-1", "-L", "-C")[1].splitlines()[-1].endswith("  two lines, and a tab")
    assert ct("snapshot", "web-1", "-r", "before")[0] == 0
    assert ct("snapshot", "web-1", "-d", "A")[0] == 1, "only ALL is all"
    assert ct("snapshot", "web-1", "-d", "snap0")[0] == 0
    assert ct("snapshot", "web-1", "-r", "before", "-N", "web-2")[0] == 0
    assert ct("copy", "web-1", "web-3", "-B", "default", "--full")[0] == 0
    assert ct("copy", "-R", "web-1", "web-9")[0] == 0
    assert sorted(Container.objects.values_list("name", flat=True)) == ["web-2", "web-3", "web-9"]
    assert ct("snapshot", "web-9", "-d", "ALL")[0] == 0
    assert not Container.objects.get(name="web-9").snapshots.exists()


def test_autostart_in_order_and_the_other_way_round(ct, team, runtime):
    for name, order, groups in (("web", 2, ["www"]), ("db", 1, []), ("off", 0, [])):
        make(team, runtime, name, autostart=name != "off", boot={"order": order, "groups": groups})
    assert ct("autostart", "-L")[1] == "db 0\nweb 0\n"
    assert ct("autostart", "-L", "-A", "-g", "www,")[1] == "web 0\noff 0\ndb 0\n"
    assert ct("autostart")[0] == 0
    started = list(Operation.objects.order_by("created_at").values_list("object_name", flat=True))
    assert started == ["db", "web"]
    assert ct("autostart", "-s")[0] == 0
    stopped = list(Operation.objects.filter(action="stop").order_by("created_at").values_list("object_name", flat=True))
    assert stopped == ["web", "db"]
    assert ct("autostart", "-g", "www")[0] == 0
    assert (status_of("web"), status_of("db")) == ("running", "stopped")


def test_wait_keeps_its_time(ct, team, runtime):
    row = make(team, runtime)
    assert ct("wait", "web-1", "-s", "STOPPED|RUNNING")[0] == 0
    begun = time.monotonic()
    assert ct("wait", "web-1", "-s", "running", "-t", "0.4")[0] == 1
    assert 0.4 <= time.monotonic() - begun
    assert ct("wait", "web-1", "-s", "asleep")[0] == 1
    records.set_status(row, "frozen", "")
    assert ct("wait", "web-1", "-s", "frozen", "-t", "5")[0] == 0


def test_monitor_tells_what_happens(team, runtime, monkeypatch):
    row = make(team, runtime)
    other = make(team, runtime, "other")
    told = io.StringIO()
    monkeypatch.setattr(base.sys, "stdout", told)

    def happen(_seconds):
        if Event.objects.exists():
            raise KeyboardInterrupt
        records.set_status(row, "running", "")
        records.set_status(other, "running", "")
        records.add_event(row, "oom")

    monkeypatch.setattr(looking.time, "sleep", happen)
    with pytest.raises(SystemExit) as left:
        call_command("ct", "monitor", "web-.*")
    assert left.value.code == 130
    assert told.getvalue() == "'web-1' changed state to [RUNNING]\n'web-1' oom\n"


def test_output_that_finds_no_room_is_told(team, runtime, monkeypatch, capsys):
    make(team, runtime)
    monkeypatch.setattr("containers.management.commands.ct._write_no_more", lambda: None)
    with open("/dev/full", "wb", buffering=0) as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout.write", lambda text: full.write(text.encode()))
        with pytest.raises(SystemExit) as left:
            call_command("ct", "ls")
    assert left.value.code == 1
    assert capsys.readouterr().err == "It could not be done: No space left on device.\n"


@pytest.mark.parametrize(
    ("file", "value", "limits"),
    [
        ("memory.max", "64M", {"memory_bytes": 64 * 1024**2}),
        ("memory.max", "max", {"memory_bytes": None}),
        ("memory.swap.max", "1M", {"swap_bytes": 1024**2}),
        ("memory.memsw.limit_in_bytes", "48M", {"swap_bytes": 16 * 1024**2}),
        ("pids.max", "100", {"pids": 100}),
        ("cpu.max", "50000 100000", {"cpus": 0.5}),
        ("cpu.max", "max 100000", {"cpus": None}),
        ("cpu.cfs_quota_us", "50000", {"cpus": 0.5}),
        ("cpu.cfs_quota_us", "-1", {"cpus": None}),
        ("cpu.shares", "512", {"cpu_weight": 50}),
        ("cpu.weight", "300", {"cpu_weight": 300}),
        ("cpuset.cpus", "0-1", {"cpuset": "0-1"}),
        ("io.weight", "default 200", {"io_weight": 200}),
        ("blkio.bfq.weight", "300", {"io_weight": 300}),
        ("io.max", "8:0 rbps=1M wiops=max", {"io_read_bytes_per_sec": 1024**2, "io_write_ops_per_sec": None}),
        ("blkio.throttle.write_bps_device", "8:0 1048576", {"io_write_bytes_per_sec": 1024**2}),
        ("blkio.throttle.read_iops_device", "8:0 0", {"io_read_ops_per_sec": None}),
        ("hugetlb.2MB.max", "4M", {"hugepages": {"1GB": 1024**3, "2MB": 4 * 1024**2}}),
        ("hugetlb.1GB.limit_in_bytes", "-1", {"hugepages": None}),
        ("memory.high", "32M", {"cgroup": {"memory.low": "1", "memory.high": "32M"}}),
    ],
)
def test_limits_by_their_files(file, value, limits, monkeypatch):
    monkeypatch.setattr(limiting.blockdev, "disk_of", lambda _path: "8:0")
    known = {"memory_bytes": 32 * 1024**2, "hugepages": {"1GB": 1024**3}, "cgroup": {"memory.low": "1"}}
    assert limiting.limit_of(file, value, known) == limits


@pytest.mark.parametrize(
    ("file", "value", "known"),
    [
        ("memory.max", "lots", {}),
        ("memory.swap.max", "max", {"memory_bytes": 1024**3}),
        ("memory.memsw.limit_in_bytes", "-1", {"memory_bytes": 1024**3}),
        ("memory.memsw.limit_in_bytes", "1M", {"memory_bytes": 1024**3}),
        ("memory.memsw.limit_in_bytes", "1G", {}),
        ("io.max", "8:16 rbps=1M", {}),
        ("io.max", "8:0", {}),
        ("io.max", "8:0 speed=1", {}),
        ("cpu.max", "1000 0", {}),
    ],
)
def test_what_is_no_limit_is_refused(file, value, known, monkeypatch):
    monkeypatch.setattr(limiting.blockdev, "disk_of", lambda _path: "8:0")
    with pytest.raises(base.Failed):
        limiting.limit_of(file, value, known)


@pytest.mark.parametrize(("text", "key"), [("^a", 1), ("^Z", 26), ("x", ord("x"))])
def test_the_key_to_leave_by(text, key):
    assert inside._key(text) == key


def test_a_panel_that_does_not_run_is_told(ct, team, runtime, monkeypatch):
    make(team, runtime)
    monkeypatch.setattr(services, "wait", lambda pk, _seconds: Operation.objects.get(pk=pk))
    status, _out, told = ct("start", "web-1")
    assert status == 1
    assert "The panel does not run" in told


def test_backups_are_listed_asked_for_and_restored(ct, team, runtime, monkeypatch):
    make(team, runtime)
    done = []

    def follow(operation, _options):
        done.append((operation.action, operation.arguments))
        Operation.objects.filter(pk=operation.pk).update(status="succeeded", journal={"file": "f"})
        return Operation.objects.get(pk=operation.pk)

    monkeypatch.setattr(base, "follow", follow)
    assert ct("export", "web-1", "--no-snapshots") == (0, "f\n", "")
    assert done[-1][0] == "backup-export"
    assert done[-1][1]["with_snapshots"] is False
    assert ct("export", "web-1", "--to", "nas")[0] == 1
    file = "web-1_20260102T030405Z.boxroom.tar.zst"
    Backup.objects.create(host=local_host(), project=team, destination="local", file=file, container="web-1")
    status, output, _told = ct("backups")
    assert (status, file in output) == (0, True)
    assert ct("backups", "other")[1] == ""
    assert json.loads(ct("backups", "--json")[1])[0]["container"] == "web-1"
    assert ct("verify", file)[0] == 0
    assert ct("import", file, "web-2", "--project", "team", "-B", "best")[0] == 0
    assert Container.objects.get(name="web-2").pool == "best"
    assert ct("import", file, "web-1", "--in-place")[0] == 0
    assert [action for action, _arguments in done[1:]] == ["backup-verify", "backup-import", "backup-restore"]
    assert ct("import", "nothing", "web-3")[0] == 1


def test_groups_are_started_one_after_the_other(ct, team, runtime):
    for name, order, groups in (("web", 2, ["www"]), ("db", 1, ["data"]), ("both", 3, ["data", "www"]), ("off", 0, [])):
        make(team, runtime, name, autostart=True, boot={"order": order, "groups": groups})
    assert ct("autostart", "-L")[1].split()[::2] == ["off", "db", "web", "both"]
    assert ct("autostart", "-L", "-g", "www,data")[1].split()[::2] == ["web", "both", "db"]
    assert ct("autostart", "-g", "www,data,")[0] == 0
    started = list(Operation.objects.order_by("created_at").values_list("object_name", flat=True))
    assert started == ["web", "both", "db", "off"]


@pytest.mark.parametrize(
    "words",
    [
        ("-N", "copy"),
        ("-d", ""),
        ("-r", ""),
        ("-C",),
        ("--json",),
        ("s1", "-L"),
        ("s1", "-d", "s0"),
        ("-c", "note", "-r", "s0"),
    ],
)
def test_half_of_an_order_makes_no_snapshot(ct, team, runtime, words):
    row = make(team, runtime, "web", "stopped")
    status, _output, told = ct("snapshot", "web", *words)
    assert status == base.FAILED
    assert told
    assert not row.snapshots.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cgroup", "web", "cpu.max", "100000 0"), "A period of 0 is none."),
        (("copy", "-R", "-s", "s0", "web", "new"), "-R goes with neither"),
        (("device", "web", "list", "tun"), "list takes no device"),
        (("attach", "web", "-s", "NETWORK", "-u", "1000", "--", "id"), "-s goes with neither"),
    ],
)
def test_what_does_not_go_together_is_refused(ct, team, runtime, words, told):
    make(team, runtime, "web", "running")
    status, _output, error = ct(*words)
    assert (status, told in error) == (base.FAILED, True)


def test_several_with_one_that_fails_end_with_1(ct, team, runtime):
    """2 says of `stop` that something does not run, and nothing else."""
    make(team, runtime, "web", "stopped")
    assert ct("start", "web", "nothing")[0] == base.FAILED
    assert ct("stop", "nothing", "web")[0] == base.FAILED
    assert status_of("web") == "stopped", "the others are stopped all the same"
    assert ct("stop", "web")[0] == base.NOT_RUNNING


def test_a_console_that_is_not_there_is_told(ct, team, runtime, monkeypatch):
    monkeypatch.setattr(inside.relay, "is_terminal", lambda: True)
    make(team, runtime, "web", "running", console={"ttys": 2})
    for number in ("3", "-1"):
        status, _output, told = ct("console", "web", "-t", number)
        assert (status, told) == (base.FAILED, f"web has no tty {number}: there are 0 to 2; 0 is /dev/console.\n")


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(CommandError, match="no number of seconds"):
        Command().create_parser("manage.py", "ct").parse_args(["wait", "web", "-s", "STOPPED", "-t", "nan"])


@pytest.mark.parametrize("words", [["stop"], ["nonsense"], ["stop", "--nonsense", "web"]])
def test_words_that_make_no_sense_end_with_1(words, capsys):
    """Not with argparse's 2, which says of `stop` that the container does not run."""
    command = Command()
    command._called_from_command_line = True
    with pytest.raises(SystemExit) as left:
        command.create_parser("manage.py", "ct").parse_args(words)
    assert left.value.code == base.FAILED
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_was_made_for_one_command_goes_when_it_is_ended(ct, team, runtime, monkeypatch, number):
    before = signal.getsignal(number)

    def run(_options, name):
        assert Container.objects.filter(name=name).exists()
        os.kill(os.getpid(), number)
        time.sleep(0)
        return 0

    monkeypatch.setattr(inside, "_run", run)
    status, _output, _told = ct("execute", "once", "--image", "busybox", "--project", team.name, "--", "sleep", "9")
    assert status == 128 + number
    assert not Container.objects.filter(name="once").exists()
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("words", "kept"), [([], False), (["-d"], True)])
def test_a_container_that_ran_one_command_is_what_it_was(ct, team, runtime, monkeypatch, words, kept):
    was = {"init": {"groups": [7]}, "environment": {"A": "b"}, "halt_signal": "SIGPWR", "restart": "always"}
    row = make_container(team, runtime=runtime, init_command=["/sbin/init"], **was)
    seen = []

    def run(_options, _name):
        row.refresh_from_db()
        seen.append((row.init_command, row.init, row.environment, row.halt_signal, row.restart))
        return 3

    monkeypatch.setattr(inside, "_run", run)
    assert ct("execute", *words, "-v", "C=d", row.name, "--", "ls", "-l")[0] == 3
    init = {"kind": "application", "arguments": ["-l"], "groups": [7]}
    assert seen == [(["ls"], init, {"A": "b", "C": "d"}, "", "no")]
    row.refresh_from_db()
    now = (row.init_command, row.init, row.environment, row.halt_signal, row.restart)
    assert now == (seen[0] if kept else (["/sbin/init"], *was.values()))
