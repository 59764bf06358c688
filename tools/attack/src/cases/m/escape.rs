//! To files outside of the export.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use virtfs_mediator::attack::Wall;

use super::{Prepared, all_but_seccomp, case, everywhere, no_wall, seccomp_alone};
use crate::case::{Attempt, Case};
use crate::lab::Lab;
use crate::raw;
use crate::task::{Handle, Plant};
use crate::trial::{PRODUCT, PROXY, ROOT_IN_CHROOT, Setting, UID, only};

pub(crate) const CASES: &[Case] = &[
    case(
        11,
        "handle",
        "open_by_handle_at of a file outside",
        "user namespace; seccomp; no DAC_READ_SEARCH",
        handle,
    ),
    case(
        12,
        "walk-out",
        "chroot in a chroot, then up",
        "pivot_root; no SYS_CHROOT; seccomp",
        walk_out,
    ),
    case(
        12,
        "leak-openat",
        "openat below a leaked directory",
        "close_range; the start's self-test; Landlock",
        |_| leak("leak-openat"),
    ),
    case(
        12,
        "leak-fchdir",
        "fchdir to a leaked directory",
        "close_range; the start's self-test; Landlock; seccomp",
        |_| leak("leak-fchdir"),
    ),
    case(
        12,
        "leak-over",
        "a directory under the number of a descriptor that is wanted",
        "the start's self-test; Landlock",
        leak_over,
    ),
    case(
        14,
        "proc-exe",
        "/proc/self/exe, also from the descriptor of /proc/self/fd",
        "no /proc; a detached clone of /proc/self/fd",
        |_| proc("proc-exe"),
    ),
    case(
        14,
        "proc-root",
        "`..`, ../root, ../../1/root from the descriptor of /proc/self/fd",
        "a detached clone of /proc/self/fd",
        |_| proc("proc-root"),
    ),
    case(
        14,
        "proc-numbers",
        "open descriptors re-opened by number, and what lies around them",
        "close_range; a detached clone of /proc/self/fd; Landlock",
        proc_numbers,
    ),
    case(
        14,
        "proc-mount",
        "mount of a /proc, then its 1/root",
        "user namespace; seccomp",
        |_| mounted("proc-mount"),
    ),
    case(
        14,
        "proc-fsopen",
        "the same, by fsopen and fsmount",
        "user namespace; seccomp",
        |_| mounted("proc-fsopen"),
    ),
];

fn root_alone() -> Setting {
    only("root directory = export alone", &[Wall::Root])
}

fn landlock_alone() -> Setting {
    only("Landlock alone", &[Wall::Landlock])
}

fn handle(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        no_wall(),
        only(
            "user namespace alone (DAC_READ_SEARCH held)",
            &[Wall::UserNamespace],
        ),
        seccomp_alone(),
        only("four capabilities alone", &[Wall::Capabilities]),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| {
        let mut prepared = Prepared::new("handle")?;
        let canary = prepared.place.outside().join("canary");
        prepared.task.handle = Some(handle_of(&canary)?);
        Ok(prepared)
    })
}

/// name_to_handle_at(2).
fn handle_of(path: &Path) -> Result<Handle, String> {
    const MAX_HANDLE_SZ: usize = 128;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // struct file_handle: size, type, and as many bytes.
    let mut buffer = [0_u8; 8 + MAX_HANDLE_SZ];
    buffer[..4].copy_from_slice(&128_u32.to_ne_bytes());
    let mut mount = 0_i32;
    let arguments = [
        raw::number(libc::AT_FDCWD),
        raw::text(&path),
        raw::pointer_to(&mut buffer),
        raw::pointer_to(&mut mount),
        0,
        0,
    ];
    raw::call(libc::SYS_name_to_handle_at, arguments)
        .map_err(|errno| format!("name_to_handle_at: {errno} (use a file system with handles)"))?;
    let four = |at: usize| -> [u8; 4] {
        std::array::from_fn(|byte| buffer.get(at + byte).copied().unwrap_or_default())
    };
    let size = usize::try_from(u32::from_ne_bytes(four(0))).map_err(|error| error.to_string())?;
    Ok(Handle {
        kind: i32::from_ne_bytes(four(4)),
        bytes: buffer.get(8..8 + size).unwrap_or_default().to_vec(),
    })
}

fn walk_out(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        root_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| Prepared::new("walk-out"))
}

fn leaking(act: &str) -> Result<Prepared, String> {
    let mut prepared = Prepared::new(act)?;
    prepared.task.plant = Some(Plant::Lowest(prepared.place.outside()));
    Ok(prepared)
}

fn leak(act: &str) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        root_alone(),
        only("close_range alone", &[Wall::Descriptors]),
        only("start self-test alone", &[Wall::DescriptorTest]),
        landlock_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| leaking(act))
}

fn leak_over(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        no_wall(),
        only("close_range alone", &[Wall::Descriptors]),
        only(
            "start self-test alone (close_range spares the number)",
            &[Wall::Descriptors, Wall::DescriptorTest],
        ),
        landlock_alone(),
        PRODUCT,
    ];
    everywhere(&settings, |_| {
        let mut prepared = Prepared::new("leak-over")?;
        prepared.task.plant = Some(Plant::OverControl(prepared.place.outside()));
        Ok(prepared)
    })
}

/// In the weaker arrangements the descriptor is an ordinary one.
fn proc(act: &str) -> Result<Vec<Attempt>, String> {
    let settings = [ROOT_IN_CHROOT, UID, PROXY, all_but_seccomp(), PRODUCT];
    everywhere(&settings, |_| Prepared::new(act))
}

fn proc_numbers(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        root_alone(),
        only("close_range alone", &[Wall::Descriptors]),
        landlock_alone(),
        PRODUCT,
    ];
    everywhere(&settings, |_| leaking("proc-numbers"))
}

fn mounted(act: &str) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        only("user namespace alone", &[Wall::Root, Wall::UserNamespace]),
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| Prepared::new(act))
}
