"""The system calls that reading an archive, or a server's answer, takes.

Every other one is ENOSYS, as if the kernel were older.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from ..kernel.libseccomp import ACT_ALLOW, CMP_MASKED_EQ, Filter, act_errno
from ..kernel.syscalls import pack_filters

_BOTH: Final = """
    brk clock_gettime clock_nanosleep close dup dup2 dup3 epoll_pwait exit exit_group fadvise64 fallocate fcntl fstat
    fstatfs ftruncate futex getdents64 getegid geteuid getgid getpid getppid getrandom gettid gettimeofday getuid ioctl
    lseek madvise mmap mprotect mremap munmap nanosleep newfstatat openat poll ppoll pread64 pselect6 pwrite64 read
    readlinkat readv restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield select
    set_robust_list sigaltstack stat lstat open readlink statx sysinfo uname write writev
""".split()
_TREE: Final = """
    chmod chown copy_file_range fchdir fchmod fchmodat fchmodat2 fchown fchownat fsetxattr lchown link linkat lsetxattr
    mkdir mkdirat mknod mknodat rmdir setxattr symlink symlinkat unlink unlinkat utimensat
""".split()
_PROGRAM: Final = """
    access arch_prctl clone execve faccessat faccessat2 fsync getrlimit getrusage pipe pipe2 prctl prlimit64
    set_tid_address times umask
""".split()
_CONNECTION: Final = """
    brk clock_gettime close epoll_pwait exit exit_group fcntl fstat futex getpeername getpid getrandom getsockname
    getsockopt gettid gettimeofday ioctl lseek madvise mmap mprotect mremap munmap newfstatat poll ppoll read readv
    recvfrom recvmsg restart_syscall rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sendmsg sendto setsockopt
    shutdown sigaltstack write writev
""".split()
"""What speaking over sockets takes that others have connected: none to make one, or to lead one elsewhere."""
_CLONE_THREAD: Final = 0x00010000


def compile_list(*, program: bool, more: Iterable[str] = ()) -> bytes:
    """Return the filter, as syscalls.load_seccomp takes it: a program of the host's, or the maker of a tree.

    more: names of calls that are allowed besides.
    A program may make threads, no process. Raises OSError where libseccomp is missing.
    """
    return _compiled((*_BOTH, *(_PROGRAM if program else _TREE), *more), threads=program)


def compile_connection() -> bytes:
    """Return the filter of a process that opens no file and no connection: those that it is given are all it has."""
    return _compiled(_CONNECTION, threads=False)


def _compiled(names: Iterable[str], *, threads: bool) -> bytes:
    with Filter(act_errno(errno.ENOSYS)) as found:
        found.optimize()
        for name in names:
            if name != "clone":
                found.add(ACT_ALLOW, name)
        if threads:
            # libc falls back to it from clone3, whose flags a filter cannot see
            found.add(ACT_ALLOW, "clone", (0, CMP_MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
        return pack_filters([found.export()])
