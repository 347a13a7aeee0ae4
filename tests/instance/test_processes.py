"""Logs do not grow for ever, whoever holds them open."""

from __future__ import annotations

from pathlib import Path

from panel.instance import processes


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
