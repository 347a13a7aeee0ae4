"""What is kept of the machine between runs: two clones of the project use it at the same time."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import machine


def clone(place: Path, requirements: str) -> Path:
    place.mkdir()
    (place / "requirements.txt").write_text(requirements)
    (place / "requirements-dev.txt").touch()
    return place


def content(disk: Path) -> str:
    """Return a file of the disk."""
    words = ["debugfs", "-R", "cat /venv/one", disk]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and an interpreter of two files."""
    for name in ("venv", "stdlib"):
        (tmp_path / name).mkdir()
    (tmp_path / "venv/one").write_text("here")
    (tmp_path / "stdlib/os.py").touch()
    monkeypatch.setattr(machine, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(machine, "STDLIB", tmp_path / "stdlib")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path / "venv"))
    return tmp_path / "cache"


def test_a_clones_disk_stays_when_another_clone_makes_its_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, requirements in enumerate(("a==1", "a==2")):
        monkeypatch.setattr(machine, "PROJECT", clone(tmp_path / f"clone{number}", requirements))
        machine.library(tmp_path / f"disk{number}")
    assert [content(tmp_path / f"disk{number}") for number in range(2)] == ["here", "here"]
    (kept,) = cache.glob("library-*")
    assert kept.samefile(tmp_path / "disk1"), "of those that are kept there is one, the newest"


def test_clones_with_the_same_packages_make_one_disk(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PROJECT", clone(tmp_path / "clone0", "a==1"))
    disks = [tmp_path / f"disk{number}" for number in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(machine.library, disks[:3]))
    monkeypatch.setattr(machine, "PROJECT", clone(tmp_path / "clone1", "a==1"))
    machine.library(disks[3])
    (kept,) = cache.glob("library-*")
    assert all(disk.samefile(kept) for disk in disks)
    assert content(disks[3]) == "here"
