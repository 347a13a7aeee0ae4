"""/images, /uploads, /networks."""

from __future__ import annotations

import time
import types
from pathlib import Path

import pytest
from django.test import Client

from containers.asking import uploads
from containers.models import Image, Network, Operation, local_host
from panel.accounts.models import Project
from tests.web.api import Api, assert_error
from tests.web.world import make_container, make_host

pytestmark = pytest.mark.django_db

MIB = 1024**2


@pytest.fixture
def web_dir(settings, tmp_path):
    settings.WEB_DIR = tmp_path
    return tmp_path


def test_images_are_seen_by_all_and_made_by_host_administrators(root, alice, charlie):
    body = {"name": "trixie", "source": {"type": "debootstrap", "suite": "trixie", "packages": ["openssh-server"]}}
    assert_error(Api(alice).post("/images", body), 403, "forbidden")
    status, operation = Api(root).post("/images", body)
    assert (status, operation["action"], operation["container"]) == (202, "image-build", None)
    _status, image = Api(charlie).get("/images/trixie")
    assert image["source"]["suite"] == "trixie"
    assert "trixie" in [row["name"] for row in Api(charlie).get("/images")[1]["items"]]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"name": "x"}, 400, "source"),
        ({"name": "x", "source": {"type": "magic"}}, 422, "source.type"),
        ({"name": "x", "source": {}}, 400, "source.type"),
        ({"name": "x", "source": "debootstrap"}, 400, "source"),
        ({"name": "x", "source": {"type": "debootstrap"}}, 400, "source.debootstrap.suite"),
        ({"name": "X", "source": {"type": "debootstrap", "suite": "trixie"}}, 422, "name"),
        ({"name": "x", "source": {"type": "debootstrap", "suite": "../x"}}, 422, "source.debootstrap.suite"),
        *(
            ({"name": "x", "source": {"type": "debootstrap", "suite": "trixie", **more}}, status, f"source.{field}")
            for more, status, field in (
                ({"suite": "nosuch"}, 422, "suite"),
                ({"suite": "jammy"}, 422, "suite"),
                ({"variant": "huge"}, 422, "variant"),
                ({"init": "upstart"}, 422, "init"),
                ({"init": "sysvinit", "variant": "standard"}, 422, "variant"),
                ({"packages": "vim"}, 400, "packages"),
                ({"packages": ["vim;reboot"]}, 422, "packages.0"),
                ({"packages": ["vim"] * 201}, 422, "packages"),
                ({"mirror": "http://user:pw@deb.debian.org/debian"}, 422, "mirror"),
                ({"mirror": "http://deb.debian.org/debian?x"}, 422, "mirror"),
            )
        ),
        ({"name": "x", "source": {"type": "debootstrap", "suite": "sid", "x": 1}}, 400, "source.debootstrap.x"),
        ({"name": "x", "source": {"type": "debootstrap", "suite": "sid", "mirror": "file:///etc"}}, 422, None),
    ],
)
def test_bad_images(body, status, field, root):
    got, answer = Api(root).post("/images", body)
    assert got == status, answer
    if field:
        assert answer["field"] == field.replace(".debootstrap", ""), answer
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    "mirror", ["http://127.0.0.1/debian", "http://10.0.0.1/", "http://[::1]/", "http://localhost/x"]
)
def test_private_mirrors_are_refused(mirror, root):
    body = {"name": "x", "source": {"type": "debootstrap", "suite": "sid", "mirror": mirror}}
    assert_error(Api(root).post("/images", body), 403, "policy", "source.mirror")


def test_an_unknown_image_is_404(root):
    assert_error(Api(root).get("/images/none"), 404, "not-found")
    assert_error(Api(root).delete("/images/none"), 404, "not-found")


def test_an_archive_is_sent_in_pieces(root, web_dir):
    api = Api(root)
    status, body = api.post("/uploads", {"size_bytes": 10})
    assert status == 201
    path = f"/uploads/{body['id']}"
    assert api.put(f"{path}?offset=0", raw=b"01234")[1]["received_bytes"] == 5
    assert api.put(f"{path}?offset=0", raw=b"abcde")[0] == 200  # a piece may be sent again
    assert_error(api.put(f"{path}?offset=6", raw=b"x"), 422, "invalid-value", "offset")
    assert_error(api.put(f"{path}?offset=5", raw=b"567890"), 422, "invalid-value", "offset")
    assert api.put(f"{path}?offset=5", raw=b"56789")[1]["complete"] is True
    assert (Path(web_dir) / "uploads" / f"{body['id']}.part").read_bytes() == b"abcde56789"
    assert api.delete(path) == (204, None)
    assert list((Path(web_dir) / "uploads").iterdir()) == []


