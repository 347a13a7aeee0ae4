"""A machine with Debian's own kernel and cgroup v2 only, under qemu, that sees this host's files.

The host's root directory is shared read-only over 9p and covered by an overlay on a scratch disk (ext4, so that user
xattrs and idmapped mounts work), so a test runs in there with the same interpreter, packages and tree as outside.
Python's files, which are looked for in many places and often, lie on disks of their own: 9p does not remember what is
not there, and asking it again and again cost more than the tests.
Everything is software emulation: no KVM is asked for. What comes from Debian is downloaded, never installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import packages
from .told import LATE, NO_STATUS, NOT_BOOTED, Ended

CACHE: Final = Path("/var/cache/boxroom-tests")
EXIT_MARK: Final = "boxroom-vm-exit"
BEGIN_MARK: Final = "boxroom-vm-begins"
BOOTS: Final = 3
"""How often it is tried: on a busy host the emulated timer may miss the kernel's check of it, which is a panic.

So is, once in dozens of machines, that both processors stand still in the kernel, see WATCHDOG.
"""
WATCHDOG: Final = "softlockup_panic=1 watchdog_thresh=60"
"""A processor that no process gets for two minutes ends the machine, instead of the whole run's time.

Seen once, at the first use of control groups. A kernel that does it every time still fails the run.
"""
KEPT_CONSOLE: Final = CACHE / "stood-still"
STOOD_STILL: Final = "Kernel panic - not syncing: softlockup"
BOOT_SEC: Final = 600.0
"""How long the last step of the boot may be in coming: ten times what it takes. One that hangs is tried again, too."""
DISK_BYTES: Final = 8 * 1024**3
LIBRARY_BYTES: Final = 2 * 1024**3
CPU: Final = "max,-erms,-fsrm,-la57,-cx16"
"""All that can be emulated, but for what makes it slow: copies byte by byte (where these are told, the kernel takes
`rep movsb` for fast), and a fifth level of page tables; and but for the exchange of 16 bytes at one stroke, with which
newer kernels panic in the emulator. Without it the tests take the same time."""
PROJECT: Final = Path(__file__).resolve().parents[2]
STDLIB: Final = Path(sysconfig.get_path("stdlib"))
NOT_NEEDED: Final = ("idlelib", "mypy", "*mypyc*.so", "pip", "playwright")
"""What is left out of the disks; a name that a test needs after all is not found."""
PARTS: Final = (
    "containers", "panel", "tests", "locale", "static", "templates", "manage.py", "pyproject.toml",
    "requirements.txt", "requirements-dev.txt",
)  # fmt: skip
"""What of the project is tested in there."""
EARLY_MODULES: Final = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "crc32c_generic", "ext4", "overlay")
"""What must be there before the root directory is; everything else is loaded on demand."""

INIT: Final = r"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /lower /disk /library /new
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read module; do insmod "$module" || echo "insmod $module failed"; done < /modules.list
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do sleep 0.1; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /lower || echo "9p failed"
mount -t ext4 -o noatime /dev/vda /disk || echo "disk failed"
mount -t ext4 -o ro,noatime /dev/vdb /library || echo "library disk failed"
mkdir -p /disk/upper /disk/work /disk/tmp /disk/state
mount -t overlay -o lowerdir=/lower,upperdir=/disk/upper,workdir=/disk/work overlay /new || echo "overlay failed"
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -s "${link#*:}" "/new/dev/${link%%:*}"; done
mount -t tmpfs tmpfs /new/dev/shm
mount -t tmpfs -o mode=755 tmpfs /new/run
chmod 1777 /disk/tmp
mount --bind /disk/tmp /new/tmp
while read source target; do
    mkdir -p "/new$target" && mount --bind "$source" "/new$target" || echo "bind $target failed"
done < /binds
mount -t cgroup2 -o nsdelegate cgroup2 /new/sys/fs/cgroup
mkdir -p /new/lib/modules
mount -t tmpfs tmpfs /new/lib/modules
mkdir -p "/new/lib/modules/$(uname -r)"
mount --bind "/new$(cat /modules.dir)" "/new/lib/modules/$(uname -r)"
cp /bin/busybox /new/run/busybox
ln -s busybox /new/run/modprobe
echo /run/modprobe > /new/proc/sys/kernel/modprobe
ip link set lo up
hostname boxroom-vm
cp /command /new/run/command
cat > /new/run/start <<END
echo boxroom-vm-begins
# where systemd boots a host, the nodes of these are there before anybody asks
/run/modprobe -a fuse loop tun
/bin/sh /run/command
echo "boxroom-vm-exit \$?"
sync
/run/busybox poweroff -f
END
# not chroot: nobody who is chrooted may make a user namespace
exec switch_root /new /bin/sh /run/start
"""


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time look for what is kept, and make it; other clones' runs wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".machine.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel. modules: the directory with modules.dep."""

    image: Path
    modules: Path


