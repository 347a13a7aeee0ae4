"""A list of system calls that a process is to make one after the other, and what it does where one fails.

It is made as a whole beforehand, in memory that the process will have at the same address: a fork does, and so does a
process that runs in its maker's memory until its exec (core.kernel.runner), for which no interpreter is needed at all.

    memory    head      the entry that failed, as an address, and what it returned (errno, negative; 0: end of file)
              entries   a call each: number, arguments, where its result goes, which errors are none, what comes next
              data      texts and structures, which the arguments point to, and results

An argument is a number or Kept(address): what stands there by then, 32 bits of it, as descriptors have. What only an
interpreter can do stands in the list as well; such a script is for a fork.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .numbers import NUMBERS
from .syscalls import address_of, call_by_number

Step = str | Callable[[], str]
"""What is being done, for people; where it takes time to say, it is said when somebody asks."""

AT_FDCWD: Final = -100
OR: Final = 1 << 31
"""Not a call: sets the bits of the second argument in the 32 bits at the first one's address."""
STOP: Final = OR + 1
"""The end of what one process does of a script of which another does the rest: a write(2), whatever comes of it."""
ACT: Final = OR + 2
"""Not a call either: what an interpreter does. The first argument is its index."""

HEAD: Final = struct.Struct("=Qq")
ENTRY: Final = struct.Struct("=II6qQ3iIIi8x")
"""number, flags, arguments, address for the result, tolerated errors, bytes to the next entry after a success, after a
tolerated error, and after a result of 0 (negative: the end). The machine code of core.kernel.runner knows the offsets.
"""
ANY: Final = 1 << 6
"""Flag: every error is tolerated. The flags below are those of indirect arguments."""

_MEMORIES_MAX: Final = 64
_PLACE_BYTES: Final = 1024**2
_BYTES: Final = 8 * 1024**2
"""More than execve(2) takes: six MiB at most (fs/exec.c, bprm_stack_limits)."""
_ENTRIES: Final = 2048
"""More than the most of everything that one container can have: 252 layers are half of it. What is not used is never
there."""
_FIRST: Final = 32
_SCRATCH: Final = HEAD.size
_MSGHDR: Final = struct.Struct("=QI4xQQQQi4x")
_CMSGHDR: Final = struct.Struct("=Qii")
_IOVEC: Final = struct.Struct("=QQ")
_WORD: Final = struct.Struct("=i")
_ZERO: Final = struct.Struct("=i")
_ZERO_AT: Final = 84
_SOL_SOCKET: Final = 1
_SCM_RIGHTS: Final = 1
_MSG_CMSG_CLOEXEC: Final = 0x40000000
_UNREAD_BYTES: Final = 8
_NO_ERRORS: Final = (0, 0, 0)


class StepFailed(Exception):
    """A step of a setup failed; step describes it, error is what the kernel said."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step, error)
        self.step = step
        self.error = error


class Kept:
    """An argument that is known when the call is made: the 32 bits at an address of the script's memory."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address


