"""Hooks of the host's that the worker runs: when a container was cloned, and before one is removed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from ..errors import NotFound, PolicyDenied, SetupFailed
from ..host import Host
from ..hoststore import store
from ..hoststore.rootfiles import open_own
from ..model import hooks
from ..model.hooks import Call, environment
from ..model.spec import Spec
from ..plans.start_plan import PATH
from ..proc.hooking import hear, raise_for
from ..rules.policy import Policy, hooks_of
from ..storage import disks


def ending_sec(host: Host, container_id: str) -> float:
    """Return how long the hooks at a container's end may take, in seconds; 0 for one that the store does not have."""
    try:
        return hooks.ending_sec(store.load(host, container_id).hooks)
    except NotFound:
        return 0.0


def run(host: Host, rules: Policy, spec: Spec, point: str, **more: object) -> None:
    """Run a container's hooks of one point, in order; what the policy has withdrawn since is not run.

    more: further variables, without LXC_. Raises SetupFailed (step, path) with the end of what a hook said.
    """
    if not any(hook.point == point for hook in spec.hooks):
        return
    with contextlib.suppress(PolicyDenied), disks.tree(host, store.load_root(host, spec.id).writable) as own:
        for call in hooks_of(rules, spec):
            if call.point == point:
                _run(host, spec, call, str(own), more)


def _run(host: Host, spec: Spec, call: Call, rootfs: str, more: dict[str, object]) -> None:
    os.close(open_own(host.hooks_dir, call.hook, step=call.step, executable=True))
    path = str(host.hooks_dir / call.hook)
    values = environment(
        call.point, spec.name, CONFIG_FILE=host.spec_path(spec.id), ROOTFS_PATH=rootfs, ROOTFS_MOUNT=rootfs, **more
    )
    values |= {"PATH": PATH, "BOXROOM_ID": spec.id, "BOXROOM_PROJECT": spec.project}
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        with subprocess.Popen(
            [path, spec.name, "lxc", call.point],
            stdin=subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
            env=values,
            cwd="/",
            start_new_session=True,
        ) as process:
            os.close(write_fd)
            write_fd = -1
            pidfd = os.pidfd_open(process.pid)
            try:
                output, ended = hear(read_fd, pidfd, call.timeout_sec)
            finally:
                # before it is reaped: until then its number, which is its session's too, is nobody else's
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                os.close(pidfd)
            code = process.wait()
    except OSError as error:
        raise SetupFailed.from_oserror(call.step, error) from error
    finally:
        for fd in (read_fd, write_fd):
            if fd >= 0:
                os.close(fd)
    raise_for(call, (-code if code < 0 else code << 8) if ended else None, output, path)