def fetch_kernel() -> Kernel:
    """Return Debian's current kernel, downloading and unpacking it into the cache at first use."""
    apt = packages.debian()
    # the package that the one of this name stands for now, and its version
    found = re.search(r"Depends: (linux-image-(\S+))", packages.about("depends", packages.KERNEL, options=apt))
    if not found:
        raise RuntimeError(f"apt knows no {packages.KERNEL}")
    package, version = found[1], found[2]
    target = CACHE / package
    with _alone():
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                packages.apt_get("download", package, cwd=Path(scratch), options=apt)
                (archive,) = Path(scratch).glob("*.deb")
                fresh = Path(scratch) / "root"
                subprocess.run(["dpkg-deb", "-x", archive, fresh], check=True)
                subprocess.run(["depmod", "-b", fresh, version], check=True)
                fresh.rename(target)
    return Kernel(target / f"boot/vmlinuz-{version}", target / f"lib/modules/{version}")


def _early_modules(kernel: Kernel) -> list[Path]:
    """Return the files of EARLY_MODULES and of what they need, in an order in which insmod takes them."""
    needs: dict[str, tuple[Path, list[Path]]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        path = Path(name)
        needs[path.name.split(".")[0].replace("-", "_")] = (path, [Path(word) for word in rest.split()])
    order: list[Path] = []
    for module in EARLY_MODULES:
        path, before = needs[module]
        for one in (*reversed(before), path):
            if one not in order:
                order.append(one)
    return [kernel.modules / path for path in order]


def _initial_file_system(kernel: Kernel, command: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "bin").mkdir()
        (root / "lib").mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
        listed = []
        for path in _early_modules(kernel):
            shutil.copy(path, root / "lib" / path.name)
            listed.append(f"/lib/{path.name}")
        (root / "modules.list").write_text("\n".join(listed) + "\n")
        (root / "modules.dir").write_text(str(kernel.modules))
        (root / "command").write_text(command)
        binds = (("/disk/app", PROJECT), ("/library/venv", sys.prefix), ("/library/stdlib", STDLIB))
        (root / "binds").write_text("".join(f"{source} {target}\n" for source, target in binds))
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        with target.open("wb") as image:
            subprocess.run(
                ["cpio", "--quiet", "-o", "-H", "newc"], input=names.encode(), stdout=image, cwd=root, check=True
            )


def _disk(content: Path | None, target: Path, size: int, *options: str) -> None:
    """Make an ext4 disk, with the content of a directory in it."""
    with target.open("wb") as file:
        file.truncate(size)
    words = ["-q", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", *options]
    subprocess.run(["mkfs.ext4", *words, *(["-d", content] if content else []), target], check=True)


def _link(source: str, target: str) -> None:
    """Copy a file as cheaply as it can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def library(target: Path) -> None:
    """Put a disk with the interpreter's files and packages at target, made anew where those have changed.

    target: in the cache's file system. It is a link of the one that is kept, so that it stays where another clone of
    the project, whose requirements are others, puts its own in that one's place.
    """
    digest = hashlib.sha256("\n".join(NOT_NEEDED).encode())
    for name in ("requirements.txt", "requirements-dev.txt"):
        digest.update((PROJECT / name).read_bytes())
    for path in (STDLIB / "os.py", Path(sysconfig.get_path("purelib")).resolve()):
        digest.update(f"{path} {path.stat().st_mtime_ns}\n".encode())
    kept = CACHE / f"library-{digest.hexdigest()[:16]}.ext4"
    with _alone():
        if not kept.exists():
            for old in CACHE.glob("library-*.ext4"):
                old.unlink()
            _make_library(kept)
        os.link(kept, target)


def _make_library(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for name, source in (("venv", sys.prefix), ("stdlib", STDLIB)):
            shutil.copytree(
                source, Path(scratch) / "root" / name, symlinks=True, copy_function=_link,
                ignore=shutil.ignore_patterns(*NOT_NEEDED),
            )  # fmt: skip
        _disk(Path(scratch) / "root", Path(scratch) / "image", LIBRARY_BYTES, "-N", "100000")
        (Path(scratch) / "image").rename(target)


def _scratch_disk(target: Path, files: Mapping[str, Path], tests: str) -> None:
    """Make the disk that takes every write, with a copy of the project in it, and of files below /tmp.

    The copy is compiled here, as pytest does it where tests are named: a fresh clone holds nothing compiled, and in
    there every launcher and program of a test would compile for itself what it imports.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for place, tree in files.items():
            copy = Path(scratch) / "tmp" / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            same = tree.stat().st_dev == os.stat(scratch).st_dev
            subprocess.run(["cp", "-al" if same else "-a", "-T", tree, copy], check=True)
        for part in PARTS:
            source, copy = PROJECT / part, Path(scratch) / "app" / part
            if source.is_dir():
                shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns("*.png"))
            else:
                copy.parent.mkdir(exist_ok=True)
                shutil.copy2(source, copy)
        _compile(Path(scratch) / "app", tests)
        venv = Path(sys.prefix)
        if venv.is_relative_to(PROJECT):
            (Path(scratch) / "app" / venv.relative_to(PROJECT)).mkdir()
        _disk(Path(scratch), target, DISK_BYTES)


def _compile(copy: Path, tests: str) -> None:
    """Compile a copy of the project, seen where the project is: what is compiled knows its tests by their paths."""
    words = [f"mount --bind {shell(copy / part, PROJECT / part)}" for part in PARTS]
    words += [f"cd {shell(PROJECT)}", shell(sys.executable, "-m", "compileall", "-q", "containers", "panel")]
    if tests:
        words.append(f"{shell(sys.executable)} -m pytest -q --collect-only -p no:cacheprovider {tests}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", "\n".join(words)],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"what is to be run in the machine cannot be collected here:\n{done.stdout[-4000:]}")


