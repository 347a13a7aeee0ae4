"""A root of 1 GB and 30 000 files: made from an image, cloned, snapshotted, pulled; and a long list of containers.

Beside ours: lxc-copy (overlay, full), lxc-snapshot, cp --reflink and btrfs where they are had, skopeo with umoci.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from containers.core.hoststore import store
from containers.core.lifecycle import snapshots, stored
from tests.kernel import registries

from . import many, peers
from .measure import Table, in_turn, say, timed
from .ours import Ours

FILES, BYTES = 30_000, 10**9
LISTED, POINTS = 1000, 20
IMAGE: Final = "bench-big"
_SIZES: Final = (0, 10, 100, 300)
"""What was changed, in MB, before a running container's snapshot."""
_BTRFS_BYTES: Final = 3 * 10**9


def measure(ours: Ours, work: Path, rounds: int, table: Table) -> None:
    """Fill the table of one big root."""
    few = max(3, rounds // 4)
    ours.create("big", marked=True)
    say(f"a root of {BYTES // 10**6} MB and {FILES} files")
    _fill(ours.root("big"), FILES, BYTES)
    ours.call("POST", "/images", {"name": IMAGE, "source": {"type": "container", "container": "big"}})
    _creates(ours, few, table)
    _clones(ours, work, few, table)
    _snapshots(ours, few, table)
    _pull(ours, work, table)


def _fill(place: Path, files: int, size: int) -> None:
    """Write files of many sizes, which compress by about a half, as programs and libraries do."""
    dice = random.Random(1)
    block = dice.randbytes(1 << 20)
    sizes = [dice.paretovariate(1.2) for _ in range(files)]
    unit = size / sum(sizes)
    for number, share in enumerate(sizes):
        directory = place / "usr/share/bench" / str(number % 300)
        if number < 300:
            directory.mkdir(parents=True)
        with (directory / str(number)).open("wb") as file:
            left = int(share * unit)
            while left > 0:
                part = min(left, 1 << 16)
                start = dice.randrange(len(block) - part)
                file.write(block[start : start + part // 2] + bytes(part - part // 2))
                left -= part


def _creates(ours: Ours, rounds: int, table: Table) -> None:
    """From a click on "Create and start" to the page that is told it runs."""
    say("create from an image")
    numbers = iter(range(10_000))

    def create() -> float:
        name = f"big-{next(numbers)}"
        body = {**many.body(name), "image": IMAGE, "start": True}
        began = time.perf_counter()
        ours.call("POST", "/containers", body)
        took = (time.perf_counter() - began) * 1000
        ours.call("DELETE", f"/containers/{name}?force=true&keep_days=0")
        return took

    table.add_turns("create from an image and start: request → running", in_turn(rounds, boxroom=create), "< 100")


def _clones(ours: Ours, work: Path, rounds: int, table: Table) -> None:
    say("clones of a stopped one")
    root = work / "big"
    # its layers as one directory, for those who know none
    for layer in store.load_root(ours.host, ours.spec("big").id).layers:
        shutil.copytree(store.rootfs(ours.host, layer), root, symlinks=True, dirs_exist_ok=True)
    numbers = iter(range(10_000))
    made: list[Callable[[], object]] = []
    spec = ours.spec("big")

    def clone() -> float:
        number = next(numbers)
        new = replace(spec, id=f"{number:012x}", name=f"bench-{number}", nics=())
        made.append(lambda: stored.delete(ours.host, new.id))
        return timed(lambda: stored.clone(ours.host, spec.id, new))

    calls: dict[str, Callable[[], float]] = {"boxroom": clone}
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: [forget() for forget in made])
        if peers.Lxc.installed():
            lxc = peers.Lxc(work, root, "overlay")
            lxc.make("b-big", "/sbin/init", plain=True)
            calls["lxc_copy_-s_overlay"] = lambda: lxc.clone("b-big", f"b-{next(numbers)}")
        if place := undo.enter_context(_btrfs(work)):
            subprocess.run(["btrfs", "-q", "subvolume", "create", place / "root"], check=True)
            subprocess.run(["cp", "-a", f"{root}/.", place / "root"], check=True)
            calls["btrfs_subvolume_snapshot"] = lambda: timed(
                lambda: peers.run("btrfs", "subvolume", "snapshot", f"{place}/root", f"{place}/{next(numbers)}")
            )
            calls["cp_--reflink_on_btrfs"] = lambda: timed(
                lambda: peers.run("cp", "-a", "--reflink=always", f"{place}/root", f"{place}/{next(numbers)}")
            )
        table.add_turns("clone, the core's call", in_turn(rounds, **calls), "≤ lxc-copy -s")
        kept = {"boxroom": lambda: _snapshot(ours, spec.id, next(numbers))}
        if peers.Lxc.installed():
            kept |= {"lxc_copy_-s_overlay": calls["lxc_copy_-s_overlay"]}
        table.add_turns("snapshot of a stopped one, the core's call", in_turn(rounds, **kept), "≤ lxc-copy -s")
        if peers.Lxc.installed() and shutil.which("rsync"):
            # which it copies with
            full = in_turn(2, warm_up=0, boxroom=clone, lxc_copy=lambda: _full_copy(lxc, next(numbers)))
            table.add_turns("clone, the core's call, beside a full copy", full, "≤ lxc-copy ÷ 300")
    clicks = in_turn(rounds, boxroom=lambda: ours.dialog("big", "clone", {"name": f"twin-{next(numbers)}"}))
    table.add_turns("clone: click → page told", clicks)


def _full_copy(lxc: peers.Lxc, number: int) -> float:
    path = str(lxc.path)
    return timed(lambda: peers.run("lxc-copy", "-P", path, "-p", path, "-n", "b-big", "-N", f"b-{number}"))


@contextlib.contextmanager
def _btrfs(work: Path) -> Iterator[Path | None]:
    """Give a btrfs in a file, or None where its programs are not there."""
    if shutil.which("mkfs.btrfs") is None:
        yield None
        return
    image, place = work / "btrfs", work / "btrfs-root"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(_BTRFS_BYTES)
    peers.run("mkfs.btrfs", "-q", str(image))
    peers.run("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        peers.run("umount", str(place))
        image.unlink()


def _snapshots(ours: Ours, rounds: int, table: Table) -> None:
    """Of a container that runs: what was changed counts, not the root."""
    say("snapshots of a running one")
    ours.call("POST", "/containers", {**many.body("busy"), "image": IMAGE, "start": True})
    spec, root = ours.spec("busy"), ours.root("busy")
    numbers = iter(range(10_000))

    written = 0
    for megabytes in _SIZES:
        _fill_plain(root / "changed", megabytes - written)
        written = megabytes
        what = f"snapshot of a running one that changed {megabytes} MB, the core's call"
        table.add_turns(what, in_turn(rounds, boxroom=lambda: _snapshot(ours, spec.id, next(numbers))))
    table.add_turns(
        "snapshot: click → page told", in_turn(rounds, boxroom=lambda: ours.dialog("busy", "snapshot", {"note": "b"}))
    )
    ours.call("DELETE", "/containers/busy?force=true&keep_days=0")


def _snapshot(ours: Ours, container_id: str, number: int) -> float:
    """Make a snapshot by the core's call, and delete it; return the ms that the making took."""
    name = f"bench{number}"
    took = timed(lambda: snapshots.snapshot(ours.host, container_id, name))
    snapshots.delete_snapshot(ours.host, container_id, name)
    return took


def _fill_plain(place: Path, megabytes: int) -> None:
    place.mkdir(exist_ok=True)
    block = random.Random(2).randbytes(10**6)
    for number in range(megabytes):
        (place / f"{len(list(place.iterdir()))}-{number}").write_bytes(block)


def _pull(ours: Ours, work: Path, table: Table) -> None:
    """An image of 1 GB in three layers from a registry on loopback."""
    if any(shutil.which(tool) is None for tool in ("docker-registry", "skopeo", "umoci")):
        table.notes.append("No docker-registry, skopeo and umoci: nothing was pulled.")
        return
    say("an OCI image of 1 GB")
    layout = work / "oci"
    peers.run("umoci", "init", "--layout", str(layout))
    peers.run("umoci", "new", "--image", f"{layout}:big")
    for number in range(3):
        layer = work / f"layer{number}"
        layer.mkdir()
        _fill(layer, FILES // 3, BYTES // 3)
        (layer / "usr/share/bench").rename(layer / f"usr/share/part{number}")
        peers.run("umoci", "insert", "--image", f"{layout}:big", str(layer / "usr"), "/usr")
        shutil.rmtree(layer)
    (ours.instance.state_dir / "policy.toml").unlink(missing_ok=True)
    with registries.registry(work) as address:
        policy = f'[images]\nsources = ["127.0.0.0/8"]\ninsecure = ["{address}"]\n'
        (ours.instance.state_dir / "policy.toml").write_text(policy)
        peers.run(
            "skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:big", f"docker://{address}/bench/big:1"
        )  # fmt: skip
        _await_policy(ours, address)
        numbers = iter(range(100))

        def pull() -> float:
            name = f"pulled-{next(numbers)}"
            source = {"type": "oci", "reference": f"{address}/bench/big:1"}
            took = timed(lambda: _operation(ours, "POST", "/images", {"name": name, "source": source}))
            ours.call("DELETE", f"/images/{name}?keep_days=0")
            shutil.rmtree(ours.host.downloads_dir, ignore_errors=True)
            return took

        def peer() -> float:
            place = work / f"peer{next(numbers)}"

            def call() -> None:
                peers.run(
                    "skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/bench/big:1", f"oci:{place}:big"
                )  # fmt: skip
                peers.run("umoci", "unpack", "--image", f"{place}:big", f"{place}-bundle")

            took = timed(call)
            shutil.rmtree(place)
            shutil.rmtree(f"{place}-bundle")
            return took

        # once: the layers stay for whoever wants them again, and nothing would be fetched
        taken = in_turn(1, warm_up=0, boxroom=pull, skopeo_and_umoci=peer)
    table.add_turns("pull an OCI image of 1 GB from a registry on loopback", taken, "≤ 1.5 × skopeo + umoci")


def _await_policy(ours: Ours, address: str) -> None:
    """Wait until the web knows of the policy, which the ticker tells it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        source = {"type": "oci", "reference": f"{address}/bench/none:1"}
        answer = ours.api.post("/images?wait=60", json={"name": "none", "source": source})
        if answer.status_code != 403:
            return
        time.sleep(1)
    raise TimeoutError(f"the policy is not in force: {answer.text}")


def _operation(ours: Ours, method: str, path: str, body: dict[str, Any]) -> None:
    """Ask for what takes longer than a call may wait."""
    answer = ours.api.request(method, f"{path}?wait=60", json=body)
    operation = answer.json()
    while operation.get("status") in ("queued", "running"):
        operation = ours.api.get(f"/operations/{operation['id']}?wait=60").json()
    assert operation.get("status") == "succeeded", operation


_ROWS: Final = """
from containers.models import Container, Snapshot
Snapshot.objects.bulk_create(
    (Snapshot(container=one, name=f"bench{{n}}", layers=["x"], spec={{}}, size_bytes=n)
     for one in Container.objects.all() for n in range({points})), batch_size=1000)
"""
_NO_ROWS: Final = "from containers.models import Snapshot; Snapshot.objects.filter(layers=['x']).delete()"


def lists(ours: Ours, table: Table) -> None:
    """The list of many containers with many snapshots: all of it by one call, and the page's rows."""
    say(f"{LISTED} containers with {POINTS} snapshots each")
    present = len(ours.api.get("/containers?limit=1000").json()["items"])
    wanted = [many.body(f"list-{number}") for number in range(LISTED - present)]
    many.four_at_once(ours, "POST", "/containers", wanted)
    ours.instance.manage("shell", "-c", _ROWS.format(points=POINTS))
    for what, client, path in (
        (f"GET /api/v1/containers?limit={LISTED}", ours.api, f"/containers?limit={LISTED}"),
        ("the containers page", ours.web, "/containers/"),
    ):
        taken = []
        for _ in range(12):
            began = time.perf_counter()
            answer = client.get(path)
            taken.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
        table.add(f"{what}, ms: median", statistics.median(taken[2:]), "–", "< 200")
    ours.instance.manage("shell", "-c", _NO_ROWS)