def test_a_piece_over_8_mib_is_413(root, web_dir):
    api = Api(root)
    upload_id = api.post("/uploads", {"size_bytes": 100 * MIB})[1]["id"]
    assert_error(api.put(f"/uploads/{upload_id}", raw=b"x" * (8 * MIB + 1)), 413, "too-large")
    assert api.put(f"/uploads/{upload_id}", raw=b"x" * (8 * MIB))[0] == 200


def test_an_upload_that_goes_on_outlives_a_clock_that_is_set(root, web_dir, monkeypatch):
    api = Api(root)
    going_on, left = (api.post("/uploads", {"size_bytes": 10})[1]["id"] for _ in range(2))
    assert api.put(f"/uploads/{going_on}", raw=b"abcde")[0] == 200
    ahead = types.SimpleNamespace(time=lambda: time.time() + 2 * uploads.LIFETIME_SEC, monotonic=time.monotonic)
    monkeypatch.setattr(uploads, "time", ahead)
    assert api.post("/uploads", {"size_bytes": 10})[0] == 201
    assert_error(api.put(f"/uploads/{left}", raw=b"x"), 404, "not-found")
    assert api.put(f"/uploads/{going_on}?offset=5", raw=b"fghij")[0] == 200
    ahead.monotonic = lambda: time.monotonic() + 2 * uploads.LIFETIME_SEC
    assert api.post("/uploads", {"size_bytes": 10})[0] == 201
    assert_error(api.put(f"/uploads/{going_on}", raw=b"x"), 404, "not-found")


def test_who_has_sent_too_much_sees_what_and_deletes_it(root, alice, web_dir):
    api = Api(root)
    for number in range(uploads.UNFINISHED_MAX):
        assert api.post("/uploads", {"size_bytes": 4, "name": f"{number}.zst"})[0] == 201
    assert_error(api.post("/uploads", {"size_bytes": 4}), 422, "invalid-value")
    listed = api.get("/uploads")[1]["items"]
    assert {one["name"] for one in listed} == {f"{number}.zst" for number in range(uploads.UNFINISHED_MAX)}
    assert {(one["container"], one["complete"], one["received_bytes"]) for one in listed} == {(None, False, 0)}
    assert Api(alice).get("/uploads")[1]["items"] == []
    whole, other = listed[0]["id"], listed[1]["id"]
    assert api.put(f"/uploads/{whole}", raw=b"data")[0] == 200
    client = Client()
    client.force_login(root)
    for address in ("/backups/", "/images/?type=upload"):
        page = client.get(address).content.decode()
        assert page.count("/delete") == uploads.UNFINISHED_MAX
        assert (page.count(f"upload={whole}"), page.count(f"upload={other}")) == (1, 0)
        chosen = client.get(f"{address}{'&' if '?' in address else '?'}upload={whole}").content.decode()
        assert f'name="upload" value="{whole}"' in chosen
    assert client.post(f"/uploads/{other}/delete").status_code == 302
    assert api.post("/uploads", {"size_bytes": 4})[0] == 201
    source = {"type": "upload", "upload": whole, "sha256": "0" * 64}
    assert api.post("/images", {"name": "x", "source": source})[0] == 202
    assert f"/uploads/{whole}/delete" not in client.get("/backups/").content.decode()


def test_uploads_are_ones_own(root, alice, olga, web_dir):
    upload_id = Api(root).post("/uploads", {"size_bytes": 10})[1]["id"]
    assert_error(Api(alice).put(f"/uploads/{upload_id}", raw=b"x"), 404, "not-found")
    assert_error(Api(olga).post("/uploads", {"size_bytes": 1}), 403, "forbidden")
    assert_error(Api(root).put("/uploads/..%2F..%2Fx", raw=b"x"), 404, "not-found")
    assert_error(Api(root).put(f"/uploads/{'a' * 32}", raw=b"x"), 404, "not-found")
    assert_error(Api(root).put(f"/uploads/{upload_id}?offset=-1", raw=b"x"), 422, "invalid-value", "offset")


