"""nf_tables without nft: whether a table is there, and tables carried from one network namespace to another.

nft reads everybody's tables before it changes one, and an older nft ends by a signal at what a newer one has written
into a table of somebody else's. What it makes in a namespace where there are only our tables can be put in place here
word for word: what the kernel tells of a table is what it takes.
Sources: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h, libnftnl.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..errors import SetupFailed
from ..kernel.netlink import APPEND, CREATE, ask, attribute, dump
from ..kernel.rtnetlink import in_netns, own_netns
from ..kernel.syscalls import CLONE_NEWNET, setns, unshare

Message = tuple[int, int, bytes]
"""Kind, flags and body of a request."""
FAMILIES: Final = {"inet": 1, "netdev": 5, "bridge": 7}
_NETLINK_NETFILTER: Final = 12
_OURS: Final = 10 << 8
NEWTABLE, _GETTABLE, _DELTABLE = _OURS, _OURS | 1, _OURS | 2
NEWCHAIN, _GETCHAIN, DELCHAIN = _OURS | 3, _OURS | 4, _OURS | 5
NEWRULE, _GETRULE, DELRULE = _OURS | 6, _OURS | 7, _OURS | 8
_NEWSET, _GETSET = _OURS | 9, _OURS | 10
_NEWSETELEM, _GETSETELEM = _OURS | 12, _OURS | 13
_NEWGEN, _GETGEN = _OURS | 15, _OURS | 16
_BEGIN, _END = 16, 17
_GEN_ID, _BATCH_GENERATION = 1, 1
_TABLE, _NAME, _SET_FLAGS, _SET_ID = 1, 2, 3, 10
_NAME_OF_CHAIN: Final = 3
_KEPT_OF_CHAINS: Final = {1, 3, 4, 5, 7, 12}
_KEPT_OF_SETS: Final = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 18}
_KEPT_OF_ELEMENTS: Final = {1, 2, 3}
_KEPT_OF_RULES: Final = {1, 2, 7}
"""All but handles, counts of users and positions, which are given anew."""
_FILLED_BY_RULES: Final = 0x20
"""NFT_SET_EVAL."""
_EXPRESSIONS, _EXPRESSION, _OF_NAME, _OF_DATA = 4, 1, 1, 2
_DYNSET_TIMEOUT: Final = 6
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ROOM_BYTES: Final = 64 * 1024**2
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST, _ERROR = 0x1, 2


def connect(netns_fd: int | None = None) -> socket.socket:
    """Return a socket for this thread's network namespace, or for another one; netns_fd is borrowed."""
    if netns_fd is not None:
        with in_netns(netns_fd):
            return connect()
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    with contextlib.suppress(OSError):
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            sock.setsockopt(socket.SOL_SOCKET, option, _ROOM_BYTES)
    return sock


def generation() -> int:
    """Return the number of this network namespace's rules, one higher after each transaction, whoever made it."""
    with connect() as sock:
        answer = ask(sock, _GETGEN, 0, struct.pack("=BBH", 0, 0, 0))
    for kind, raw in _raw(answer[4:]):
        if kind == _GEN_ID:
            number: int = struct.unpack_from("!I", raw, 4)[0]
            return number
    raise SetupFailed("The kernel does not tell the generation of its rules.", step="packet filter")


def has_table(sock: socket.socket, family: str, table: str) -> bool:
    """Whether there is such a table."""
    try:
        ask(sock, _GETTABLE, 0, head(family) + text(_TABLE, table))
    except FileNotFoundError:
        return False
    return True


def chain_names(sock: socket.socket, family: str, table: str) -> list[str]:
    """Return the names of a table's chains; none where it is not there."""
    found = _of(sock, _GETCHAIN, head(family), table)
    return [dict(one)[_NAME_OF_CHAIN][4:].rstrip(b"\0").decode() for one in found]


