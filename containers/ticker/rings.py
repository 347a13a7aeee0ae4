"""History that neither grows nor loses its place: rings of samples, one file per container.

A file is a header and four rings, each of fixed-size records with a time of their own::

    header   magic, the time up to which coarser records are made          64 bytes
    ring     1 s x 1 h, 10 s x 1 d, 1 min x 7 d, 10 min x 1 y               72 bytes a record

A record's place follows from its time, so that a restart needs no search, and a record is believed only when its time
is the one asked for: after a step of the clock an old record is a gap, never a wrong value. Coarser records are made of
the next finer ones when their time is over. The file is sparse: a new container's takes a few kilobytes.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

COLUMNS: Final = (
    "cpu_cores",
    "cpu_cores_max",
    "cpu_limit_cores",
    "memory_bytes",
    "memory_bytes_max",
    "memory_limit_bytes",
    "swap_bytes",
    "cache_bytes",
    "processes",
    "network_rx_bytes_per_sec",
    "network_tx_bytes_per_sec",
    "disk_read_bytes_per_sec",
    "disk_write_bytes_per_sec",
    "disk_used_bytes",
    "psi_cpu_pct",
    "psi_memory_pct",
    "psi_io_pct",
)
"""Averages over a record's time, but for *_max (the highest second) and *_limit_* (the last)."""
RINGS: Final = ((1, 3600), (10, 8640), (60, 10080), (600, 52560))
"""(seconds per record, records). Each step divides the next; each length is a whole number of the next's records."""
POINTS_MAX: Final = 2000

_MAGIC: Final = b"boxrings1"
_HEADER: Final = struct.Struct("<16sI")
_HEADER_BYTES: Final = 64
_RECORD: Final = struct.Struct(f"<I{len(COLUMNS)}f")
_MAX: Final = frozenset(i for i, name in enumerate(COLUMNS) if name.endswith("_max"))
_LAST: Final = frozenset(i for i, name in enumerate(COLUMNS) if "_limit_" in name)
_OFFSETS: Final = tuple(
    _HEADER_BYTES + _RECORD.size * sum(size for _step, size in RINGS[:k]) for k in range(len(RINGS))
)
FILE_BYTES: Final = _HEADER_BYTES + _RECORD.size * sum(size for _step, size in RINGS)

Values = Sequence[float | None]
"""One value per column; None where there is none."""


