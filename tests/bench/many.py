"""Two hundred containers at once: starting them in a row, what they cost in memory, what watching them costs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from containers.core.cgroups import detect
from containers.core.kernel.stats import Sampler
from containers.core.model.spec import Spec

from . import marker
from .measure import Table, beside, come_to_rest, cpu_sec, in_turn, pss_kb, say, show, timed
from .ours import LIMITS, Ours
from .peers import Lxd

WATCHED_SEC = 60
"""As long as it takes until each of the ticker's chores has come once."""


ROUNDS = 3
"""Of starting them all, each tool in its turn."""
TIMES = 10
"""How often one is measured among the others."""


def start_in_a_row(ours: Ours, found: dict[str, Any], count: int, table: Table) -> float:
    """Start count idle containers one after the other, ours and each peer's, and end them; ours run in the end.

    Returns how long ours took, in s.
    """
    say(f"creating {count} containers")
    began = time.perf_counter()
    four_at_once(ours, "POST", "/containers", [body(f"many-{number}") for number in range(count)])
    table.add(f"create {count} through the API, s", time.perf_counter() - began, "–", "")
    names = [f"many-{number}" for number in range(count)]
    for name in names:
        marker.install(ours.root(name))
        for tool in found.values():
            tool.make(name, f"/{marker.NAME}")
    specs = [ours.spec(name) for name in names]
    alone = _one(ours, specs[-1])
    rows: dict[str, Callable[[], float]] = {"boxroom": lambda: _our_row(ours, specs)}
    rows |= {name: partial(_row, tool, names) for name, tool in found.items()}
    say(f"{ROUNDS} times {count} starts of each: {', '.join(rows)}")
    taken = in_turn(ROUNDS, warm_up=0, **rows)
    mine = taken.pop("boxroom")
    table.add(f"start {count} in a row by the core's call, s", statistics.median(mine), beside(mine, taken), "× ≤ 1")
    for spec in specs[:-1]:
        ours.core_start(spec, None)
    for what, values in _one(ours, specs[-1]).items():
        first, last = statistics.median(alone[what]), statistics.median(values)
        alone_ms = f"as the only one {show(first)} (× {show(last / first)})"
        table.add(f"{what} the {count}th, the others at rest, ms", last, alone_ms, "")
    ours.core_start(specs[-1], None)
    return statistics.median(mine)


def beside_lxd(tool: Lxd, count: int, took_sec: float, table: Table) -> None:
    """Start as many by LXD's client, once: it takes a minute. took_sec: what ours took."""
    say(f"LXD: creating and starting {count}")
    names = [f"many-{number}" for number in range(count)]
    for name in names:
        tool.make(name, f"/{marker.NAME}")
    their_sec = timed(lambda: [tool.start(name) for name in names]) / 1000
    beside_it = f"LXD by its client {show(their_sec)} (× {show(took_sec / their_sec)})"
    table.add(f"start {count} in a row, s", took_sec, beside_it, "≤ LXD ÷ 8")


def _one(ours: Ours, spec: Spec) -> dict[str, list[float]]:
    """Return how long it takes, in ms, to start a container, to run something in it, to freeze it and to kill it."""
    taken: dict[str, list[float]] = {}
    root = ours.root(spec.name)
    for _ in range(TIMES):
        come_to_rest()
        taken.setdefault("start", []).append(ours.core_start(spec, root))
        come_to_rest()
        taken.setdefault("exec in", []).append(ours.core_exec(spec))
        taken.setdefault("freeze", []).append(ours.core_freeze(spec))
        taken.setdefault("kill", []).append(ours.core_kill(spec))
    return taken


def _our_row(ours: Ours, specs: Sequence[Spec]) -> float:
    """Return how long it takes, in s; they are ended afterwards."""
    took = timed(lambda: [ours.core_start(spec, None) for spec in specs])
    for spec in specs:
        ours.core_kill(spec)
    come_to_rest()
    return took / 1000


