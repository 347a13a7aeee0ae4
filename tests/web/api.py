"""A small client of the REST API for the tests: JSON in, (status, JSON) out, with a token or without."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from panel.accounts import tokens
from panel.accounts.models import User

V1 = "/api/v1"


class Api:
    """Calls the API in one user's name; user None: without a token."""

    def __init__(self, user: User | None, *, read_only: bool = False) -> None:
        self.user = user
        self.client = Client()
        self.headers = {}
        if user is not None:
            _row, secret = tokens.issue(user, name="test", read_only=read_only)
            self.headers["Authorization"] = f"Bearer {secret}"

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        """Return (status, JSON value or None). headers: names with underscores for dashes."""
        if path.startswith("/") and not path.startswith("/api"):
            path = V1 + path
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.client.generic(
            method, path, data, content_type="application/json", headers={**self.headers, **more}
        )
        assert response.status_code == 204 or response["Content-Type"].startswith("application/json"), response
        return response.status_code, json.loads(response.content) if response.content else None

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **more: Any) -> Any:
        return self.call("PUT", path, body, **more)

    def patch(self, path: str, body: Any = None) -> Any:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)


def assert_error(answer: Any, status: int, code: str, field: str | None = None) -> None:
    """Fail unless an answer is this error, in the API's shape."""
    got, body = answer
    assert (got, body["code"]) == (status, code), answer
    assert body["field"] == field, body
    assert isinstance(body["message"], str)
    assert body["message"]
