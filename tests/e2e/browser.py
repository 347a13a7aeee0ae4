"""Chromium for the tests: people who are signed in, pages that are watched, a terminal as one sees who sits at it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    TimeoutError,
    expect,
    sync_playwright,
)

from panel.instance.testing import CHROMIUM

from ..kernel.patience import patient
from .instance import Instance

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS: Final = int(patient(60.0) * 1000)
"""How long a condition may take before a test gives up; a busy machine is no defect."""
PASSWORD: Final = "a horse, a battery, 1 staple"
AXE: Final = Path(__file__).resolve().parents[1] / "vendor" / "axe" / "4.14.1" / "axe.min.js"
_STILL: Final = """() => Promise.allSettled(
  document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < Infinity).map((one) => one.finished)
)"""
"""Waits for what moves to have arrived: a colour on its way is nobody's fault."""
_NOISE: Final = re.compile(
    r"GL Driver Message"  # what software rendering says of itself
    r"|task queue exceeded"  # xterm.js on a busy machine
    r"|WebSocket connection to .* failed"  # a panel that was killed on purpose; the page comes back by itself
    r"|Failed to load resource: (net::ERR_|the server responded with a status of (412|422|503))"
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium without a window; Playwright's own where there is none."""
    own = str(CHROMIUM) if CHROMIUM.exists() else None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=own, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class People:
    """Who is signed in. Each has a browser context of their own.

    problems: what went wrong in any of their pages. gone: containers that are deleted while a page looks at them, which
    may then ask for them once more, and hear that they are not there.
    """

    instance: Instance
    browser: Browser
    problems: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    _states: dict[str, Any] = field(default_factory=dict)
    _open: list[BrowserContext] = field(default_factory=list)

    def page(self, user: str = "admin", *, width: int = 1440, height: int = 900, **more: Any) -> Page:
        """Return a page of somebody who is signed in; the first time by a link, choosing a password."""
        context = self._context(width, height, storage_state=self._states.get(user), **more)
        page = self._watched(context)
        if user not in self._states:
            done = self.instance.manage("user", "link", user)
            found = re.search(r"\S*/sign-in/link/\S+", done.stdout)
            assert found, done.stdout
            sign_in_by_link(page, self.instance.address + found[0][found[0].index("/sign-in") :])
            self._states[user] = context.storage_state()
        return page

    def stranger(self, **more: Any) -> Page:
        """Return a page of nobody."""
        return self._watched(self._context(1440, 900, **more))

    def close(self) -> None:
        """Close every context."""
        for context in self._open:
            context.close()
        self._open.clear()

    def leave(self) -> None:
        """Close every context, and fail if a page complained."""
        self.close()
        found, self.problems = self.problems, []
        assert not found, "\n".join(found)

    def _context(self, width: int, height: int, **more: Any) -> BrowserContext:
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, base_url=self.instance.address, locale="en-GB", **more
        )
        context.set_default_timeout(PATIENCE_MS)
        self._open.append(context)
        return context

    def _watched(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))
        page.on("response", self._answered)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        where = str(message.location.get("url"))
        if "404" in message.text and any(f"/containers/{name}" in where for name in self.gone):
            return
        if message.type in ("error", "warning") and not _NOISE.search(message.text):
            self.problems.append(f"{where}: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 500 and response.status != 503:
            self.problems.append(f"{response.request.method} {response.url}: {response.status}")


def sign_in_by_link(page: Page, link: str) -> None:
    """Open a one-time link and choose a password."""
    page.goto(link)
    page.get_by_role("button", name=re.compile("Sign in as")).click()
    page.get_by_label("New password").wait_for()
    ready(page)
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=PATIENCE_MS)
    ready(page)


def ready(page: Page) -> None:
    """Wait until a page that a click led to has run its scripts; first expect what only that page shows.

    A function, as everywhere: a mere expression is evaluated again at each look, which the panel's policy for scripts
    refuses at the second.
    """
    page.wait_for_function("() => document.readyState === 'complete'")


def arrive(page: Page, path: str) -> None:
    """Wait until the page's address, without what is before the path, matches, and the page has run its scripts.

    Asks again and again, so that a way to a page that another one broke off is no failure.
    """
    expect(page).to_have_url(re.compile(r"//[^/]*" + path), timeout=PATIENCE_MS)
    ready(page)


