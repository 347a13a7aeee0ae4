"""Whether the README holds on a bare Debian. By hand, as root: `python3 -m tests.vm.bare [bookworm|trixie] [--hard]`.

Not part of the suite: it downloads a system and takes some minutes. A minimal root directory is made by debootstrap,
and entered in mount, pid, uts and ipc namespaces of its own, with this host's kernel, cgroups and network. There
somebody clones this repository, follows the README, and times it. --hard: a root shell with umask 077, without sbin in
its path, and with a home that nobody else may enter. What apt and pip are told on this host, they are told in there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = "systemd,systemd-sysv,dbus,udev,kmod,python3,git,sudo,ca-certificates,procps,passwd,cron"
"""What a minimal Debian server has anyway, or the README presumes."""
MIRROR: Final = "http://deb.debian.org/debian"
AS_HERE: Final = ("etc/resolv.conf", "etc/pip.conf", "etc/apt/apt.conf.d", "usr/local/share/ca-certificates")
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"

ENTER: Final = r"""
set -e
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
hostname bare
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
exec env -i TERM=dumb HOME=/root PATH="$1" /bin/bash -c "$2"
"""

PERSON: Final = r"""
set -e
cd /root
git clone -q /srv/boxroom.git boxroom
cd boxroom
TIMEFORMAT='%R s'
said() { printf '\n== %s\n' "$*"; }
said first up; time python3 manage.py up --detach --bind 127.0.0.1:PORT
said down; python3 manage.py down
said next up; time python3 manage.py up --detach
said a container, by the API
python3 manage.py token admin 2>/dev/null | tail -n 1 > /root/token
python3 - <<'END'
import json, urllib.request
token = open("/root/token").read().strip()
def call(path, body=None):
    data = json.dumps(body).encode() if body else None
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:PORT{path}", data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return answer.read().decode()
made = json.loads(call("/api/v1/containers?wait=60", {"name": "web-1", "image": "busybox", "start": True}))
assert made["status"] == "succeeded", made
done = json.loads(call("/api/v1/containers/web-1/exec", {"command": ["hostname"]}))
assert (done["exit_code"], done["stdout"]) == (0, "web-1\n"), done
print("web-1 runs")
END
said down --containers; python3 manage.py down --containers
said fsck; python3 manage.py fsck
"""


def make(suite: str, root: Path) -> None:
    """Make the root directory, and put a clone of this repository's HEAD into it."""
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root), MIRROR]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for place in AS_HERE:
        source, target = Path("/") / place, root / place
        if source.is_dir():
            not_ours = shutil.ignore_patterns("docker-*", "*autoremove*")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=not_ours)
        elif source.exists():
            shutil.copyfile(source, target)
    subprocess.run(["chroot", root, "update-ca-certificates"], check=True, capture_output=True)
    sources = [f"deb {MIRROR} {suite} main", f"deb {MIRROR}-security {suite}-security main"]
    (root / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
    shutil.rmtree(root / "var/lib/apt/lists")
    subprocess.run(["git", "clone", "-q", "--bare", PROJECT, root / "srv/boxroom.git"], check=True)


def follow(root: Path, port: int, *, hard: bool) -> int:
    """Do in there what the README says; return the exit status."""
    path = PATH if hard else f"{SBIN}:{PATH}"
    person = ("umask 077; chmod 700 /root\n" if hard else "") + PERSON.replace("PORT", str(port))
    apart = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private"]
    return subprocess.run([*apart, "sh", "-c", ENTER, root, path, person], check=False).returncode


def main() -> int:
    """Return 0 where the README held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", nargs="?", default="bookworm")
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--port", type=int, default=8471)
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("This needs root.")
    with tempfile.TemporaryDirectory(prefix="boxroom-bare-") as scratch:
        Path(scratch).chmod(0o755)
        root = Path(scratch) / "root"
        make(asked.suite, root)
        return follow(root, asked.port, hard=asked.hard)


if __name__ == "__main__":
    sys.exit(main())
