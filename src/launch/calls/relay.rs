//! The processes that take what mediators write to where it is kept: they read one pipe and write.

use super::{HEAP, List, NO_VDSO, READ_BACK, STOPPED, Value, always, arg, only};

/// Given: the pipe that it reads.
pub(crate) const RELAY: List = List {
    name: "the log's relay",
    allowed: &[
        &[
            only(
                libc::SYS_read,
                &[arg(0, Value::Given)],
                "what the mediators log",
            ),
            only(
                libc::SYS_write,
                &[arg(0, Value::Is(2))],
                "to the caller's standard error",
            ),
            always(libc::SYS_restart_syscall, "a wait goes on").rare(STOPPED),
            always(libc::SYS_exit_group, "the end"),
        ],
        READ_BACK,
    ],
    absent: &[],
};

/// Given: the pipe that it reads.
pub(crate) const AUDIT: List = List {
    name: "the audit relay",
    allowed: &[
        &[
            only(
                libc::SYS_read,
                &[arg(0, Value::Given)],
                "a mediator's audit records",
            ),
            // What it holds besides was opened for nothing else: the sinks, the log.
            always(libc::SYS_write, "to a file, journald, and the log"),
            always(libc::SYS_clock_gettime, "the time in a record").rare(NO_VDSO),
            always(libc::SYS_restart_syscall, "a wait goes on").rare(STOPPED),
            always(libc::SYS_exit_group, "the end"),
        ],
        HEAP,
        READ_BACK,
    ],
    absent: &[],
};
