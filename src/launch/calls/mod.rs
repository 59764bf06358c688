//! The system calls of our processes, as data: what each needs, with what arguments, and why. One
//! list for each kind of process.
//!
//! What is absent is forbidden; absent from every list are `socket`, `connect`, `execve`, `fork` in
//! any spelling, `open_by_handle_at`, `ptrace`, `mount` and its kin, `unshare`, `setns`,
//! `io_uring_*`, `bpf`, `keyctl`, `userfaultfd`, `kill`, `setuid` and its kin.
//!
//! A test runs the program under strace and fails for a row that nothing needs, so these files know
//! nothing but libc.

mod init;
mod keeper;
mod mediator;
mod registrar;
mod relay;

pub(crate) use init::{INIT, WARDEN};
pub(crate) use keeper::KEEPER;
pub(crate) use mediator::{MEDIATOR, set_id_rules};
pub(crate) use registrar::{BACKING_CLOSE, BACKING_OPEN, REGISTRAR};
pub(crate) use relay::{AUDIT, RELAY};

/// What one kind of process may call.
#[derive(Debug)]
pub(crate) struct List {
    /// Which, for errors.
    pub(crate) name: &'static str,
    /// What runs, in parts.
    pub(crate) allowed: &'static [&'static [Rule]],
    /// Answered with ENOSYS instead of an end: who asks has another way.
    pub(crate) absent: &'static [Rule],
}

/// One system call with one set of arguments. A call may have several rows.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its number on this processor.
    pub(crate) call: libc::c_long,
    /// It may be called if all of these hold.
    pub(crate) checks: &'static [Check],
    /// What needs it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by people and by the tests")
    )]
    pub(crate) why: &'static str,
    /// Why it stays although the tests may not see it called.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by people and by the tests")
    )]
    pub(crate) rare: Option<&'static str>,
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
    /// The bits of the mask (first) are these (second).
    Masked(u64, u64),
    /// The one descriptor that the list is built around.
    Given,
    /// A further one, from 1. A row about one that the process does not have is left out.
    Also(u8),
}

/// With `--debug`, for every list: the number of a call that is not listed is told.
pub(crate) const TELLING: &[Rule] = &[
    only(
        libc::SYS_write,
        &[arg(0, Value::Is(2))],
        "the number, on standard error",
    )
    .rare("only when a call is not listed"),
    always(libc::SYS_exit_group, "the end").rare("only when a call is not listed"),
];

const fn always(call: libc::c_long, why: &'static str) -> Rule {
    only(call, &[], why)
}

const fn only(call: libc::c_long, checks: &'static [Check], why: &'static str) -> Rule {
    Rule {
        call,
        checks,
        why,
        rare: None,
    }
}

impl Rule {
    const fn rare(self, only_when: &'static str) -> Self {
        Self {
            rare: Some(only_when),
            ..self
        }
    }
}

const fn arg(argument: u8, value: Value) -> Check {
    Check { argument, value }
}

// What several lists need of the kernel's user interface, as the 64 bits that a filter compares.
const PROT_EXEC: u64 = 0x4;
const PR_GET_SECCOMP: u64 = 21;
const F_GETFD: u64 = 1;
const SIGABRT: u64 = 6;
const AT_REMOVEDIR: u64 = 0x200;
// The same on every processor but for the last two, which libc knows.
const O_ACCMODE: u64 = 0o3;
const O_CREAT: u64 = 0o100;
const O_DIRECTORY: u64 = libc::O_DIRECTORY as u64;
const O_NOFOLLOW: u64 = libc::O_NOFOLLOW as u64;
/// What decides whether an open can create, write or follow.
const OPEN_KIND: u64 = O_ACCMODE | O_CREAT | O_DIRECTORY | O_NOFOLLOW;

/// What `poll` of the C library calls.
#[cfg(target_arch = "x86_64")]
const POLL: libc::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: libc::c_long = libc::SYS_ppoll;

/// What rustix::stdio::dup2_stderr calls.
#[cfg(target_arch = "x86_64")]
const DUP2: libc::c_long = libc::SYS_dup2;
#[cfg(not(target_arch = "x86_64"))]
const DUP2: libc::c_long = libc::SYS_dup3;

// Parts of several lists.

/// This wall is the last, and it is read back from within.
const READ_BACK: &[Rule] = &[only(
    libc::SYS_prctl,
    &[arg(0, Value::Is(PR_GET_SECCOMP))],
    "this wall is read back",
)];

/// Nothing that can be run is ever mapped.
const HEAP: &[Rule] = &[
    always(libc::SYS_brk, "malloc").rare(GROWS),
    only(
        libc::SYS_mmap,
        &[arg(2, Value::Masked(PROT_EXEC, 0))],
        "malloc of large blocks",
    )
    .rare(GROWS),
    always(libc::SYS_mremap, "realloc of large blocks").rare(GROWS),
    always(libc::SYS_munmap, "free of large blocks").rare(GROWS),
];

/// Removing the views' directories below the one that the list is built around.
const REMOVAL: &[Rule] = &[
    only(
        libc::SYS_openat,
        &[
            arg(0, Value::Given),
            arg(2, Value::Masked(OPEN_KIND, O_DIRECTORY | O_NOFOLLOW)),
        ],
        "a view's directory, to list nothing and to remove from it",
    ),
    only(
        libc::SYS_unlinkat,
        &[arg(2, Value::Is(0))],
        "the files in it",
    ),
    only(
        libc::SYS_unlinkat,
        &[arg(0, Value::Given), arg(2, Value::Is(AT_REMOVEDIR))],
        "the directory itself",
    ),
    always(libc::SYS_close, "it is closed; so is what the start used"),
    only(
        libc::SYS_fcntl,
        &[arg(1, Value::Is(F_GETFD))],
        "std asks before it closes",
    )
    .rare(ASSERTIONS),
    always(
        libc::SYS_clock_gettime,
        "the time in a log of JSON, of what cannot be removed",
    )
    .rare(NO_VDSO),
];

/// A panic's message, and its abort.
const PANIC: &[Rule] = &[
    always(libc::SYS_gettid, "the name in its message; abort").rare(PANICS),
    always(libc::SYS_getpid, "abort").rare(PANICS),
    always(libc::SYS_rt_sigprocmask, "abort").rare(PANICS),
    only(
        libc::SYS_tgkill,
        &[arg(2, Value::Is(SIGABRT))],
        "abort: no other signal",
    )
    .rare(PANICS),
];

// Why a row stays although no test may see it.
const GROWS: &str = "only when the heap has to grow";
const STOPPED: &str = "only when a stop interrupts it";
const ASSERTIONS: &str = "only in builds with assertions";
const NO_VDSO: &str = "only where the vDSO has no clock";
const PANICS: &str = "only when a fault of ours makes it panic";
