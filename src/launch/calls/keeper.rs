//! The keeper: waits, ends what it holds a pidfd of, removes the views' directories below the one
//! that it was given. It cannot name another process or another file.

use super::{
    DUP2, HEAP, List, PANIC, POLL, READ_BACK, REMOVAL, Rule, STOPPED, Value, always, arg, only,
};

const SIGKILL: u64 = 9;
const MSG_NOSIGNAL: u64 = 0x4000;

/// Given: the directory of all views below /run.
pub(crate) const KEEPER: List = List {
    name: "the keeper",
    allowed: &[OWN, REMOVAL, HEAP, PANIC, READ_BACK],
    absent: &[],
};

const OWN: &[Rule] = &[
    // Waiting.
    always(POLL, "for signals, orders, the client's end, an unmount"),
    always(libc::SYS_read, "what was waited for"),
    always(libc::SYS_pread64, "the list of mounts, again"),
    always(libc::SYS_restart_syscall, "poll goes on").rare(STOPPED),
    // Telling.
    always(libc::SYS_write, "the log; the client may start"),
    only(
        libc::SYS_sendmsg,
        &[arg(2, Value::Is(MSG_NOSIGNAL))],
        "reports to the launcher",
    ),
    only(
        DUP2,
        &[arg(0, Value::Is(1)), arg(1, Value::Is(2))],
        "a view in the background lets go of standard error",
    ),
    // Ending.
    only(
        libc::SYS_pidfd_send_signal,
        &[arg(1, Value::Is(SIGKILL))],
        "ends a pid namespace by its init, of which a descriptor is held",
    ),
    always(libc::SYS_wait4, "reaps the inits"),
    always(libc::SYS_exit_group, "the end"),
];
