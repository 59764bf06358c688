//! The system calls of a mediator, as data: what it needs, with what arguments, and why.
//!
//! What is absent is forbidden; among the absent are `socket`, `connect`, `execve`, `fork` in any
//! spelling, `open_by_handle_at`, `ptrace`, `mount` and its kin, `unshare`, `setns`, `io_uring_*`,
//! `bpf`, `keyctl`, `userfaultfd`, `kill`, `setuid` and its kin.

/// One system call.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its number on this processor.
    pub(crate) call: libc::c_long,
    /// It may be called if all checks of one of these hold; if there are none, always.
    pub(crate) ways: &'static [&'static [Check]],
    /// What needs it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by people and by the test")
    )]
    pub(crate) why: &'static str,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    /// Which; from 0.
    pub(crate) argument: u8,
    pub(crate) value: Value,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// This number; 32 bits, for arguments that the kernel takes as `int`.
    Is(u64),
    /// This number; all 64 bits.
    AllOf(u64),
    /// The null pointer.
    Null,
    /// The bits of the mask (first) are these (second).
    Masked(u64, u64),
    /// The descriptor of the detached `/proc/self/fd`.
    ProcFd,
}

const fn always(call: libc::c_long, why: &'static str) -> Rule {
    Rule {
        call,
        ways: &[],
        why,
    }
}

const fn only(call: libc::c_long, ways: &'static [&'static [Check]], why: &'static str) -> Rule {
    Rule { call, ways, why }
}

const fn arg(argument: u8, value: Value) -> Check {
    Check { argument, value }
}

// Constants of the kernel's user interface, as the 64 bits that a filter compares.
const PROT_EXEC: u64 = 0x4;
/// Flags of glibc's pthread_create: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
/// CHILD_CLEARTID. Without any of the namespace flags, and without any that could be left out.
const THREAD: u64 = 0x003d_0f00;
const S_IFMT: u64 = 0o170_000;
const S_IFREG: u64 = 0o100_000;
const S_IFIFO: u64 = 0o010_000;
const S_IFSOCK: u64 = 0o140_000;
const F_GETFD: u64 = 1;
const F_DUPFD_CLOEXEC: u64 = 1030;
const FIONBIO: u64 = 0x5421;
const PR_SET_NAME: u64 = 15;
const PR_GET_SECCOMP: u64 = 21;
const SIGABRT: u64 = 6;
const SOL_SOCKET: u64 = 1;
const SO_RCVTIMEO: u64 = 20;
const SO_SNDTIMEO: u64 = 21;

/// Answered with ENOSYS instead of an end: who asks has another way.
pub(crate) const ABSENT: &[Rule] = &[
    always(
        libc::SYS_clone3,
        "glibc falls back to clone, whose flags a filter can see",
    ),
    always(libc::SYS_getcwd, "a panic's backtrace; it goes on without"),
    #[cfg(target_arch = "x86_64")]
    always(
        libc::SYS_readlink,
        "a panic's backtrace asks for /proc/self/exe; it goes on without",
    ),
];