class Terminal:
    """The terminal tab of one container."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name

    def open(self) -> Terminal:
        """Go to the tab and wait for a shell."""
        self.page.goto(f"/containers/{self.name}/terminal")
        return self.live()

    @contextlib.contextmanager
    def another_connection(self) -> Iterator[None]:
        """Wait, after what is done meanwhile, for the page to connect again: until it does, it shows what was."""
        with self.page.expect_event("websocket", lambda socket: socket.url.endswith("/terminal")):
            yield
        self.live()

    def live(self) -> Terminal:
        """Wait until the terminal in front is connected and the last of it is a prompt."""
        try:
            self.page.wait_for_selector("#terminal[data-state=live]")
        except TimeoutError as error:
            state = self.page.evaluate("document.getElementById('terminal')?.dataset.state ?? null")
            raise AssertionError(f"{self.page.url}: {state}: {self.text()[-500:] if state else ''}") from error
        return self.wait(r"[#$] *\Z")

    def ended(self) -> Terminal:
        """Wait until the shell is known to have ended."""
        self.page.wait_for_selector("#terminal[data-state=ended]")
        return self

    @property
    def session(self) -> str:
        """The id of the session in front."""
        return str(self._front("session.id"))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that the page has room for."""
        rows, columns = self._front("[session.term.rows, session.term.cols]")
        return int(rows), int(columns)

    def text(self) -> str:
        """Everything in the scrollback, wrapped lines joined, without what is empty at the end."""
        return str(
            self._front(
                """(() => {
                  const buffer = session.term.buffer.active;
                  let text = "";
                  for (let n = 0; n < buffer.length; n += 1) {
                    const line = buffer.getLine(n);
                    text += (n && !line.isWrapped ? "\\n" : "") + line.translateToString(true);
                  }
                  return text.trimEnd();
                })()"""
            )
        )

    def colours(self, text: str) -> list[int]:
        """The palette numbers of the cells of the last line that begins with text; -1 is the default colour."""
        found: list[int] = self._front(
            """(() => {
              const buffer = session.term.buffer.active;
              for (let n = buffer.length - 1; n >= 0; n -= 1) {
                const line = buffer.getLine(n);
                if (!line.translateToString(true).startsWith(BEGINNING)) continue;
                return [...Array(line.translateToString(true).length).keys()].map((x) => line.getCell(x).getFgColor());
              }
              return [];
            })()""".replace("BEGINNING", json.dumps(text))
        )
        return found

    def type(self, text: str) -> None:
        """Type as at a keyboard."""
        self.page.keyboard.type(text)

    def run(self, command: str) -> str:
        """Type a command, wait for the next prompt, and return what it printed."""
        before = self.text().count("\n")
        self.page.keyboard.type(command + "\n")
        self.wait(r"\n[^\n]*[#$] *\Z", after=before)
        return "\n".join(self.text().split("\n")[before + 1 : -1])

    def wait(self, pattern: str, *, after: int = -1) -> Terminal:
        """Wait until the end of the scrollback matches, and the whole holds more than `after` line ends.

        Fails where nothing came for as long as a test is patient; as long as something does, it may take its time.
        """
        seen = self._end()
        while True:
            try:
                self._matches(pattern, after)
            except TimeoutError as error:
                before, seen = seen, self._end()
                if seen == before:
                    state = self.page.evaluate("document.getElementById('terminal').dataset.state")
                    raise AssertionError(f"{self.page.url}: {state}: not {pattern!r}, but {seen!r}") from error
            else:
                return self

    def _end(self) -> str:
        return str(self.page.evaluate("Boolean(document.getElementById('terminal').front?.())") and self.text()[-500:])

    def _matches(self, pattern: str, after: int) -> None:
        self.page.wait_for_function(
            """([pattern, after]) => {
              const session = document.getElementById("terminal").front?.();
              if (!session) return false;
              const buffer = session.term.buffer.active;
              const lines = [];
              const begin = Math.max(0, buffer.length - 300);
              for (let n = 0; n < buffer.length; n += 1) {
                const line = buffer.getLine(n);
                const text = n < begin ? "." : line.translateToString(true);
                if (n && line.isWrapped) lines[lines.length - 1] += text;
                else lines.push(text);
              }
              while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
              return lines.length - 1 > after && new RegExp(pattern.replace("\\\\Z", "$")).test(lines.join("\\n"));
            }""",
            arg=[pattern, after],
            timeout=PATIENCE_MS,
            polling=200,  # each look takes its time from the terminal
        )

    def _front(self, expression: str) -> Any:
        return self.page.evaluate(
            f"(() => {{ const session = document.getElementById('terminal').front(); return {expression}; }})()"
        )


def axe(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical on a page."""
    ready(page)
    page.evaluate(_STILL)
    page.evaluate(AXE.read_text() + "; null")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url}: {one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:4]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
