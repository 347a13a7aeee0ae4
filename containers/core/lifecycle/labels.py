"""AppArmor profiles, made and loaded for a start that asks for one. For the worker."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ..errors import SetupFailed
from ..host import Host
from ..model.security import APPARMOR_GENERATED
from ..plans import apparmor
from ..sentences import say

ENABLED: Final = Path("/sys/module/apparmor/parameters/enabled")
_STEP: Final = "load the AppArmor profile"
_LOAD_SEC: Final = 120.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def present() -> bool:
    """Tell whether this host's kernel has AppArmor, switched on."""
    try:
        return ENABLED.read_text().strip() == "Y"
    except OSError:
        return False


def prepared(host: Host, wanted: str, *, nesting: bool) -> str:
    """Return the profile to enter, loaded once per boot where it is Boxroom's own; "" for none.

    Raises SetupFailed where the host has no AppArmor, no apparmor_parser, or refuses the profile.
    """
    if not wanted:
        return ""
    if not present():
        raise SetupFailed("This host has no AppArmor: choose no profile.", step=_STEP, path=str(ENABLED))
    if wanted != APPARMOR_GENERATED:
        return wanted
    name = apparmor.name_of(host.instance, nesting=nesting)
    text = apparmor.profile(name, nesting=nesting)
    loaded = host.run_dir / f"{name}.apparmor"
    if not loaded.exists() or loaded.read_text() != text:
        _load(text)
        loaded.write_text(text)
    return name


def _load(text: str) -> None:
    parser = shutil.which("apparmor_parser", path=_PATH)
    if parser is None:
        raise SetupFailed("There is no apparmor_parser: apt install apparmor", step=_STEP, errno=errno.ENOENT)
    try:
        done = subprocess.run(
            [parser, "--replace"], input=text, capture_output=True, text=True, timeout=_LOAD_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(
            say("apparmor_parser did not run: %(error)s", error=error), step=_STEP, path=parser
        ) from error
    if done.returncode:
        raise SetupFailed(done.stderr.strip()[-500:] or "apparmor_parser refused it.", step=_STEP, path=parser)
