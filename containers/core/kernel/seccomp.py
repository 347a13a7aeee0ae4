"""Which system calls a container may make: an allow-list, compiled to BPF by libseccomp.

What is known to be dangerous or useless inside fails with EPERM, as if for want of a right; everything else that is
not listed fails with ENOSYS, as if this kernel were older: libraries then fall back. 32-bit programs (i386 on x86_64,
arm on aarch64) get the same rules; x32 fails as unknown.

clone3 passes its flags in memory, which a filter cannot see: it is ENOSYS, and libc falls back to clone.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ..plans.seccomp_profile import ALLOW, Profile, Rule
from .libseccomp import (
    ACT_ALLOW,
    ARCH_AARCH64,
    ARCH_ARM,
    ARCH_X86,
    ARCH_X86_64,
    CMP_EQ,
    CMP_MASKED_EQ,
    Filter,
    act_errno,
)

_AF_ALG: Final = 38
_AF_VSOCK: Final = 40
_CLONE_NEWUSER: Final = 0x10000000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C

ALLOWED: Final = """
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod
    chown chown32 chroot clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_init fanotify_mark fchdir
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsconfig fsetxattr fsmount fsopen fspick fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_mempolicy
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
    listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    mbind membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
    modify_ldt mount mount_setattr move_mount mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat open open_tree open_tree_attr openat openat2
    pause personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pivot_root pkey_alloc pkey_free pkey_mprotect
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 quotactl quotactl_fd read readahead
    readlink readlinkat readv reboot recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64
    send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list
    set_thread_area set_tid_address setdomainname setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 sethostname setitimer setns setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl
    shmdt shmget shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn
    sigsuspend socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask umount umount2 uname unlink
    unlinkat utime utimensat utimensat_time64 utimes uretprobe uprobe vfork vhangup vmsplice wait4 waitid waitpid
    write writev
    arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls get_tls
""".split()

REFUSED: Final = """
    acct add_key bpf clock_settime clock_settime64 create_module delete_module finit_module get_kernel_syms
    init_module ioperm iopl io_uring_enter io_uring_register io_uring_setup kcmp kexec_file_load kexec_load keyctl
    lookup_dcookie migrate_pages move_pages nfsservctl open_by_handle_at perf_event_open query_module request_key
    settimeofday stime swapoff swapon sysfs syslog _sysctl uselib userfaultfd ustat vm86 vm86old
""".split()
"""Fails with EPERM, so that a program sees that it may not, rather than that it runs on an old kernel."""

KEYCTL_ALLOWED: Final = ("add_key", "keyctl", "request_key")
"""Each container begins with an empty session keyring of its own; keyrings of a user namespace's users are its own."""
NESTING_ALLOWED: Final = (*KEYCTL_ALLOWED, "bpf")
"""An inner runtime needs them; the kernel confines them to the user namespace."""
STARTING: Final = """
    brk capset chdir clone close close_range dup dup2 dup3 execve execveat exit exit_group fcntl fork fstat futex
    getcwd getdents64 getpid getrandom getrlimit gettid ioctl lseek mmap mprotect munmap newfstatat openat pidfd_open
    pipe2 poll ppoll prctl prlimit64 read recvmsg rt_sigaction rt_sigprocmask rt_sigreturn seccomp sendmsg setgid
    setgroups setpgid setresgid setresuid setrlimit setsid setuid stat umask wait4 waitid write
""".split()
"""What is done between the filter and the command's first instruction: a profile that lists what is allowed need not
list these, unless it says something else of them."""


_ARGUMENTS: Final = ("clone", "ioctl", "socket", "socketcall", "unshare")
"""Allowed by the first filter; the second looks at their arguments."""


