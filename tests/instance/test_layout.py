"""What `up` makes on disk: modes, owners, secrets apart; twice is once."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.core.host import WEB_USER, Host
from panel.instance import layout, redis_server
from panel.instance.layout import Bind

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Host]:
    host = layout.ensure(tmp_path / "state", Bind("127.0.0.1", 8080), extra_origins=[])
    yield host
    shutil.rmtree(host.run_dir)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_root_keeps_the_store_to_itself(made: Host) -> None:
    assert mode(made.store_dir) == 0o700
    assert mode(made.state_dir / "root.json") == 0o600
    assert (made.state_dir / "root.json").stat().st_uid == 0


def test_the_web_owns_its_part(made: Host) -> None:
    web = pwd.getpwnam(WEB_USER)
    assert made.web_dir.stat().st_uid == web.pw_uid
    assert (made.web_dir / "db.sqlite3").stat().st_uid == web.pw_uid


def test_the_web_cannot_write_what_root_believes(made: Host) -> None:
    web = pwd.getpwnam(WEB_USER)
    for path in (made.state_dir, made.panel_dir, made.panel_dir / "web.json"):
        status = path.stat()
        assert status.st_uid == 0
        assert not status.st_mode & 0o022, f"{path} is written by others"
    assert (made.panel_dir / "web.json").stat().st_gid == web.pw_gid
    assert sorted(path.name for path in made.web_dir.iterdir()) == ["db.sqlite3"]


def test_secrets_of_web_and_root_differ_and_stay(made: Host) -> None:
    web = json.loads((made.panel_dir / "web.json").read_text())
    root = json.loads((made.state_dir / "root.json").read_text())
    assert web["redis_password"] != root["redis_password"]
    layout.ensure(made.state_dir, Bind("127.0.0.1", 8081), extra_origins=[])
    again = json.loads((made.panel_dir / "web.json").read_text())
    assert (again["secret_key"], again["redis_password"]) == (web["secret_key"], web["redis_password"])
    assert "http://127.0.0.1:8081" in again["origins"]


ASK_DJANGO = """
import sys, django
django.setup()
from django.http import HttpRequest
for name in sys.argv[1:]:
    request = HttpRequest()
    request.META["HTTP_HOST"] = name
    print(request.get_host())
"""


@pytest.mark.parametrize(
    ("bind", "origins", "hosts"),
    [
        (Bind("127.0.0.1", 8080), [], ["127.0.0.1:8080", "localhost:8080"]),
        # what `up` asks before it says that the panel is ready, and what browsers ask through the reverse proxy
        (Bind("127.0.0.1", 8080), ["https://panel.example.org"], ["127.0.0.1:8080", "panel.example.org"]),
        (Bind("::1", 8080), [], ["[::1]:8080", "localhost:8080"]),
        (Bind("0.0.0.0", 8080), ["https://panel.example.org:8443"], ["127.0.0.1:8080", "panel.example.org:8443"]),
    ],
)
def test_the_panel_answers_where_it_listens_and_where_a_proxy_serves_it(
    tmp_path: Path, bind: Bind, origins: list[str], hosts: list[str]
) -> None:
    made = layout.ensure(tmp_path / "state", bind, extra_origins=origins)
    shutil.rmtree(made.run_dir)
    settings = {"BOXROOM_STATE_DIR": str(made.state_dir), "BOXROOM_ROLE": "command", "PATH": os.environ["PATH"],
                "DJANGO_SETTINGS_MODULE": "panel.settings"}  # fmt: skip
    ask = [sys.executable, "-c", ASK_DJANGO]
    done = subprocess.run([*ask, *hosts], env=settings, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == hosts, done.stderr
    refused = subprocess.run([*ask, "evil.example.org"], env=settings, cwd=PROJECT, capture_output=True, check=False)
    assert b"DisallowedHost" in refused.stderr


def test_redis_listens_on_no_port_and_each_user_has_his_own_rights(made: Host) -> None:
    text = redis_server.config(made)
    assert "port 0\n" in text
    assert "user default off" in text
    assert len(str(made.redis_socket)) < 108
    web = next(line for line in text.splitlines() if line.startswith("user web "))
    for command in ("+brpop", "+eval", "+config", "+keys", "+flushall", "+lrange"):
        assert command not in web.split()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:99", "http://[::1]:99"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
    ],
)
def test_bind_is_parsed(text: str, address: str) -> None:
    assert Bind.parse(text).address == address


@pytest.mark.parametrize("text", ["", "8080", ":8080", "host:", "host:0", "host:70000", "host:x", "host:８０"])
def test_a_bad_bind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Bind.parse(text)


def test_one_instance_has_one_name_for_ever(made: Host) -> None:
    assert Host.open(made.state_dir).instance == made.instance
    assert len(made.instance) == 5
    assert len(made.bridge_name(999)) <= 15
    assert len(made.veth_name(1023, 9)) <= 15
    assert len(str(made.supervisor_socket("0" * 12))) < 108
    assert os.path.isdir(made.locks_dir)
