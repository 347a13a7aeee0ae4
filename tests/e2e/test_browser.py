"""The main job as somebody does it: by clicking, in Chromium, against the real worker with real containers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import uuid
from collections.abc import Iterator
from typing import Final

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from .browser import PASSWORD, PATIENCE_MS, People, Terminal, arrive, axe, chromium, ready
from .instance import Instance, call, delete, idle, wait_until
from .test_main_job import run, status
from .test_robustness import kill_parts

pytestmark = [pytest.mark.e2e, pytest.mark.browser]
expect.set_options(timeout=PATIENCE_MS)

UNTIL_TOLD: Final = "while [ ! -e /tmp/end ]; do sleep 0.1; done"
SLOW_TO_STOP: Final = ["/bin/sh", "-c", f"trap '{UNTIL_TOLD}; exit 0' TERM; while :; do sleep 3600 & wait $!; done"]

ONE_WAY: Final = """
  Object.assign(window, { told: false, held: true, ways: [] });
  document.addEventListener("boxroom:container", (one) => { window.told ||= one.detail.gone; });
  navigation.addEventListener("navigate", (one) => {
    if (!window.held) return;
    one.preventDefault();
    window.ways.push(one.destination.url);
  });
"""
"""Keeps a page where it is, and what it wants to go to in `ways`; `told` says whether a container's end was told."""


@pytest.fixture(scope="module")
def everybody(instance: Instance) -> Iterator[People]:
    with chromium() as browser:
        yield People(instance, browser)


@pytest.fixture
def people(everybody: People) -> Iterator[People]:
    """People whose pages must not have complained by the end of the test."""
    yield everybody
    everybody.leave()


@pytest.fixture
def name(api: httpx.Client, people: People) -> Iterator[str]:
    """A name for a container; no page looks at it any more when it is deleted."""
    chosen = f"t-{uuid.uuid4().hex[:8]}"
    yield chosen
    people.close()
    delete(api, chosen)


@pytest.fixture
def running(api: httpx.Client, name: str) -> str:
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True})
    return name


@pytest.fixture(scope="module")
def team(instance: Instance) -> tuple[str, str]:
    """An operator and a viewer of the project default."""
    for user, role in (("olga", "operator"), ("victor", "viewer"), ("wanda", "operator")):
        instance.manage("user", "add", user, "--project", "default", "--role", role, check=False)
    return "olga", "victor"


def point_at(terminal: Terminal, *, row: int, column: int) -> bool:
    """Move the pointer to a cell; return whether there is a link."""
    rows, columns = terminal.size
    box = terminal.page.locator(".xterm-screen").bounding_box()
    assert box
    cell = box["width"] / columns, box["height"] / rows
    for x in (column - 1, column):
        terminal.page.mouse.move(box["x"] + cell[0] * x, box["y"] + cell[1] * (row + 0.5))
    return terminal.page.locator(".xterm-cursor-pointer").count() > 0


def dialog(page: Page) -> Locator:
    """Return the open dialog."""
    return page.locator("#dialog[open]")


# -- create ----------------------------------------------------------------------------------------------------------


def test_create_and_start_by_clicking(people: People, name: str) -> None:
    page = people.page()
    page.goto("/containers/")
    page.get_by_role("link", name="Create container").first.click()
    arrive(page, "/containers/_create")
    page.get_by_label("Name", exact=True).fill("Not A Name")
    page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    ready(page)
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Memory", exact=True).fill("64")
    page.get_by_role("button", name="Create and start").click()
    row = page.locator(f"#row-{name}")
    expect(row.locator(".state-running")).to_be_visible()
    expect(row.locator("[data-copy]")).to_have_text(re.compile(r"\d+\.\d+\.\d+\.\d+"))
    expect(row.locator("[data-stat=memory_bytes]")).to_have_text(re.compile("[KM]iB"))


# -- the terminal ----------------------------------------------------------------------------------------------------


