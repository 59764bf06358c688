//! The two kinds of pid 1: they wait and reap. The client's also tidies up for a killed keeper.

use super::{HEAP, List, POLL, READ_BACK, REMOVAL, Rule, STOPPED, Value, always, arg, only};

const MSG_NOSIGNAL: u64 = 0x4000;

/// Given: the descriptor that tells of SIGCHLD.
pub(crate) const WARDEN: List = List {
    name: "the warden",
    allowed: &[
        WAITING,
        &[only(
            libc::SYS_read,
            &[arg(0, Value::Given)],
            "the signal that was waited for",
        )],
        &[always(libc::SYS_brk, "free gives back the end of the heap").rare(SHRINKS)],
        READ_BACK,
    ],
    absent: &[],
};

/// Given: the directory of all views below /run.
pub(crate) const INIT: List = List {
    name: "the client's init",
    allowed: &[
        WAITING,
        &[
            always(libc::SYS_read, "the signal that was waited for"),
            always(
                libc::SYS_waitid,
                "whether the client left others in the background",
            ),
            always(
                libc::SYS_write,
                "this wall stands; the client's status, to the keeper",
            ),
            only(
                libc::SYS_sendmsg,
                &[arg(2, Value::Is(MSG_NOSIGNAL))],
                "tells the launcher of a client in the background",
            ),
        ],
        REMOVAL,
        HEAP,
        READ_BACK,
    ],
    absent: &[],
};

const SHRINKS: &str = "only when the start left much free";

const WAITING: &[Rule] = &[
    always(POLL, "for SIGCHLD, and for the keeper's end"),
    always(libc::SYS_restart_syscall, "poll goes on").rare(STOPPED),
    always(libc::SYS_wait4, "reaps children"),
    always(libc::SYS_exit_group, "the end"),
];
