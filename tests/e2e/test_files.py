"""The files of a container in a browser: looked through, sent, edited, taken, and put back from a snapshot."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from .browser import PATIENCE_MS, People, axe, chromium, ready
from .instance import Instance, call, wait_until
from .test_main_job import run

pytestmark = [pytest.mark.e2e, pytest.mark.browser]
expect.set_options(timeout=PATIENCE_MS)


def folder_twice(page: Page, api: httpx.Client, name: str, folder: Path) -> None:
    """What is there already is asked about once."""
    files = page.locator("#files")
    dialog = page.locator("#dialog[open]")
    (folder / "css").mkdir(parents=True)
    (folder / "index.html").write_text("one")
    (folder / "css" / "main.css").write_text("two")
    page.set_input_files("[data-folder-input]", folder)
    expect(files.get_by_role("link", name="site", exact=True)).to_be_visible()
    expect(page.locator(".upload-row", has_text="site/")).to_contain_text("Done")
    (folder / "index.html").write_text("three")
    (folder / "css" / "more.css").write_text("four")
    expect(page.locator(".upload-row")).to_have_count(0)
    page.set_input_files("[data-folder-input]", folder)
    expect(dialog).to_contain_text("2 of 3 files are there already.")
    dialog.get_by_role("button", name="Replace").click()
    expect(page.locator(".upload-row", has_text="site/")).to_contain_text("Done")
    told = run(api, name, "sh", "-c", "cd /srv/www/site; cat index.html css/main.css css/more.css")["stdout"]
    assert told == "threetwofour"


def several_at_once(page: Page, name: str, sent: str) -> None:
    """Taken as one archive, moved, deleted."""
    files = page.locator("#files")
    dialog = page.locator("#dialog[open]")
    for one in ("conf", "site"):
        page.get_by_label(f"Select {one}", exact=True).check()
    bar = page.get_by_role("region", name="Selected files")
    expect(bar).to_contain_text("2 selected")
    with page.expect_download() as taking:
        bar.get_by_role("link", name="Download as tar").click()
    with tarfile.open(taking.value.path()) as archive:
        wanted = ["conf", "site", "site/css", "site/css/main.css", "site/css/more.css", "site/index.html"]
        assert sorted(archive.getnames()) == wanted
    page.get_by_label("Select conf", exact=True).uncheck()
    bar.get_by_role("button", name="Move…").click()
    page.get_by_label("Into the directory").fill("/srv")
    dialog.get_by_role("button", name="Move", exact=True).click()
    expect(files.get_by_role("link", name="site", exact=True)).to_have_count(0)
    expect(bar).to_be_hidden()
    page.get_by_label("Select all that are shown").check()
    expect(bar).to_contain_text("2 selected")
    page.get_by_label(f"Select {sent}", exact=True).uncheck()
    page.get_by_label("Select conf", exact=True).uncheck()
    expect(bar).to_be_hidden()
    page.goto(f"/containers/{name}/files?path=/srv")
    ready(page)
    page.get_by_label("Select site", exact=True).check()
    bar.get_by_role("button", name="Delete…").click()
    expect(dialog).to_contain_text("site")
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(files.get_by_role("link", name="site", exact=True)).to_have_count(0)
    page.goto(f"/containers/{name}/files?path=/srv/www")
    expect(files.get_by_role("link", name="conf")).to_be_visible()
    ready(page)


def edited_beside_another(page: Page, api: httpx.Client, name: str) -> None:
    """Who has changed it meanwhile is not overwritten silently."""
    files = page.locator("#files")
    held: list[Route] = []
    page.route(re.compile(r"/editor[^/]*\.js"), lambda route: held.append(route))
    files.get_by_role("link", name="conf").click(no_wait_after=True)
    editor = page.get_by_role("textbox", name="/srv/www/conf")
    editor.fill("listen 8080\n")  # before the page's script has come
    wait_until(lambda: page.evaluate("1") and held, "the script is asked for")
    held[0].continue_()
    expect(page.get_by_role("button", name="Save")).to_be_enabled()
    run(api, name, "sh", "-c", "echo 'listen 443' > /srv/www/conf")
    page.keyboard.press("Control+s")
    expect(page.get_by_role("alert")).to_contain_text("has changed meanwhile")
    page.get_by_role("button", name="Overwrite it").click()
    expect(page.locator("#edit-state")).to_have_text("Saved")
    assert axe(page) == []
    assert run(api, name, "cat", "/srv/www/conf")["stdout"] == "listen 8080\n"


def put_back(page: Page, api: httpx.Client, name: str, sent: str) -> None:
    """The files are what they were."""
    files = page.locator("#files")
    page.get_by_label("As of").select_option("before")
    expect(page).to_have_url(re.compile("snapshot=before"))
    expect(files.get_by_role("link", name=sent)).to_have_count(0)
    ready(page)
    row = files.locator("tr", has_text="conf")
    row.locator("summary").click()
    row.get_by_role("button", name="Put back…").click()
    expect(page.locator("#put-back-changes")).to_contain_text("/srv/www/conf")
    page.get_by_role("button", name="Put back", exact=True).click()
    expect(page.get_by_role("link", name="Snapshots 2")).to_be_visible()
    last = api.get(f"/operations?container={name}").json()["items"][0]
    done = api.get(f"/operations/{last['id']}?wait=60").json()
    assert (done["action"], done["status"]) == ("put-back", "succeeded"), done
    told = run(api, name, "sh", "-c", "cat /srv/www/conf; stat -c '%a %u' /srv/www/conf; ls /srv/www | wc -l")
    assert told["stdout"].split() == ["listen", "80", "640", "0", "2"]


def test_browse_send_edit_take_and_put_back(instance: Instance, api: httpx.Client, name: str, tmp_path: Path) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    script = (
        "mkdir -p /srv/www; printf 'listen 80\\n' > /srv/www/conf; chown 1000:1000 /srv/www; chmod 640 /srv/www/conf"
    )
    assert run(api, name, "sh", "-c", script)["exit_code"] == 0
    call(api, "POST", f"/containers/{name}/snapshots", {"name": "before"})
    sent = tmp_path / "große datei.bin"
    sent.write_bytes(bytes(range(256)) * 40_000)
    with chromium() as browser:
        people = People(instance, browser)
        page = people.page()
        page.goto(f"/containers/{name}/files")
        page.get_by_role("link", name="srv", exact=True).click()
        page.get_by_role("link", name="www", exact=True).click()
        files = page.locator("#files")
        expect(files.get_by_role("link", name="conf")).to_be_visible()
        ready(page)
        page.set_input_files("[data-files-input]", sent)
        expect(files.get_by_role("link", name=sent.name)).to_be_visible()
        expect(files.locator("tr", has_text=sent.name)).to_contain_text("9.8 MiB")
        assert axe(page) == []
        folder_twice(page, api, name, tmp_path / "site")
        several_at_once(page, name, sent.name)
        edited_beside_another(page, api, name)
        page.get_by_role("link", name="Back to the directory").click()
        expect(files.get_by_role("link", name=sent.name)).to_be_visible()
        ready(page)
        row = files.locator("tr", has_text=sent.name)
        row.locator("summary").click()
        with page.expect_download() as taking:
            row.get_by_role("link", name="Download", exact=True).click()
        assert Path(taking.value.path()).read_bytes() == sent.read_bytes()
        put_back(page, api, name, sent.name)
        people.leave()