/// What a mediator may call.
pub(crate) const ALLOWED: &[Rule] = &[
    // Requests and answers, and the log.
    always(
        libc::SYS_read,
        "/dev/fuse, a question on the control socket",
    ),
    always(libc::SYS_write, "the log, the word that the view is ready"),
    always(libc::SYS_writev, "answers to /dev/fuse"),
    always(libc::SYS_close, "descriptors come and go"),
    // rustix::stdio::dup2_stderr takes dup2 where there is one.
    only(
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2,
        #[cfg(not(target_arch = "x86_64"))]
        libc::SYS_dup3,
        &[&[arg(1, Value::Is(2))]],
        "a view in the background lets go of standard error",
    ),
    // Files of the export: by descriptor, and by one name below a descriptor.
    always(libc::SYS_openat, "OPEN, OPENDIR, CREATE, TMPFILE, LOOKUP"),
    always(libc::SYS_statx, "GETATTR, and each node's identity"),
    always(libc::SYS_fstatfs, "STATFS"),
    always(libc::SYS_pread64, "READ"),
    always(libc::SYS_pwrite64, "WRITE"),
    always(libc::SYS_lseek, "LSEEK; a directory's cookies"),
    always(libc::SYS_getdents64, "READDIR"),
    always(libc::SYS_fsync, "FSYNC, FSYNCDIR"),
    always(libc::SYS_fdatasync, "FSYNC of data alone"),
    always(libc::SYS_ftruncate, "SETATTR of the size"),
    always(libc::SYS_fallocate, "FALLOCATE"),
    always(libc::SYS_copy_file_range, "COPY_FILE_RANGE"),
    always(libc::SYS_fchmodat, "SETATTR of the mode, by /proc/self/fd"),
    always(libc::SYS_fchownat, "SETATTR of the owner, by descriptor"),
    always(libc::SYS_utimensat, "SETATTR of times, by descriptor"),
    always(libc::SYS_mkdirat, "MKDIR"),
    only(
        libc::SYS_mknodat,
        &[
            &[arg(2, Value::Masked(S_IFMT, S_IFREG))],
            &[arg(2, Value::Masked(S_IFMT, S_IFIFO))],
            &[arg(2, Value::Masked(S_IFMT, S_IFSOCK))],
        ],
        "MKNOD of files, FIFOs and sockets: never of a device",
    ),
    always(libc::SYS_symlinkat, "SYMLINK"),
    always(libc::SYS_readlinkat, "READLINK"),
    always(libc::SYS_linkat, "LINK; a name for a new file"),
    always(libc::SYS_unlinkat, "UNLINK, RMDIR"),
    always(libc::SYS_renameat2, "RENAME2"),
    always(libc::SYS_getxattr, "GETXATTR, by /proc/self/fd"),
    always(libc::SYS_listxattr, "LISTXATTR, by /proc/self/fd"),
    always(libc::SYS_setxattr, "SETXATTR, by /proc/self/fd"),
    always(libc::SYS_removexattr, "REMOVEXATTR, by /proc/self/fd"),
    only(
        libc::SYS_fchdir,
        &[&[arg(0, Value::ProcFd)]],
        "once: xattr calls take paths, so /proc/self/fd is the working directory",
    ),
    only(
        libc::SYS_fcntl,
        &[
            &[arg(1, Value::Is(F_DUPFD_CLOEXEC))],
            &[arg(1, Value::Is(F_GETFD))],
        ],
        "FLUSH closes a copy; std's builds with assertions ask whether a descriptor is open",
    ),
    always(
        libc::SYS_geteuid,
        "whether a new file is already its owner's",
    ),
    // The control socket, which listens already: no call that makes or connects one.
    always(libc::SYS_accept4, "the control socket"),
    always(libc::SYS_recvfrom, "a question"),
    only(
        libc::SYS_sendto,
        &[&[arg(4, Value::Null)]],
        "an answer; to the connected end only",
    ),
    always(libc::SYS_shutdown, "ends the control thread's accept4"),
    only(
        libc::SYS_setsockopt,
        &[
            &[
                arg(1, Value::Is(SOL_SOCKET)),
                arg(2, Value::Is(SO_RCVTIMEO)),
            ],
            &[
                arg(1, Value::Is(SOL_SOCKET)),
                arg(2, Value::Is(SO_SNDTIMEO)),
            ],
        ],
        "a caller that says nothing is dropped",
    ),
    only(
        libc::SYS_ioctl,
        &[&[arg(1, Value::Is(FIONBIO))]],
        "std's set_nonblocking on the control socket",
    ),
    // Memory; nothing that can be run is ever mapped.
    only(
        libc::SYS_mmap,
        &[&[arg(2, Value::Masked(PROT_EXEC, 0))]],
        "malloc, thread stacks",
    ),
    only(
        libc::SYS_mprotect,
        &[&[arg(2, Value::Masked(PROT_EXEC, 0))]],
        "malloc's arenas, guard pages",
    ),
    always(libc::SYS_munmap, "malloc, thread stacks"),
    always(libc::SYS_mremap, "realloc of large blocks"),
    always(libc::SYS_madvise, "malloc, stacks of ended threads"),
    always(libc::SYS_brk, "malloc"),
    // Threads.
    only(
        libc::SYS_clone,
        &[&[arg(0, Value::AllOf(THREAD))]],
        "pthread_create: threads, never processes or namespaces",
    ),
    always(libc::SYS_set_robust_list, "the start of a thread"),
    always(libc::SYS_rseq, "the start of a thread"),
    always(libc::SYS_sched_getaffinity, "the stack of a thread (glibc)"),
    always(libc::SYS_sched_yield, "waiting for a lock"),
    always(libc::SYS_sigaltstack, "std: stack overflow is told"),
    always(libc::SYS_futex, "locks, joining threads"),
    always(libc::SYS_exit, "the end of a thread"),
    always(libc::SYS_exit_group, "the end of the process"),
    only(
        libc::SYS_prctl,
        &[
            &[arg(0, Value::Is(PR_SET_NAME))],
            &[arg(0, Value::Is(PR_GET_SECCOMP))],
        ],
        "threads' names; this wall is read back",
    ),
    // Time and chance.
    always(libc::SYS_clock_gettime, "clocks, where the vDSO cannot"),
    always(libc::SYS_clock_nanosleep, "a short wait out of descriptors"),
    always(libc::SYS_getrandom, "keys of hash tables"),
    always(libc::SYS_restart_syscall, "a wait goes on after a stop"),
    // A panic: abort.
    always(libc::SYS_rt_sigprocmask, "abort; the start of a thread"),
    always(libc::SYS_rt_sigaction, "abort"),
    always(libc::SYS_rt_sigreturn, "the end of a signal handler"),
    always(libc::SYS_getpid, "abort"),
    always(libc::SYS_gettid, "abort; the name in a panic's message"),
    only(
        libc::SYS_tgkill,
        &[&[arg(2, Value::Is(SIGABRT))]],
        "abort: no other signal",
    ),
];
