"""Carries out a script (core.kernel.script) without an interpreter, and lets a process begin in the middle of one.

After a fork each page that either process writes to is copied, and an interpreter writes to hundreds by being used:
that was most of what a start cost. A process made with CLONE_VM copies nothing, but must not touch what its maker uses.
One that is made by a script goes on in that script, by registers and the script's memory alone; it has no need of a
stack, and none is given to it. Its maker goes on meanwhile, and the memory parts at the exec. Signals that have a
handler must get their default in it (CLONE_CLEAR_SIGHAND), as the stack is its maker's; an oom_score_adj that is
written while the memory is shared is its maker's as well.
Sources: clone(2), syscall(2); kernel fs/proc/base.c, __set_oom_adj.

Machine code cannot be had from Python otherwise, so it is here as bytes, with what they mean beside them; it goes
through the entries of a script and knows nothing of what they are for. A machine for which there is none has forks.
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import Final

from .numbers import NUMBERS
from .syscalls import address_of, call_by_number, run_code

_X86_64: Final = bytes.fromhex(
    "53"  # push rbx                         run(rdi: the first entry)
    "4154"  # push r12
    "4156"  # push r14
    "4889fb"  # mov rbx, rdi                 the entry that it is at
    "4989fe"  # mov r14, rdi                 the first one
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
    "7853"  # js special
    "0f05"  # syscall
    "488b4b38"  # keep: mov rcx, [rbx+56]    where the result goes, which is 0 already:
    "85c0"  # test eax, eax                  a process just made must not undo what its maker knows
    "7402"  # jz kept
    "8901"  # mov [rcx], eax
    "483d00f0ffff"  # kept: cmp rax, -4096
    "7713"  # ja failed
    "8b4b4c"  # mov ecx, [rbx+76]            how far to the next
    "85c0"  # test eax, eax
    "7507"  # jnz go
    "8b4b54"  # mov ecx, [rbx+84]            and after a 0
    "85c9"  # test ecx, ecx
    "781d"  # js end
    "4801cb"  # go: add rbx, rcx
    "eb9f"  # jmp next
    "8b4b50"  # failed: mov ecx, [rbx+80]    how far after a tolerated error
    "41f6c440"  # test r12b, 64              are all?
    "75f2"  # jnz go
    "3b4340"  # cmp eax, [rbx+64]
    "74ed"  # je go
    "3b4344"  # cmp eax, [rbx+68]
    "74e8"  # je go
    "3b4348"  # cmp eax, [rbx+72]
    "74e3"  # je go
    "49895ee0"  # end: mov [r14-32], rbx     the head of the script
    "498946e8"  # mov [r14-24], rax
    "bf01000000"  # mov edi, 1
    "b8e7000000"  # mov eax, 231             exit_group(1)
    "0f05"  # syscall
    "3d00000080"  # special: cmp eax, OR
    "7506"  # jne return
    "0937"  # or [rdi], esi
    "31c0"  # xor eax, eax
    "eba2"  # jmp keep
    "b801000000"  # return: mov eax, 1        STOP: write(2), with its arguments; after that the script may be another
    "0f05"  # syscall
    "415e"  # pop r14
    "415c"  # pop r12
    "5b"  # pop rbx
    "c3"  # ret
)
_CODE: Final = {"x86_64": _X86_64}


@functools.cache
def _code() -> mmap.mmap | None:
    """Return the machine code, executable; None for a machine without one, or a host that does not allow it."""
    code = _CODE.get(os.uname().machine)
    if code is None:
        return None
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(code)
    # from here on nobody writes to it
    rights = mmap.PROT_READ | mmap.PROT_EXEC
    refused = call_by_number(NUMBERS["mprotect"], address_of(memory), mmap.PAGESIZE, rights)
    return memory if refused == 0 else None


def available() -> bool:
    """Tell whether scripts can be carried out here without an interpreter; the first call prepares for it."""
    return _code() is not None


def run(first: int) -> None:
    """Carry out the script whose first entry is at an address, up to where it stops; results stand in the script.

    An error that is not tolerated ends this process, with status 1, and so does an end of file. A process that is made
    on the way goes on where the call says, and never returns: it must come to an exec.
    """
    code = _code()
    if code is None:
        raise ValueError("no script is carried out on this machine")
    run_code(address_of(code), first)
