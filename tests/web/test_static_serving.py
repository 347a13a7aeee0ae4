"""Static files are answered before Django, with what every answer carries; a request of Django's is in one thread."""

from __future__ import annotations

import gzip
import threading
from types import ModuleType
from typing import Any

import httpx
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path as route

from panel.handler import Handler
from panel.static_serving import Static

TEXT = "body { color: red; }\n" * 50


async def _passed_on(_scope: dict[str, Any], _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"passed on"})


def client_of(application: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://testserver")


@pytest.fixture
def static(tmp_path, settings) -> Static:
    (tmp_path / "app.css").write_text(TEXT)
    (tmp_path / "app.css.gz").write_bytes(gzip.compress(TEXT.encode()))
    settings.STATIC_ROOT = tmp_path
    return Static(_passed_on)


async def test_a_file_comes_in_the_encoding_asked_for_and_is_not_sent_twice(static):
    async with client_of(static) as client:
        plain = await client.get("/static/app.css", headers={"Accept-Encoding": "identity"})
        packed = await client.get("/static/app.css", headers={"Accept-Encoding": "br, gzip"})
        again = await client.get("/static/app.css", headers={"If-None-Match": plain.headers["ETag"]})
        head = await client.head("/static/app.css", headers={"Accept-Encoding": "identity"})
        part = await client.get("/static/app.css", headers={"Accept-Encoding": "identity", "Range": "bytes=0-3"})
        wrong = await client.post("/static/app.css")
    assert (plain.text, packed.text) == (TEXT, TEXT)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(TEXT) / 4
    assert (again.status_code, again.content) == (304, b"")
    assert (head.content, int(head.headers["Content-Length"])) == (b"", len(TEXT))
    assert (part.status_code, part.text) == (206, TEXT[:4])
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/static/none.css", "/static/../app.css", "/static/", "/", "/containers/"])
async def test_what_is_no_file_goes_on_to_django(path, static):
    async with client_of(static) as client:
        assert (await client.get(path)).text == "passed on"


@pytest.mark.django_db
def test_a_file_carries_what_every_answer_carries(static):
    always = {name.decode() for name, _value in static._always}
    page = Client().get("/api/v1/nothing")
    assert {name: page.headers[name] for name in always} == {
        name.decode(): value.decode() for name, value in static._always
    }


THREADS: list[int] = []


def _note(get_response: Any) -> Any:
    """Note the thread before and after, as a middleware that is written for threads."""

    def middleware(request: HttpRequest) -> HttpResponse:
        THREADS.append(threading.get_ident())
        answer: HttpResponse = get_response(request)
        THREADS.append(threading.get_ident())
        return answer

    return middleware


def _view(_request: HttpRequest) -> HttpResponse:
    THREADS.append(threading.get_ident())
    return HttpResponse("a thread's")


async def _async_view(_request: HttpRequest) -> HttpResponse:
    THREADS.append(threading.get_ident())
    return HttpResponse("the loop's")


URLS = ModuleType("tests_urls_of_threads")
vars(URLS)["urlpatterns"] = [route("thread", _view), route("loop", _async_view)]


@pytest.mark.django_db(transaction=True)
async def test_a_request_is_in_one_thread_and_an_async_view_in_the_event_loop():
    here = threading.get_ident()
    chain = [
        f"{__name__}._note", "django.middleware.security.SecurityMiddleware",
        "panel.middleware.ContentSecurityPolicy", "panel.middleware.ApiErrors", f"{__name__}._note",
    ]  # fmt: skip
    with override_settings(MIDDLEWARE=chain, ROOT_URLCONF=URLS):
        async with client_of(Handler()) as client:
            THREADS.clear()
            assert (await client.get("/thread")).text == "a thread's"
            assert len(THREADS) == 5
            assert len(set(THREADS)) == 1
            assert here not in THREADS
            THREADS.clear()
            assert (await client.get("/loop")).text == "the loop's"
            assert THREADS[2] == here
            assert here not in {THREADS[0], THREADS[1], THREADS[3], THREADS[4]}
