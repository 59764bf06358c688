//! What no answer may be, whatever was asked.

use rustix::io::Errno;

use super::known::{Known, Opened};
use super::request::Request;
use crate::names::is_component;
use crate::wire::{Answer, ENTRY_OUT, entries, op};

/// Bytes of `struct fuse_open_out`.
const OPEN_OUT: usize = 16;
/// Bytes of `struct fuse_attr_out`.
const ATTR_OUT: usize = 104;
/// Where `mode` is in `struct fuse_entry_out`.
const ENTRY_MODE: usize = 40 + 60;

/// Judges an answer and takes note of what it told.
///
/// # Panics
///
/// If it is one that must not be.
pub(super) fn judge(request: &Request, answer: &Answer, known: &mut Known) {
    let errno = answer.errno;
    let is = |other: Errno| errno == other.raw_os_error();
    // A refusal must not pass for a fault, and the kernel remembers ENOSYS for the whole mount: that
    // is meant for OPENDIR alone.
    if !request.foreign {
        let fault = (is(Errno::NOSYS) && request.opcode != op::OPENDIR)
            || is(Errno::IO)
            || is(Errno::NOTCONN);
        assert!(!fault, "errno {errno}: {request:?}");
    }
    if answer.is_ok() {
        must_not_succeed(request, answer, known);
    }
    let forged = request
        .nodes
        .iter()
        .any(|node| !known.may_have_been_told(*node));
    if forged && request.opcode == op::GETATTR && request.handles.is_empty() {
        assert!(
            is(Errno::STALE),
            "errno {errno} for a node that was never told"
        );
    }
    if answer.is_ok() {
        check_shape(request, answer);
        take_note(request, answer, known);
    }
}

fn must_not_succeed(request: &Request, answer: &Answer, known: &Known) {
    // A name that is remembered as missing is no success.
    if request.opcode == op::LOOKUP && answer.u64_at(0) == Some(0) {
        return;
    }
    let is_parent = |name: &[u8]| request.opcode == op::LOOKUP && name == b"..";
    for name in &request.names {
        let fine = is_component(name) || is_parent(name);
        assert!(
            fine,
            "a name that is no component was accepted: {request:?}"
        );
    }
    for node in &request.nodes {
        assert!(
            known.may_have_been_told(*node),
            "a node that was never told: {request:?}"
        );
    }
    // A handle that is not open can be released: there is nothing to tell.
    if !matches!(request.opcode, op::RELEASE | op::RELEASEDIR) {
        // Directories are read and synced by their nodes too.
        let by_node = matches!(request.opcode, op::READDIR | op::READDIRPLUS | op::FSYNCDIR);
        for handle in &request.handles {
            assert!(
                known.may_be_open(*handle) || (by_node && *handle == 0),
                "a handle that is not open: {request:?}"
            );
        }
    }
    let makes_device = request.opcode == op::MKNOD
        && matches!(
            answer.u32_at(ENTRY_MODE).map(|mode| mode & 0o170_000),
            Some(0o020_000 | 0o060_000)
        );
    assert!(!makes_device, "a device was made: {request:?}");
}

fn check_shape(request: &Request, answer: &Answer) {
    let len = answer.body.len();
    let most = usize::try_from(request.most).unwrap_or(usize::MAX);
    let done = || u64::from(answer.u32_at(0).expect("a count"));
    let fits = match request.opcode {
        op::LOOKUP | op::SYMLINK | op::MKNOD | op::MKDIR | op::LINK => len == ENTRY_OUT,
        op::CREATE => len == ENTRY_OUT + OPEN_OUT,
        op::GETATTR | op::SETATTR => len == ATTR_OUT,
        op::OPEN | op::OPENDIR => len == OPEN_OUT,
        op::READ | op::READDIR | op::READDIRPLUS => len <= most,
        op::WRITE | op::COPY_FILE_RANGE => len == 8 && done() <= request.most,
        op::GETXATTR | op::LISTXATTR if most == 0 => len == 8,
        op::GETXATTR | op::LISTXATTR => len <= most,
        op::STATFS => len == 80,
        op::LSEEK => len == 8,
        // A link's target of nothing cannot be made.
        op::READLINK => len > 0,
        _ if request.foreign => true,
        _ => len == 0,
    };
    assert!(fits, "an answer of {len} bytes: {request:?}");
}

fn take_note(request: &Request, answer: &Answer, known: &mut Known) {
    let entry = |known: &mut Known, at: usize| {
        let node = answer.u64_at(at).expect("a node");
        let mode = answer.u32_at(at + ENTRY_MODE).expect("a mode");
        let shown = answer.u64_at(at + 40).expect("an inode number");
        assert_eq!(node, shown, "node and inode number differ");
        if node != 0 {
            known.tell(node, mode);
        }
        node
    };
    match request.opcode {
        op::LOOKUP if request.names.iter().any(|name| name == b"..") => {
            let above = answer.u64_at(0).expect("a node");
            assert!(
                known.may_have_been_told(above),
                "`..` leads to node {above}, which was never told"
            );
            if above != crate::wire::ROOT {
                entry(known, 0);
            }
        }
        op::LOOKUP | op::SYMLINK | op::MKNOD | op::MKDIR | op::LINK => {
            entry(known, 0);
        }
        op::CREATE => {
            let node = entry(known, 0);
            let handle = answer.u64_at(ENTRY_OUT).expect("a handle");
            known.opened(Opened { handle, node });
        }
        op::OPEN | op::OPENDIR => {
            let handle = answer.u64_at(0).expect("a handle");
            known.opened(Opened {
                handle,
                node: request.node,
            });
        }
        op::RELEASE | op::RELEASEDIR => {
            request
                .handles
                .iter()
                .for_each(|handle| known.release(*handle));
        }
        op::READDIRPLUS => {
            let mut at = 0;
            for listed in entries(&answer.body, true) {
                // `.` and `..` are told without a reference (fuse_direntplus_link, fs/fuse/readdir.c).
                if listed.name != b"." && listed.name != b".." {
                    assert_ne!(entry(known, at), crate::wire::ROOT, "the root is listed");
                }
                at += (ENTRY_OUT + 24 + listed.name.len()).next_multiple_of(8);
            }
        }
        op::SETXATTR => known.value_size = u32::try_from(request.most).unwrap_or(0),
        op::READDIR => drop(entries(&answer.body, false)),
        _ => {}
    }
}
