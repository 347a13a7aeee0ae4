"""Every error under /api/ has one shape, whatever went wrong."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from tests.web.api import Api, assert_error

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1/", "/api/v2/x", "/api/v1/nothing", "/api/v1/containers/a/b/c", "/api"]
)
def test_an_unknown_path_is_404_in_the_api_shape(path, alice):
    assert_error(Api(alice).get(path), 404, "not-found")


def test_an_unknown_path_is_404_without_a_token_too():
    assert_error(Api(None).get("/nothing"), 404, "not-found")


@pytest.mark.parametrize(("method", "path"), [("PUT", "/containers"), ("POST", "/audit"), ("DELETE", "/containers")])
def test_a_wrong_method_is_405_and_names_the_right_ones(method, path, alice):
    api = Api(alice)
    assert_error(api.call(method, path, {}), 405, "method-not-allowed")
    response = api.client.generic(method, f"/api/v1{path}", headers=api.headers)
    assert "GET" in response["Allow"]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "bearer \udcff", "Token x", "Bearer a b c"]
)
def test_without_a_valid_token_everything_is_401(header):
    headers = {} if header is None else {"Authorization": header}
    answer = Api(None).get("/containers", **headers)
    assert_error(answer, 401, "unauthenticated")


def test_401_tells_how_to_authenticate():
    response = Client().get("/api/v1/containers")
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "raw", [b"{", b"no json", b"\xff\xfe", b'{"a": NaN}', b"{'name': 1}", b"[" * 100_000, b'{"name": 1' + b"0" * 5000]
)
def test_what_is_not_json_is_400(raw, alice):
    assert_error(Api(alice).call("POST", "/containers", raw=raw), 400, "bad-request")


@pytest.mark.parametrize("body", [[], "text", 5, True, [{"name": "x"}]])
def test_json_that_is_no_object_is_400(body, alice):
    assert_error(Api(alice).post("/containers", body), 400, "bad-request")


def test_no_body_where_one_is_needed_is_400(alice):
    assert_error(Api(alice).call("POST", "/containers", raw=b""), 400, "bad-request")


@pytest.mark.parametrize("limit", ["0", "1001", "-1"])
def test_a_list_limit_out_of_range_is_422(limit, alice):
    assert_error(Api(alice).get(f"/containers?limit={limit}"), 422, "invalid-value", "limit")


@pytest.mark.parametrize("limit", ["x", "1.5", ""])
def test_a_list_limit_that_is_no_number_is_400(limit, alice):
    assert_error(Api(alice).get(f"/containers?limit={limit}"), 400, "bad-request", "limit")


@pytest.mark.parametrize("after", ["x", "W10", "!!", "eyJhIjoxfQ"])
def test_a_list_position_that_no_page_gave_is_422(after, alice):
    assert_error(Api(alice).get(f"/containers?after={after}"), 422, "invalid-value", "after")


@pytest.mark.parametrize("wait", ["x", "nan", ""])
def test_wait_that_is_no_number_is_refused(wait, alice):
    status, body = Api(alice).post(f"/containers/none/start?wait={wait}")
    assert status in (400, 422)
    assert body["field"] == "wait"


def test_a_body_over_the_limit_is_413(alice):
    assert_error(Api(alice).call("POST", "/containers", raw=b" " * (10 * 1024**2)), 413, "too-large")


def test_the_description_is_complete_and_open_to_all():
    response = Client().get("/api/v1/openapi.json")
    assert response.status_code == 200
    paths = json.loads(response.content)["paths"]
    assert "/api/v1/containers/{name}/snapshots/{snapshot}/restore" in paths
    assert set(paths["/api/v1/containers/{name}"]) == {"get", "patch", "delete"}
