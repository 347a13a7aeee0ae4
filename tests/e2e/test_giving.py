"""A directory of the host and a device, given to a container that runs: by the API, and by clicking."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from ..ports import free_port
from .browser import PATIENCE_MS, People, axe, chromium
from .instance import Instance, call, wait_until
from .test_main_job import run

pytestmark = [pytest.mark.e2e, pytest.mark.browser]
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A directory of the host that nobody but root may enter."""
    directory = Path(tempfile.mkdtemp(prefix="boxroom-share-"))
    (directory / "greeting").write_text("hello\n")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def instance(shared: Path) -> Iterator[Instance]:
    """An instance whose policy gives the directory to every project, as "media"."""
    made = Instance(Path(tempfile.mkdtemp(prefix="boxroom-e2e-")), free_port())
    (made.state_dir / "policy.toml").write_text(f'[shares.media]\npath = "{shared}"\nprojects = ["*"]\n')
    made.up()
    yield made
    made.remove()


def test_given_by_the_api_live_and_at_the_next_start(api: httpx.Client, name: str, shared: Path) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    mount = {"share": "media", "target": "/srv/media"}
    changed = call(api, "PATCH", f"/containers/{name}", {"mounts": [mount], "devices": [{"device": "fuse"}]})
    assert changed["status"] == "succeeded", changed
    script = "cat /srv/media/greeting; echo mine > /srv/media/mine; exec 3<>/dev/fuse && echo open"
    assert run(api, name, "sh", "-c", script)["stdout"] == "hello\nopen\n"
    assert (shared / "mine").stat().st_uid == 0
    call(api, "POST", f"/containers/{name}/restart")
    assert run(api, name, "cat", "/srv/media/mine")["stdout"] == "mine\n"
    wanted = {"mounts": [{**mount, "subpath": "nothing"}]}
    gone = api.patch(f"/containers/{name}?wait=60", json=wanted).json()
    assert (gone["status"], gone["error"]["path"]) == ("failed", "media/nothing")
    assert str(shared) not in str(gone)
    # what there was is there still, and in what is shown
    assert run(api, name, "cat", "/srv/media/mine")["stdout"] == "mine\n"
    assert api.get(f"/containers/{name}").json()["mounts"][0]["subpath"] == ""
    call(api, "PATCH", f"/containers/{name}", {"mounts": [], "devices": []})
    assert run(api, name, "sh", "-c", "ls /srv/media; test ! -e /dev/fuse")["exit_code"] == 0


def test_given_by_clicking(instance: Instance, api: httpx.Client, name: str, shared: Path) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    with chromium() as browser:
        people = People(instance, browser)
        page = people.page()
        page.goto(f"/containers/{name}/settings")
        part = page.locator("#given")
        part.get_by_label("Place inside").first.fill("media")
        part.get_by_role("button", name="Add").first.click()
        expect(part.get_by_role("alert")).to_contain_text("absolute path")
        part.get_by_label("Place inside").first.fill("/srv/media")
        part.get_by_role("button", name="Add").first.click()
        expect(part.get_by_text("/srv/media", exact=True)).to_be_visible()
        wait_until(lambda: run(api, name, "cat", "/srv/media/greeting")["stdout"] == "hello\n", "it is there")
        part.get_by_role("button", name="Turn on tun").click()
        expect(part.get_by_role("button", name="Turn off tun")).to_be_visible()
        wait_until(lambda: run(api, name, "test", "-c", "/dev/net/tun")["exit_code"] == 0, "the device is there")
        assert axe(page) == []
        part.get_by_role("button", name="Remove /srv/media").click()
        expect(part.get_by_role("button", name="Remove /srv/media")).to_have_count(0)
        wait_until(lambda: run(api, name, "ls", "/srv/media")["stdout"] == "", "it is gone")
        people.leave()
    assert (shared / "greeting").exists()
