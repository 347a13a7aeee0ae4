"""Logs do not grow for ever, whoever holds them open."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from containers.core.host import Host
from panel.instance import processes, programs
from panel.management.commands.up import READY_SEC, pause_sec


def test_a_long_log_is_begun_anew_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    short = tmp_path / "worker.log"
    short.write_bytes(b"short\n")
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * (processes.LOG_MAX_BYTES + 1))
        processes.trim_logs(tmp_path)
        writer.write(b"on\n")
    assert path.read_bytes() == b"on\n"
    assert (tmp_path / "web.log.1").stat().st_size == processes.LOG_MAX_BYTES + 1
    assert short.read_bytes() == b"short\n"
    assert not (tmp_path / "worker.log.1").exists()


def test_only_the_worker_is_told_of_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It downloads what images are made of; a proxy's address may hold a password."""
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    host = Host(tmp_path, "abcde")
    assert programs.environment(host, "worker")["https_proxy"] == "http://proxy.example.org:3128"
    for role in ("web", "ticker", "command"):
        assert "https_proxy" not in programs.environment(host, role)


def test_who_is_told_to_stop_does_not_wait_for_what_prepares() -> None:
    """A host that goes down while the panel starts gives the unit a minute in all."""
    command = [sys.executable, "-c", "print('began', flush=True); import time; time.sleep(60)"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert processes.finish(child, [signal.SIGTERM])[1] == ""
    assert child.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 30
    with subprocess.Popen(["echo", "done"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert processes.finish(child, []) == ("done\n", "")
    assert child.returncode == 0


def test_who_waits_for_a_slow_panel_leaves_it_the_core() -> None:
    """On one emulated core asking twenty times a second took a fifth of it, from the process that was asked for."""
    assert pause_sec(0) == pause_sec(3) == 0.05, "on most machines it is there in three seconds"
    asked, at = 0, 0.0
    while at < READY_SEC:
        at += pause_sec(at)
        asked += 1
    assert 600 < asked < 1200
