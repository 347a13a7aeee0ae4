"""Images out of files: root file systems with and without metadata, OCI layouts, what docker save writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from containers.core import failpoints, images
from containers.core.archives.unpacking import BadArchive
from containers.core.errors import Cancelled, PolicyDenied, SpecError, StorageFull
from containers.core.hoststore import store
from containers.core.images import metadata
from containers.core.kernel import files
from containers.core.lifecycle import running, stored
from containers.core.model.spec import Spec

from .conftest import BUSYBOX, NoNetwork, make_spec
from .patience import patient, wait_until


@pytest.fixture
def shelf(host) -> Path:
    """A directory whose files may become images, as the host's policy says."""
    path = host.state_dir / "shelf"
    path.mkdir()
    host.policy_path.write_text(f'[images.directories]\nshelf = "{path}"\n')
    return path


def served(path: str, **more: object) -> dict[str, object]:
    return {"type": "file", "directory": "shelf", "path": path, **more}


def tree(path: Path, *, init: str = "/bin/busybox") -> Path:
    """Make the smallest root file system that boots."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "run", "root"):
        (path / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, path / "bin/busybox")
    (path / "bin/sh").symlink_to("busybox")
    (path / "sbin/init").symlink_to(init)
    (path / "etc/inittab").write_text("::sysinit:/bin/true\n")
    (path / "etc/os-release").write_text('ID=tiny\nVERSION_ID="7"\nPRETTY_NAME="Tiny Linux 7"\n')
    os.chown(path / "etc/inittab", 12, 34)
    return path


def packed(archive: Path, *tar: str) -> Path:
    subprocess.run(["tar", "--numeric-owner", "-cf", archive, *tar], check=True)
    return archive


def nothing_left(host) -> None:
    assert os.listdir(host.tmp_dir) == os.listdir(host.trash_dir) == []
    assert store.images(host) == {}
    assert store.layer_ids(host) == set()
    assert stored.orphans(host) == []


def build(host, source, name: str = "x", **options):
    return images.build(host, name, source, **options)


def test_a_root_file_system_becomes_an_image_that_boots(host, shelf, tmp_path):
    packed(shelf / "tiny.tar.xz", "--xz", "-C", str(tree(tmp_path / "tree")), ".")
    told: list[int] = []
    built = build(host, served("tiny.tar.xz"), progress=lambda pct, _message: told.append(pct))
    assert told == sorted(told)
    assert built.defaults == {"init_command": ["/sbin/init"], "environment": {}}
    digest = hashlib.sha256((shelf / "tiny.tar.xz").read_bytes()).hexdigest()
    details = built.details
    assert (details["os"], details["release"], details["description"]) == ("tiny", "7", "Tiny Linux 7")
    assert (details["file_sha256"], details["kind"]) == (digest, "system")
    [layer] = built.layers
    assert os.stat(store.rootfs(host, layer) / "etc/inittab").st_uid == 12
    assert store.load_image(host, "x").details == details
    spec = stored.create(host, make_spec(layer, init_command=("/sbin/init",)))
    running.start(host, spec, network=NoNetwork())
    last = running.stop(host, spec.id, timeout_sec=patient(120))
    assert last is not None
    assert last.reason in ("stopped", "poweroff")


def test_metadata_of_incus_says_what_it_may_and_nothing_else(host, shelf, tmp_path):
    outer = tmp_path / "outer"
    tree(outer / "rootfs")
    (outer / "templates").mkdir()
    (outer / "templates/hostname.tpl").write_text("{{ container.name }}")
    (outer / "metadata.yaml").write_text(
        "architecture: x86_64\ncreation_date: 1700000000\nconfig:\n  security.privileged: true\n"
        "properties:\n  os: Alpine\n  release: '3.20'\n  description: Alpine 3.20 amd64\n  raw.lxc: |\n    evil\n"
        "templates:\n  /etc/shadow:\n    when: [create]\n    template: hostname.tpl\n"
    )
    packed(shelf / "incus.tar.gz", "--gzip", "-C", str(outer), ".")
    built = build(host, served("incus.tar.gz"))
    details = built.details
    assert (details["os"], details["release"], details["architecture"]) == ("Alpine", "3.20", "x86_64")
    assert details["description"] == "Alpine 3.20 amd64"
    assert set(built.defaults) == {"init_command", "environment"}
    [layer] = built.layers
    assert sorted(os.listdir(store.rootfs(host, layer))) == sorted(os.listdir(outer / "rootfs"))
    assert "evil" not in json.dumps(details)
    assert os.listdir(host.trash_dir) == os.listdir(host.tmp_dir) == []


def test_metadata_in_a_file_beside_a_squashfs(host, shelf, tmp_path):
    subprocess.run(
        ["mksquashfs", tree(tmp_path / "tree", init="/lib/systemd/systemd"), shelf / "rootfs.squashfs", "-quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (tmp_path / "metadata.yaml").write_text("architecture: amd64\nproperties:\n  variant: default\n")
    packed(shelf / "metadata.tar.xz", "--xz", "-C", str(tmp_path), "metadata.yaml")
    built = build(host, served("rootfs.squashfs", metadata="metadata.tar.xz"))
    assert (built.details["variant"], built.details["architecture"]) == ("default", "x86_64")
    assert built.defaults["init_command"] == ["/sbin/init"]
    packed(shelf / "other.tar", "-C", str(tmp_path / "tree"), "etc")
    with pytest.raises(BadArchive) as error:
        build(host, served("rootfs.squashfs", metadata="other.tar"), name="y")
    assert error.value.field == "source.metadata"


def test_what_is_for_another_machine_is_refused(host, shelf, tmp_path):
    outer = tmp_path / "outer"
    tree(outer / "rootfs")
    (outer / "metadata.yaml").write_text("architecture: s390x\n")
    packed(shelf / "x.tar", "-C", str(outer), ".")
    with pytest.raises(BadArchive, match="s390x"):
        build(host, served("x.tar"))
    nothing_left(host)


def test_an_upload_becomes_an_image(host, tmp_path):
    upload = secrets.token_hex(16)
    uploads = host.web_dir / "uploads"
    uploads.mkdir(parents=True)
    packed(uploads / f"{upload}.part", "-C", str(tree(tmp_path / "tree")), ".")
    digest = hashlib.sha256((uploads / f"{upload}.part").read_bytes()).hexdigest()
    with pytest.raises(BadArchive) as error:
        build(host, {"type": "upload", "upload": upload, "sha256": "0" * 64})
    assert error.value.field == "source.sha256"
    nothing_left(host)
    build(host, {"type": "upload", "upload": upload, "sha256": digest})
    with pytest.raises(SpecError) as gone:
        build(host, {"type": "upload", "upload": "0" * 32}, name="y")
    assert gone.value.field == "source.upload"


def test_the_web_process_cannot_make_root_read_another_file(host):
    """What lies in its directory is its own: a link there is not followed, a FIFO is not waited for."""
    uploads = host.web_dir / "uploads"
    uploads.mkdir(parents=True)
    (uploads / f"{'a' * 32}.part").symlink_to("/etc/shadow")
    os.mkfifo(uploads / f"{'b' * 32}.part")
    for upload in ("a" * 32, "b" * 32, "../../instance.json"):
        with pytest.raises((SpecError, OSError)):
            build(host, {"type": "upload", "upload": upload})
    shutil.rmtree(uploads)
    uploads.symlink_to("/etc")
    with pytest.raises((SpecError, OSError)):
        build(host, {"type": "upload", "upload": "a" * 32})
    nothing_left(host)


def test_a_path_stays_in_the_directory_that_the_policy_names(host, shelf):
    (shelf / "link").symlink_to("/etc/passwd")
    (shelf / "out").symlink_to("/etc")
    for path in ("../instance.json", "/../x", "link", "out/passwd", "nothing", "", "."):
        with pytest.raises(SpecError) as error:
            build(host, served(path))
        assert error.value.field == "source.path", path
    with pytest.raises(PolicyDenied) as denied:
        build(host, {**served("x"), "directory": "other"})
    assert denied.value.field == "source.directory"
    nothing_left(host)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 200, b"BZh9" + b"x" * 600])
def test_a_file_that_is_no_archive_is_refused(host, shelf, content):
    (shelf / "x").write_bytes(content)
    with pytest.raises(BadArchive) as error:
        build(host, served("x"))
    assert error.value.field == "source.path"
    nothing_left(host)


def test_an_archive_without_a_root_file_system_is_refused(host, shelf, tmp_path):
    (tmp_path / "note").write_text("x")
    packed(shelf / "x.tar", "-C", str(tmp_path), "note")
    with pytest.raises(BadArchive, match="no root file system"):
        build(host, served("x.tar"))
    nothing_left(host)


# OCI


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Path:
    """An OCI layout that umoci made: two layers, the upper one with a whiteout and an opaque directory."""
    place = tmp_path_factory.mktemp("oci")
    here = place / "layout"

    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, cwd=place, stdout=subprocess.DEVNULL)

    umoci("init", "--layout", "layout")
    umoci("new", "--image", "layout:x")
    umoci("unpack", "--image", "layout:x", "one")
    tree(place / "one/rootfs")
    (place / "one/rootfs/etc/gone").write_text("x")
    (place / "one/rootfs/srv").mkdir(mode=0o700)
    (place / "one/rootfs/srv/old").write_text("x")
    umoci("repack", "--image", "layout:x", "one")
    umoci("unpack", "--image", "layout:x", "two")
    (place / "two/rootfs/etc/gone").unlink()
    (place / "two/rootfs/srv/new").write_text("x")
    umoci("repack", "--image", "layout:x", "two")
    umoci(
        *("config", "--image", "layout:x", "--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c"),
        *("--config.cmd", 'echo "$GREETING from $(pwd)"; id -u; exit 7', "--config.env", "GREETING=hello"),
        *("--config.user", "1000:100", "--config.workingdir", "/etc", "--config.stopsignal", "SIGQUIT"),
        *("--config.exposedports", "8080/tcp", "--config.label", "org.opencontainers.image.title=Tiny"),
    )
    return here


def oci_archive(layout: Path, archive: Path) -> Path:
    return packed(archive, "-C", str(layout), ".")


def test_an_oci_layout_runs_as_what_it_is(host, shelf, layout):
    oci_archive(layout, shelf / "oci.tar")
    built = build(host, served("oci.tar"))
    assert built.defaults == {
        "environment": {"GREETING": "hello"}
        | {k: v for k, v in built.defaults["environment"].items() if k != "GREETING"},
        "halt_signal": "SIGQUIT",
        "init_command": ["/bin/sh", "-c"],
        "init": {
            "kind": "application",
            "arguments": ['echo "$GREETING from $(pwd)"; id -u; exit 7'],
            "user": "1000:100",
            "cwd": "/etc",
        },
    }
    assert built.details["ports"] == ["8080/tcp"]
    assert built.details["labels"] == {"title": "Tiny"}
    assert (built.details["os"], built.details["kind"]) == ("tiny", "application")
    assert built.details["digest"].startswith("sha256:")
    assert len(built.layers) == 2
    spec = Spec.from_dict(
        {**json.loads(make_spec(built.layers[0]).to_json()), "layers": list(built.layers), **built.defaults}
    )
    stored.create(host, spec)
    running.start(host, spec, network=NoNetwork())
    wait_until(lambda: running.observe(host)[spec.id].last_exit is not None, what="it ends")
    seen = running.observe(host)[spec.id]
    assert seen.last_exit is not None
    assert seen.last_exit.exit_code == 7
    assert "hello from /etc" in (seen.last_exit.console or "")
    assert "1000" in (seen.last_exit.console or "")


def merged(host, layers) -> dict[str, str]:
    """What the container sees, by way of the kernel's own overlay: names, owners, modes."""
    place = host.state_dir / "merged"
    place.mkdir(exist_ok=True)
    lower = ":".join(str(store.rootfs(host, layer)) for layer in reversed(layers))
    (host.state_dir / "none").mkdir(exist_ok=True)
    options = f"userxattr,lowerdir={lower}:{host.state_dir / 'none'}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "boxroom-test", place], check=True)
    try:
        return {
            os.path.relpath(Path(where) / name, place): "{0.st_uid}:{0.st_gid} {0.st_mode:o}".format(
                os.lstat(Path(where) / name)
            )
            for where, directories, names in os.walk(place)
            for name in (*directories, *names)
        }
    finally:
        subprocess.run(["umount", place], check=True)


