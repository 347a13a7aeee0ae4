"""Pages in a browser, beyond the main job: the live log, tabs of terminals, theme and language, people that leave."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from .browser import PATIENCE_MS, People, Terminal, arrive, chromium, ready
from .instance import Instance, call

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def everybody(instance: Instance) -> Iterator[People]:
    with chromium() as browser:
        yield People(instance, browser)


@pytest.fixture
def people(everybody: People) -> Iterator[People]:
    yield everybody
    everybody.leave()


@pytest.fixture
def running(api: httpx.Client, name: str, people: People) -> Iterator[str]:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    yield name
    people.close()


def dialog(page: Page) -> Locator:
    return page.locator("#dialog[open]")


def inside(api: httpx.Client, name: str, command: str) -> None:
    answer = api.post(f"/containers/{name}/exec", json={"command": ["/bin/sh", "-c", command]})
    assert answer.json().get("exit_code") == 0, answer.text


def test_the_log_is_live_and_stays_readable_after_the_end(
    api: httpx.Client, instance: Instance, people: People, running: str
) -> None:
    instance.manage("user", "add", "victor", "--project", "default", "--role", "viewer", check=False)
    page = people.page("victor")
    page.goto(f"/containers/{running}/log")
    console = page.get_by_role("log")
    expect(console).to_contain_text(f"busybox on {running}")
    inside(api, running, r"printf '\033[32mgreen\033[0m over\rOVER \033]0;title\007\n\nend\n' >/dev/console")
    expect(console).to_contain_text("end")
    expect(console.locator(".c-fg2")).to_have_text("green")
    expect(console).not_to_contain_text("title")
    call(api, "POST", f"/containers/{running}/stop", {"force": True})
    expect(page.locator("#console-state")).to_contain_text("ended")
    expect(console).to_contain_text("green")
    with page.expect_download() as kept:
        page.get_by_role("link", name="Download the whole console log").click()
    assert kept.value.suggested_filename == f"{running}-console.log"
    assert "green" in kept.value.path().read_text()


def test_what_was_refused_is_not_shown_as_being_done(people: People, running: str) -> None:
    page = people.page()
    page.route("**/freeze", lambda route: route.fulfill(status=503, body="no"))
    for address, state in (
        (f"/containers/{running}", "#container-head .state"),
        ("/containers/", "tr.row .c-state .state"),
    ):
        page.goto(address)
        ready(page)
        expect(page.locator(state)).to_have_text("Running")
        with page.expect_response("**/freeze"):
            page.locator("button[data-act][hx-post$='/freeze']").first.click()
        expect(page.locator(state)).to_have_text("Running")
        expect(page.locator(state)).to_have_class(re.compile(r"state-running"))
    people.problems[:] = [said for said in people.problems if f"503 from /containers/{running}/freeze" not in said]


def test_a_tab_of_a_terminal_asks_only_where_something_may_be_lost(people: People, running: str) -> None:
    page = people.page()
    questions: list[str] = []
    page.on("dialog", lambda question: questions.append(question.message))
    terminal = Terminal(page, running).open()
    terminal.run("kept=here")
    session = terminal.session
    page.get_by_role("button", name="New terminal").click()
    tabs = page.locator(".terminal-tab")
    expect(tabs).to_have_count(2)
    page.wait_for_selector(".terminal[data-state=live]")
    page.locator(".terminal-close").nth(1).click()
    expect(tabs).to_have_count(1)
    expect(dialog(page)).to_have_count(0)
    page.get_by_role("button", name="New terminal").click()
    expect(tabs).to_have_count(2)
    page.wait_for_selector(".terminal[data-state=live]")
    page.locator(".terminal-close").first.click()
    expect(dialog(page)).to_contain_text("can run on without this tab")
    dialog(page).get_by_role("button", name="Let it run on").click()
    others = page.get_by_label("Open a shell that runs without a tab")
    others.select_option(session)
    terminal.live()
    assert terminal.session == session
    assert terminal.run("echo $kept") == "here"
    page.locator(".terminal-close").nth(1).click()
    dialog(page).get_by_role("button", name="End it").click()
    expect(tabs).to_have_count(1)
    page.goto("/containers/")  # leaving asks nothing: shells go on
    assert questions == []


def test_back_takes_a_filter_off_and_a_menu_closes_by_esc(people: People, running: str) -> None:
    page = people.page()
    page.goto(f"/containers/?q={running}")
    row = page.locator(f"#row-{running}")
    page.locator("[data-chip=running]").click()
    expect(page.locator("[data-chip=running][aria-current=true]")).to_be_visible()
    expect(row).to_be_visible()
    page.go_back()
    expect(page.locator("[data-chip=''][aria-current=true]")).to_be_visible()
    assert page.url.endswith(f"/containers/?q={running}")
    page.locator("details.columns summary").press("Enter")
    expect(page.locator("details.columns[open]")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-column]").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("details.columns[open]")).to_have_count(0)
    expect(page.locator("details.columns summary")).to_be_focused()
    page.keyboard.press("Enter")
    search = page.locator("#search")
    search.focus()
    expect(page.locator("details.columns[open]")).to_have_count(0)


def test_theme_and_language_are_a_click_away(people: People) -> None:
    page = people.page("admin", color_scheme="light")
    page.goto("/host/")
    page.get_by_role("button", name="Theme: dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    arrive(page, "/host/$")
    page.wait_for_function(
        """() => [document.body, document.documentElement].some(
            (one) => getComputedStyle(one).backgroundColor === "rgb(18, 22, 27)"
        )"""
    )
    page.get_by_label("Language").select_option("de")
    expect(page.get_by_role("link", name="Prüfspur")).to_be_visible()
    arrive(page, "/host/$")
    page.get_by_label("Sprache").select_option("")
    expect(page.get_by_label("Language")).to_be_visible()
    arrive(page, "/host/$")
    page.get_by_role("button", name=re.compile("Theme: as the system")).click()
    expect(page.locator("html")).not_to_have_attribute("data-theme", "dark")


def test_projects_and_users_go_after_a_word_of_what_goes_with_them(api: httpx.Client, people: People) -> None:
    assert api.post("/projects", json={"name": "short", "description": "lived"}).status_code == 201
    assert api.post("/users", json={"username": "guest"}).status_code == 201
    assert api.put("/projects/short/members/guest", json={"role": "viewer"}).status_code == 200
    page = people.page()
    page.goto("/people/")
    page.get_by_role("button", name="Change the project short").click()
    dialog(page).get_by_label("Name").fill("default")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page)).to_contain_text("There is a project default already.")
    dialog(page).get_by_label("Name").fill("brief")
    dialog(page).get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Delete the project brief")).to_be_visible()
    ready(page)
    page.get_by_role("button", name="Delete the project brief").click()
    expect(dialog(page)).to_contain_text("Its 1 member loses the role")
    dialog(page).get_by_role("button", name="Delete project").click()
    expect(page.get_by_text("The project brief is deleted.")).to_be_visible()
    ready(page)
    page.get_by_role("button", name="Remove guest").click()
    remove = dialog(page).get_by_role("button", name="Remove")
    expect(remove).to_be_disabled()
    dialog(page).get_by_label("Type guest to confirm").fill("guest")
    remove.click()
    expect(page.get_by_text("The user guest is removed.")).to_be_visible()
    assert api.get("/users/guest").status_code == 404


def test_a_disk_limit_is_set_by_clicking_and_holds(api: httpx.Client, people: People, name: str) -> None:
    call(api, "POST", "/containers", {"name": name, "image": "busybox"})
    page = people.page()
    page.goto(f"/containers/{name}/settings")
    row, save = page.locator("[data-setting=disk]"), page.locator("[data-save]")
    size, change = row.locator("[data-input]"), row.get_by_role("button", name="Change Disk space")
    ready(page)
    change.click()
    size.fill("1")
    save.click()
    expect(row.get_by_role("alert")).to_contain_text("between 16 MiB and 16 TiB")
    size.fill("32")
    save.click()
    expect(row.locator("[data-read]")).to_have_text("32 MiB")
    expect(save).to_be_hidden()
    call(api, "POST", f"/containers/{name}/start")
    # df inside shows it, and it holds; what there is stays, and everything runs on
    inside(api, name, "set -- $(df -Pm / | tail -1); test $2 -gt 16 && test $2 -le 32")
    inside(api, name, "echo kept >/kept; ! dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null; rm /big; sync")
    inside(api, name, "test $(cat /kept) = kept && dd if=/dev/zero of=/small bs=1M count=8")
    # what takes a copy waits for a stop, and what was entered is still there then
    expect(page.locator(".state-running").first).to_be_visible()
    change.click()
    size.fill("")
    save.click()
    expect(row.get_by_role("alert")).to_contain_text("Stop it first")
    call(api, "POST", f"/containers/{name}/stop", {"force": True})
    expect(page.locator(".state-stopped").first).to_be_visible()
    expect(size).to_have_value("")
    save.click()
    expect(row.locator("[data-read]")).to_have_text("no limit")
    assert api.get(f"/containers/{name}").json()["limits"]["disk_bytes"] is None
    call(api, "POST", f"/containers/{name}/start")
    inside(api, name, "test $(cat /kept) = kept && test $(stat -c %s /small) = 8388608")
    people.close()