@pytest.mark.parametrize(("size", "status"), [(0, 422), (-1, 422), ("1", 400), (10**15, 422), (1.5, 400)])
def test_bad_sizes(size, status, root, web_dir):
    got, body = Api(root).post("/uploads", {"size_bytes": size})
    assert (got, body["field"]) == (status, "size_bytes")


def test_an_upload_becomes_an_image_when_it_is_complete(root, alice, web_dir):
    api = Api(root)
    upload = api.post("/uploads", {"size_bytes": 4})[1]["id"]
    body = {"name": "x", "source": {"type": "upload", "upload": upload, "sha256": "0" * 64}}
    assert_error(api.post("/images", body), 422, "invalid-value", "source.upload")
    assert api.put(f"/uploads/{upload}", raw=b"data")[0] == 200
    missing = {**body, "source": {**body["source"], "metadata": "f" * 32}}
    assert_error(api.post("/images", missing), 422, "invalid-value", "source.metadata")
    assert_error(Api(alice).post("/images", body), 403, "forbidden")
    assert api.post("/images", body)[0] == 202
    assert Image.objects.get(name="x").source == body["source"]


def assert_answer(got, status, code, field):
    """Have an answer be what it should; a refusal (code is not None) has queued nothing."""
    if code is None:
        assert got[0] == status, got
        return
    assert_error(got, status, code, field)
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({}, 202, None, None),
        ({"metadata": "sub/metadata.tar.xz"}, 202, None, None),
        ({"directory": "other"}, 403, "policy", "source.directory"),
        ({"path": "../x"}, 422, "invalid-value", "source.path"),
        ({"path": "/etc/passwd"}, 422, "invalid-value", "source.path"),
        ({"path": "a/../../x"}, 422, "invalid-value", "source.path"),
        ({"path": ""}, 422, "invalid-value", "source.path"),
        ({"metadata": "../x"}, 422, "invalid-value", "source.metadata"),
        ({"sha256": "x"}, 422, "invalid-value", "source.sha256"),
        ({"url": "x"}, 400, "bad-request", "source.url"),
    ],
)
def test_a_file_of_a_directory_that_the_policy_names(more, status, code, field, root):
    host = local_host()
    host.facts = {"policy": {"directories": ["isos"]}}
    host.save()
    source = {"type": "file", "directory": "isos", "path": "debian/rootfs.tar.xz", **more}
    got = Api(root).post("/images", {"name": "x", "source": source})
    assert_answer(got, status, code, field)


@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({"reference": "alpine:3.20"}, 202, None, None),
        ({"reference": "ghcr.io/a/b", "project": "web"}, 202, None, None),
        ({"reference": "registry.lan:5000/a/b"}, 202, None, None),
        ({"reference": "A b"}, 422, "invalid-value", "source.reference"),
        ({"reference": ""}, 422, "invalid-value", "source.reference"),
        ({"reference": "alpine", "project": "none"}, 422, "invalid-value", "source.project"),
        ({"reference": "localhost:5000/a"}, 403, "policy", "source.reference"),
        ({"reference": "127.0.0.1/a"}, 403, "policy", "source.reference"),
        ({"reference": "[::1]/a"}, 403, "policy", "source.reference"),
        ({"reference": "169.254.169.254/a"}, 403, "policy", "source.reference"),
        ({"reference": "alpine", "password": "x"}, 400, "bad-request", "source.password"),
    ],
)
def test_an_image_of_a_registry(more, status, code, field, root):
    Project.objects.get_or_create(name="web")
    got = Api(root).post("/images", {"name": "x", "source": {"type": "oci", **more}})
    assert_answer(got, status, code, field)


@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({}, 202, None, None),
        ({"architecture": "amd64"}, 202, None, None),
        ({"server": "http://images.example.org"}, 422, "invalid-value", "source.server"),
        ({"server": "https://u:p@images.example.org"}, 422, "invalid-value", "source.server"),
        ({"server": "https://images.example.org/?x"}, 422, "invalid-value", "source.server"),
        ({"server": "https://10.0.0.1"}, 403, "policy", "source.server"),
        ({"server": "file:///etc"}, 422, "invalid-value", "source.server"),
        ({"alias": ""}, 422, "invalid-value", "source.alias"),
        ({"architecture": "x" * 40}, 422, "invalid-value", "source.architecture"),
    ],
)
def test_an_image_of_a_simplestreams_server(more, status, code, field, root):
    source = {"type": "simplestreams", "server": "https://images.example.org", "alias": "alpine/3.22", **more}
    got = Api(root).post("/images", {"name": "x", "source": source})
    assert_answer(got, status, code, field)