def test_layers_lie_over_each_other_as_umoci_lays_them(host, shelf, layout, tmp_path):
    oci_archive(layout, shelf / "oci.tar")
    built = build(host, served("oci.tar"))
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:x", tmp_path / "theirs"], check=True)
    theirs = {
        os.path.relpath(Path(where) / name, tmp_path / "theirs/rootfs"): "{0.st_uid}:{0.st_gid} {0.st_mode:o}".format(
            os.lstat(Path(where) / name)
        )
        for where, directories, names in os.walk(tmp_path / "theirs/rootfs")
        for name in (*directories, *names)
    }
    ours = merged(host, built.layers)
    assert ours == theirs
    assert "etc/gone" not in ours
    assert "srv/old" in ours


def test_layers_are_shared_by_digest_and_kept_while_anybody_uses_them(host, shelf, layout):
    oci_archive(layout, shelf / "oci.tar")
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{layout}:x", f"docker-archive:{shelf / 'docker.tar'}:tiny:1"], check=True
    )
    first = build(host, served("oci.tar"))
    lines: list[str] = []
    second = build(host, served("docker.tar"), name="y", log=lines.append)
    assert first.layers == second.layers
    assert first.defaults == second.defaults
    assert [line for line in lines if "here already" in line] == [
        "Layer 1 of 2 is here already",
        "Layer 2 of 2 is here already",
    ]
    stored.delete_image(host, "x")
    assert store.layer_ids(host) == set(first.layers)
    stored.delete_image(host, "y")
    nothing_left(host)


