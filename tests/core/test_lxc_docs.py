"""docs/lxc.md says something of every tool that LXC has and of every key that is known here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from containers.core.lxc import translating

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docs/lxc.md").read_text()
QUOTED = re.findall(r"`([^`]+)`", re.sub(r"(?s)```.*?```", "", TEXT))
TOOLS = (
    "attach autostart cgroup checkconfig checkpoint clone config console copy create destroy device execute freeze "
    "info init ls monitor monitord multicall net snapshot start stop top unfreeze unshare update-config user-nic "
    "usernsexec wait"
).split()


def installed() -> list[str]:
    return [path.name for path in Path("/usr/bin").glob("lxc-*") if not path.name.startswith("lxc-unpriv")]


def test_every_tool_is_there() -> None:
    words = {part for quoted in QUOTED for part in quoted.split()}
    assert {f"lxc-{tool}" for tool in TOOLS} | set(installed()) <= words


@pytest.mark.parametrize("key", [*translating._KEYS, *(prefix for prefix, _function in translating._PREFIXES)])
def test_every_key_is_there(key: str) -> None:
    patterns = [
        quoted.removesuffix("=").removesuffix(" = veth").strip() for quoted in QUOTED if quoted.startswith("lxc.")
    ]
    said = {pattern.partition(" ")[0] for pattern in patterns}
    groups = [pattern.removesuffix("*") for pattern in said if pattern.endswith(".*")]
    if key == "lxc.net.":
        assert "lxc.net.N.type" in said
    else:
        assert key in said or any(key.startswith(group) for group in groups)


def test_what_it_names_of_ours_is_there() -> None:
    from containers.core.model.behaviour import Boot, Consoles, Init
    from containers.core.model.security import Security
    from containers.core.model.spec import Limits

    for kind, cls in (
        ("limits", Limits),
        ("security", Security),
        ("init", Init),
        ("boot", Boot),
        ("console", Consoles),
    ):
        for name in re.findall(rf"`{kind}\.([a-z_]+)`", TEXT):
            assert name in cls.__dataclass_fields__, name