def _row(tool: Any, names: Sequence[str]) -> float:
    took = timed(lambda: [tool.start(name, to_marker=False) for name in names])
    for name in names:
        tool.kill(name)
    # the kernel takes network namespaces apart for seconds
    come_to_rest()
    return took / 1000


def memory(ours: Ours, count: int, table: Table) -> None:
    """Tell the memory of what is ours for each container, beside its own processes."""
    pids = ours.instance.pids(f"supervisor {ours.instance.name}")
    shares = [pss_kb(pid) / 1024 for pid in pids]
    assert len(shares) >= count, f"{len(shares)} supervisors for {count} containers"
    table.add(f"PSS of one supervisor among {len(shares)}, MB: median", statistics.median(shares), "", "< 1.5")
    launcher = sum(pss_kb(pid) for pid in ours.instance.pids("launcher.py")) / 1024
    table.add("supervisors and launcher ÷ containers, MB", (sum(shares) + launcher) / len(shares),
              "lxc 0.4, podman 0.34, LXD 12.2 (measured apart)", "< 1.5")  # fmt: skip
    for role in ("daphne", "celery", "manage.py ticker", "redis-server", "manage.py up"):
        table.add(f"PSS of {role.split()[-1]}, MB", sum(pss_kb(pid) for pid in ours.instance.pids(role)) / 1024, "", "")


def watching(ours: Ours, count: int, table: Table) -> None:
    """Tell what the ticker costs while count containers run, and the sampling alone."""
    say("what watching costs")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(ours.api.get("/containers?status=running&limit=1000").json()["items"]) >= count:
            break
        time.sleep(0.5)
    ticker = ours.instance.pids("manage.py ticker")[0]
    time.sleep(3)
    before = {thread: cpu_sec(ticker, thread) for thread in _threads(ticker)}
    began, used = time.monotonic(), cpu_sec(ticker)
    time.sleep(WATCHED_SEC)
    seconds = time.monotonic() - began
    table.add(f"ticker with {count} running: % of one core", (cpu_sec(ticker) - used) / seconds * 100, "", "< 3")
    shares = sorted(((cpu_sec(ticker, thread) - was) / seconds * 100 for thread, was in before.items()), reverse=True)
    table.add("its threads, %", " + ".join(f"{share:.2f}" for share in shares if share > 0.005), "", "")
    cgroups = detect.open(ours.host)
    ids = cgroups.running_ids()
    sampler = Sampler(cgroups.stat_paths, lambda _id: ())
    sampler.sample(ids)
    taken = []
    for _ in range(20):
        was = time.thread_time()
        sampler.sample(ids)
        taken.append((time.thread_time() - was) * 1000)
    sampler.close()
    table.add(f"one sample of {len(ids)} containers alone, ms of CPU", statistics.median(taken), "", "")


def _threads(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]


def clear(ours: Ours, count: int, table: Table) -> None:
    """Stop and delete them, through the API."""
    say(f"stopping and deleting {count}")
    began = time.perf_counter()
    four_at_once(ours, "DELETE", "/containers/{name}?force=true", [{"name": f"many-{n}"} for n in range(count)])
    table.add(f"stop and delete {count} through the API, s", time.perf_counter() - began, "", "")


def body(name: str) -> dict[str, Any]:
    """Return what to ask for: limits, and an init that only waits."""
    return {"name": name, "image": "busybox", "limits": LIMITS, "init_command": [f"/{marker.NAME}"]}


def four_at_once(ours: Ours, method: str, path: str, bodies: list[dict[str, Any]]) -> None:
    """Send many requests for operations, four clients at a time, and wait for each to succeed."""
    waiting = iter(bodies)
    failed: list[str] = []

    def work() -> None:
        with ours.instance.client() as client:
            for one in waiting:
                there = path.format(**one)
                answer = client.request(
                    method, f"{there}{'&' if '?' in there else '?'}wait=60", json=one if method == "POST" else None
                )
                if answer.status_code != 200 or answer.json()["status"] != "succeeded":
                    failed.append(answer.text)

    workers = [threading.Thread(target=work) for _ in range(4)]
    ours.instance.token()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed, failed[0]