def test_one_sits_down_at_a_console(people: People, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.run("echo from-the-shell > /dev/console")
    page.get_by_role("combobox", name="Consoles").select_option("console")
    expect(page.locator(".terminal-tab", has_text="/dev/console")).to_have_attribute("data-state", "live")
    terminal.wait("from-the-shell")
    page.get_by_role("combobox", name="Consoles").select_option("console")
    expect(page.locator(".terminal-tab")).to_have_count(2)


def test_terminal_colours_size_search_and_links(people: People, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.run(r"printf 'x\033[31mred\033[32mgreen\033[0m\n'")
    assert terminal.colours("xred") == [-1] + [1] * 3 + [2] * 5
    same_size = lambda: terminal.run("stty size") == "{} {}".format(*terminal.size)  # noqa: E731
    wait_until(same_size, "its size inside")
    _rows, columns = terminal.size
    page.set_viewport_size({"width": 1000, "height": 700})
    page.wait_for_function("(before) => document.getElementById('terminal').front().term.cols < before", arg=columns)
    wait_until(same_size, "the new size inside")
    page.keyboard.press("Control+Shift+F")
    page.get_by_role("searchbox", name="Find").fill("green")
    expect(page.locator(".terminal-found")).to_have_text("2/2")
    page.keyboard.press("Enter")
    expect(page.locator(".terminal-found")).to_have_text("1/2")
    page.keyboard.press("Escape")
    terminal.type("clear\n")
    terminal.wait(r"^[^\n]*[#$] *\Z")
    terminal.run("echo https://example.org/page")
    wait_until(lambda: point_at(terminal, row=1, column=5), "a link under the pointer")
    page.mouse.down()
    page.mouse.up()
    expect(dialog(page)).to_contain_text("It comes from inside the container: https://example.org/page")
    dialog(page).get_by_role("button", name="Cancel").click()
    assert len(page.context.pages) == 1


def test_a_reload_brings_the_same_shell_back(people: People, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.run("secret=kept; seq 1 200")
    session = terminal.session
    page.reload()
    terminal.live()
    assert terminal.session == session
    terminal.wait(r"\n199\n200\n")
    assert terminal.run("echo $secret") == "kept"


def test_killed_web_and_worker_give_the_same_shell_back(people: People, instance: Instance, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.run("secret=kept")
    session = terminal.session
    for role in ("daphne", "celery"):
        with terminal.another_connection() if role == "daphne" else contextlib.nullcontext():
            kill_parts(instance, role)
        assert terminal.session == session
        assert terminal.run("echo $secret") == "kept"


def test_what_is_typed_while_the_web_is_killed_arrives_once(people: People, instance: Instance, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    with terminal.another_connection():
        for pid in instance.pids("daphne"):
            os.kill(pid, signal.SIGSTOP)
        terminal.type("echo typed-$((40+2))\n")
        page.wait_for_function("() => document.getElementById('terminal').front().socket.bufferedAmount === 0")
        kill_parts(instance, "daphne")
    terminal.wait(r"\ntyped-42\n")
    assert terminal.text().count("typed-42") == 1

    text = "".join(f"{number}\n" for number in range(60000))
    terminal.type(f"stty raw -echo; echo rea''dy; head -c {len(text)} | md5sum; stty sane\n")
    terminal.wait(r"ready")
    with terminal.another_connection():
        page.evaluate(
            "(text) => document.getElementById('terminal').front().typed(new TextEncoder().encode(text))", text
        )
        kill_parts(instance, "daphne")
    terminal.wait(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())


def test_a_shell_that_ended_stays_readable_and_enter_opens_another(people: People, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.run("echo last words")
    first = terminal.session
    terminal.type("exit 3\n")
    terminal.ended()
    terminal.wait("ended with status 3")
    terminal.wait("last words")
    page.keyboard.press("Enter")
    terminal.live()
    assert terminal.session != first
    assert terminal.run("echo again") == "again"


def test_a_flood_loses_nothing_and_ctrl_c_is_heard(people: People, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    terminal.type("clear; seq 1 200000\n")
    terminal.wait(r"\n200000\n[^\n]*[#$] *\Z")
    lines = terminal.text().split("\n")
    numbers = [int(line) for line in lines if line.isdigit()]
    assert len(numbers) >= len(lines) - 2 > 10_000
    assert numbers == list(range(200_001 - len(numbers), 200_001))
    terminal.type("clear; yes flood\n")
    terminal.wait("flood\nflood")
    page.keyboard.press("Control+c")
    terminal.wait(r"[#$] *\Z")
    terminal.type("echo free\n")  # the scrollback is full: its length says nothing any more
    terminal.wait(r"\nfree\n[^\n]*[#$] *\Z")


def test_a_stopped_container_offers_its_start_in_the_terminal(people: People, api: httpx.Client, running: str) -> None:
    page = people.page()
    terminal = Terminal(page, running).open()
    first = terminal.session
    call(api, "POST", f"/containers/{running}/stop", {"timeout": 300})
    terminal.ended()
    page.locator("#terminal-state").get_by_role("button", name="Start").click()
    terminal.live()
    assert terminal.session != first
    assert terminal.run("hostname") == running


def test_the_terminal_closes_for_one_who_may_no_longer(
    people: People, instance: Instance, team: tuple[str, str], api: httpx.Client, running: str
) -> None:
    page = people.page("wanda")
    Terminal(page, running).open()
    assert api.put("/projects/default/members/wanda", json={"role": "viewer"}).status_code < 300
    Terminal(page, running).ended()
    page.reload()
    expect(page.get_by_role("heading", name="Terminals are for operators")).to_be_visible()
    assert api.put("/projects/default/members/wanda", json={"role": "operator"}).status_code < 300


# -- graphs, snapshots, clones, the end --------------------------------------------------------------------------------


def test_the_graph_moves(people: People, api: httpx.Client, running: str) -> None:
    """By the host's clock: this browser's is two days ahead, and then one of the two is set while the page is open."""
    page = people.page()
    page.add_init_script("const real = Date.now; window.ahead = 2 * 86400e3; Date.now = () => real() + window.ahead")
    page.goto(f"/containers/{running}/graphs?range=15min")
    cpu = page.locator("[data-chart=cpu] dd").first
    expect(cpu).to_have_text(re.compile(r"^0(\.0\d*)? "))
    run(api, running, "sh", "-c", "(while :; do :; done) >/dev/null 2>&1 &")
    expect(cpu).to_have_text(re.compile(r"^(0\.[1-9]|[1-9])"))
    canvas = page.locator("[data-chart=cpu] canvas")
    for ahead in ("2 * 86400e3", "0", "-86400e3"):
        page.evaluate(f"window.ahead = {ahead}")
        expect(page.locator("[data-chart=cpu]")).to_be_visible()
        drawn = canvas.screenshot()
        wait_until(lambda drawn=drawn: canvas.screenshot() != drawn, "the line to move")


def take_snapshot(page: Page, container: str, note: str) -> Locator:
    """Take a snapshot with a note; return its row."""
    page.goto(f"/containers/{container}/snapshots")
    page.get_by_role("button", name=re.compile("^Snapshot")).first.click()
    dialog(page).get_by_label("Note").fill(note)
    dialog(page).get_by_role("button", name="Take snapshot").click()
    expect(page.get_by_role("cell", name=note)).to_be_visible()
    return page.get_by_role("row").filter(has_text=note)


def restore_only_snapshot(page: Page, *, lost: str) -> None:
    """Restore it; the question names the file that was lost, and what was there before is kept to be undone."""
    page.get_by_role("button", name=re.compile("^Restore")).click()
    expect(dialog(page)).to_contain_text("What it is now is kept as a snapshot")
    expect(dialog(page)).to_contain_text(lost)
    dialog(page).get_by_role("button", name="Restore").click()
    expect(page.get_by_role("row").filter(has_text="undo of a restore")).to_contain_text("undo0")


def download_from_snapshot(page: Page, row: Locator, directory: str, file: str) -> str:
    """Return the text of a file in a directory of a snapshot's root, as a download brings it."""
    row.locator("summary").click()
    row.get_by_role("link", name="Files").click()
    page.get_by_role("link", name=directory, exact=True).click()
    found = page.locator("#files tr").filter(has=page.get_by_role("link", name=file, exact=True))
    found.locator("summary").click()
    with page.expect_download() as download:
        found.get_by_role("link", name="Download", exact=True).click()
    return download.value.path().read_text()


def clone_and_start(page: Page, row: Locator, clone: str) -> None:
    """Clone from a snapshot's row, and start the clone from the list."""
    row.locator("summary").click()
    row.get_by_role("button", name=re.compile("^Clone")).click()
    dialog(page).get_by_label("Name of the new container").fill(clone)
    dialog(page).get_by_role("button", name="Clone").click()
    expect(dialog(page)).to_have_count(0)
    page.goto("/containers/")
    expect(page.locator(f"#row-{clone} .state-stopped")).to_be_visible()
    page.locator(f"#row-{clone} [data-verb=start]").click()
    expect(page.locator(f"#row-{clone} .state-running")).to_be_visible()


def delete_by_name(page: Page, container: str, *, not_by: str) -> None:
    """Delete a container on its own page, which asks for its name and takes no other."""
    page.locator("#container-head summary").click()
    page.locator("#container-head [data-verb=delete]").click()
    button = dialog(page).get_by_role("button", name="Delete")
    expect(button).to_be_disabled()
    dialog(page).get_by_role("textbox").fill(not_by)
    expect(button).to_be_disabled()
    dialog(page).get_by_role("textbox").fill(container)
    button.click()


def test_snapshot_break_restore_clone_delete_by_clicking(
    people: People, instance: Instance, api: httpx.Client, running: str
) -> None:
    page = people.page()
    run(api, running, "sh", "-c", "echo precious > /root/file")
    kept = take_snapshot(page, running, "before the accident")

    run(api, running, "rm", "/root/file", "/bin/hostname")
    restore_only_snapshot(page, lost="/root/file")
    idle(api, running)
    expect(page.locator("#container-head")).to_have_attribute("data-state", "running")
    assert run(api, running, "cat", "/root/file")["stdout"] == "precious\n"

    assert download_from_snapshot(page, kept, "root", "file") == "precious\n"
    page.goto(f"/containers/{running}/snapshots")
    clone = f"{running}-c"
    clone_and_start(page, kept, clone)
    assert run(api, clone, "cat", "/root/file")["stdout"] == "precious\n"
    assert run(api, clone, "hostname")["stdout"] == f"{clone}\n"

    people.gone.add(clone)
    page.goto(f"/containers/{clone}")
    # the answer leads to the list, and so does the notice of the end: one of them, however long the list takes
    page.evaluate(ONE_WAY)
    delete_by_name(page, clone, not_by=running)
    page.wait_for_function("() => window.told && window.ways.length")
    assert page.evaluate("window.ways") == [f"{instance.address}/containers/"]
    page.evaluate("window.held = false; location.assign(window.ways[0])")
    arrive(page, "/containers/$")
    expect(page.locator("#list")).to_be_visible()
    expect(page.locator(f"#row-{clone}")).to_have_count(0)
    assert api.get(f"/containers/{clone}").status_code == 404


# -- several people ----------------------------------------------------------------------------------------------------


def test_what_one_does_another_sees_with_the_name(
    people: People, team: tuple[str, str], api: httpx.Client, name: str
) -> None:
    init = {"init_command": SLOW_TO_STOP, "halt_signal": "SIGTERM"}
    call(api, "POST", "/containers", {"name": name, "image": "busybox", "start": True, **init})
    operator, viewer = team
    theirs, seen = people.page(operator), people.page(viewer)
    seen.goto("/containers/")
    row = seen.locator(f"#row-{name}")
    expect(row.locator(".state-running")).to_be_visible()
    theirs.goto("/containers/")
    theirs.locator(f"#row-{name} [data-verb=stop]").click()
    expect(row.locator(".who")).to_have_text(f"by {operator}")
    run(api, name, "touch", "/tmp/end")
    expect(row.locator(".state-stopped")).to_be_visible()
    theirs.locator(f"#row-{name} [data-verb=start]").click()
    expect(row.locator(".state-running")).to_be_visible()


def test_a_viewer_is_not_offered_what_he_may_not(people: People, team: tuple[str, str], running: str) -> None:
    page = people.page(team[1])
    page.goto("/containers/")
    row = page.locator(f"#row-{running}")
    expect(row).to_be_visible()
    expect(page.get_by_role("link", name="Create container")).to_have_count(0)
    for action in ("Stop", "Freeze", "Snapshot"):
        button = row.get_by_role("button", name=re.compile(f"^{action}")).first
        expect(button).to_have_attribute("aria-disabled", "true")
        expect(button).to_have_attribute("title", re.compile("does not allow"))
    for path in ("", "/graphs", "/snapshots", "/network", "/settings", "/log", "/terminal"):
        answer = page.goto(f"/containers/{running}{path}")
        assert answer
        assert answer.status == 200
        expect(page.locator("[data-verb=stop], [data-pencil]:not([aria-disabled=true])")).to_have_count(0)


def test_two_in_one_terminal_see_each_other(people: People, team: tuple[str, str], running: str) -> None:
    mine = Terminal(people.page(), running).open()
    theirs = people.page(team[0])
    theirs.goto(f"/containers/{running}/terminal#session={mine.session}")
    other = Terminal(theirs, running).live()
    assert other.session == mine.session
    expect(mine.page.locator(".terminal-people")).to_contain_text(team[0])
    mine.run("echo both see this")
    other.wait("\nboth see this\n")
    theirs.close()
    expect(mine.page.locator(".terminal-people")).to_have_text("")


# -- the keyboard, the small screen, everybody -------------------------------------------------------------------------


def test_the_list_by_keyboard(people: People, api: httpx.Client, running: str) -> None:
    page = people.page()
    page.goto("/containers/")
    expect(page.locator(f"#row-{running} .state-running")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#help[open]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help[open]")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type(running)
    expect(page.locator("tr.row")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(f"#row-{running}")).to_have_class(re.compile("current"))
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("s")
    expect(page.locator(f"#row-{running} .state-stopped")).to_be_visible()
    page.keyboard.press("s")
    expect(page.locator(f"#row-{running} .state-running")).to_be_visible()
    page.keyboard.press("c")
    expect(dialog(page).get_by_label("Name of the new container")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#dialog[open]")).to_have_count(0)
    page.keyboard.press("t")
    arrive(page, f"/containers/{running}/terminal")
    Terminal(page, running).live()
    page.goto("/")
    page.keyboard.press("Control+k")
    page.keyboard.type(running)
    expect(page.locator(".palette li").first).to_contain_text(running)
    page.keyboard.press("Enter")
    arrive(page, f"/containers/{running}")
    expect(page.locator("#container-head")).to_be_visible()
    page.goto(f"/containers/?q={running}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    arrive(page, f"/containers/{running}$")
    assert status(api, running) == "running"


def fits(part: Locator) -> bool:
    """Whether a part of a page is within the width of a phone."""
    box = part.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_name_state_address_and_actions_fit_a_phone(people: People, api: httpx.Client, running: str) -> None:
    call(
        api, "POST", f"/containers/{running}/snapshots", {"name": "before-the-update-of-everything-that-there-is-to-it"}
    )
    page = people.page(width=390, height=844)
    page.goto("/containers/")
    row = page.locator(f"#row-{running}")
    expect(row.locator(".state-running")).to_be_visible()
    for part in (".c-name a", ".state", "[data-copy]", "[data-verb=stop]"):
        expect(row.locator(part).first).to_be_visible()
        wait_until(lambda part=part: fits(row.locator(part).first), f"{part} fits")
    tabs = ("", "/terminal", "/snapshots", "/files", "/backups", "/network", "/settings", "/log")
    for path in ("/", "/containers/", *(f"/containers/{running}{tab}" for tab in tabs), "/operations/", "/people/"):
        page.goto(path)
        page.wait_for_function("() => document.documentElement.scrollWidth <= 390")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_of_axe(people: People, running: str, scheme: str) -> None:
    page = people.page(color_scheme=scheme)
    found: list[str] = []
    inside = ("", "/terminal", "/graphs", "/snapshots", "/network", "/settings", "/log")
    for path in (
        "/", "/containers/", "/containers/_create", "/images/", "/networks/", "/operations/", "/audit/", "/people/",
        "/host/", "/account", *(f"/containers/{running}{tab}" for tab in inside),
    ):  # fmt: skip
        page.goto(path, wait_until="networkidle")
        found += axe(page)
    assert found == []


def test_sign_out_and_in_with_the_password(people: People) -> None:
    people.page().close()
    page = people.stranger()
    page.goto("/containers/")
    arrive(page, r"/sign-in\?next=/containers/$")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    ready(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    arrive(page, "/containers/$")
    page.get_by_role("button", name="Sign out").click()
    arrive(page, "/sign-in")
    expect(page.get_by_label("User name")).to_be_visible()
    page.goto("/containers/")
    arrive(page, r"/sign-in\?next=/containers/$")
