"""Backups in a browser: made, downloaded, deleted with their container, and had back from the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from .browser import PATIENCE_MS, People, arrive, axe, chromium
from .instance import Instance, call, wait_until

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def people(instance: Instance) -> Iterator[People]:
    with chromium() as browser:
        made = People(instance, browser)
        yield made
        made.close()


def test_a_container_comes_back_from_a_file(
    instance: Instance, people: People, api: httpx.Client, name: str, tmp_path: Path
) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    command = ["/bin/sh", "-c", "echo kept > /root/file"]
    assert api.post(f"/containers/{name}/exec", json={"command": command}).json()["exit_code"] == 0
    page = people.page()
    page.goto(f"/containers/{name}/backups")
    expect(page.get_by_text("No backup yet")).to_be_visible()
    assert axe(page) == []
    page.get_by_role("button", name="Back up").click()
    page.get_by_role("link", name="Restore…").click()
    expect(page.get_by_role("heading", name=f"Backup of {name}")).to_be_visible()
    assert axe(page) == []
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("dt:has-text('Verified') + dd")).to_contain_text("admin")
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download").click()
    file = tmp_path / coming.value.suggested_filename
    coming.value.save_as(file)
    assert file.name.startswith(f"{name}_")
    # the backup goes, and the container with it
    page.goto("/backups/")
    page.get_by_text("More", exact=True).click()
    page.get_by_role("button", name="Delete").click()
    page.locator("#dialog[open]").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No backup yet")).to_be_visible()
    call(api, "DELETE", f"/containers/{name}?force=true&keep_days=0")
    page.locator("#b-file").set_input_files(file)
    page.get_by_label("Name of the new container").fill(name)
    page.get_by_label("Start it").check()
    assert axe(page) == []
    page.get_by_role("button", name="Send and restore").click()
    arrive(page, r"/operations/[^/?]+$")
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    answer = api.post(f"/containers/{name}/exec", json={"command": ["/bin/cat", "/root/file"]}).json()
    assert answer["stdout"] == "kept\n"
    call(api, "DELETE", f"/containers/{name}?force=true&keep_days=0")
    wait_until(lambda: not list((instance.state_dir / "web/uploads").iterdir()), "the upload is gone")
    instance.nothing_left()
