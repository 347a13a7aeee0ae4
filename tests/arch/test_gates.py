"""What holds for the whole tree: style, types, directions, migrations, and files that must be valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=PROJECT,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=lambda command: " ".join(command),
)
def test_gate(command: tuple[str, ...]) -> None:
    done = run(BIN / command[0], *command[1:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_ruff_wants_docstrings_in_every_folder_of_the_core() -> None:
    """Its exceptions are patterns whose star takes slashes too: one for the files beside the core once held for it."""
    bare = "def bare() -> None:\n    return\n"
    for folder in sorted({path.parent.relative_to(PROJECT) for path in (PROJECT / "containers/core").rglob("*.py")}):
        place = folder / "some_module.py"
        done = run(BIN / "ruff", "check", "--output-format", "concise", "--stdin-filename", place, "-", stdin=bare)
        assert f"{place}:1:5: D103" in done.stdout, done.stdout + done.stderr


def test_migrations_are_complete() -> None:
    done = run(sys.executable, "manage.py", "makemigrations", "--check", "--dry-run", BOXROOM_ROLE="command")
    assert done.returncode == 0, done.stdout + done.stderr


def test_core_imports_nothing_of_the_web() -> None:
    modules = [
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in (PROJECT / "containers/core").rglob("*.py")
        if path.name != "__init__.py" and path.stem != "launcher"
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "loaded = {m.partition('.')[0] for m in sys.modules}\n"
        "bad = {'django', 'celery', 'kombu', 'channels', 'redis', 'panel'} & loaded\n"
        "sys.exit(' '.join(sorted(bad)) or 0)"
    )
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def test_processes_of_a_container_import_the_standard_library_only() -> None:
    modules = [f"containers.core.proc.{path.stem}" for path in (PROJECT / "containers/core/proc").glob("[a-z]*.py")]
    program = (
        f"import importlib, sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "known = sys.stdlib_module_names | {'containers', '__main__'}\n"
        "sys.exit(' '.join(sorted({m.partition('.')[0] for m in sys.modules} - known)) or 0)"
    )
    done = run("/usr/bin/python3", "-I", "-S", "-c", program)
    assert done.returncode == 0, done.stderr


def test_compose_file_is_valid() -> None:
    done = run("docker-compose", "-f", "docker-compose.dev.yml", "config")
    assert done.returncode == 0, done.stderr
    for service in ("redis", "postgres", "web", "worker"):
        assert f"  {service}:" in done.stdout


def test_nothing_names_the_machine_it_was_made_on() -> None:
    tracked = run("git", "ls-files").stdout.split()
    for name in tracked:
        path = PROJECT / name
        if not path.is_file() or path.suffix in (".png", ".mo", ".woff2", ".gz"):
            continue
        text = path.read_text(errors="replace")
        assert str(PROJECT) + "/" not in text, name
