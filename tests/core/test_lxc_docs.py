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


OPTIONS = {
    "attach": "-e -a -s -R --clear-env --keep-env -L -v --keep-var -f -u -g -c",
    "autostart": "-k -L -r -s -a -A -g -t",
    "console": "-t -e",
    "copy": "-N -p -R -s -a -F -d -e -m -B -t -L -D -K -M",
    "create": "-f -t -B --dir --lvname --vgname --thinpool --rbdname --rbdpool --zfsroot --fstype --fssize",
    "destroy": "-s -f",
    "execute": "-d -s -u -g",
    "info": "-c -i -p -S -H -s",
    "ls": "-f -F --active --running --frozen --stopped --defined --nesting --filter -1 -g",
    "monitor": "-Q",
    "snapshot": "-L -r -N -d -c -C",
    "start": "-d -F -p -f -c -L -C -s --share-net",
    "stop": "-r -W -t -k --nolock --nokill",
    "top": "-d -b -s -r",
    "wait": "-s -t",
}
"""As the tools of lxc 5.0 say in their --help, without what all of them have."""


def installed() -> list[str]:
    return [path.name for path in Path("/usr/bin").glob("lxc-*") if not path.name.startswith("lxc-unpriv")]


def test_every_tool_is_there() -> None:
    words = {part for quoted in QUOTED for part in quoted.split()}
    assert {f"lxc-{tool}" for tool in TOOLS} | set(installed()) <= words


@pytest.mark.parametrize("tool", OPTIONS)
def test_every_option_is_there(tool: str) -> None:
    rows: dict[str, str] = {}
    names: list[str] = []
    for row in TEXT[TEXT.index("## Tools") : TEXT.index("## Keys")].splitlines():
        if row.startswith("| "):
            names = re.findall(r"`(lxc-[a-z-]+)", row.split("|")[1]) or names
            rows |= {name: rows.get(name, "") + row for name in names}
    said = rows[f"lxc-{tool}"]
    assert [one for one in OPTIONS[tool].split() if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", said)] == []


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
