"""What a container writes to its console: who sees it, live and kept."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from channels.routing import URLRouter
from django.test import Client

from containers.core.host import Host as CoreHost
from containers.core.hoststore import consolelog
from containers.ticker.sampling import Tick
from containers.ticker.server import Server
from panel.routing import websocket_urlpatterns
from tests.web.api import Api, assert_error
from tests.web.sockets import Socket
from tests.web.test_terminal_consumer import Supervisor, by_token, message
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def row(team):
    make_host()
    return make_container(team, "web-1", status="running")


@pytest.fixture
def run_dir(settings):
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"  # short: the path of a socket ends at 107 bytes
    (path / "c").mkdir(parents=True)
    settings.BOXROOM_RUN_DIR = path
    yield path
    shutil.rmtree(path)


@pytest.fixture
def logged(run_dir, row, tmp_path):
    """The ticker's socket before the files of one container's console."""
    host = CoreHost(tmp_path, "test2")
    directory = host.container_dir(row.pk)
    directory.mkdir(parents=True)
    (directory / "console.log.2").write_bytes(b"oldest\n")
    (directory / "console.log.1").write_bytes(b"older\n")
    (directory / "console.log").write_bytes("boot ü \x1b[1mlogin:\xff".encode("latin-1"))
    (directory / "console.log.10.half").write_bytes(b"no log")
    os.symlink("/etc/passwd", directory / "console.log.3")

    def console(container_id, size):
        data, total = consolelog.tail(host, container_id, size)
        return {"text": data.decode(errors="replace"), "size_bytes": total}

    server = Server(
        run_dir / "ticker.sock", run_dir / "events.sock", history=lambda *_: {}, recent=lambda *_: {},
        limits=lambda _: {}, cgroup_file=lambda *_: {}, latest=lambda _: Tick(0.0, {}, "{}"), on_event=lambda _: None,
        console=console,
    )  # fmt: skip
    server.start()
    yield
    server.stop()
    server.join()


def test_the_end_of_all_files_is_one_log(logged, row, bob):
    status, found = Api(bob).get("/containers/web-1/console")
    assert status == 200
    assert found == {"text": "oldest\nolder\nboot \ufffd \x1b[1mlogin:\ufffd", "size_bytes": 31}
    assert Api(bob).get("/containers/web-1/console?tail_bytes=19")[1]["text"].startswith("\nboot")


def test_it_is_whose_container_it_is(logged, row, charlie, bob):
    assert_error(Api(charlie).get("/containers/web-1/console"), 404, "not-found")
    assert_error(Api(bob).get("/containers/web-1/console?tail_bytes=0"), 422, "invalid-value", "tail_bytes")


def test_no_log_is_empty(logged, team, bob):
    make_container(team, "web-2", status="stopped")
    assert Api(bob).get("/containers/web-2/console") == (200, {"text": "", "size_bytes": 0})


def test_a_page_reads_it_and_it_can_be_kept(logged, row, bob, charlie):
    browser = Client()
    browser.force_login(bob)
    shown = browser.get("/containers/web-1/_console")
    assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.content.decode().endswith("login:\ufffd")
    kept = browser.get("/containers/web-1/_console?download")
    assert kept.headers["Content-Disposition"] == 'attachment; filename="web-1-console.log"'
    assert kept.content == shown.content
    browser.force_login(charlie)
    assert browser.get("/containers/web-1/_console").status_code == 404


def test_a_ticker_that_is_away_is_told(run_dir, row, bob):
    browser = Client()
    browser.force_login(bob)
    assert browser.get("/containers/web-1/_console").status_code == 503
    assert browser.get("/containers/web-1/log").status_code == 200


def connect(user, name="web-1", **opening):
    """Open the socket, and return what comes first."""

    async def first():
        headers = await by_token(user)
        where = f"/ws/containers/{name}/console"
        made = Socket(URLRouter(websocket_urlpatterns), where, headers=headers)
        connected, code = await made.connect()
        if not connected:
            return {"type": "refused", "code": code}, b""
        try:
            await made.send_json_to({"type": "open", **opening})
            answer = await message(made)
            output = await made.receive_output() if answer["type"] == "opened" else {}
            if answer["type"] == "opened":
                await made.send_to(bytes_data=b"typed")
                refusal = await message(made, "error")
                assert refusal["code"] == "forbidden"
            return answer, output.get("bytes", b"")
        finally:
            await made.disconnect()

    return async_to_sync(first)()


@pytest.fixture
def supervisor(row, run_dir):
    made = Supervisor(run_dir / "c" / f"{row.pk}.sock")
    yield made
    made.stop()


def test_a_viewer_sees_what_was_written_and_types_nothing(supervisor, bob):
    supervisor.show(b"Welcome\r\n")
    answer, output = connect(bob)
    assert answer["session"] == "console"
    assert output == b"Welcome\r\n"
    os.set_blocking(supervisor.inside, False)
    with pytest.raises(BlockingIOError):
        os.read(supervisor.inside, 100)


@pytest.mark.parametrize("more", [{"session": "0123456789abcdef"}, {"command": ["/bin/sh"]}, {"cols": 10}])
def test_the_log_is_all_that_there_is(supervisor, bob, more):
    assert connect(bob, **more)[0]["code"] == "bad-request"


def test_a_stranger_sees_nothing(supervisor, charlie):
    assert connect(charlie)[0]["code"] in (4404, "not-found")
