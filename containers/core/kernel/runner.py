"""A process that carries out a script (core.kernel.script) in its maker's memory, without an interpreter.

After a fork each page that either process writes to is copied, and an interpreter writes to hundreds by being used:
that was most of what a start cost. A process made with CLONE_VM copies nothing, but must not touch what its maker uses.
This one uses registers, and of the memory only the script; it has no need of a stack, and none is given to it. Its
maker goes on meanwhile, and the memory parts at the exec. Sources: clone(2), CLONE_VM; syscall(2).

Machine code cannot be had from Python otherwise, so it is here as bytes, with what they mean beside them; it goes
through the entries of a script and knows nothing of what they are for. A machine for which there is none has forks.
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import Final

from .script import Script
from .syscalls import CLONE_CLEAR_SIGHAND, CLONE_VM, address_of, clone3_by

_X86_64: Final = bytes.fromhex(
    "b8b3010000"  # mov eax, 435             clone3(rdi, rsi)
    "0f05"  # syscall
    "4885c0"  # test rax, rax
    "7401"  # jz child
    "c3"  # ret                              the maker has its result
    "4889d3"  # child: mov rbx, rdx          the entry that it is at
    "4989d6"  # mov r14, rdx                 the first one
    "448b6304"  # next: mov r12d, [rbx+4]    flags
    "488b7b08"  # mov rdi, [rbx+8]           arguments: a bit says that the address of one is given
    "41f6c401"  # test r12b, 1
    "7402"  # jz 1f
    "8b3f"  # mov edi, [rdi]
    "488b7310"  # 1: mov rsi, [rbx+16]
    "41f6c402"  # test r12b, 2
    "7402"  # jz 2f
    "8b36"  # mov esi, [rsi]
    "488b5318"  # 2: mov rdx, [rbx+24]
    "41f6c404"  # test r12b, 4
    "7402"  # jz 3f
    "8b12"  # mov edx, [rdx]
    "4c8b5320"  # 3: mov r10, [rbx+32]
    "4c8b4328"  # mov r8, [rbx+40]
    "4c8b4b30"  # mov r9, [rbx+48]
    "8b03"  # mov eax, [rbx]                 the number
    "85c0"  # test eax, eax
    "783a"  # js bits
    "0f05"  # syscall
    "488b4b38"  # keep: mov rcx, [rbx+56]    where the result goes
    "8901"  # mov [rcx], eax
    "483d00f0ffff"  # cmp rax, -4096
    "7713"  # ja failed
    "41f6c440"  # test r12b, 64              does 0 end it?
    "7405"  # jz passed
    "4885c0"  # test rax, rax
    "7425"  # jz end
    "8b4b4c"  # passed: mov ecx, [rbx+76]    how far to the next
    "4801cb"  # add rbx, rcx
    "eba3"  # jmp next
    "3b4340"  # failed: cmp eax, [rbx+64]    tolerated errors
    "740a"  # je tolerated
    "3b4344"  # cmp eax, [rbx+68]
    "7405"  # je tolerated
    "3b4348"  # cmp eax, [rbx+72]
    "750e"  # jne end
    "8b4b50"  # tolerated: mov ecx, [rbx+80]
    "4801cb"  # add rbx, rcx
    "eb8c"  # jmp next
    "0937"  # bits: or [rdi], esi
    "31c0"  # xor eax, eax
    "ebc2"  # jmp keep
    "49895ee0"  # end: mov [r14-32], rbx     the head of the script
    "498946e8"  # mov [r14-24], rax
    "bf01000000"  # mov edi, 1
    "b8e7000000"  # mov eax, 231             exit_group(1)
    "0f05"  # syscall
)
_CODE: Final = {"x86_64": _X86_64}


@functools.cache
def _code() -> mmap.mmap | None:
    """Return the machine code, executable; None for a machine without one, or a host that does not allow it."""
    code = _CODE.get(os.uname().machine)
    if code is None:
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    memory.write(code)
    return memory


def available() -> bool:
    """Tell whether scripts can be carried out here without an interpreter; the first call prepares for it."""
    return _code() is not None


def clone(script: Script, flags: int, *, exit_signal: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Make a process in new namespaces that carries out a script; returns (pid, pidfd). As syscalls.clone3().

    The script must end in an exec, be of calls only, and stay as it is until then. Signals that have a handler get
    their default: the stack is the maker's. What fails stands in the script: the process ends with status 1. An
    oom_score_adj that is written while the memory is shared is the maker's as well. Raises OSError.
    """
    code = _code()
    if code is None or not script.only_calls:
        raise ValueError("this script needs an interpreter")
    every = flags | CLONE_VM | CLONE_CLEAR_SIGHAND
    return clone3_by(address_of(code), script.first, every, exit_signal=exit_signal, cgroup_fd=cgroup_fd)