@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({}, 202, None, None),
        ({"url": "https://example.org/a/b.tar.xz?token=x", "sha256": "a" * 64}, 202, None, None),
        ({"url": "http://example.org/a"}, 422, "invalid-value", "source.url"),
        ({"url": "https://user:pw@example.org/a"}, 422, "invalid-value", "source.url"),
        ({"url": "https://example.org/a#b"}, 422, "invalid-value", "source.url"),
        ({"url": "ftp://example.org/a"}, 422, "invalid-value", "source.url"),
        ({"url": "https://10.0.0.1/a"}, 403, "policy", "source.url"),
        ({"url": "https://127.1/a"}, 403, "policy", "source.url"),
        ({"url": "https://[::1/a"}, 422, "invalid-value", "source.url"),
        ({"sha256": "A" * 64}, 422, "invalid-value", "source.sha256"),
        ({"metadata": "x"}, 400, "bad-request", "source.metadata"),
    ],
)
def test_an_image_of_an_address(more, status, code, field, root):
    source = {"type": "url", "url": "https://example.org/root.tar.xz", **more}
    got = Api(root).post("/images", {"name": "x", "source": source})
    assert_answer(got, status, code, field)
    if code is None:
        assert Image.objects.get(name="x").source == source


def test_a_container_becomes_an_image_and_is_held_meanwhile(root, alice, team):
    api = Api(root)
    make_host()
    web = make_container(team)
    body = {"name": "x", "source": {"type": "container", "container": web.name}}
    assert_error(Api(alice).post("/images", body), 403, "forbidden")
    for source, status, field in (
        ({"container": "none"}, 404, None),
        ({"container": web.name, "snapshot": "none"}, 422, "source.snapshot"),
    ):
        got, answer = api.post("/images", {"name": "x", "source": {"type": "container", **source}})
        assert (got, answer["field"]) == (status, field)
    status, operation = api.post("/images", body)
    assert (status, operation["container"]) == (202, web.name)
    assert api.get("/images/x")[1]["source"] == body["source"]
    assert_error(api.post(f"/containers/{web.name}/start"), 409, "busy")


def test_who_uses_an_image_is_told_to_whom_it_concerns(root, alice, charlie, team):
    make_host()
    make_container(team)
    assert Api(alice).get("/images/busybox")[1]["used_by"] == ["web-1"]
    assert Api(charlie).get("/images/busybox")[1]["used_by"] == []
    status, answer = Api(root).delete("/images/busybox")
    assert (status, answer["code"], answer["users"]) == (409, "in-use", ["web-1"])


def test_unfinished_uploads_are_counted(root, web_dir):
    for _ in range(uploads.UNFINISHED_MAX):
        assert Api(root).post("/uploads", {"size_bytes": 1})[0] == 201
    assert Api(root).post("/uploads", {"size_bytes": 1})[0] == 422


def test_networks(root, alice, charlie):
    api = Api(root)
    status, body = api.post("/networks", {"name": "lan", "type": "bridge", "ipv4": "10.77.0.0/24", "nat": False})
    assert (status, body["action"]) == (202, "network-create")
    _status, row = api.get("/networks/lan")
    assert (row["type"], row["ipv4"], row["nat"], row["project"]) == ("bridge", "10.77.0.1/24", False, None)
    assert "lan" in [item["name"] for item in Api(charlie).get("/networks")[1]["items"]]
    assert_error(Api(alice).post("/networks", {"name": "own", "type": "bridge"}), 403, "forbidden")


