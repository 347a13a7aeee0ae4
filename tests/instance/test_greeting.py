"""A sign-in link is for the person at the terminal; a service's journal names the command that gives one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from panel.instance import greeting

LINK = "/sign-in/link/secret"


@pytest.mark.parametrize(("stream", "others"), [("{}:{}", True), ("{}:1{}", False), ("", False), (None, False)])
def test_the_journal_is_known_by_its_stream(stream: str | None, others: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is inherited by what writes elsewhere, so it is compared with where this writes."""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream.format(status.st_dev, status.st_ino))
    assert greeting.read_by_others(writing) == others
    os.close(reading)
    os.close(writing)
    assert not greeting.read_by_others(writing), "closed"


def test_a_link_stands_at_the_terminal_and_in_no_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOXROOM_READY_FD", raising=False)
    command = greeting.link_command(Path("/var/lib/boxroom"))
    greeting.greet("http://127.0.0.1:8080", "https://panel.example.org", LINK, command)
    said = capsys.readouterr().out
    assert f"  https://panel.example.org{LINK}\n" in said
    assert "user link" not in said
    monkeypatch.setenv("BOXROOM_READY_FD", "7")
    greeting.greet("http://127.0.0.1:8080", "http://127.0.0.1:8080", LINK, command)
    assert LINK not in capsys.readouterr().out, "who detached it has the link by its pipe"


def test_without_a_link_the_command_for_one_is_named_until_there_is_a_password() -> None:
    address = "http://127.0.0.1:8080"
    command = greeting.link_command(Path("/srv/a b"))
    assert command.endswith("manage.py user link admin --state-dir '/srv/a b'")
    assert f"  {command}" in greeting.lines(address, address, "", command)
    assert "user link" not in "".join(greeting.lines(address, address, "", ""))


def test_who_reads_the_journal_is_not_told_to_type() -> None:
    address = "http://127.0.0.1:8080"
    assert any("Ctrl-C" in line for line in greeting.lines(address, address, "", ""))
    assert not any("Ctrl-C" in line for line in greeting.lines(address, address, "", "", terminal=False))