class Rings:
    """One container's history. Owns its descriptor; close() it. Only one process may write a file."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it (0600) where it is not there or not of this format."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            header = os.pread(self._fd, _HEADER.size, 0)
            if len(header) < _HEADER.size or header[: len(_MAGIC)] != _MAGIC:
                os.ftruncate(self._fd, 0)
                self._made_up_to = 0
                self._write_header()
            else:
                self._made_up_to = _HEADER.unpack(header)[1]
            os.ftruncate(self._fd, FILE_BYTES)
        except BaseException:
            self.close()
            raise
        # the record of each coarser ring that is still being filled
        self._open = [self._made_up_to - self._made_up_to % step for step, _size in RINGS]

    def close(self) -> None:
        """Close the file; the second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, at: int, values: Values) -> None:
        """Record the second `at` (Unix time). Raises OSError (ENOSPC) where the disk is full."""
        self._put(0, at, [math.nan if value is None else value for value in values])
        if at - at % RINGS[1][0] == self._open[1]:
            return
        for ring in range(1, len(RINGS)):
            step = RINGS[ring][0]
            begin = at - at % step
            if begin != self._open[ring]:
                self._close_record(ring, self._open[ring])
                self._open[ring] = begin
                if ring == 1:
                    self._made_up_to = begin
                    self._write_header()

    def query(self, begin: int, end: int, points: int, *, now: int) -> dict[str, Any]:
        """Return what happened from begin up to end (Unix time), in at most `points` steps of equal length.

        {"from", "step_sec", "count", "series": {column: [value or None, ...]}}: entry i is for from + i * step_sec.
        The finest ring that still reaches back to begin is used.
        """
        ring, found = _grid(begin, end, points, now)
        first, step, series = found["from"], found["step_sec"], list(found["series"].values())
        bucket: list[tuple[float, ...]] = []
        place = -1
        for record in self._records(ring, first, min(max(end, begin + 1), now + 1)):
            index = (int(record[0]) - first) // step
            if index != place:
                _fill(series, place, bucket)
                bucket, place = [], index
            bucket.append(record[1:])
        _fill(series, place, bucket)
        return found

    def recent(self, end: int, seconds: int, columns: Sequence[str]) -> dict[str, list[float | None]]:
        """Return the `seconds` seconds before `end` (Unix time) of some columns, one entry a second; None: no sample.

        A tenth of the work of query(): for the small lines of many containers at once.
        """
        seconds = min(seconds, RINGS[0][1])
        places = [COLUMNS.index(name) + 1 for name in columns]
        series: list[list[float | None]] = [[None] * seconds for _ in columns]
        begin = end - seconds
        for record in self._records(0, begin, end):
            index = int(record[0]) - begin
            for line, place in zip(series, places, strict=True):
                value = record[place]
                line[index] = _short(value) if value == value else None  # NaN is not itself
        return dict(zip(columns, series, strict=True))

    def _write_header(self) -> None:
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, self._made_up_to), 0)

    def _put(self, ring: int, at: int, values: Sequence[float]) -> None:
        step, size = RINGS[ring]
        place = at // step % size
        os.pwrite(self._fd, _RECORD.pack(at - at % step, *values), _OFFSETS[ring] + place * _RECORD.size)

    def _close_record(self, ring: int, begin: int) -> None:
        """Make one record of a coarser ring from the finer ring's records of its time."""
        records = [record[1:] for record in self._records(ring - 1, begin, begin + RINGS[ring][0])]
        if records:
            self._put(ring, begin, [math.nan if value is None else value for value in merge(records)])

    def _records(self, ring: int, begin: int, end: int) -> Iterator[tuple[float, ...]]:
        """Yield the records whose time is in [begin, end), oldest first."""
        step, size = RINGS[ring]
        first, last = -(-begin // step), -(-end // step)
        first = max(first, last - size)
        while first < last:
            place = first % size
            run = min(last - first, size - place, 4096)
            data = os.pread(self._fd, run * _RECORD.size, _OFFSETS[ring] + place * _RECORD.size)
            for offset, record in enumerate(_RECORD.iter_unpack(data)):
                if record[0] == (first + offset) * step:
                    yield record
            first += run


def merge(records: Sequence[Sequence[float]]) -> list[float | None]:
    """Return one record of several, oldest first: averages, the highest of the _max columns, the last limits."""
    merged: list[float | None] = []
    for column, values in enumerate(zip(*records, strict=True)):
        there = [value for value in values if value == value]  # NaN is not itself
        if column in _LAST:
            merged.append(values[-1] if values[-1] == values[-1] else None)
        elif not there:
            merged.append(None)
        elif column in _MAX:
            merged.append(max(there))
        else:
            merged.append(sum(there) / len(there))
    return merged


def _choose_ring(begin: int, end: int, now: int) -> int:
    for ring, (step, size) in enumerate(RINGS):
        if begin > now - step * size and (end - begin) // step <= size:
            return ring
    return len(RINGS) - 1


def nothing(begin: int, end: int, points: int, *, now: int) -> dict[str, Any]:
    """Return what Rings.query does where nothing was ever measured: every value is None."""
    return _grid(begin, end, points, now)[1]


def _grid(begin: int, end: int, points: int, now: int) -> tuple[int, dict[str, Any]]:
    """Return the ring that still reaches back to begin, and a query's answer without its values."""
    points = max(1, min(points, POINTS_MAX))
    end = max(end, begin + 1)
    ring = _choose_ring(begin, end, now)
    unit = RINGS[ring][0]
    step = unit * max(1, math.ceil((end - begin) / points / unit))
    first = begin - begin % step
    count = -(-(end - first) // step)
    series: dict[str, list[float | None]] = {column: [None] * count for column in COLUMNS}
    return ring, {"from": first, "step_sec": step, "count": count, "series": series}


def _fill(series: list[list[float | None]], place: int, records: list[tuple[float, ...]]) -> None:
    if records and 0 <= place < len(series[0]):
        for column, value in enumerate(merge(records)):
            # single precision holds 7 digits: more would be noise that costs bytes
            series[column][place] = None if value is None else _short(value)


def _short(value: float) -> float:
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() else short