def change(layout: Path, place: Path, act) -> Path:
    """Return an archive of a copy of a layout that act has changed."""
    copy = place / secrets.token_hex(4)
    shutil.copytree(layout, copy)
    act(copy)
    return packed(place / "shelf" / "bad.tar", "-C", str(copy), ".")


def blobs(layout: Path) -> list[Path]:
    return sorted((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def used(layout: Path) -> list[str]:
    """Return the names of the blobs that the image refers to: manifest, configuration, the upper layer."""
    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    name = manifest["digest"].removeprefix("sha256:")
    parts = json.loads((layout / "blobs/sha256" / name).read_text())
    return [name, *(one["digest"].removeprefix("sha256:") for one in (parts["config"], parts["layers"][1]))]


def test_an_image_whose_parts_are_not_what_they_are_called_is_refused(host, shelf, layout, tmp_path):
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    largest = blobs(layout)[-1].name
    acts = [
        *(lambda copy, name=name: flip(copy / "blobs/sha256" / name) for name in used(layout)),
        lambda copy: (copy / "blobs/sha256" / largest).unlink(),
        lambda copy: (
            (copy / "blobs/sha256" / largest).unlink(),
            (copy / "blobs/sha256" / largest).symlink_to("/etc/passwd"),
        ),
        lambda copy: (copy / "index.json").write_text("[" * 100000),
        lambda copy: (copy / "index.json").write_text('{"manifests": [{"digest": "sha512:00"}]}'),
        lambda copy: (copy / "index.json").write_text('{"manifests": [{"digest": "sha256:../../../../etc"}]}'),
        lambda copy: (copy / "index.json").write_text("{}"),
    ]
    for act in acts:
        change(layout, shelf.parent, act)
        with pytest.raises(BadArchive):
            build(host, served("bad.tar"))
        nothing_left(host)


def test_an_index_is_read_for_this_machine(host, shelf, layout, tmp_path):
    def two(copy: Path) -> None:
        index = json.loads((copy / "index.json").read_text())
        [mine] = index["manifests"]
        other = {**mine, "digest": f"sha256:{'0' * 64}", "platform": {"os": "linux", "architecture": "s390x"}}
        index["manifests"] = [other, {**mine, "platform": {"os": "linux", "architecture": os.uname().machine}}]
        (copy / "index.json").write_text(json.dumps(index))

    def none(copy: Path) -> None:
        index = json.loads((copy / "index.json").read_text())
        index["manifests"][0]["platform"] = {"os": "linux", "architecture": "s390x"}
        (copy / "index.json").write_text(json.dumps(index))

    change(layout, shelf.parent, two)
    assert len(build(host, served("bad.tar")).layers) == 2
    change(layout, shelf.parent, none)
    with pytest.raises(BadArchive, match="linux/s390x"):
        build(host, served("bad.tar"), name="y")


def test_a_directory_that_a_layer_does_not_speak_of_looks_as_below(host, shelf, layout, tmp_path):
    """Many builders leave the parents of what they add out of a layer; its owner and mode must not become root's."""
    place = tmp_path / "x"
    shutil.copytree(layout, place)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("srv/added")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    (place / "blobs/sha256" / digest).write_bytes(data.getvalue())

    def put(value: dict[str, object]) -> dict[str, object]:
        text = json.dumps(value).encode()
        name = hashlib.sha256(text).hexdigest()
        (place / "blobs/sha256" / name).write_bytes(text)
        return {"digest": f"sha256:{name}", "size": len(text)}

    def get(descriptor) -> dict[str, object]:
        return json.loads((place / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).read_text())

    index = json.loads((place / "index.json").read_text())
    manifest = get(index["manifests"][0])
    config = get(manifest["config"])
    config["rootfs"]["diff_ids"].append(f"sha256:{digest}")
    manifest["layers"].append({"mediaType": "x.tar", "digest": f"sha256:{digest}", "size": len(data.getvalue())})
    manifest["config"] |= put(config)
    index["manifests"][0] |= put(manifest)
    (place / "index.json").write_text(json.dumps(index))
    oci_archive(place, shelf / "x.tar")
    built = build(host, served("x.tar"))
    assert merged(host, built.layers)["srv"] == "0:0 40700"
    assert files.read_json(host.layers_dir / built.layers[-1] / "layer.json")["key"].startswith("chain:")


# what goes wrong on the way


@pytest.mark.parametrize("point", ["image.fetched", "image.layer", "image.built", "image.renamed", "image.published"])
def test_killed_anywhere_it_leaves_litter_only_which_is_swept(host, shelf, layout, point):
    oci_archive(layout, shelf / "oci.tar")
    (host.state_dir / failpoints.MARKER).touch(mode=0o600)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from containers.core import images; from containers.core.host import Host\n"
        "images.build(Host.open(sys.argv[2]), 'x', {'type': 'file', 'directory': 'shelf', 'path': 'oci.tar'})"
    )
    project = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, project, str(host.state_dir)],
        env={**os.environ, failpoints.VARIABLE: f"{point}=kill9"},
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    stored.recover(host)
    nothing_left(host)
    assert len(build(host, served("oci.tar")).layers) == 2


