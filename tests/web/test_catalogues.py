"""What image servers offer: fetched by an operation, kept, narrowed; by the API and on the page."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from containers.models import Host, Operation, local_host
from containers.operations import runner
from tests.web.api import Api, assert_error
from tests.web.world import CORE_HOST, FakeRuntime, make_host

pytestmark = pytest.mark.django_db
SERVER = "https://images.example.org"


def offer(os: str, release: str, architecture: str = "x86_64") -> dict[str, object]:
    return {
        "alias": f"{os.lower()}/{release}",
        "os": os,
        "release": release,
        "variant": "default",
        "architecture": architecture,
        "serial": "20260101",
        "size_bytes": 3 << 20,
    }


@pytest.fixture
def fetched(root) -> FakeRuntime:
    """A list of three that was fetched by an operation."""
    make_host()
    runtime = FakeRuntime()
    runtime.offered = [offer("Alpine", "3.22"), offer("Debian", "trixie"), offer("Debian", "trixie", "i686")]
    status, body = Api(root).post("/image-servers", {"server": f"{SERVER}/"})
    assert (status, body["action"], body["object"]) == (202, "image-catalogue", "images.example.org")
    assert runner.run(Operation.objects.get(pk=body["id"]).pk, runtime, CORE_HOST)
    operation = Operation.objects.get(pk=body["id"])
    assert (operation.status, operation.message) == ("succeeded", "3 images are offered.")
    assert runtime.calls[-1] == ("catalogue", SERVER)
    return runtime


def test_a_fetched_list_is_kept_and_narrowed(fetched, root, bob):
    api = Api(bob)
    [server] = api.get("/image-servers")[1]["items"]
    assert (server["server"], server["count"]) == (SERVER, 3)

    def aliases(query: str) -> list[str]:
        return [item["alias"] for item in api.get(f"/image-servers/items?server={SERVER}{query}")[1]["items"]]

    assert aliases("") == ["alpine/3.22", "debian/trixie", "debian/trixie"]
    assert aliases("&os=debian&architecture=x86_64") == ["debian/trixie"]
    assert aliases("&q=tri+i686") == ["debian/trixie"]
    assert aliases("&q=none") == []
    assert_error(api.get("/image-servers/items?server=https://other.example.org"), 404, "not-found")


def test_only_so_many_lists_are_kept_the_newest(fetched, root):
    for number in range(5):
        body = Api(root).post("/image-servers", {"server": f"https://s{number}.example.org"})[1]
        assert runner.run(Operation.objects.get(pk=body["id"]).pk, fetched, CORE_HOST)
    kept = [item["server"] for item in Api(root).get("/image-servers")[1]["items"]]
    assert kept == [f"https://s{number}.example.org" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("server", "status", "code"),
    [
        ("http://images.example.org", 422, "invalid-value"),
        ("https://127.0.0.1", 403, "policy"),
        ("https://u:p@images.example.org", 422, "invalid-value"),
        ("nonsense", 422, "invalid-value"),
    ],
)
def test_a_server_that_may_not_be_asked_is_refused(root, bob, server, status, code):
    make_host()
    assert_error(Api(root).post("/image-servers", {"server": server}), status, code, "server")
    assert Api(bob).post("/image-servers", {"server": SERVER})[0] == 403
    assert not Operation.objects.exists()


def test_the_page_shows_the_list_and_fills_the_form(fetched, root):
    client = Client()
    client.force_login(root)
    url = f"{reverse('pages:images')}?type=simplestreams&server={SERVER}"
    page = client.get(url).content.decode()
    assert page.count('aria-label="Choose ') == 3
    assert client.get(f"{url}&os=Alpine").content.decode().count('aria-label="Choose ') == 1
    chosen = client.get(f"{url}&alias=alpine/3.22").content.decode()
    assert 'value="alpine/3.22"' in chosen
    Host.objects.update(facts={})
    assert "not fetched yet" in client.get(url).content.decode()
    assert client.post(reverse("pages:image-server"), {"server": SERVER}).status_code == 302
    assert Operation.objects.filter(action="image-catalogue", arguments={"server": SERVER}).count() == 2
    assert local_host().facts == {}
