"""Terminal sessions in a real container, by the frames of the supervisor's socket."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.core.host import Host
from containers.core.lifecycle import running
from containers.core.model.spec import Spec
from containers.core.proc.records import RunFile
from containers.core.proc.typists import TELL_BYTES
from containers.core.protocol import WINDOW_BYTES, Decoder, Kind, control, encode, parse_control

from .conftest import NoNetwork
from .patience import patient, wait_until


class Terminal:
    """A client of a supervisor that keeps what it got, and acknowledges it unless told not to."""

    def __init__(self, path: Path, *, mode: str = "rw", user: str = "alice", acks: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(0.05)
        self.socket.connect(str(path))
        self.viewer = {"user": user, "user_id": 1, "mode": mode}
        self.acks = acks
        self.output = bytearray()
        self.digest = hashlib.sha256()
        self.total = 0
        self.keep = 2**21
        self.messages: list[dict[str, Any]] = []
        self.eof = False
        self._decoder = Decoder()

    def open(self, **more: Any) -> dict[str, Any]:
        values = {"cmd": "open", "cols": 80, "rows": 24, "viewer": self.viewer, **more}
        self.socket.sendall(control(**values))
        self.wait(lambda: bool(self.messages), what="an answer to open")
        return self.messages[0]

    def pump(self) -> None:
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return
        except ConnectionError:
            data = b""
        self.eof = self.eof or not data
        for kind, payload in self._decoder.feed(data):
            if kind is Kind.CONTROL:
                self.messages.append(parse_control(payload))
                continue
            self.total += len(payload)
            self.digest.update(payload)
            self.output += payload
            del self.output[: -self.keep]
            if self.acks:
                self.tell(cmd="ack", bytes=len(payload))

    def tell(self, **message: Any) -> None:
        try:
            self.socket.sendall(control(**message))
        except OSError:
            self.eof = True

    def type(self, text: str) -> None:
        self.socket.sendall(encode(Kind.DATA, text.encode()))

    def wait(self, condition: Callable[[], bool], timeout_sec: float = 60.0, what: str = "") -> None:
        deadline = time.monotonic() + patient(timeout_sec)
        while not condition():
            assert time.monotonic() < deadline, f"{what}; got {bytes(self.output[-500:])!r} {self.messages}"
            self.pump()

    def expect(self, text: str) -> None:
        self.wait(lambda: text.encode() in self.output, what=f"{text!r} in the output")

    def exit_code(self) -> int:
        self.wait(lambda: any(m["type"] == "exit" for m in self.messages), what="the exit")
        return int(next(m["code"] for m in self.messages if m["type"] == "exit"))


@pytest.fixture
def connect(host: Host, running_container: Spec) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def new(**more: Any) -> Terminal:
        made.append(Terminal(host.supervisor_socket(running_container.id), **more))
        return made[-1]

    yield new
    for one in made:
        one.socket.close()


Connect = Callable[..., Terminal]


def test_a_shell_with_job_control_size_and_term(connect: Connect) -> None:
    term = connect()
    opened = term.open()
    assert opened["type"] == "opened"
    assert opened["created"] is True
    term.type("echo $TERM $HOME; stty size; test -t 0 && echo is-a-tty; tty; ps -o tty,args\n")
    term.expect("xterm-256color /root\r\n24 80\r\nis-a-tty\r\n/dev/pts/")
    term.tell(cmd="resize", cols=132, rows=43)
    term.type("stty size\n")
    term.expect("43 132")
    # what it says it says as the terminal's foreground
    term.type("sh -c 'echo now-$((1+1)); exec sleep 3600'\n")
    term.expect("now-2")
    term.type("\x03")
    term.type("echo after=$?\n")
    term.expect("after=130")
    term.type("exit 7\n")
    assert term.exit_code() == 7
    term.wait(lambda: term.eof, what="the end of the connection")


def test_sizes_out_of_range_are_refused_by_name(connect: Connect) -> None:
    for cols, rows in ((0, 24), (80, 0), (65535, 24), (80, 65535), (-1, 5), ("80", 24), (True, 24)):
        answer = connect().open(cols=cols, rows=rows)
        assert (answer["type"], answer["code"], answer["field"]) == ("error", "invalid-value", "cols"), (cols, rows)
    term = connect()
    term.open()
    term.tell(cmd="resize", cols=0, rows=65535)
    term.wait(lambda: any(m["type"] == "error" for m in term.messages), what="an error")
    term.type("stty size\n")
    term.expect("24 80")


def test_a_typist_who_comes_again_is_told_how_much_arrived(connect: Connect) -> None:
    one = connect()
    opened = one.open(typist="page-1")
    assert opened["taken"] is None
    session = opened["session"]
    asked = "stty -echo; read -r first; read -r second; echo $((1+1)):$first:$second\n"
    one.type(asked + "kept\nlo")  # of a word whose rest stays on the way
    again = connect()
    answer = again.open(session=session, typist="page-1")
    again.type((asked + "kept\nlost\n")[answer["taken"] :])
    again.expect("2:kept:lost")
    one.wait(lambda: one.eof, what="the end of the earlier connection")
    other = connect(user="bob")
    other.viewer["user_id"] = 2
    assert other.open(session=session, typist="page-1")["taken"] is None, "nobody speaks for another"
    assert "taken" not in connect().open(session=session)
    assert connect().open(session=session, typist="no name")["field"] == "typist"


def test_what_is_still_on_its_way_when_its_typist_comes_again_is_heard_once(
    host: Host, running_container: Spec, connect: Connect
) -> None:
    one, again = connect(), connect()
    session = one.open(typist="page")["session"]
    asked, lines = "stty -echo; echo rea\\dy; echo lines=$(wc -l)\n", "line\n" * 3
    one.type(asked)
    one.expect("ready")
    run = RunFile.read(host.run_path(running_container.id))
    assert run is not None
    os.kill(run.supervisor.pid, signal.SIGSTOP)
    try:
        one.type(lines)
        again.socket.sendall(control(cmd="open", cols=80, rows=24, viewer=again.viewer, session=session, typist="page"))
    finally:
        os.kill(run.supervisor.pid, signal.SIGCONT)
    again.wait(lambda: bool(again.messages), what="an answer to open")
    again.type((asked + lines)[again.messages[0]["taken"] :] + "\x04")
    again.expect("lines=3\r\n")


def test_a_typist_is_told_now_and_then_how_much_arrived(connect: Connect) -> None:
    term = connect()
    term.open(typist="page")
    term.type("stty -echo -icanon; cat > /dev/null\n")
    for _ in range(5):
        term.type("x" * 4096)
    term.wait(lambda: any(m["type"] == "taken" for m in term.messages), what="the count")
    told = [m["bytes"] for m in term.messages if m["type"] == "taken"]
    assert len(told) == 1
    assert told[0] >= TELL_BYTES


def test_foreign_and_forged_session_ids(connect: Connect) -> None:
    for unknown in ("0123456789abcdef", "../x", "", "A" * 16, 5, [], {"x": 1}):
        assert connect().open(session=unknown)["code"] == "not-found", unknown


def test_a_session_outlives_its_viewer_and_replays(host: Host, running_container: Spec, connect: Connect) -> None:
    def run(*command: str) -> None:
        aside = connect()
        aside.open(command=command)
        assert aside.exit_code() == 0

    run("mkfifo", "/go")
    first = connect()
    session = first.open()["session"]
    root = Path(f"/proc/{running.observe(host)[running_container.id].init_pid}/root")
    # all by the shell itself: it would take a child that stands still for a job to be looked after
    first.type("echo first-$((1+1)); read x < /go; echo later-$((2+2)); : > /told\n")
    first.expect("first-2")
    first.socket.close()
    run("sh", "-c", "echo > /go")
    wait_until((root / "told").exists, what="it goes on while nobody looks")
    second = connect()
    opened = second.open(session=session)
    assert (opened["session"], opened["created"]) == (session, False)
    second.expect("later-4")
    assert b"first-2" in second.output
    second.type("exit\n")
    assert second.exit_code() == 0
    third = connect()
    assert third.open(session=session)["type"] == "opened"
    third.expect("later-4")
    assert third.exit_code() == 0


def test_hundred_megabytes_lose_no_byte(connect: Connect) -> None:
    term = connect()
    term.keep = 2**30
    term.open(
        command=["sh", "-c", "stty -opost; head -c 104857600 /dev/urandom > /tmp/b; sha256sum /tmp/b >&2; cat /tmp/b"]
    )
    term.wait(lambda: term.total >= 74, what="the digest")
    # the digest's line comes first, then exactly the file
    line = bytes(term.output[:74])
    found = re.match(rb"([0-9a-f]{64})  /tmp/b\n", bytes(line))
    assert found, line
    assert term.exit_code() == 0
    assert term.total == len(found[0]) + 100 * 2**20
    assert hashlib.sha256(term.output[len(found[0]) :]).hexdigest() == found[1].decode()


def test_ctrl_c_is_not_late_while_output_floods(connect: Connect) -> None:
    term = connect()
    term.open()
    term.type("cat /dev/zero | tr '\\0' x\n")
    term.wait(lambda: term.total > 5 * 2**20, what="a flood")
    term.type("\x03")
    before = term.total
    term.output.clear()
    term.type("echo stopped=$?\n")
    term.wait(lambda: re.search(rb"stopped=\d+", bytes(term.output)) is not None, what="the prompt")
    # late is by what comes before: a window or two, and not all that was printed meanwhile
    assert term.total - before < 32 * WINDOW_BYTES


def test_a_viewer_that_takes_nothing_gets_one_window(connect: Connect) -> None:
    term = connect(acks=False)
    term.open(command=["sh", "-c", "yes | head -c 3000000; sleep 3600"])
    term.wait(lambda: term.total >= WINDOW_BYTES, what="a window")
    for number in range(1, 6):
        # what comes before the answer would be a second one
        term.tell(cmd="resize", cols=0, rows=0)
        term.wait(lambda number=number: [m["type"] for m in term.messages].count("error") == number)  # type: ignore[misc]
    assert term.total == WINDOW_BYTES
    term.tell(cmd="ack", bytes=WINDOW_BYTES)
    term.wait(lambda: term.total == 2 * WINDOW_BYTES, what="one window more")


def test_several_viewers_see_the_same_and_each_other(connect: Connect) -> None:
    one, two = connect(user="alice"), connect(user="bob")
    session = one.open()["session"]
    two.open(session=session, cols=100, rows=30)
    one.wait(lambda: any(m["type"] == "viewers" and len(m["items"]) == 2 for m in one.messages), what="two viewers")
    one.type("echo to-$((40+2)); stty size\n")
    for each in (one, two):
        each.expect("to-42\r\n24 80")
    two.type("stty size\n")
    one.expect("30 100")


def test_who_may_only_look_is_not_heard(connect: Connect) -> None:
    writer, reader = connect(), connect(mode="ro")
    session = writer.open()["session"]
    assert reader.open(session=session)["type"] == "opened"
    reader.type("echo in-$((6*7))\n")
    writer.type("echo mine-$((6*7))\n")
    reader.expect("mine-42")
    assert b"in-42" not in reader.output
    assert connect(mode="ro").open()["code"] == "forbidden"


def test_too_many_sessions_are_refused(connect: Connect) -> None:
    for _ in range(8):
        assert connect().open(command=["sleep", "3600"])["type"] == "opened"
    assert connect().open()["code"] == "too-many"
    assert connect(user="bob").open(command=["sleep", "3600"])["type"] == "opened"


def test_sessions_are_listed_and_closed(connect: Connect) -> None:
    term = connect()
    session = term.open(command=["sh", "-c", "trap '' HUP; echo deaf; sleep 3600"])["session"]
    term.expect("deaf")
    lister = connect()
    lister.socket.sendall(control(cmd="sessions"))
    lister.wait(lambda: bool(lister.messages), what="the list")
    items = {item["session"]: item for item in lister.messages[0]["items"]}
    assert items[session]["viewers"] == ["alice"]
    assert items[session]["ended"] is False
    assert "console" in items
    closer = connect()
    closer.socket.sendall(control(cmd="close-session", session=session))
    assert term.exit_code() == 128 + 9


def test_commands_that_are_not_there_are_told(connect: Connect) -> None:
    answer = connect().open(command=["/no/such"])
    assert (answer["type"], answer["code"], answer["field"]) == ("error", "invalid-value", "command")
    answer = connect().open(user="nobody-here")
    assert (answer["code"], answer["field"]) == ("invalid-value", "user")


def test_another_users_shell(connect: Connect) -> None:
    term = connect()
    term.open(user="alice")
    term.type("id -u; echo $HOME; touch $(tty) && echo own-tty\n")
    term.expect("1000\r\n/tmp\r\nown-tty")


def test_nonsense_is_refused_and_harms_nobody(connect: Connect) -> None:
    good = connect()
    good.open()
    for junk in (
        b"\xff" * 100,
        control(cmd="nope"),
        encode(Kind.DATA, b"x"),
        encode(Kind.CONTROL, b"[]"),
        control(x=1),
    ):
        bad = connect()
        bad.socket.sendall(junk)
        bad.wait(lambda bad=bad: bad.eof, what="the end")  # type: ignore[misc]
        assert bad.messages[0]["code"] == "bad-frame"
    greedy = connect()
    greedy.open()
    greedy.tell(cmd="ack", bytes=2**30)
    greedy.wait(lambda: greedy.eof, what="the end")
    good.type("echo still-$((1+2))\n")
    good.expect("still-3")


def test_sessions_end_with_their_container(host: Host, connect: Connect, running_container: Spec) -> None:
    term = connect()
    term.open()
    term.type("echo up\n")
    term.expect("up\r\n")
    running.stop(host, running_container.id, kill=True)
    term.wait(lambda: term.eof, what="the end")
    assert term.exit_code() == 137
    assert not host.supervisor_socket(running_container.id).exists()


def test_the_console_shows_the_boot_and_takes_input(host: Host, container: Callable[..., Spec]) -> None:
    spec = container(init_command=("/bin/sh", "-c", "echo booting; while read line; do echo got $line; done"))
    running.start(host, spec, network=NoNetwork())
    term = Terminal(host.supervisor_socket(spec.id))
    try:
        term.open(session="console")
        term.expect("booting")
        term.type("hello\n")
        term.expect("got hello")
        log = host.container_dir(spec.id) / "console.log"
        wait_until(lambda: b"got hello" in log.read_bytes(), what="the log has it")
        assert log.stat().st_mode & 0o777 == 0o600
    finally:
        term.socket.close()
