"""Clones above the seam: many at once, full ones, those that vanish; what a killed worker and a failure leave."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from django.utils import timezone

from containers.asking import services
from containers.core.errors import AlreadyExists, SetupFailed, SpecError
from containers.models import Container, NetworkInterface, Operation
from containers.operations import runner
from containers.upkeep import reconcile
from containers.upkeep.scheduling import Scheduler
from tests.web.world import CORE_HOST, actor, make_container, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("host")]
DEAD = {"boot_id": "another", "pid": 1, "start_time": 1}


def ask(alice, **arguments):
    return services.act(actor(alice), "web-1", "clone", {"name": "twin", **arguments})


def test_twenty_at_once_each_with_an_identity_of_its_own(alice, team, runtime):
    make_container(team, runtime=runtime, status="running")
    done = run(ask(alice, count=20, start=True), runtime)
    assert (done.status, done.message) == ("succeeded", "Cloned to twin-1 … twin-20.")
    clones = list(Container.objects.filter(name__startswith="twin-"))
    assert len(clones) == 20
    assert {row.status for row in clones} == {"running"}
    assert len({row.machine_id for row in clones}) == len({row.slot for row in clones}) == 20
    nics = NetworkInterface.objects.filter(container__in=clones)
    assert len({nic.mac for nic in nics}) == len({nic.ipv4 for nic in nics}) == 20
    # it stood still once: the others are made of what the first one is made of
    assert runtime.origins[0].layers is None
    assert {one.layers for one in runtime.origins[1:]} == {tuple(clones[0].layers)}


def test_full_ones_share_nothing(alice, team, runtime):
    make_container(team, runtime=runtime)
    run(ask(alice, count=2, full=True), runtime)
    assert [(one.full, one.layers) for one in runtime.origins] == [(True, None), (True, None)]


def test_one_that_vanishes(alice, team, runtime):
    make_container(team, runtime=runtime)
    until = timezone.now() + dt.timedelta(hours=1)
    run(ask(alice, expires_at=until, ephemeral=False), runtime)
    row = Container.objects.get(name="twin")
    assert abs((row.expires_at - until).total_seconds()) < 1
    assert Scheduler(lambda: True)(timezone.now()) == 0
    assert Scheduler(lambda: True)(until + dt.timedelta(seconds=2)) == 1
    run(Operation.objects.get(status="queued"), runtime)
    assert set(Container.objects.values_list("name", flat=True)) == {"web-1"}


def test_refusals_reserve_nothing(alice, team, runtime):
    make_container(team, runtime=runtime)
    make_container(team, "twin-3", runtime=runtime)
    with pytest.raises(AlreadyExists):
        ask(alice, count=3)
    for wrong in ({"count": 51}, {"count": 0}, {"expires_at": "2020-01-01"}):
        with pytest.raises(SpecError) as caught:
            ask(alice, **wrong)
        assert caught.value.field == next(iter(wrong))
    assert Container.objects.count() == 2


def test_a_failure_keeps_those_that_are_made_and_forgets_the_rest(alice, team, runtime):
    make_container(team, runtime=runtime)

    def fail_at_the_third():
        if runtime.count("clone") == 3:
            raise SetupFailed("no", step="clone")

    runtime.before["clone"] = fail_at_the_third
    assert run(ask(alice, count=4), runtime).status == "failed"
    assert set(Container.objects.values_list("name", flat=True)) == {"web-1", "twin-1", "twin-2"}
    assert len(runtime.specs) == 3


def test_cancelled_before_it_began_all_rows_go(alice, team, runtime):
    make_container(team, runtime=runtime)
    operation = ask(alice, count=3)
    services.cancel_operation(actor(alice), operation.pk)
    assert Container.objects.count() == 1


def test_a_killed_worker_s_clones_are_finished(alice, team, runtime, host):
    make_container(team, runtime=runtime)
    operation = ask(alice, count=3)

    def die_at_the_second():
        if runtime.count("clone") == 2:
            raise KeyboardInterrupt

    runtime.before["clone"] = die_at_the_second
    with pytest.raises(KeyboardInterrupt):
        runner.run(operation.pk, runtime, CORE_HOST)
    Operation.objects.filter(pk=operation.pk).update(owner=DEAD)
    runtime.before.clear()
    reconcile.recover(host)
    assert run(operation, runtime).status == "succeeded"
    assert Container.objects.filter(name__startswith="twin-", status="stopped").count() == 3
    assert runtime.count("clone") == 4


def test_what_is_said_of_clones_names_those_that_come(alice, team, runtime, client):
    make_container(team, runtime=runtime)
    client.force_login(alice, backend="allauth.account.auth_backends.AuthenticationBackend")
    for count, said in (("", "a"), ("1", "b-1"), ("20", "c-1 … c-20")):
        form = {"name": said[0], "count": count}
        answer = client.post("/containers/web-1/_dialog/clone", form, headers={"HX-Request": "true"})
        assert f"Cloning web-1 to {said}." in json.loads(answer["HX-Trigger"])["boxroom:toast"]["text"]
        run(Operation.objects.get(status="queued"), runtime)
        assert Container.objects.filter(name=said.split(" ")[0]).exists()