def compile_profile(
    *, nesting: bool, keyctl: bool = False, custom: Profile | None = None, instead: bool = False
) -> tuple[bytes, ...]:
    """Return BPF programs, all of which a container's processes carry; the kernel takes the strictest answer.

    The first allows by number alone, which the kernel remembers per call and then decides without running it. The
    second refuses by argument. nesting: containers inside the container are meant to work. keyctl: it may use key
    rings. custom: an administrator's, beside the first or instead of it. Raises OSError where libseccomp is missing,
    or where it does not take a rule. Costs about 20 ms and some MB of memory.
    """
    programs = [_by_argument(nesting=nesting)]
    if custom is None or not instead:
        programs.insert(0, _by_number(nesting=nesting, keyctl=keyctl))
    if custom is not None:
        programs.append(_custom(custom))
    return tuple(programs)


def _filter(default_action: int) -> Filter:
    rules = Filter(default_action)
    extra = {"x86_64": ARCH_X86, "aarch64": ARCH_ARM}.get(os.uname().machine)
    if extra is not None:
        rules.add_architecture(extra)
    rules.set_foreign_action(act_errno(errno.ENOSYS))
    rules.optimize()
    return rules


def _by_number(*, nesting: bool, keyctl: bool) -> bytes:
    with _filter(act_errno(errno.ENOSYS)) as rules:
        more = NESTING_ALLOWED if nesting else KEYCTL_ALLOWED if keyctl else ()
        allowed = {*ALLOWED, *_ARGUMENTS, *more}
        for name in sorted(allowed):
            rules.add(ACT_ALLOW, name)
        for name in REFUSED:
            if name not in allowed:
                rules.add(act_errno(errno.EPERM), name)
        return rules.export()


def _by_argument(*, nesting: bool) -> bytes:
    with _filter(ACT_ALLOW) as rules:
        # families with a history of holes that containers have no use for; i386's socketcall(2), which hides its
        # arguments behind a pointer, is refused for every socket: libc has used socket(2) since 2015
        for family in (_AF_ALG, _AF_VSOCK):
            rules.add(act_errno(errno.EAFNOSUPPORT), "socket", (0, CMP_EQ, family, 0))
        # what pushes bytes into another's terminal input: TIOCSTI, and TIOCLINUX's paste (CVE-2017-5226)
        for request in (_TIOCSTI, _TIOCLINUX):
            rules.add(act_errno(errno.EPERM), "ioctl", (1, CMP_MASKED_EQ, 0xFFFFFFFF, request))
        # inner user namespaces widen what an attacker reaches in the kernel: only where they are asked for
        if not nesting:
            for name in ("clone", "unshare"):
                rules.add(act_errno(errno.EPERM), name, (0, CMP_MASKED_EQ, _CLONE_NEWUSER, _CLONE_NEWUSER))
        return rules.export()


_TOKENS: Final = {"x86_64": ARCH_X86_64, "i386": ARCH_X86, "arm64": ARCH_AARCH64, "arm": ARCH_ARM}
_OF_MACHINE: Final = {"x86_64": ("x86_64", "i386"), "aarch64": ("arm64", "arm")}


def _custom(profile: Profile) -> bytes:
    """Compile an administrator's profile: each architecture by itself, as a rule may be for one alone."""
    listed = profile.default != ALLOW
    whole: Filter | None = None
    try:
        for architecture in _OF_MACHINE[os.uname().machine]:
            part = Filter(profile.default)
            try:
                part.set_foreign_action(act_errno(errno.ENOSYS))
                part.optimize()
                part.only_architecture(_TOKENS[architecture])
                _add(part, [rule for rule in profile.rules if architecture in rule.architectures], starting=listed)
            except BaseException:
                part.__exit__()
                raise
            if whole is None:
                whole = part
            else:
                whole.merge(part)
        assert whole is not None
        return whole.export()
    finally:
        if whole is not None:
            whole.__exit__()


def _add(part: Filter, rules: list[Rule], *, starting: bool) -> None:
    named = {rule.name for rule in rules}
    for rule in rules:
        if rule.action != part.default_action:
            # a call that this library does not know has no number that it could be filtered by
            part.add(rule.action, rule.name, *rule.comparisons)
    for name in STARTING if starting else ():
        if name not in named:
            part.add(ACT_ALLOW, name)
