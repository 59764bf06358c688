//! The mediator: serves the view below its root directory, with the threads that it starts.

use super::{
    ASSERTIONS, F_GETFD, HEAP, List, NO_VDSO, PANIC, PANICS, PROT_EXEC, READ_BACK, Rule, STOPPED,
    Value, always, arg, only,
};

/// The calls of [`MEDIATOR`] that take a mode, and which argument that is: openat(2), fchmod(2),
/// fchmodat(2), mkdirat(2), mknodat(2).
const MODES: [(libc::c_long, u8); 5] = [
    (libc::SYS_openat, 3),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_mkdirat, 2),
    (libc::SYS_mknodat, 2),
];

/// What is refused besides: call, argument, and a bit of it. `given` are the set-id bits that the
/// policy can give.
#[cfg_attr(
    test,
    allow(dead_code, reason = "the test of the lists knows no policy")
)]
pub(crate) fn set_id_rules(given: u32) -> Vec<(libc::c_long, u8, u64)> {
    const S_ISUID: u32 = 0o4000;
    const S_ISGID: u32 = 0o2000;
    let refused = [S_ISUID, S_ISGID]
        .into_iter()
        .filter(|bit| given & bit == 0);
    refused
        .flat_map(|bit| MODES.map(|(call, argument)| (call, argument, u64::from(bit))))
        .collect()
}

/// Flags of glibc's pthread_create: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
/// CHILD_CLEARTID. Without any of the namespace flags, and without any that could be left out.
const THREAD: u64 = 0x003d_0f00;
const S_IFMT: u64 = 0o170_000;
const S_IFIFO: u64 = 0o010_000;
const S_IFSOCK: u64 = 0o140_000;
const F_DUPFD_CLOEXEC: u64 = 1030;
const FIONBIO: u64 = 0x5421;
const PR_SET_NAME: u64 = 15;
const RWF_APPEND: u64 = 0x10;
const MSG_NOSIGNAL: u64 = 0x4000;
const SOL_SOCKET: u64 = 1;
const SO_RCVTIMEO: u64 = 20;
const SO_SNDTIMEO: u64 = 21;

/// Given: the detached `/proc/self/fd`; also, where file data may go past the mediator, the socket to
/// its registrar.
pub(crate) const MEDIATOR: List = List {
    name: "the mediator",
    allowed: &[OWN, HEAP, PANIC, READ_BACK],
    absent: ABSENT,
};

const ABSENT: &[Rule] = &[
    always(
        libc::SYS_clone3,
        "glibc falls back to clone, whose flags a filter can see",
    ),
    always(libc::SYS_getcwd, "a panic's backtrace; it goes on without").rare(PANICS),
    #[cfg(target_arch = "x86_64")]
    always(
        libc::SYS_readlink,
        "a panic's backtrace asks for /proc/self/exe; it goes on without",
    )
    .rare(PANICS),
];

