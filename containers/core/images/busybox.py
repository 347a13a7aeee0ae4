"""The image that needs no network: the host's static busybox, its applets, and the few files that it reads at boot."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Final

from ..errors import HostUnsupported
from ..kernel import files
from ..sentences import say
from .base import Order, put

CANDIDATES: Final = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/usr/lib/initramfs-tools/bin/busybox"))
DEFAULTS: Final = {"init_command": ["/sbin/init"], "halt_signal": "SIGINT", "environment": {}}
"""busybox init takes SIGUSR2 as poweroff, but then sleeps for two seconds, whatever is left to end (init/init.c).
At SIGINT it runs the ctrlaltdel line of inittab, which is this image's own shutdown; SIGPWR it does not know."""

DIRECTORIES: Final = (
    "bin dev etc/init.d etc/udhcpc home mnt proc root run sbin sys tmp usr/bin usr/sbin "
    "var/log var/spool/cron/crontabs var/tmp"
).split()
_MODES: Final = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
_PT_INTERP: Final = 3

# what reboot leaves for shutdown lies in /dev: over /run something may be mounted between the two
_LEAVE: Final = """\
#!/bin/sh
# With options, such as -f, as busybox has it; without, by way of /etc/init.d/shutdown.
[ $# -eq 0 ] || exec /bin/busybox {name} "$@"
{note}
kill -INT 1
"""