def run(
    command: str,
    *,
    timeout_sec: float,
    memory_mib: int = 3072,
    kernel_arguments: str = "",
    files: Mapping[str, Path] | None = None,
    tests: str = "",
) -> Ended:
    """Boot, run a shell command as root in there, and return how that ended.

    files: directories to be copied in, by their path below /tmp there. tests: what of pytest's the command will run, as
    words of a command line. What the command writes to /dev/ttyS1 is told, beside the console.
    """
    kernel = fetch_kernel()
    with tempfile.TemporaryDirectory(prefix="vm-", dir=CACHE) as scratch:
        initrd, disk, packages_disk = (Path(scratch) / name for name in ("initrd", "disk", "library"))
        library(packages_disk)
        _initial_file_system(kernel, command, initrd)
        # the emulated processor has no flaws to work around, and the workarounds take half of the time
        arguments = f"console=ttyS0 loglevel=5 panic=-1 {WATCHDOG} cgroup_no_v1=all psi=1 mitigations=off"
        qemu = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", str(memory_mib),
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
            "-kernel", str(kernel.image), "-initrd", str(initrd), "-append", f"{arguments} {kernel_arguments}",
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe",
            "-drive", f"file={packages_disk},format=raw,if=virtio,cache=unsafe,readonly=on",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        ]  # fmt: skip
        console, told = Path(scratch) / "console", Path(scratch) / "told"
        qemu += ["-serial", f"file:{told}"]
        late, printed = boot(qemu, console, timeout_sec, lambda: _scratch_disk(disk, files or {}, tests))
        said = re.search(rf"{EXIT_MARK} (\d+)", printed)
        status = int(said[1]) if said else _why(printed, late=late)
        return Ended(status, printed, told.read_text(errors="replace") if told.exists() else "")


def _why(printed: str, *, late: bool) -> int:
    """Return what stands for the status that a machine did not say."""
    if BEGIN_MARK not in printed:
        return NOT_BOOTED
    return LATE if late else NO_STATUS


def boot(
    qemu: Sequence[str],
    console: Path,
    timeout_sec: float,
    prepare: Callable[[], None],
    kept: Path = CACHE / "stood-still",
) -> tuple[bool, str]:
    """Run the machine as often as it may be tried; returns as _boot_once().

    prepare: makes its disk anew. kept: where the console of one that stood still stays for whoever wants to know.
    """
    late, printed = False, ""
    for _boot in range(BOOTS):
        prepare()
        late, printed = _boot_once(qemu, console, timeout_sec)
        if STOOD_STILL in printed:
            shutil.copy2(console, kept)
        elif late or BEGIN_MARK in printed:
            break
    return late, printed


def _boot_once(qemu: Sequence[str], console: Path, timeout_sec: float) -> tuple[bool, str]:
    """Run the machine to its end; returns whether the time was over once it had booted, and what it printed."""

    def begun() -> bool:
        return BEGIN_MARK in console.read_text(errors="replace")

    # it ends with this process, however that ends
    words = ["setpriv", "--pdeathsig", "KILL", *qemu]
    with (
        console.open("wb") as log,
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as machine,
    ):
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.wait(min(BOOT_SEC, timeout_sec))
            if machine.poll() is None and begun():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    machine.wait(timeout_sec)
            late = machine.poll() is None and begun()
        finally:
            machine.kill()
    return late, console.read_text(errors="replace")


def shell(*words: str | Path) -> str:
    """Return one shell command line from words."""
    return shlex.join(str(word) for word in words)