def contents(sock: socket.socket, family: str, table: str) -> list[Message]:
    """Return the requests that make a table what it is now; nothing where it is not there.

    What rules have put into sets is left out.
    """
    if not has_table(sock, family, table):
        return []
    start, name = head(family), text(_TABLE, table)
    made = [(NEWTABLE, CREATE, start + name)]
    for found in _of(sock, _GETCHAIN, start, table):
        made.append((NEWCHAIN, CREATE, start + _only(found, _KEPT_OF_CHAINS)))
    elements: list[Message] = []
    for number, found in enumerate(_of(sock, _GETSET, start, table), 1):
        body = start + _only(found, _KEPT_OF_SETS) + attribute(_SET_ID, struct.pack("!I", number))
        made.append((_NEWSET, CREATE, body))
        known = dict(found)
        flags = struct.unpack_from("!I", known[_SET_FLAGS], 4)[0] if _SET_FLAGS in known else 0
        if not flags & _FILLED_BY_RULES:
            for payload in list(dump(sock, _GETSETELEM, start + name + known[_NAME])):
                elements.append((_NEWSETELEM, CREATE, start + _only(_raw(payload[4:]), _KEPT_OF_ELEMENTS)))
    rules = _of(sock, _GETRULE, start + name, table)
    return made + elements + [(NEWRULE, CREATE | APPEND, start + _rule(one)) for one in rules]


def _rule(found: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a rule as it is made. Of what adds to sets the kernel tells a time of 0, which it does not take back."""
    expressions = b""
    for _kind, raw in _raw(dict(found)[_EXPRESSIONS][4:]):
        parts = dict(_raw(raw[4:]))
        if parts[_OF_NAME][4:].startswith(b"dynset\0"):
            kept = [one for kind, one in _raw(parts[_OF_DATA][4:]) if kind != _DYNSET_TIMEOUT or any(one[4:])]
            raw = attribute(_EXPRESSION, parts[_OF_NAME] + attribute(_OF_DATA, b"".join(kept)))
        expressions += raw
    return _only(found, _KEPT_OF_RULES) + attribute(_EXPRESSIONS, expressions)


def gone(family: str, table: str) -> list[Message]:
    """Return the requests that remove a table, which need not be there."""
    body = head(family) + text(_TABLE, table)
    return [(NEWTABLE, CREATE, body), (_DELTABLE, 0, body)]


def commit(sock: socket.socket, messages: Iterable[Message], *, seen: int | None = None) -> None:
    """Do it all in one transaction, or nothing. seen: the generation that it is made for. Raises OSError."""
    edge = struct.pack("=BBH", 0, 0, socket.htons(10))
    begin = edge + (attribute(_BATCH_GENERATION, struct.pack("!I", seen)) if seen is not None else b"")
    sent = [_message(_BEGIN, 0, begin), *(_message(kind, flags, body) for kind, flags, body in messages)]
    sock.send(b"".join([*sent, _message(_END, 0, edge)]))
    # without ACK the kernel answers what it refuses, and it has by now
    with contextlib.suppress(BlockingIOError):
        while answer := sock.recv(1 << 16, socket.MSG_DONTWAIT):
            (number,) = struct.unpack_from("=i", answer, _HEADER.size)
            if _HEADER.unpack_from(answer)[1] == _ERROR and number:
                raise OSError(-number, os.strerror(-number))


@contextlib.contextmanager
def scratch() -> Iterator[int]:
    """Have a network namespace of one's own, beside; yields its descriptor."""
    home_fd = own_netns()
    try:
        unshare(CLONE_NEWNET)
        try:
            made_fd = own_netns()
        finally:
            setns(home_fd, CLONE_NEWNET)
    finally:
        os.close(home_fd)
    try:
        yield made_fd
    finally:
        os.close(made_fd)


def head(family: str) -> bytes:
    """Return what each request about a family begins with."""
    return struct.pack("=BBH", FAMILIES[family], 0, 0)


def text(kind: int, words: str) -> bytes:
    """Return an attribute that is a text."""
    return attribute(kind, words.encode() + b"\0")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    whole = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body
    return whole + bytes(-len(whole) % 4)


def _raw(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield attributes as (kind, the whole attribute as it is)."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        whole = length + (-length % 4)
        yield kind & 0x3FFF, data[:length] + bytes(whole - length)
        data = data[max(whole, 4) :]


def _of(sock: socket.socket, kind: int, body: bytes, table: str) -> list[list[tuple[int, bytes]]]:
    """Return the attributes of everything of a kind in a table."""
    found = [list(_raw(payload[4:])) for payload in dump(sock, kind, body)]
    wanted = text(_TABLE, table)
    return [one for one in found if (_TABLE, wanted) in one]


def _only(found: Iterable[tuple[int, bytes]], kept: set[int]) -> bytes:
    return b"".join(raw for kind, raw in found if kind in kept)
