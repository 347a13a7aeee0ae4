"""The kernel's tests once more, on a machine with cgroup v2 only (this host may have the v1-hybrid layout)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .. import debian
from . import machine

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT_SEC = 2400
FILES = "attachments cgroups exec_basics isolation rights security sessions_* start stats systemd"
"""What has to do with cgroups and processes; storage, images and networks are the same on both."""

LEFT_OUT = "not (hundred_megabytes or takes_nothing or system_call_filter)"
"""Floods through a pty take longer than their time-out under software emulation; the filter is the same on both, and
this kernel answers a forbidden bpf(2) by another errno."""


@pytest.mark.vm
@pytest.mark.timeout(TIMEOUT_SEC + 300)
def test_kernel_tests_pass_on_cgroup_v2() -> None:
    files = " ".join(f"tests/kernel/test_{name}.py" for name in FILES.split())
    command = f"""
    export BOXROOM_ROLE=test BOXROOM_STATE_DIR=/tmp/state BOXROOM_TEST_STRICT=1 BOXROOM_TEST_SLOW=10 HOME=/root
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
    export BOXROOM_TEST_IMAGES=/tmp/images
    mkdir -p /tmp/state
    test ! -d /sys/fs/cgroup/memory && test -f /sys/fs/cgroup/cgroup.controllers || exit 99
    cd {machine.shell(PROJECT)}
    {machine.shell(sys.executable)} -m pytest -v --tb=short --color=no -p no:cacheprovider {files} \\
        -k {machine.shell(LEFT_OUT)}
    """
    image = debian.cached()
    status, output = machine.run(command, timeout_sec=TIMEOUT_SEC, files={f"images/{image.name}": image})
    assert status == 0, output[-12000:]
    passed = re.search(r"(\d+) passed", output)
    assert passed, output[-12000:]
    assert int(passed[1]) > 100
