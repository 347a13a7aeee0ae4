"""The settings of init, boot and consoles: what is refused, and what of them is kept."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from containers.core.errors import SpecError
from containers.core.model.behaviour import Boot, Consoles, Init
from containers.core.model.spec import Spec

SPEC = Spec(
    id="0123456789ab",
    name="web-1",
    project="default",
    slot=1,
    image="busybox",
    layers=("0" * 32,),
    machine_id="0" * 32,
    created_at="2026-11-21T00:00:00+00:00",
)


@pytest.mark.parametrize(
    "init",
    [
        {"kind": "virtual"},
        {"arguments": ["a\0b"]},
        {"arguments": [7]},
        {"user": "a b"},
        {"user": "a:b:c"},
        {"user": "../etc"},
        {"user": ":0"},
        {"groups": [-1]},
        {"groups": [65536]},
        {"groups": [True]},
        {"cwd": "tmp"},
        {"cwd": "/a\nb"},
        {"cwd": "/a\0"},
        {"reboot_signal": "SIG"},
        {"reboot_signal": "kill -9"},
        {"wait_for_all": 1},
        {"speed": 2},
    ],
)
def test_a_bad_init_is_refused_naming_its_field(init: dict[str, Any]):
    with pytest.raises(SpecError) as refused:
        Init.from_dict(init).check()
    assert refused.value.field == f"init.{next(iter(init))}"


@pytest.mark.parametrize("user", ["", "0", "www-data", "1000:1000", "postgres:ssl-cert", "samba$", "_apt"])
def test_users_as_images_name_them_are_taken(user: str):
    Init(user=user).check()
    with pytest.raises(SpecError):
        Init(user=f"{user} x").check()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Boot, {"order": 10**7}),
        (Boot, {"order": "1"}),
        (Boot, {"delay_sec": -1}),
        (Boot, {"delay_sec": 3601}),
        (Boot, {"groups": ["A b"]}),
        (Boot, {"groups": [1]}),
        (Consoles, {"ttys": 13}),
        (Consoles, {"ttys": -1}),
        (Consoles, {"buffer_bytes": 1}),
        (Consoles, {"log_bytes": 5}),
        (Consoles, {"rotations": 10}),
        (Consoles, {"exclusive": "yes"}),
    ],
)
def test_the_other_groups_name_their_fields_too(kind: type[Boot] | type[Consoles], values: dict[str, Any]):
    with pytest.raises(SpecError) as refused:
        kind.from_dict(values).check()
    assert refused.value.field == f"{kind.group}.{next(iter(values))}"


def test_a_log_may_be_none_at_all():
    Consoles(log_bytes=0).check()
    with pytest.raises(SpecError):
        Consoles(log_bytes=-1).check()


def test_what_is_given_is_what_differs_and_comes_back():
    init = Init(kind="application", arguments=("-c", "true"), user="nobody", groups=(5,))
    assert init.given() == {"kind": "application", "arguments": ["-c", "true"], "user": "nobody", "groups": [5]}
    assert Init.from_dict(json.loads(json.dumps(init.given()))) == init
    assert Init().given() == Boot().given() == Consoles().given() == {}
    assert Init.from_dict({"user": None, "kind": None}) == Init()


def test_a_spec_keeps_them_and_reads_specs_of_before():
    spec = dataclasses.replace(
        SPEC,
        init=Init(kind="application", arguments=("a",)),
        boot=Boot(groups=("web",), order=-3, delay_sec=5),
        console=Consoles(ttys=4),
    )
    assert Spec.from_json(spec.to_json()) == spec
    before = {
        name: value for name, value in json.loads(SPEC.to_json()).items() if name not in ("init", "boot", "console")
    }
    assert Spec.from_dict(before) == SPEC


def test_only_an_application_is_looked_up_in_path():
    named = dataclasses.replace(SPEC, init_command=("nginx", "-g", "daemon off;"))
    with pytest.raises(SpecError):
        named.check()
    dataclasses.replace(named, init=Init(kind="application")).check()
    with pytest.raises(SpecError):
        dataclasses.replace(SPEC, init_command=("",), init=Init(kind="application")).check()
