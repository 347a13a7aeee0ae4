"""What a page makes a browser wait for before it can paint: nothing but the page itself."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from panel import styles

from .world import make_container, make_host

pytestmark = pytest.mark.django_db
SHEETS = sorted((Path(__file__).resolve().parents[2] / "static/app/css").glob("*.css"))
OWN = ("vendor/tabler/1.6.1/tokens.css", *(f"app/css/{path.name}" for path in SHEETS))


@pytest.fixture
def browser(alice) -> Client:
    client = Client()
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def head_of(page: str) -> str:
    return page[: page.index("<body")]


@pytest.mark.parametrize("path", ["/", "/containers/", "/images/", "/operations/", "/people/", "/account"])
def test_nothing_is_asked_for_before_the_first_paint(path, browser):
    answer = browser.get(path)
    page = answer.content.decode()
    assert 'rel="stylesheet"' not in page
    assert all("defer" in tag or 'type="module"' in tag for tag in re.findall(r"<script[^>]*>", page))
    policy = dict(part.partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split("; "))
    sheets = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(sheets) >= 2
    digests = [base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode() for sheet in sheets]
    assert policy["style-src"] == "'self' " + " ".join(f"'sha256-{digest}'" for digest in digests)
    assert "<style" not in page[page.index("<body") :]
    assert "style=" not in page


def test_what_has_no_sheet_in_it_allows_none(browser):
    for path in ("/containers/_rows?block=0", "/api/v1/containers", "/nothing.txt"):
        answer = browser.get(path, headers={"HX-Request": "true"})
        assert "style-src" not in answer.headers["Content-Security-Policy"]
        assert b"<style" not in answer.content


def test_a_script_that_reads_a_part_of_a_page_gets_no_sheets(browser):
    assert "<style" not in browser.get("/people/", headers={"HX-Request": "true"}).content.decode()


def test_the_containers_page_stays_light(browser, team):
    make_host()
    for number in range(30):
        make_container(team, f"c-{number}")
    answer = browser.get("/containers/")
    assert answer.content.count(b'class="row"') == 20
    assert len(answer.content) < 130_000
    assert len(gzip.compress(answer.content)) < 26_000


@pytest.mark.parametrize("name", OWN)
def test_a_sheet_stands_in_a_page_as_it_would_alone(name):
    text = styles.sheet(name).text
    for wrong in ("</", "<!--", "url(", "@import", "@charset", "/*", "\n", "\r", "\0"):
        assert wrong not in text, wrong
    whole = Path(finders.find(name)).read_text()
    assert text.count("{") == whole.count("{")
    assert len(text) < len(whole)


@pytest.mark.parametrize(
    ("css", "small"),
    [
        ("a  b {\n  color: red; /* why */\n}\n", "a b{color: red; }"),
        ("a::after { content: \"  { x } /* no */ \"; }", 'a::after{content: "  { x } /* no */ ";}'),
        ("@media (min-width: 3px) and (hover) { a, b > c { width: calc(1px + 2px); } }",
         "@media (min-width: 3px) and (hover){a,b > c{width: calc(1px + 2px);}}"),
        ("a:is(b, c) :hover { margin: 0 -1px }", "a:is(b,c) :hover{margin: 0 -1px}"),
    ],
)  # fmt: skip
def test_what_a_sheet_means_is_not_made_smaller(css, small):
    assert styles.smaller(css) == small