_FILES: Final[dict[str, tuple[int, str]]] = {
    "etc/inittab": (
        0o644,
        """\
::sysinit:/etc/init.d/rcS
::once:/etc/init.d/network
# The terminal page opens a root shell by itself; the console asks for a name and a password, as on any machine.
console::respawn:/sbin/getty -L 0 console linux
# SIGINT: the panel's stop, and what poweroff and reboot send
::ctrlaltdel:/etc/init.d/shutdown
""",
    ),
    "etc/init.d/shutdown": (
        0o755,
        """\
#!/bin/sh
# Ends everything and leaves, as soon as all have ended: busybox init itself would always sleep for two seconds.
# Nothing is respawned meanwhile: init waits for this script.
trap '' HUP TERM
others() {
    set -- /proc/[0-9]*
    [ $# -gt 2 ]
}
kill -TERM -1 2>/dev/null
kill -HUP -1 2>/dev/null
tries=0
while others && [ $tries -lt 100 ]; do
    usleep $((tries < 20 ? 5000 : 30000))
    tries=$((tries + 1))
done
kill -KILL -1 2>/dev/null
last=poweroff
if [ -e /dev/.reboot ]; then
    last=reboot
fi
# without sync: what was written is in the memory of the host, which runs on
exec /bin/busybox "$last" -n -f
""",
    ),
    "etc/init.d/rcS": (
        0o755,
        """\
#!/bin/sh
# What must be there before anything else; /proc, /sys and /dev are mounted already.
umask 022
grep -q ' /run ' /proc/mounts || mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
ln -sf /proc/mounts /etc/mtab
[ ! -s /etc/hostname ] || hostname -F /etc/hostname
""",
    ),
    "sbin/poweroff": (0o755, _LEAVE.format(name="poweroff", note="rm -f /dev/.reboot")),
    "sbin/halt": (0o755, _LEAVE.format(name="halt", note="rm -f /dev/.reboot")),
    "sbin/reboot": (0o755, _LEAVE.format(name="reboot", note=": >/dev/.reboot")),
    "etc/init.d/network": (
        0o755,
        """\
#!/bin/sh
# One DHCP client for each network card; each keeps trying, and renews, as long as the container runs.
# A card that has an address by now was given it by the panel, for good: DHCP tells it names alone.
ip link set lo up
for path in /sys/class/net/eth*; do
    [ -e "$path" ] || continue
    nic=${path##*/}
    ip link set "$nic" up
    if ip -4 addr show dev "$nic" | grep -q 'inet '; then
        : >"/run/udhcpc.$nic.set"
    fi
    udhcpc -f -i "$nic" -s /etc/udhcpc/default.script -p "/run/udhcpc.$nic.pid" \\
        -x "hostname:$(hostname)" -t 5 -T 1 -A 5 >/dev/null 2>&1 &
done
""",
    ),
    "etc/udhcpc/default.script": (
        0o755,
        """\
#!/bin/sh
# Called by udhcpc with what the DHCP server said in the environment.
set="/run/udhcpc.$interface.set"
case "$1" in
deconfig)
    [ -e "$set" ] || ip -4 addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound|renew)
    if [ ! -e "$set" ]; then
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" brd + dev "$interface"
        for gateway in $router; do
            ip route replace default via "$gateway" dev "$interface" && break
        done
    fi
    {
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do echo "nameserver $server"; done
    } >/etc/resolv.conf.new && mv /etc/resolv.conf.new /etc/resolv.conf
    ;;
esac
""",
    ),
    "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    "etc/shadow": (0o600, "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n"),
    "etc/group": (0o644, "root:x:0:\ntty:x:5:\nutmp:x:43:\nnogroup:x:65534:\n"),
    "etc/hosts": (0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    "etc/hostname": (0o644, "busybox\n"),
    "etc/machine-id": (0o444, ""),
    "etc/issue": (0o644, "busybox on \\n\n\n"),
    "etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
    "etc/profile": (
        0o644,
        """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PAGER=less
PS1='\\u@\\h:\\w\\$ '
umask 022
""",
    ),
    "etc/os-release": (0o644, 'ID=busybox\nNAME=BusyBox\nPRETTY_NAME="BusyBox {version}"\nVERSION_ID={version}\n'),
    "etc/securetty": (0o644, "console\ntty1\n"),
    "etc/shells": (0o644, "/bin/sh\n/bin/ash\n"),
}


def find() -> Path:
    """Return the host's static busybox; raises HostUnsupported saying which package to install."""
    for path in CANDIDATES:
        if path.is_file() and is_static(path):
            return path
    raise HostUnsupported("This host has no static busybox: install busybox-static.", feature="busybox-static")


def is_static(path: Path) -> bool:
    """Tell whether a file is a 64-bit little-endian ELF program that needs no interpreter. Source: elf(5)."""
    with path.open("rb") as program:
        head = program.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return False
        (table_at,) = struct.unpack_from("<Q", head, 32)
        entry_bytes, entries = struct.unpack_from("<HH", head, 54)
        program.seek(table_at)
        table = program.read(entry_bytes * entries)
    kinds = [struct.unpack_from("<I", table, index * entry_bytes)[0] for index in range(entries)]
    return bool(kinds) and _PT_INTERP not in kinds


def build(order: Order, rootfs: Path) -> dict[str, Any]:
    """Fill rootfs from the host's busybox; no network, about a tenth of a second."""
    busybox = find()
    order.progress(10, say("Copying %(what)s", what=busybox))
    for name in DIRECTORIES:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    for directory, _subdirectories, _files in os.walk(rootfs):
        relative = os.path.relpath(directory, rootfs)
        os.chmod(directory, _MODES.get(relative, 0o755))
    program = rootfs / "bin/busybox"
    try:
        shutil.copyfile(busybox, program)
    except OSError as error:
        raise files.translated(error, "copy busybox", program) from error
    program.chmod(0o755)
    order.progress(50, "Linking its applets")
    applets = _ask(busybox, "--list-full").split()
    for applet in applets:
        link = rootfs / applet
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
    if not os.path.lexists(rootfs / "sbin/init"):
        raise HostUnsupported(
            say("%(path)s has no init applet: install busybox-static.", path=busybox), feature="busybox-init"
        )
    version = _version(busybox)
    for path, (mode, text) in _FILES.items():
        put(rootfs, path, text.replace("{version}", version), mode=mode)
    order.log(f"busybox {version}: {len(applets)} applets")
    return dict(DEFAULTS)


def _version(busybox: Path) -> str:
    """Return busybox's version as it says it: BusyBox v1.35.0 (Debian …) multi-call binary."""
    words = _ask(busybox, "--help").split(maxsplit=2)
    return words[1].removeprefix("v") if len(words) > 1 else "unknown"


def _ask(busybox: Path, question: str) -> str:
    done = subprocess.run([busybox, question], capture_output=True, text=True, check=True, timeout=10, env={})
    return done.stdout or done.stderr
