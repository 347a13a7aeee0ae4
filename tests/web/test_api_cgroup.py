"""Files of a container's cgroup: who may read them, and what is refused how, over the ticker's real socket."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest

from containers.core.errors import NotFound
from containers.ticker.sampling import Tick
from containers.ticker.server import Server
from tests.web.api import Api, assert_error
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ticker(settings):
    """A server of the ticker's socket whose containers have one file each."""
    # short: the path of a socket ends at 107 bytes
    path = Path("/tmp") / f"bx{secrets.token_hex(4)}"
    path.mkdir()
    settings.BOXROOM_RUN_DIR = path
    asked = []

    def cgroup_file(container_id, file):
        asked.append((container_id, file))
        if file == "memory.max":
            return {"value": "max\n"}
        return {"refused": NotFound("None.", field=None if file == "cpu.gone" else "file").as_dict()}

    server = Server(
        path / "ticker.sock",
        path / "events.sock",
        history=lambda *_: {},
        recent=lambda *_: {},
        limits=lambda _: {},
        cgroup_file=cgroup_file,
        latest=lambda _: Tick(0.0, {}, "{}"),
        on_event=lambda _: None,
    )
    server.start()
    yield asked
    server.stop()
    server.join()
    shutil.rmtree(path)


@pytest.fixture
def row(team):
    make_host()
    return make_container(team, status="running")


def where(file, name="web-1"):
    return f"/containers/{name}/cgroup?file={file}"


def test_an_operator_reads_a_file(ticker, row, olga):
    assert Api(olga).get(where("memory.max")) == (200, {"file": "memory.max", "value": "max\n"})
    assert ticker == [(row.pk, "memory.max")]


def test_who_may_not(ticker, row, bob, charlie):
    assert_error(Api(bob).get(where("memory.max")), 403, "forbidden")
    assert_error(Api(charlie).get(where("memory.max")), 404, "not-found")
    assert ticker == []


@pytest.mark.parametrize("file", ["..%2Fmemory.max", "ns%2Fmemory.max", "tasks", "", "memory.max%0A", "memory..max"])
def test_a_path_is_no_name(ticker, row, olga, file):
    assert_error(Api(olga).get(where(file)), 422, "invalid-value", "file")
    assert ticker == []


def test_what_is_not_there_names_the_field(ticker, row, olga):
    assert_error(Api(olga).get(where("memory.wings")), 404, "not-found", "file")
    assert_error(Api(olga).get(where("memory.max", "web-7")), 404, "not-found")


def test_what_does_not_run_has_no_cgroup(ticker, row, olga):
    assert_error(Api(olga).get(where("cpu.gone")), 409, "invalid-transition")
    row.status = "stopped"
    row.save()
    assert_error(Api(olga).get(where("memory.max")), 409, "invalid-transition")
    assert ticker == [(row.pk, "cpu.gone")]


def test_without_a_file_it_says_so(ticker, row, olga):
    status, body = Api(olga).get("/containers/web-1/cgroup")
    assert (status, body["field"]) == (400, "file")
