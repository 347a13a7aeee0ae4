"""Behind a reverse proxy, as docs/operating.md sets it up: ready, signed in through it, asked by programs beside it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..ports import free_port
from .instance import PATIENCE_SEC, Instance

ORIGIN = "https://panel.example.org"
HEADERS = {"Host": "panel.example.org", "X-Real-IP": "203.0.113.7", "X-Forwarded-For": ""}
"""What nginx sends on, with that configuration."""


@pytest.fixture
def proxied() -> Iterator[Instance]:
    made = Instance(Path(tempfile.mkdtemp(prefix="boxroom-e2e-")), free_port())
    bind = f"127.0.0.1:{made.port}"
    made.output = made.manage(
        "up", "--detach", "--state-dir", str(made.state_dir), "--bind", bind, "--origin", ORIGIN
    ).stdout
    yield made
    made.remove()


def test_the_link_signs_in_through_the_proxy_and_programs_beside_it_are_answered(proxied: Instance) -> None:
    found = re.search(rf"{ORIGIN}(/\S+)", proxied.output)
    assert found, f"the link is the proxy's: cookies are taken there only\n{proxied.output}"
    with httpx.Client(base_url=proxied.address, headers=HEADERS, timeout=PATIENCE_SEC) as nginx:
        page = nginx.get(found[1])
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text
        # the client speaks http to the panel, as nginx does, and so does not send back what is Secure by itself
        cookies = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
        more = {"Cookie": cookies, "Origin": ORIGIN, "Referer": f"{ORIGIN}/"}
        done = nginx.post(found[1], data={"csrfmiddlewaretoken": token[1]}, headers=more)
    assert done.status_code == 302, done.text
    made = [line for line in done.headers.get_list("set-cookie") if line.startswith("__Host-sessionid=")]
    assert "Secure" in made[0]
    own = {"Authorization": f"Bearer {proxied.token()}"}
    with httpx.Client(base_url=proxied.address, headers=own, timeout=PATIENCE_SEC) as beside:
        rows = beside.get("/api/v1/audit").json()["items"]
        assert next(row for row in rows if row["action"] == "sign-in.link")["source_ip"] == "203.0.113.7"
        assert beside.get("/healthz", headers={"Host": "evil.example.org"}).status_code == 400