const OWN: &[Rule] = &[
    // Requests and answers, and the log.
    always(
        libc::SYS_read,
        "/dev/fuse, a question on the control socket",
    ),
    always(libc::SYS_write, "the log, the word that the view is ready"),
    always(libc::SYS_writev, "answers to /dev/fuse"),
    always(libc::SYS_close, "descriptors come and go"),
    // Files of the export: by descriptor, and by one name below a descriptor.
    always(libc::SYS_openat, "OPEN, OPENDIR, CREATE, LOOKUP"),
    always(libc::SYS_statx, "GETATTR, and each node's identity"),
    always(libc::SYS_fstatfs, "STATFS"),
    always(libc::SYS_pread64, "READ"),
    always(libc::SYS_pwrite64, "WRITE"),
    only(
        libc::SYS_pwritev2,
        &[arg(5, Value::Is(RWF_APPEND))],
        "WRITE of a client that appends: files are not opened so",
    ),
    always(libc::SYS_lseek, "LSEEK; a directory's cookies"),
    always(libc::SYS_getdents64, "READDIR"),
    always(libc::SYS_fsync, "FSYNC, FSYNCDIR"),
    always(libc::SYS_fdatasync, "FSYNC of data alone"),
    always(libc::SYS_ftruncate, "SETATTR of the size"),
    always(libc::SYS_fallocate, "FALLOCATE"),
    always(libc::SYS_copy_file_range, "COPY_FILE_RANGE"),
    always(
        libc::SYS_fchmod,
        "SETATTR of the mode of a file that is open",
    ),
    always(libc::SYS_fchmodat, "SETATTR of the mode, by /proc/self/fd"),
    always(libc::SYS_fchownat, "SETATTR of the owner, by descriptor"),
    always(libc::SYS_utimensat, "SETATTR of times, by descriptor"),
    always(libc::SYS_mkdirat, "MKDIR"),
    // Never a device; a regular file is made by openat.
    only(
        libc::SYS_mknodat,
        &[arg(2, Value::Masked(S_IFMT, S_IFIFO))],
        "MKNOD of FIFOs",
    ),
    only(
        libc::SYS_mknodat,
        &[arg(2, Value::Masked(S_IFMT, S_IFSOCK))],
        "MKNOD of sockets",
    ),
    always(libc::SYS_symlinkat, "SYMLINK"),
    always(libc::SYS_readlinkat, "READLINK"),
    always(libc::SYS_linkat, "LINK; a name for a new file"),
    always(libc::SYS_unlinkat, "UNLINK, RMDIR"),
    always(libc::SYS_renameat2, "RENAME2"),
    always(libc::SYS_fgetxattr, "GETXATTR of a file that is open"),
    always(libc::SYS_getxattr, "GETXATTR, by /proc/self/fd"),
    always(libc::SYS_listxattr, "LISTXATTR, by /proc/self/fd"),
    always(libc::SYS_setxattr, "SETXATTR, by /proc/self/fd"),
    always(libc::SYS_removexattr, "REMOVEXATTR, by /proc/self/fd"),
    only(
        libc::SYS_fchdir,
        &[arg(0, Value::Given)],
        "once: xattr calls take paths, so /proc/self/fd is the working directory",
    ),
    only(
        libc::SYS_fcntl,
        &[arg(1, Value::Is(F_DUPFD_CLOEXEC))],
        "FLUSH closes a copy",
    ),
    only(
        libc::SYS_fcntl,
        &[arg(1, Value::Is(F_GETFD))],
        "std asks before it closes",
    )
    .rare(ASSERTIONS),
    always(
        libc::SYS_geteuid,
        "whether a new file is already its owner's",
    ),
    // The control socket, which listens already: no call that makes or connects one.
    always(libc::SYS_accept4, "the control socket"),
    always(libc::SYS_recvfrom, "a question"),
    only(
        libc::SYS_sendto,
        &[arg(4, Value::AllOf(0))],
        "an answer; to the connected end only",
    ),
    always(libc::SYS_shutdown, "ends the control thread's accept4"),
    only(
        libc::SYS_setsockopt,
        &[
            arg(1, Value::Is(SOL_SOCKET)),
            arg(2, Value::Is(SO_RCVTIMEO)),
        ],
        "a caller that says nothing is dropped",
    ),
    only(
        libc::SYS_setsockopt,
        &[
            arg(1, Value::Is(SOL_SOCKET)),
            arg(2, Value::Is(SO_SNDTIMEO)),
        ],
        "a caller that does not read is dropped",
    ),
    only(
        libc::SYS_ioctl,
        &[arg(1, Value::Is(FIONBIO))],
        "std's set_nonblocking on the control socket; the audit records' pipe",
    ),
    // No recvmsg: no descriptor comes in.
    only(
        libc::SYS_sendmsg,
        &[arg(0, Value::Also(1)), arg(2, Value::Is(MSG_NOSIGNAL))],
        "hands an open file to the registrar; to nobody else",
    ),
    // Memory, besides the heap.
    only(
        libc::SYS_mprotect,
        &[arg(2, Value::Masked(PROT_EXEC, 0))],
        "malloc's arenas, guard pages",
    ),
    always(libc::SYS_madvise, "malloc, stacks of ended threads"),
    // Threads.
    only(
        libc::SYS_clone,
        &[arg(0, Value::AllOf(THREAD))],
        "pthread_create: threads, never processes or namespaces",
    ),
    always(libc::SYS_set_robust_list, "the start of a thread"),
    always(libc::SYS_rseq, "the start of a thread"),
    always(libc::SYS_sched_getaffinity, "the stack of a thread (glibc)"),
    always(libc::SYS_sched_yield, "a queue's short wait (crossbeam)")
        .rare("only when two threads meet there"),
    always(libc::SYS_sigaltstack, "std: stack overflow is told"),
    always(libc::SYS_futex, "locks, joining threads"),
    always(libc::SYS_exit, "the end of a thread"),
    always(libc::SYS_exit_group, "the end of the process"),
    only(
        libc::SYS_prctl,
        &[arg(0, Value::Is(PR_SET_NAME))],
        "threads' names",
    ),
    // Time and chance.
    always(libc::SYS_clock_gettime, "clocks").rare(NO_VDSO),
    always(libc::SYS_clock_nanosleep, "a short wait")
        .rare("only when the control socket finds no descriptor or no memory left"),
    always(libc::SYS_getrandom, "keys of hash tables")
        .rare("only when the start has drawn none: std keeps them for each thread"),
    always(libc::SYS_restart_syscall, "a short wait goes on").rare(STOPPED),
    // Signals.
    always(
        libc::SYS_rt_sigaction,
        "the first thread (glibc's own signal); std's handler of SIGSEGV gives way to the kernel's",
    ),
    always(libc::SYS_rt_sigreturn, "the end of that handler").rare(FAULTS),
];

const FAULTS: &str = "only when a fault of ours touches memory that is not there";
