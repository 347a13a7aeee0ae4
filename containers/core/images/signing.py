"""Lists that are signed: by keys that the host's policy names, checked by gpgv of Debian's as nobody.

What is signed within a file of its own is what gpgv writes, and nothing else of that file is looked at.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
from typing import Final

from ..archives.unpacking import BadArchive
from ..errors import HostUnsupported, SetupFailed
from ..sentences import say

GPGV: Final = "/usr/bin/gpgv"
KEYRING_MAX_BYTES: Final = 16 << 20
_NOBODY: Final = "65534"
_WALL_SEC: Final = 120
_CPU_SEC: Final = 60
_MEMORY_BYTES: Final = 512 << 20
_BEGIN: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_BLOCK: Final = b"-----BEGIN PGP "
_END: Final = b"-----END PGP SIGNATURE-----"
_GOOD: Final = b"[GNUPG:] VALIDSIG "


def inside(document: bytes, keyring: str) -> tuple[bytes, float | None]:
    """Return what is signed in a file that holds its own signature, and when (see _date); raises BadArchive.

    Raises HostUnsupported and SetupFailed, too. keyring: the path of a file of OpenPGP keys, not in ASCII armour. Every
    signature has to be one of them.
    """
    if not document.startswith(_BEGIN) or document.count(_BLOCK) != 2 or not document.rstrip().endswith(_END):
        raise _refused("The server's list is not signed.")
    return _gpgv(keyring, document, "--output", "-", "{0}")


def beside(document: bytes, signature: bytes, keyring: str) -> tuple[bytes, float | None]:
    """Return a document whose signature lies in another file, and when it was signed; raises as inside does."""
    return document, _gpgv(keyring, signature, "{0}", "{1}", more=document)[1]


def _gpgv(keyring: str, first: bytes, *arguments: str, more: bytes = b"") -> tuple[bytes, float | None]:
    if not os.access(GPGV, os.X_OK):
        raise HostUnsupported(
            say("%(program)s is missing: install %(package)s.", program=GPGV, package="gpgv"), feature="gpgv"
        )
    try:
        with open(keyring, "rb") as file:
            keys = file.read(KEYRING_MAX_BYTES)
    except OSError as error:
        raise SetupFailed.from_oserror("read the keyring", error) from error
    with contextlib.ExitStack() as held:
        # files without a name, which nobody may open by their numbers
        fds = [_held(held, data) for data in (keys, first, more)]
        names = [f"/proc/self/fd/{fd}" for fd in fds]
        command = [
            *("/usr/bin/unshare", "--net", "--ipc", "--"),
            *("/usr/bin/prlimit", f"--cpu={_CPU_SEC}", f"--as={_MEMORY_BYTES}", "--core=0", "--fsize=0", "--"),
            *("/usr/bin/setpriv", "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups", "--no-new-privs"),
            *("--inh-caps", "-all", "--bounding-set", "-all", "--pdeathsig", "KILL", "--"),
            *(GPGV, "--homedir", "/nonexistent", "--status-fd", "2", "--keyring", names[0]),
            *(argument.format(*names[1:]) for argument in arguments),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=fds,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                cwd="/",
                timeout=_WALL_SEC,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SetupFailed("The signature could not be checked in time.", step="verify") from error
    good = [line.split() for line in done.stderr.splitlines() if line.startswith(_GOOD)]
    if done.returncode or not good:
        raise _refused("The server's list is not signed by a key of the host's policy.")
    return done.stdout, min((_date(words[4]) for words in good if len(words) > 4), default=None)


def _date(text: bytes) -> float:
    """Return when a signature was made, in seconds since 1970. Source: GnuPG, doc/DETAILS, VALIDSIG, third argument."""
    if b"T" in text:
        return dt.datetime.strptime(text.decode(), "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC).timestamp()
    return float(text)


def _refused(why: str) -> BadArchive:
    return BadArchive(why, field="source.server", entry="", limit="")


def _held(held: contextlib.ExitStack, data: bytes) -> int:
    """Return a descriptor of a file in memory, open until the end; whoever has it may read the file anew."""
    fd = os.memfd_create("boxroom-verify", os.MFD_CLOEXEC)
    held.callback(os.close, fd)
    os.fchmod(fd, 0o444)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd
