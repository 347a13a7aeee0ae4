"""The web process's timers, where the host's clock is put back a day while they run."""

from __future__ import annotations

import subprocess
import sys

STEP = """
import time
real, back = time.time, []
time.time = lambda: real() - sum(back)  # before twisted takes it
import os
os.environ["BOXROOM_ROLE"] = "test"
from daphne import server
from panel import sockets
sockets.install()
from twisted.internet import reactor
reactor.callWhenRunning(lambda: (reactor.callLater(0.1, reactor.stop), back.append(86400)))
reactor.run()
print("ended", real() - time.time() > 86000)
"""


def test_a_timer_ends_when_the_clock_is_put_back() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "ended True\n", done.stderr
