"""Files of cgroups that are limits here, by the names of either version, and what their numbers are counted in. Pure.

Source: kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import re
from typing import Final

PERIOD_USEC: Final = 100_000
"""What a CPU quota is counted in where nobody says."""
WEIGHT: Final = 100
SHARES: Final = 1024
"""What every group has in v2 and in v1."""
HUGE: Final = re.compile(r"hugetlb\.([0-9]+[KMG]B)\.(?:max|limit_in_bytes)", re.ASCII)
"""Limits of huge pages of one size."""
RATES: Final = {
    "rbps": "io_read_bytes_per_sec",
    "wbps": "io_write_bytes_per_sec",
    "riops": "io_read_ops_per_sec",
    "wiops": "io_write_ops_per_sec",
}
"""The words of io.max, and the limits that they are."""
THROTTLES: Final = {
    "blkio.throttle.read_bps_device": RATES["rbps"],
    "blkio.throttle.write_bps_device": RATES["wbps"],
    "blkio.throttle.read_iops_device": RATES["riops"],
    "blkio.throttle.write_iops_device": RATES["wiops"],
}
IO_WEIGHTS: Final = ("io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight")


def weight_of(shares: int) -> int:
    """Return the weight of v2 that v1's shares of CPU time are: 1024 of them are 100."""
    return max(1, round(shares * WEIGHT / SHARES))
