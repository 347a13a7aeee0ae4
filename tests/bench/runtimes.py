"""Start, stop, exec, freeze, clone, snapshot, delete: ours by click and by the core's call, beside LXC and crun."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import marker, peers
from .measure import Table, come_to_rest, in_turn, say
from .ours import Ours

INIT = f"/{marker.NAME}"


@contextlib.contextmanager
def tools(ours: Ours, work: Path, table: Table) -> Iterator[dict[str, Any]]:
    """Give the runtimes that are installed and can start something, by the name that the report gives them."""
    work, rootfs = _rootfs(ours, work)
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as undo:
        undo.enter_context(peers.bridge())
        undo.callback(peers.sweep)
        if peers.Lxc.installed():
            found["lxc_overlay"] = peers.Lxc(work, rootfs, "overlay")
            found["lxc_idmap"] = peers.Lxc(work, rootfs, "idmap")
        if peers.Crun.installed():
            found["crun"] = crun = peers.Crun(work, rootfs)
            undo.callback(crun.close)
        for name in ("crun", "lxc_overlay", "lxc_idmap"):
            if name in found:
                undo.callback(_kill_all, found[name])
                if said := _refused(found[name]):
                    del found[name]
                    table.notes.append(
                        f"{name.replace('_', ' ')} starts nothing on this machine and is left out: {said}"
                    )
        yield found


@contextlib.contextmanager
def lxd(ours: Ours, work: Path) -> Iterator[peers.Lxd | None]:
    """Give LXD, which is compared by what its client waits for; None where it is not installed."""
    if not peers.Lxd.installed():
        yield None
        return
    with peers.bridge(), contextlib.closing(peers.Lxd(*_rootfs(ours, work))) as tool:
        yield tool


def _rootfs(ours: Ours, work: Path) -> tuple[Path, Path]:
    """Return a new directory, and in it a root file system like that of our containers, with the marker."""
    if ours.api.get("/containers/template").status_code == 404:
        ours.create("template")
    layer = ours.host.layers_dir / ours.spec("template").layers[-1] / "rootfs"
    work = Path(tempfile.mkdtemp(dir=work))
    work.chmod(0o711)
    rootfs = work / "rootfs"
    shutil.copytree(layer, rootfs, symlinks=True)
    marker.install(rootfs)
    return work, rootfs


def _refused(tool: Any) -> str:
    """Start and kill one container; return what the runtime says where it cannot, and nothing where it can."""
    tool.make("b-probe", INIT)
    try:
        tool.start("b-probe")
        tool.kill("b-probe")
    except (RuntimeError, TimeoutError, AssertionError) as error:
        return " ".join(str(error).split())[-300:]
    return ""


def _kill_all(tool: Any) -> None:
    for home in tool.path.iterdir():
        if home.is_dir() and home.name != "state":
            with contextlib.suppress(RuntimeError):
                tool.kill(home.name)


def measure(ours: Ours, found: dict[str, Any], rounds: int, table: Table) -> None:
    """Fill the table of one container's life."""
    _starts(ours, found, rounds, table)
    _life(ours, found, rounds, table)
    _storage(ours, found, rounds, table)


def _starts(ours: Ours, found: dict[str, Any], rounds: int, table: Table) -> None:
    say("starts and kills")
    ours.create("marked", marked=True)
    spec, root = ours.spec("marked"), ours.root("marked")
    calls: dict[str, Callable[[], float]] = {"boxroom": lambda: ours.core_start(spec, root)}
    kills: dict[str, Callable[[], float]] = {"boxroom": lambda: ours.core_kill(spec)}
    for name, tool in found.items():
        tool.make("b-start", INIT)
        calls[name] = lambda tool=tool: tool.start("b-start")
        kills[name] = lambda tool=tool: tool.kill("b-start")
    ended: dict[str, list[float]] = {name: [] for name in calls}

    def start_then_kill(name: str) -> Callable[[], float]:
        def call() -> float:
            took = calls[name]()
            time.sleep(0.05)
            ended[name].append(kills[name]())
            return took

        return call

    taken = in_turn(rounds, warm_up=1, **{name: start_then_kill(name) for name in calls})
    table.add_turns("start: call → init's first instruction, 3 limits and a veth", taken, "≤ lxc idmap")
    table.add_turns("kill (ours by the core's call)", {name: values[1:] for name, values in ended.items()})
    ours.wait_status("marked", "stopped")


def operations(ours: Ours, work: Path, rounds: int, table: Table) -> None:
    """Measure a start as a whole: queue, database and events included."""
    say("starts by click")
    with lxd(ours, work) as tool:
        calls: dict[str, Callable[[], float]] = {"boxroom": lambda: _click_start(ours, "marked")}
        if tool is not None:
            tool.make("b-start", INIT)
            calls["lxd"] = lambda: _client_start(tool, "b-start")
        table.add_turns("start: click → page told (LXD: its client)", in_turn(rounds, **calls), "≤ LXD ÷ 4")


