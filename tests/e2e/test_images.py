"""Images out of what people have: by clicking, a file of their own; by the API, a registry and a container."""

from __future__ import annotations

import functools
import http.server
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.kernel.registries import registry
from tests.kernel.test_image_files import layout, packed, tree
from tests.kernel.test_registries import push
from tests.kernel.test_simplestreams import keys, offered, signed

from ..ports import free_port
from .browser import PATIENCE_MS, People, arrive, axe, chromium
from .instance import Instance, call, wait_until
from .test_main_job import run

pytestmark = [pytest.mark.e2e, pytest.mark.browser]
expect.set_options(timeout=PATIENCE_MS)
__all__ = ["keys", "layout", "offered"]


@pytest.fixture(scope="module")
def server(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback with team/tiny:1."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        push(layout, address, "team/tiny:1")
        yield address


@pytest.fixture(scope="module")
def streams(offered: Path, keys: Path) -> Iterator[str]:
    """An image server on loopback that offers tiny/7, by signed lists; yields its address."""
    signed(offered, keys / "keyring")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(offered))
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="module")
def instance(server: str, streams: str, keys: Path) -> Iterator[Instance]:
    """An instance whose policy lets images come from that registry, and that image server."""
    made = Instance(Path(tempfile.mkdtemp(prefix="boxroom-e2e-")), free_port())
    (made.state_dir / "policy.toml").write_text(
        f'[images]\ninsecure = ["{server}", "{streams}"]\nkeyrings = {{"{streams}" = "{keys}/keyring.gpg"}}\n'
    )
    made.up()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def people(instance: Instance) -> Iterator[People]:
    with chromium() as browser:
        yield (made := People(instance, browser))
        made.close()


def images_left(instance: Instance) -> set[str]:
    return {path.stem for path in (instance.state_dir / "host/images").glob("*.json")}


def test_an_image_of_a_registry_runs_as_what_it_is(api: httpx.Client, name: str, server: str) -> None:
    source = {"type": "oci", "reference": f"{server}/team/tiny:1"}
    made = call(api, "POST", "/images", {"name": "tiny", "source": source})
    assert made["status"] == "succeeded", made
    image = api.get("/images/tiny").json()
    assert (image["details"]["kind"], image["details"]["ports"], image["layers"]) == ("application", ["8080/tcp"], 2)
    assert image["runs"]["halt_signal"] == "SIGQUIT"
    command = ["/bin/sh", "-c", "echo up from $(id -u); sleep 1000"]
    body = {"name": name, "image": "tiny", "start": True, "init_command": command}
    assert call(api, "POST", "/containers", body)["status"] == "succeeded"
    assert api.get(f"/containers/{name}").json()["status"] == "running"
    assert run(api, name, "sh", "-c", "id -u")["stdout"] == "0\n"
    refused = api.delete("/images/tiny")
    assert (refused.status_code, refused.json()["code"], refused.json()["users"]) == (409, "in-use", [name])


def test_as_it_is_it_ends_by_its_own_status(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "tiny", "start": True})
    ended = wait_until(lambda: api.get(f"/containers/{name}").json()["last_exit"], "its program ends")
    assert ended["exit_code"] == 7
    assert "hello from /etc" in ended["console"]


