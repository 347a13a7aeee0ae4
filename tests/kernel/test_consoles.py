"""/dev/console and the ttys: always drained, each with a ring of its own, shared or for one at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.behaviour import Consoles, Init
from containers.core.model.spec import Spec
from containers.core.proc.console import Log
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import wait_until
from .test_sessions_terminal import Terminal

Begin = Callable[..., Spec]


@pytest.fixture
def begin(host: Host, container: Callable[..., Spec]) -> Begin:
    """Return a function that starts a script with some consoles."""

    def make(script: str, **console: Any) -> Spec:
        spec = container(init_command=("/bin/sh", "-c", script), console=Consoles(**console))
        running.start(host, spec, network=NoNetwork())
        return spec

    return make


@pytest.fixture
def connect(host: Host) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def new(spec: Spec, **more: Any) -> Terminal:
        made.append(Terminal(host.supervisor_socket(spec.id), **more))
        return made[-1]

    yield new
    for one in made:
        one.socket.close()


def supervisor(host: Host, spec: Spec) -> int:
    run = RunFile.read(host.run_path(spec.id))
    assert run is not None
    return run.supervisor.pid


@pytest.mark.lxc("Each tty is a terminal of its own, with the container's owner", "L#4338", "lxc-console")
def test_each_tty_is_a_terminal_of_its_own(begin: Begin, connect: Any) -> None:
    spec = begin(
        "echo $container_ttys; ls -1 /dev/tty*; for n in 1 2 3; do"
        ' (exec </dev/tty$n >/dev/tty$n 2>&1; echo this is $n; read x; echo "$n got $x"; sleep 1000) & done; wait',
        ttys=3,
    )
    console = connect(spec)
    console.open(session="console")
    console.expect("pts/1 pts/2 pts/3\r\n/dev/tty\r\n/dev/tty1\r\n/dev/tty2\r\n/dev/tty3\r\n")
    terms = {number: connect(spec) for number in (1, 2, 3)}
    for number, term in terms.items():
        assert term.open(session=f"tty{number}")["session"] == f"tty{number}"
        term.expect(f"this is {number}")
        term.type(f"hello {number}\n")
        term.expect(f"{number} got hello {number}")
    assert b"got hello" not in console.output
    lists = connect(spec)
    lists.tell(cmd="sessions")
    lists.wait(lambda: bool(lists.messages), what="the list")
    assert [one["session"] for one in lists.messages[0]["items"]] == ["console", "tty1", "tty2", "tty3"]
    assert connect(spec).open(session="tty4")["code"] == "not-found"


def test_none_is_the_default(begin: Begin, connect: Any) -> None:
    spec = begin('echo "[$container_ttys]" /dev/tty[0-9]*; sleep 1000')
    term = connect(spec)
    term.open(session="console")
    term.expect("[] /dev/tty[0-9]*\r\n")


@pytest.mark.lxc("A login that ends leaves a terminal that works", "L#520")
def test_who_logs_out_leaves_a_terminal_that_works(begin: Begin, connect: Any) -> None:
    # a session's end hangs its terminal up, for us too: the next one must be seen all the same
    once = "setsid -c sh -c 'echo session $0; read x; echo bye $x' $n <>/dev/$t >&0 2>&0"
    spec = begin(f"for t in console tty1; do (n=0; while :; do n=$((n+1)); {once}; done) & done; wait", ttys=1)
    for name in ("console", "tty1"):
        term = connect(spec)
        term.open(session=name)
        for number in range(1, 5):
            term.expect(f"session {number}")
            term.type("now\n")
    # nobody waits for it in vain
    term.expect("session 5")


@pytest.mark.lxc("A console that nobody reads blocks nobody", "L#741")
def test_a_console_that_nobody_reads_blocks_nobody_and_costs_a_bounded_memory(host: Host, begin: Begin) -> None:
    spec = begin(
        "for t in console tty1; do (head -c 8000000 /dev/zero | tr '\\0' x > /dev/$t; echo done > /tmp/$t) & done;"
        " wait; echo; echo all written; sleep 1000",
        ttys=1,
        buffer_bytes=65536,
        log_bytes=65536,
    )
    log = host.container_dir(spec.id) / "console.log"

    def before() -> int:
        text = Path(f"/proc/{supervisor(host, spec)}/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0])

    def everything_is_written() -> bool:
        try:
            return b"all written" in log.read_bytes()
        except FileNotFoundError:  # not yet begun, or another one begins right now
            return False

    least = before()
    wait_until(everything_is_written, what="nobody waits for a reader")
    assert before() - least < 2048, "KiB"
    assert log.stat().st_size < 65536
    assert log.with_name("console.log.1").stat().st_size == 65536


def test_the_ring_has_the_end_of_what_was_written_and_no_more(host: Host, begin: Begin, connect: Any) -> None:
    spec = begin(
        "echo boot; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 1000", buffer_bytes=4096
    )
    log = host.container_dir(spec.id) / "console.log"
    wait_until(lambda: log.exists() and b"line 2000" in log.read_bytes(), what="everything is written")
    term = connect(spec)
    opened = term.open(session="console")
    term.expect("line 2000")
    assert opened["replay"] <= 4096 + 4096 // 8
    assert b"boot" not in term.output


def test_boot_messages_are_there_for_who_comes_later(begin: Begin, connect: Any) -> None:
    spec = begin("echo boot; echo tty boot > /dev/tty1; sleep 1000", ttys=1)
    for name, text in (("console", "boot\r\n"), ("tty1", "tty boot\r\n")):
        term = connect(spec)
        term.open(session=name)
        term.expect(text)


@pytest.mark.lxc("A console may be for one at a time, and is free when that one has gone", "L#1787", "lxc-console")
def test_one_at_a_time_where_that_is_wanted(begin: Begin, connect: Any) -> None:
    spec = begin("sleep 1000", ttys=1, exclusive=True)
    first = connect(spec)
    assert first.open(session="tty1")["type"] == "opened"
    assert connect(spec).open(session="tty1")["code"] == "in-use"
    assert connect(spec).open(session="console")["type"] == "opened"
    assert connect(spec, mode="ro").open(session="tty1")["type"] == "opened", "looking on is not using"
    first.socket.close()

    def free() -> bool:
        answer = connect(spec).open(session="tty1")
        return bool(answer["type"] == "opened")

    wait_until(free, what="a place is free when its client has gone")


def test_consoles_go_on_after_a_reboot_inside(host: Host, begin: Begin, connect: Any) -> None:
    count = "n=$(cat /n 2>/dev/null); n=$((n+1)); echo $n > /n"
    script = f"{count}; echo run $n > /dev/tty1; [ $n -ge 2 ] && sleep 1000; reboot -f"
    spec = begin(script, ttys=1)
    term = connect(spec)
    term.open(session="tty1")
    term.expect("run 1")
    term.expect("run 2")


def test_control_c_reaches_an_application_on_its_console(host: Host, container: Any, connect: Any) -> None:
    spec = container(
        init_command=("sh", "-c"),
        init=Init(
            kind="application", arguments=("trap 'echo got it; exit 4' INT; echo ready; while :; do sleep 0.05; done",)
        ),
    )
    running.start(host, spec, network=NoNetwork())
    term = connect(spec)
    term.open(session="console")
    term.expect("ready")
    term.type("\x03")
    term.expect("got it")
    wait_until(lambda: str(running.observe(host)[spec.id].status) == "stopped")
    last = running.observe(host)[spec.id].last_exit
    assert last is not None
    assert last.exit_code == 4


def test_the_log_is_cut_where_it_is_full(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", most=10, rotations=2)
    for part in (b"0123", b"45678", b"9abcdefghijklmnopqrstuvwxyz"):
        log.write(part)
    log.close()
    kept = [(tmp_path / name).read_bytes() for name in ("log.2", "log.1", "log")]
    assert kept == [b"abcdefghij", b"klmnopqrst", b"uvwxyz"]
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [1, 0])
def test_of_older_ones_no_more_are_kept_than_is_wanted_now(tmp_path: Path, kept: int) -> None:
    log = Log(tmp_path / "log", most=2, rotations=4)
    log.write(b"aabbccdde")
    log.close()
    assert len(list(tmp_path.iterdir())) == 5
    fewer = Log(tmp_path / "log", most=2, rotations=kept)
    fewer.write(b"fg")
    fewer.close()
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"log": b"g", **({"log.1": b"ef"} if kept else {})}


def test_without_rotations_it_begins_anew(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", most=10, rotations=0)
    log.write(b"0123456789abc")
    assert (tmp_path / "log").read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["log"]
    log.close()
    again = Log(tmp_path / "log", most=2, rotations=0)
    again.write(b"z")
    again.close()
    assert (tmp_path / "log").read_bytes() == b"z", "one that is too long already is begun anew"


def test_a_supervisor_that_is_stopped_blocks_only_who_floods(host: Host, begin: Begin, connect: Any) -> None:
    # the kernel keeps a page or two of what nobody takes; then the writer waits, and goes on afterwards
    spec = begin("sleep 0.2; head -c 100000 /dev/zero | tr '\\0' x; echo; echo over; sleep 1000")
    pid = supervisor(host, spec)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(pid, signal.SIGCONT)
    term = connect(spec)
    term.open(session="console")
    term.expect("over")