@pytest.mark.parametrize(
    ("more", "status", "field"),
    [
        ({"type": "macvlan"}, 422, "type"),
        ({"ipv4": "10.0.0.1"}, 422, "ipv4"),
        ({"ipv4": "nonsense/8"}, 422, "ipv4"),
        ({"ipv4": 5}, 400, "ipv4"),
        ({"ipv6": "10.0.0.0/24"}, 422, "ipv6"),
        ({"nat": "yes"}, 400, "nat"),
        ({"vlan": 5}, 400, "vlan"),
        ({"name": "LAN"}, 422, "name"),
    ],
)
def test_bad_networks(more, status, field, root):
    got, body = Api(root).post("/networks", {"name": "lan", "type": "bridge", **more})
    assert (got, body["field"]) == (status, field)
    assert not Network.objects.filter(name__iexact="lan").exists()


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"name": "other"}, 400, "name"),
        ({"nat": "off"}, 400, "nat"),
        ({"nat": None}, 400, "nat"),
        ({"description": "x" * 501}, 422, "description"),
        ({"description": "a\nb"}, 422, "description"),
        ({"ipv4": "10.0.0.1"}, 422, "ipv4"),
        ({"ipv4": "fd00::/64"}, 422, "ipv4"),
        ({"ipv6": "fd00::/80"}, 422, "ipv6"),
        ({"ipv4": "10.92.0.0/23"}, 422, "ipv4"),
        ({"ipv4": "10.93.0.0/24"}, 422, "ipv4"),
        ({"ipv4": "10.94.0.0/24"}, 422, "ipv4"),
    ],
)
def test_bad_changes_of_a_network(change, status, field, root):
    """Another network has 10.92, a third changes from 10.93 to 10.94: nobody else gets either until it has."""
    for number, name in ((77, "lan"), (78, "two"), (79, "three")):
        subnet = "" if name == "lan" else f"10.{number + 14}.0.1/24"
        Network.objects.create(host=local_host(), name=name, number=number, ipv4=subnet)
    assert Api(root).patch("/networks/three", {"ipv4": "10.94.0.0/24"})[0] == 202
    got, body = Api(root).patch("/networks/lan", change)
    assert (got, body["field"]) == (status, field)
    assert not Network.objects.get(name="lan").operations.exists()


def test_who_may_change_a_network(root, alice, charlie):
    Network.objects.create(
        host=local_host(), name="own", number=77, project=Project.objects.get(name="team"), ipv4="10.92.0.1/24"
    )
    status, body = Api(alice).patch("/networks/own", {"nat": False, "description": "ours", "ipv4": "10.92.0.0/24"})
    assert (status, body["action"]) == (202, "network-change")
    assert_error(Api(root).patch("/networks/own", {"nat": True}), 409, "busy")
    assert_error(Api(charlie).patch("/networks/own", {}), 404, "not-found")
    Network.objects.create(host=local_host(), name="lan", number=78)
    assert_error(Api(alice).patch("/networks/lan", {"nat": False}), 403, "forbidden")
    assert_error(Api(root).patch("/networks/none", {"nat": False}), 404, "not-found")


def test_a_projects_network_is_its_members_alone(root, alice, charlie):
    project = Project.objects.get(name="team")
    Network.objects.create(host=local_host(), name="own", number=77, project=project)
    assert Api(alice).get("/networks/own")[0] == 200
    assert_error(Api(charlie).get("/networks/own"), 404, "not-found")


def test_deleting_a_network_that_is_used_is_409_with_the_users(root, alice):
    from containers.models import Container, NetworkInterface

    network = Network.objects.create(host=local_host(), name="own", number=77)
    container = Container.objects.create(
        host=network.host, project=Project.objects.get(name="team"), name="web-1", slot=1, machine_id="0" * 32
    )
    NetworkInterface.objects.create(container=container, network=network, mac="02:00:00:00:00:01")
    status, body = Api(root).delete("/networks/own")
    assert (status, body["code"], body["users"]) == (409, "in-use", ["web-1"])
    for change in ({"ipv4": "10.92.0.0/24"}, {"ipv6": "auto"}):
        status, body = Api(root).patch("/networks/own", change)
        assert (status, body["code"], body["users"]) == (409, "in-use", ["web-1"])
    assert Api(root).patch("/networks/own", {"nat": False, "ipv4": "none"})[0] == 202, "what it is already"


def test_deleting_an_image_that_is_used_is_409(root, alice):
    from containers.models import Container

    image = Image.objects.create(host=local_host(), name="own", state=Image.State.READY)
    Container.objects.create(
        host=image.host,
        project=Project.objects.get(name="team"),
        name="web-1",
        slot=1,
        machine_id="0" * 32,
        image=image,
    )
    status, body = Api(root).delete("/images/own")
    assert (status, body["code"], body["users"]) == (409, "in-use", ["web-1"])
