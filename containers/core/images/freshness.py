"""Lists of image servers never go back: one that is older than the one seen last is a replay, or of a stale mirror.

A list that was good once stays signed for ever; whoever answers in the server's place could offer last year's images,
with last year's holes, by it. So the date of each list is kept, by its address: when it was signed, which nobody but
its signer can say, and when it was made (``updated``), where it tells that. Each is compared with its own kind.
Source: the attacks that The Update Framework calls rollback and freeze (specification, 1.5.2).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import fcntl
import hashlib
import math
import time
from typing import Any, Final

from ..archives.unpacking import BadArchive
from ..kernel import files
from ..sentences import say
from .base import Order

OLD_SEC: Final = 30 * 86400.0
"""A list of such an age is told of: a server that makes none for so long is rare, and one that is kept back is not."""


def require_newest(order: Order, url: str, *, signed_at: float | None, updated_at: float | None, field: str) -> None:
    """Take note of a list's dates, in seconds since 1970; raises BadArchive where one is before the one seen last.

    signed_at, updated_at: None where it has none. The order's log is told where it is older than OLD_SEC.
    """
    both = {"signed": signed_at, "updated": updated_at}
    dates = {kind: date for kind, date in both.items() if date is not None and math.isfinite(date)}
    if not dates:
        return
    directory = order.host.lists_dir
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    with files.opened(directory) as directory_fd:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)  # until it is closed
        seen: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            seen = files.read_json(path)
        for kind, date in dates.items():
            if date < (last := float(seen.get(kind) or date)):
                what = say(
                    "The server's list of images is of %(date)s, and one of %(last)s was there before: "
                    "it is an old one, and nothing was taken.",
                    date=_day(date),
                    last=_day(last),
                )
                raise BadArchive(what, field=field, entry="", limit="")
        # one of tomorrow, by a clock that is wrong, is not to shut out all that come until then
        now = time.time()
        newest = {**seen, **{kind: min(date, max(now, float(seen.get(kind) or 0))) for kind, date in dates.items()}}
        if newest != seen:
            files.write_json(path, {**newest, "url": url})
    age_sec = now - max(dates.values())
    if age_sec > OLD_SEC:
        order.log(f"The server's list is {int(age_sec // 86400)} days old, of {_day(max(dates.values()))}")


def told(document: dict[str, Any]) -> float | None:
    """Return when a list says that it was made, None where it does not: a date as in letters, or ISO 8601."""
    text = document.get("updated")
    if not isinstance(text, str) or len(text) > 100:
        return None
    for read in (email.utils.parsedate_to_datetime, dt.datetime.fromisoformat):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            found = read(text)
            return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
    return None


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0.0, min(seconds, 253402300799.0))))
