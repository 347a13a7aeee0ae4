"""The containers page in Chromium, each time with nothing in its cache: first paint, rows, bytes, nodes, requests."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from . import many
from .measure import Table, say
from .ours import Ours

FEW, MANY = 12, 500
_VIEWS: Final = 7
SETTLE_MS: Final = 2500
"""After this a page has loaded all it loads; polling it meanwhile would slow it down."""
_PROBE: Final = """
window.bench = {row: null};
const look = () => {
  const rows = [...document.querySelectorAll('tr.row, [data-row]')].filter(row => row.offsetParent);
  if (rows.length >= 12) { window.bench.row = performance.now(); return; }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
_ASK: Final = """() => ({
  paint: performance.getEntriesByType('paint').find(e => e.name === 'first-paint')?.startTime,
  contentful: performance.getEntriesByType('paint').find(e => e.name === 'first-contentful-paint')?.startTime,
  row: window.bench.row,
  nodes: document.getElementsByTagName('*').length,
  requests: performance.getEntriesByType('resource').length + 1,
})"""


def measure(ours: Ours, table: Table) -> None:
    """Fill the table: with 12 containers, then with 500, all of them real ones that do not run."""
    say(f"the page with {FEW} containers")
    have = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            for count, targets in ((FEW, ("< 300", "< 400")), (MANY, ("< 300", "< 800"))):
                present = len(ours.api.get("/containers?limit=1000").json()["items"])
                names = [f"page-{number}" for number in range(have, have + max(0, count - present))]
                have += len(names)
                many.four_at_once(ours, "POST", "/containers", [many.body(name) for name in names])
                say(f"the page with {count} containers: views")
                kilobytes = _weight(browser, ours)
                _add(table, count, [_view(browser, ours) for _ in range(_VIEWS + 1)][1:], kilobytes, targets)
        finally:
            browser.close()


@contextlib.contextmanager
def _fresh(browser: Browser, ours: Ours) -> Iterator[Page]:
    """Give a page of a browser that has seen nothing yet, and is signed in."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        for cookie in ours.web.cookies.jar:
            context.add_cookies([{"name": cookie.name, "value": cookie.value or "", "url": ours.address}])
        yield context.new_page()
    finally:
        context.close()


def _weight(browser: Browser, ours: Ours) -> float:
    """Return how many kB one view takes on the wire. By itself: telling of each request slows the browser down."""
    with _fresh(browser, ours) as page:
        sizes: list[int] = []
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
        page.goto(f"{ours.address}/containers/")
        page.wait_for_timeout(SETTLE_MS)
        return sum(sizes) / 1000


def _view(browser: Browser, ours: Ours) -> dict[str, float]:
    """Open the page, and say what it took."""
    with _fresh(browser, ours) as page:
        page.add_init_script(_PROBE)
        page.goto(f"{ours.address}/containers/")
        page.wait_for_timeout(SETTLE_MS)
        found: dict[str, Any] = page.evaluate(_ASK)
        assert found["row"] is not None, "the rows are not there"
        return found


def _add(table: Table, count: int, views: list[dict[str, float]], kilobytes: float, targets: tuple[str, str]) -> None:
    def median(name: str) -> float:
        return kilobytes if name == "kilobytes" else float(statistics.median(view[name] for view in views))

    beside = {12: ("680", "1 770", "2 100", "1 053", "44"), 500: ("600", "3 390", "4 900", "19 062", "45")}[count]
    for what, name, peer, target in (
        ("first paint, ms", "paint", beside[0], targets[0]),
        ("the 12th row there, ms", "row", beside[1], targets[1]),
        ("kB on the wire", "kilobytes", beside[2], "< 600"),
        ("elements", "nodes", beside[3], "< 3 000"),
        ("requests", "requests", beside[4], ""),
    ):
        table.add(f"{count} containers: {what}", median(name), f"lxd-ui {peer} (measured apart)", target)