def _client_start(tool: peers.Lxd, name: str) -> float:
    took = tool.start(name)
    tool.kill(name)
    come_to_rest()
    return took


def _click_start(ours: Ours, name: str) -> float:
    took = ours.click_to(name, "start", "running")
    ours.click_to(name, "stop", "stopped", {"force": "1"})
    come_to_rest()
    return took


def _life(ours: Ours, found: dict[str, Any], rounds: int, table: Table) -> None:
    say("a life with busybox init")
    ours.create("life", start=True)
    for tool in found.values():
        tool.make("b-life", "/sbin/init")
        tool.start("b-life", to_marker=False)
    time.sleep(1)
    spec, names = ours.spec("life"), found.items()
    execs = {name: lambda tool=tool: tool.exec("b-life") for name, tool in names}
    called = in_turn(rounds, boxroom=lambda: ours.core_exec(spec), **execs)
    table.add_turns("exec /bin/true (ours by the supervisor's socket)", called)
    table.add_turns("the same, ours through HTTP", in_turn(rounds, boxroom=lambda: ours.exec("life"), **execs))

    def freeze() -> float:
        took = ours.click_to("life", "freeze", "frozen")
        ours.click_to("life", "unfreeze", "running")
        return took

    def peer_freeze(tool: Any) -> float:
        took: float = tool.freeze("b-life")
        tool.thaw("b-life")
        return took

    freezes = {name: lambda tool=tool: peer_freeze(tool) for name, tool in names}
    called = in_turn(rounds, boxroom=lambda: ours.core_freeze(spec), **freezes)
    table.add_turns("freeze (ours by the core's call)", called)
    # the ticker has told of the last thaw before the first click
    ours.wait_status("life", "running")
    table.add_turns("the same, ours: click → page told", in_turn(rounds, boxroom=freeze, **freezes))

    def stop() -> float:
        took = ours.click_to("life", "stop", "stopped")
        ours.click_to("life", "start", "running")
        time.sleep(1)
        return took

    def peer_stop(tool: Any) -> float:
        took: float = tool.stop("b-life")
        tool.start("b-life", to_marker=False)
        time.sleep(1)
        return took

    table.add_turns(
        "clean stop of busybox (ours: click → page told)",
        in_turn(max(2, rounds // 5), warm_up=0, boxroom=stop,
                **{name: lambda tool=tool: peer_stop(tool) for name, tool in names}),
    )  # fmt: skip
    for tool in found.values():
        tool.kill("b-life")


def _storage(ours: Ours, found: dict[str, Any], rounds: int, table: Table) -> None:
    say("clone, snapshot, restore, delete")
    lxc = found.get("lxc_overlay")
    if lxc:
        lxc.make("b-source", "/sbin/init", plain=True)
    few = max(3, rounds // 2)
    numbers = iter(range(10_000))
    clones: list[str] = []

    def clone() -> float:
        clones.append(f"copy-{next(numbers)}")
        return ours.dialog("life", "clone", {"name": clones[-1]})

    def peer_clone() -> float:
        name = f"b-copy-{next(numbers)}"
        took: float = lxc.clone("b-source", name)
        lxc_clones.append(name)
        return took

    lxc_clones: list[str] = []
    peer: dict[str, Callable[[], float]] = {"lxc_overlay": peer_clone} if lxc else {}
    table.add_turns("clone (ours: of a running one, click → page told)", in_turn(few, boxroom=clone, **peer))
    # lxc-snapshot copies with rsync
    peer = {"lxc_overlay": lambda: lxc.snapshot(lxc_clones[-1])} if lxc and shutil.which("rsync") else {}
    table.add_turns(
        "snapshot (ours: running, click → page told)",
        in_turn(few, boxroom=lambda: ours.dialog("life", "snapshot", {"note": "bench"}), **peer),
    )
    snapshot = f"snap{few}"
    table.add_turns(
        "restore of a running container (stop, restore, start)",
        in_turn(3, boxroom=lambda: ours.dialog("life", "restore", {"snapshot": snapshot})),
    )

    def delete() -> float:
        name = clones.pop()
        return ours.click(
            f"/containers/{name}/_dialog/delete", {"confirm": name},
            lambda m: m.get("type") == "container.deleted" and m["name"] == name,
        )  # fmt: skip

    peer = {"lxc_overlay": lambda: lxc.delete(lxc_clones.pop())} if lxc else {}
    table.add_turns("delete (ours: click → page told)", in_turn(few - 1, boxroom=delete, **peer))
    ours.call("DELETE", "/containers/life?force=true")