def test_nothing_is_left_where_it_is_cancelled_or_the_disk_is_full(host, shelf, layout, monkeypatch):
    oci_archive(layout, shelf / "oci.tar")
    asked = iter([False] * 2 + [True] * 1000)
    with pytest.raises(Cancelled):
        build(host, served("oci.tar"), cancelled=lambda: next(asked))
    nothing_left(host)
    (host.state_dir / failpoints.MARKER).touch(mode=0o600)
    for point in ("image.layer", "image.renamed"):
        monkeypatch.setenv(failpoints.VARIABLE, f"{point}=ENOSPC")
        failpoints._hits.clear()
        with pytest.raises((OSError, StorageFull)):
            build(host, served("oci.tar"))
        stored.recover(host)
        nothing_left(host)


def test_a_limit_of_the_policy_holds(host, shelf, tmp_path):
    packed(shelf / "x.tar", "-C", str(tree(tmp_path / "tree")), ".")
    with open(host.policy_path, "a") as file:
        file.write("[images]\nmax_bytes = 1048576\n")
    host.policy_path.write_text(f'[images]\nmax_bytes = 1048576\ndirectories = {{shelf = "{shelf}"}}\n')
    with pytest.raises(BadArchive) as error:
        build(host, served("x.tar"))
    assert error.value.details["limit"] == "bytes"
    nothing_left(host)


@pytest.mark.parametrize(
    "data",
    [
        b"a: &a [x]\nproperties: *a\n",
        b"architecture: !!python/object:os.system x\n",
        b"properties:\n" + b"  os: " + b"x" * 100000,
        b"\xff\xfe\x00",
        b"properties:\n  os: {a: b}\n  release: |\n    text\n",
        b"",
    ],
)
def test_metadata_that_would_trick_a_yaml_reader_tells_nothing(data):
    told = metadata.of_yaml(data)
    assert set(told) <= {"os"}
    assert len(told.get("os", "")) <= metadata.TEXT_MAX
