"""The suite's Debians that several clones of this project share."""

from __future__ import annotations

import os
import time

from tests import debian


def test_a_debian_of_another_builder_stays_until_nobody_has_used_it_for_a_week(tmp_path, monkeypatch):
    def make(name: str, unused_sec: float):
        made = tmp_path / name
        made.mkdir()
        (made / "defaults.json").write_text("{}")
        os.utime(made / "defaults.json", (time.time() - unused_sec,) * 2)
        return made

    monkeypatch.setattr(debian, "CACHE", tmp_path)
    monkeypatch.setattr(debian, "point_release", lambda _suite: "12.1")
    monkeypatch.setattr(debian, "_build", lambda _name, target: make(target.name, 0))
    theirs = make(f"debian-12-{'0' * 16}-12.1", 3600)
    old = make(f"debian-12-{'1' * 16}-12.0", 8 * 86400)
    other = make(f"debian-13-{'1' * 16}-12.0", 8 * 86400)
    mine = debian.cached("debian-12")
    assert theirs.exists()
    assert not old.exists()
    assert other.exists()
    os.utime(mine / "defaults.json", (1, 1))
    assert debian.cached("debian-12") == mine
    assert time.time() - (mine / "defaults.json").stat().st_mtime < 60
