"""What machines that have nothing of ours do to the one entry point: narrow paths, no instance, another Python."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from panel.instance import environment, options

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = ("token admin", "user link admin", "fsck", "fsck --json", "import-lxc")


def manage(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "BOXROOM_ROLE": "command"}
    command = [sys.executable, str(PROJECT / "manage.py"), *words]
    return subprocess.run(command, env={**kept, **more}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", ["/usr/local/bin:/usr/bin:/bin", "/usr/bin", ""])
def test_a_shell_without_sbin_finds_roots_programs(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    environment.complete_path()
    words = os.environ["PATH"].split(":")
    assert words[: len(path.split(":")) if path else 0] == (path.split(":") if path else [])
    assert "/usr/sbin" in words
    assert "" not in words, "the directory one is in is no place for root's programs"
    environment.complete_path()
    assert os.environ["PATH"].split(":") == words


@pytest.mark.parametrize("command", COMMANDS)
def test_without_an_instance_a_command_says_so(tmp_path: Path, command: str) -> None:
    done = manage(*command.split(), "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"There is no Boxroom in {tmp_path}/none. `manage.py up` makes one; --state-dir names another."
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_after_an_up_that_failed_a_command_says_so(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOXROOM_STATE_DIR", str(tmp_path))
    (tmp_path / "instance.json").write_text("{}")
    assert "was never ready" in options.refusal(command.split())
    (tmp_path / "prepared").write_text("")
    assert options.refusal(command.split()) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo" in options.refusal(command.split())


def test_what_needs_no_instance_is_never_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXROOM_STATE_DIR", str(tmp_path))
    for command in ("", "up", "down", "doctor", "install", "token --help", "help"):
        assert options.refusal(command.split()) == ""


@pytest.mark.parametrize("command", ["doctor", "install --print"])
def test_who_may_not_read_the_instance_gets_words(tmp_path: Path, command: str) -> None:
    """Root without the right to pass over modes stands for a plain user, who could not read every clone."""
    (tmp_path / "panel").mkdir(mode=0o700)
    (tmp_path / "panel/web.json").write_text("{}")
    os.chown(tmp_path / "panel", 1, 1)
    words = [sys.executable, str(PROJECT / "manage.py"), *command.split(), "--state-dir", str(tmp_path)]
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    done = subprocess.run(
        [*less, *words], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.stdout or done.stderr


def test_the_environment_of_another_python_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's next release brings another Python, for which nothing is installed."""
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    stamp = tmp_path / ".venv" / environment.STAMP
    stamp.write_text(environment._wanted_stamp(tmp_path, "doctor") + "\n")
    assert environment.inside(tmp_path, "doctor")
    stamp.write_text(stamp.read_text().replace(f"3.{sys.version_info.minor}", f"3.{sys.version_info.minor - 1}"))
    assert not environment.inside(tmp_path, "doctor")


def test_a_download_that_fails_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "PAUSE_SEC", 0.0)
    fails_first = ("/bin/sh", "-c", 'test -e "$0" || { : > "$0"; echo no route >&2; exit 7; }', str(tmp_path / "tried"))
    environment._persist(fails_first, "fetching", before=("/bin/sh", "-c", "echo somebody else is broken; exit 1"))
    said = capsys.readouterr().err
    assert said.count("fetching failed (exit status 7)") == 1
    assert "no route" in said
    assert "somebody else is broken" in said
    with pytest.raises(SystemExit, match=f"tried {environment.TRIES} times"):
        environment._persist(("/bin/false",), "fetching")


def test_what_ubuntu_has_only_as_a_snap_is_not_asked_of_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = "no packages found matching chromium-headless-shell\n"
    said = subprocess.CompletedProcess([], 1, "dnsmasq-base installed\n", unknown)
    monkeypatch.setattr(subprocess, "run", lambda *_words, **_options: said)
    for distribution in ("debian", "ubuntu"):
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda it=distribution: {"ID": it})
        missing = environment.missing_packages("test")
        assert ("chromium-headless-shell" in missing) == (distribution == "debian")
        assert "debian-archive-keyring" in missing, "Ubuntu's debootstrap does not bring it"
        assert "dnsmasq-base" not in missing


def test_the_readme_names_what_up_installs() -> None:
    text = (PROJECT / "README.md").read_text().partition("packages that are missing:")[2].partition(". It says")[0]
    assert text.replace("\n", " ").strip().split(", ") == list(environment.PACKAGES)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_nobody_elses(closed: str) -> None:
    """The next file or socket would be opened there, and what is printed would go to it."""
    code = (
        "import manage, os, sys; manage.fill_streams(); print('said'); print('told', file=sys.stderr)\n"
        "shown = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        "sys.exit(42 if shown.count('/dev/null') == int(sys.argv[1]) and sys.stdin.read() == '' else 1)"
    )
    line = f'exec "$0" -c "$1" {closed.count("&-")} {closed}'
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.Popen(["sh", "-c", line, sys.executable, code], cwd=PROJECT, **pipes)
    done.communicate()
    assert done.returncode == 42
