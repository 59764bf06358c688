//! The registrar: takes one descriptor from its mediator at a time, looks what it is, makes it known
//! to the view's own FUSE connection, and lets go of it. It holds SYS_ADMIN, so each of its calls is
//! tied to the one descriptor that it is for; a descriptor that came in always has the same number.

use super::{ASSERTIONS, F_GETFD, List, READ_BACK, Rule, STOPPED, Value, always, arg, only};

/// `FUSE_DEV_IOC_BACKING_OPEN` and `FUSE_DEV_IOC_BACKING_CLOSE` (include/uapi/linux/fuse.h).
pub(crate) const BACKING_OPEN: u64 = 0x4010_e501;
pub(crate) const BACKING_CLOSE: u64 = 0x4004_e502;
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
const MSG_NOSIGNAL: u64 = 0x4000;
const F_GETFL: u64 = 3;
const AT_EMPTY_PATH: u64 = 0x1000;

const DEVICE: Value = Value::Also(1);
const CAME_IN: Value = Value::Also(2);

/// Given: its socket; also the FUSE device, and the number that a descriptor gets which comes in.
pub(crate) const REGISTRAR: List = List {
    name: "the registrar",
    allowed: &[OWN, READ_BACK],
    absent: &[],
};

const OWN: &[Rule] = &[
    only(
        libc::SYS_recvmsg,
        &[arg(0, Value::Given), arg(2, Value::Is(MSG_CMSG_CLOEXEC))],
        "a question, and the file that it is about",
    ),
    only(
        libc::SYS_fcntl,
        &[arg(0, CAME_IN), arg(1, Value::Is(F_GETFL))],
        "whether the file is open at all (O_PATH)",
    ),
    only(
        libc::SYS_statx,
        &[arg(0, CAME_IN), arg(2, Value::Is(AT_EMPTY_PATH))],
        "whether it is a regular file on the view's own mount of the export",
    ),
    only(
        libc::SYS_ioctl,
        &[arg(0, DEVICE), arg(1, Value::Is(BACKING_OPEN))],
        "makes it known to the view's connection",
    ),
    only(
        libc::SYS_ioctl,
        &[arg(0, DEVICE), arg(1, Value::Is(BACKING_CLOSE))],
        "the connection lets go of it",
    ),
    only(
        libc::SYS_close,
        &[arg(0, CAME_IN)],
        "it is kept by the connection alone",
    ),
    only(
        libc::SYS_sendto,
        &[
            arg(0, Value::Given),
            arg(3, Value::Is(MSG_NOSIGNAL)),
            arg(4, Value::AllOf(0)),
        ],
        "the answer",
    ),
    only(
        libc::SYS_fcntl,
        &[arg(0, CAME_IN), arg(1, Value::Is(F_GETFD))],
        "std asks before it closes",
    )
    .rare(ASSERTIONS),
    always(libc::SYS_restart_syscall, "a wait goes on").rare(STOPPED),
    always(libc::SYS_exit_group, "the end"),
];