def test_a_container_becomes_an_image_and_that_a_container(api: httpx.Client, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    run(api, name, "sh", "-c", "echo mine > /root/mine")
    made = call(api, "POST", "/images", {"name": "mine", "source": {"type": "container", "container": name}})
    assert made["status"] == "succeeded", made
    assert api.get(f"/containers/{name}").json()["status"] == "running"
    other = f"{name}-b"
    call(api, "POST", "/containers", {"name": other, "image": "mine", "start": True})
    assert run(api, other, "cat", "/root/mine", "/etc/hostname")["stdout"] == f"mine\n{other}\n"
    call(api, "DELETE", f"/containers/{other}?force=true")
    assert call(api, "DELETE", "/images/mine")["status"] == "succeeded"


def test_a_file_is_sent_and_becomes_an_image_by_clicking(
    instance: Instance, people: People, api: httpx.Client, tmp_path: Path
) -> None:
    archive = packed(tmp_path / "rootfs.tar", "-C", str(tree(tmp_path / "tree")), ".")
    with open(archive, "ab") as file:  # more than one piece
        file.write(b"\0" * (9 << 20))
    page = people.page()
    page.goto("/images/?type=upload")
    page.get_by_label("Name", exact=True).fill("sent")
    page.locator("#i-file").set_input_files(archive)
    assert axe(page) == []
    page.get_by_role("button", name="Make image").click()
    arrive(page, r"/operations/[^/?]+$")
    wait_until(lambda: api.get("/images/sent").json()["state"] == "ready", "the image is there")
    page.goto("/images/")
    page.get_by_role("link", name="sent", exact=True).click()
    expect(page.get_by_text("Tiny Linux 7")).to_be_visible()
    expect(page.get_by_text("/sbin/init")).to_be_visible()
    assert axe(page) == []
    wait_until(lambda: not list((instance.state_dir / "web/uploads").iterdir()), "the upload is gone")


def test_what_is_wrong_with_an_archive_is_told(people: People, tmp_path: Path) -> None:
    (tmp_path / "nonsense.tar").write_bytes(b"nonsense" * 1000)
    page = people.page()
    page.goto("/images/?type=upload")
    page.get_by_label("Name", exact=True).fill("bad")
    page.locator("#i-file").set_input_files(tmp_path / "nonsense.tar")
    page.get_by_role("button", name="Make image").click()
    arrive(page, r"/operations/[^/?]+$")
    expect(page.get_by_role("alert").get_by_text("This is no archive")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1440])
def test_an_image_server_is_asked_what_it_offers_and_for_one_of_it(
    people: People, api: httpx.Client, streams: str, width: int
) -> None:
    page = people.page(width=width)
    page.goto(f"/images/?type=simplestreams&server=http://{streams}")
    page.get_by_role("button", name="Fetch the list").click()
    arrive(page, r"/operations/[^/?]+$")
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    page.goto(f"/images/?type=simplestreams&server=http://{streams}")
    assert axe(page) == []
    page.get_by_role("link", name="Choose tiny/7").click()
    arrive(page, "/images/.*alias=")
    page.get_by_label("Name", exact=True).fill(f"tiny-{width}")
    page.get_by_role("button", name="Make image").click()
    arrive(page, r"/operations/[^/?]+$")
    wait_until(lambda: api.get(f"/images/tiny-{width}").json()["state"] == "ready", "the image is there")
    details = api.get(f"/images/tiny-{width}").json()["details"]
    assert (details["serial"], details["description"]) == ("20260102_05:24", "Tiny here")


def test_every_form_fits_and_is_accessible(people: People) -> None:
    for width in (390, 1440):
        page = people.page(width=width)
        for kind in ("debootstrap", "oci", "simplestreams", "url", "upload", "file", "container"):
            page.goto(f"/images/?type={kind}")
            assert axe(page) == [], kind
            page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_registry_is_asked_by_clicking_and_nothing_is_left(
    instance: Instance, people: People, api: httpx.Client, layout: Path, server: str
) -> None:
    page = people.page(width=390, height=844)
    page.goto("/images/?type=oci")
    page.get_by_label("Name", exact=True).fill("clicked")
    page.get_by_label("Image", exact=True).fill(f"{server}/team/tiny:1")
    page.get_by_role("button", name="Make image").click()
    arrive(page, r"/operations/[^/?]+$")
    wait_until(lambda: api.get("/images/clicked").json()["state"] == "ready", "the image is there")
    page.goto("/images/clicked")
    expect(page.get_by_text("8080/tcp")).to_be_visible()
    assert axe(page) == []
    for one in sorted(images_left(instance) - {"busybox"}):
        assert call(api, "DELETE", f"/images/{one}")["status"] == "succeeded"
    instance.nothing_left()