class Places:
    """Memory for scripts that others carry out: this process and all that it forks have it, at the same address."""

    def __init__(self, count: int) -> None:
        # a page that is never used is never there
        self._memory = mmap.mmap(-1, count * _PLACE_BYTES)
        self._base = address_of(self._memory)

    def first(self, number: int) -> int:
        """Return the address of the first entry of the script in a place."""
        return self._base + number * _PLACE_BYTES + _FIRST

    def view(self, number: int) -> tuple[memoryview, int]:
        """Return a place's memory, and its address."""
        begin = number * _PLACE_BYTES
        return memoryview(self._memory)[begin : begin + _PLACE_BYTES], self._base + begin

    def close(self) -> None:
        """Do without it from here on, in a process that has written no script."""
        self._memory.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A part of a script. what: what it was added for. there: the texts before it; texts: and after it."""

    what: object
    there: dict[bytes, int]
    texts: dict[bytes, int]
    entries: bytes
    data: bytes
    notes: list[tuple[Step, str | None, str | None]]


Memories = dict[tuple[int, int], Memory]
"""By where it began: entries and data."""


class Script:
    """See the module. step: what the calls that are added next belong to."""

    def __init__(self, place: tuple[memoryview, int] | None = None, memories: Memories | None = None) -> None:
        """place: memory that others have as well, and its address, as Places.view() returns it.

        memories: of what was added to the scripts that stood in this place before.
        """
        if place is None:
            memory = mmap.mmap(-1, _BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            place = memoryview(memory), address_of(memory)
        self._memory, self._base = place
        self._memories = memories
        self._memory[:_FIRST] = bytes(_FIRST)
        self._end = _FIRST
        self._data = _FIRST + _ENTRIES * ENTRY.size
        self._texts: dict[bytes, int] = {}
        self._notes: list[tuple[Step, str | None, str | None]] = []
        self._acts: list[Callable[[], None]] = []
        self._explained: dict[int, Callable[[], OSError]] = {}
        self.step: Step = "set up the container"

    @property
    def first(self) -> int:
        """The address of the first entry."""
        return self._base + _FIRST

    # -- data ---------------------------------------------------------------------------------------------------------

    def data(self, content: bytes) -> int:
        """Put bytes into the memory; returns their address, which is a multiple of 8. Raises OSError (E2BIG)."""
        place = self._room(len(content))
        self._memory[place : place + len(content)] = content
        return self._base + place

    def room(self, size: int) -> int:
        """Return the address of so many bytes, all 0. Raises OSError (E2BIG)."""
        place = self._room(size)
        self._memory[place : place + size] = bytes(size)
        return self._base + place

    def _room(self, size: int) -> int:
        place = self._data
        self._data += (size + 7) & ~7
        if self._data > len(self._memory):
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        return place

    def text(self, value: str | None) -> int:
        """Return the address of a text that ends in NUL; 0 for None. Raises ValueError where it holds a NUL."""
        if value is None:
            return 0
        encoded = os.fsencode(value)
        address = self._texts.get(encoded)
        if address is None:
            if b"\0" in encoded:
                raise ValueError("embedded null byte")
            address = self._texts[encoded] = self.data(encoded + b"\0")
        return address

    def texts(self, values: Sequence[str]) -> int:
        """Return the address of an array of texts that ends in a null pointer, as execve(2) takes it."""
        return self.data(struct.pack(f"={len(values) + 1}Q", *map(self.text, values), 0))

    def value(self, address: int) -> int:
        """Return the 32 bits at an address, signed."""
        return int(_WORD.unpack_from(self._memory, address - self._base)[0])

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        *arguments: int | Kept,
        path: str | None = None,
        kept: int = 0,
        tolerated: tuple[int, ...] | None = (),
        skip: int = 0,
        skip_tolerated: int = 0,
        ends: bool = False,
        note: str | None = None,
    ) -> None:
        """Add a call. path, note: for its error; note instead of the kernel's own words.

        kept: an address for its result, where 0 stands. tolerated: errors that are none, three at most; None for all.
        skip, skip_tolerated: how many calls are left out after a success, and after a tolerated error. ends: a result
        of 0 ends the process.
        """
        after = ENTRY.size * (1 + skip), ENTRY.size * (1 + skip_tolerated), -1 if ends else ENTRY.size * (1 + skip)
        self._add(NUMBERS[name], arguments, kept, tolerated, after, (self.step, path, note))

    def set_bits(self, address: int, bits: int | Kept) -> None:
        """Set bits in the 32 bits at an address."""
        self._add_other(OR, address, bits)

    def stop(self, forked: int, fd: int | Kept = -1, message: bytes = b"") -> None:
        """End the part of the process that makes another; what is added next is that one's.

        forked: the index of the call that made it, as len(script) was before it; its result there is 0. message: what
        it sends then to fd, a socket. Whoever has it knows that that process looks at nothing of the script any more.
        """
        self._add_other(STOP, fd, self.data(message), len(message))
        _ZERO.pack_into(self._memory, _FIRST + forked * ENTRY.size + _ZERO_AT, self._end - _FIRST - forked * ENTRY.size)

    def __len__(self) -> int:
        return len(self._notes)

    def act(self, act: Callable[[], None]) -> None:
        """Add something that needs an interpreter; it raises StepFailed, or OSError for the step."""
        self._acts.append(act)
        self._add_other(ACT, len(self._acts) - 1)

    def _add_other(self, number: int, *arguments: int | Kept) -> None:
        self._add(number, arguments, 0, (), (ENTRY.size,) * 3, (self.step, None, None))

    def explain(self, explain: Callable[[], OSError]) -> None:
        """Have the error of the call that was added last be what explain returns."""
        self._explained[len(self._notes) - 1] = explain

    def _add(
        self,
        number: int,
        arguments: tuple[int | Kept, ...],
        kept: int,
        tolerated: tuple[int, ...] | None,
        after: tuple[int, ...],
        note: tuple[Step, str | None, str | None],
    ) -> None:
        if len(self._notes) == _ENTRIES:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        flags = ANY if tolerated is None else 0
        values = [0, 0, 0, 0, 0, 0]
        for index, argument in enumerate(arguments):
            if isinstance(argument, Kept):
                flags |= 1 << index
                values[index] = argument.address
            else:
                values[index] = argument
        errors = (-one for one in (*tolerated, 0, 0, 0)[:3]) if tolerated else _NO_ERRORS
        kept = kept or self._base + _SCRATCH
        ENTRY.pack_into(self._memory, self._end, number, flags, *values, kept, *errors, *after)
        self._end += ENTRY.size
        self._notes.append(note)

    def same(self, what: object, add: Callable[[], None]) -> None:
        """Add what add() adds; where that has been added for the same reasons at the same place before, it is copied.

        what: all that it depends on, beside the texts that are there. It must add calls only.
        """
        if self._memories is None:
            add()
            return
        at = self._end, self._data
        found = self._memories.get(at)
        if found is None or found.what != what or found.there != self._texts:
            there, first = dict(self._texts), len(self._notes)
            add()
            if len(self._memories) >= _MEMORIES_MAX:
                self._memories.clear()
            self._memories[at] = Memory(
                what=what,
                there=there,
                texts=dict(self._texts),
                entries=bytes(self._memory[at[0] : self._end]),
                data=bytes(self._memory[at[1] : self._data]),
                notes=self._notes[first:],
            )
            return
        self._memory[self._end : self._end + len(found.entries)] = found.entries
        self._memory[self._data : self._data + len(found.data)] = found.data
        self._end += len(found.entries)
        self._data += len(found.data)
        self._notes += found.notes
        self._texts = dict(found.texts)

    # -- messages -----------------------------------------------------------------------------------------------------

    def letter(self, message: bytes, descriptors: int) -> tuple[int, list[int]]:
        """Return the address of a message as sendmsg(2) takes it, and where the numbers of its descriptors stand."""
        length = _CMSGHDR.size + _WORD.size * descriptors
        control = self.data(_CMSGHDR.pack(length, _SOL_SOCKET, _SCM_RIGHTS) + bytes(_WORD.size * descriptors))
        vector = self.data(_IOVEC.pack(self.data(message), len(message)))
        header = self.data(_MSGHDR.pack(0, 0, vector, 1, control, (length + 7) & ~7, 0))
        first = control + _CMSGHDR.size
        return header, [first + _WORD.size * index for index in range(descriptors)]

    def send(self, fd: int | Kept, message: bytes) -> None:
        """Add a message to a socket, without descriptors."""
        self.call("write", fd, self.data(message), len(message))

    def receive(self, fd: int | Kept, descriptors: int = 0) -> list[int]:
        """Add the wait for a message, which is not looked at; returns where the numbers of its descriptors will stand.

        The end of file ends the process.
        """
        if not descriptors:
            self.call("read", fd, self.room(_UNREAD_BYTES), _UNREAD_BYTES, ends=True)
            return []
        header, places = self.letter(bytes(_UNREAD_BYTES), descriptors)
        self.call("recvmsg", fd, header, _MSG_CMSG_CLOEXEC, ends=True)
        return places

    # -- what came of it ----------------------------------------------------------------------------------------------

    def failure(self) -> StepFailed | None:
        """Return which call failed in a process that has this memory; None where none did, or a file has ended."""
        place, result = HEAD.unpack_from(self._memory)
        return self._failed((place - self.first) // ENTRY.size, -result) if result else None

    def _failed(self, index: int, number: int) -> StepFailed:
        step, path, note = self._notes[index]
        explain = self._explained.get(index)
        error = explain() if explain else OSError(number, note or os.strerror(number), path)
        return StepFailed(step if isinstance(step, str) else step(), error)

    def carry_out(self) -> None:
        """Make the calls, in a process that has an interpreter. Raises StepFailed, EOFError."""
        memory, base, place = self._memory, self._base, _FIRST
        while place < self._end:
            number, flags, *rest = ENTRY.unpack_from(memory, place)
            values, (kept, *errors, done, tolerated, zero) = rest[:6], rest[6:]
            for index in range(6):
                if flags >> index & 1:
                    values[index] = self.value(values[index])
            if number == ACT:
                result = self._do(self._acts[values[0]], (place - _FIRST) // ENTRY.size)
            elif number == OR:
                target = values[0] - base
                _WORD.pack_into(memory, target, _WORD.unpack_from(memory, target)[0] | values[1])
                result = 0
            else:
                result = call_by_number(number, *values)
            if result:
                _WORD.pack_into(memory, kept - base, result)
            if result == 0 and zero < 0:
                raise EOFError
            if result >= 0:
                place += done if result else zero
            elif flags & ANY or result in errors:
                place += tolerated
            else:
                raise self._failed((place - _FIRST) // ENTRY.size, -result)

    def _do(self, act: Callable[[], None], index: int) -> int:
        try:
            act()
        except OSError as error:
            step = self._notes[index][0]
            raise StepFailed(step if isinstance(step, str) else step(), error) from error
        return 0
