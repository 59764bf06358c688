//! Notifications that make the client's kernel forget.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Mutex;

use fuser::{INodeNo, Notifier};

use crate::ids::NodeId;
use crate::mediate::KernelCaches;

/// `FUSE_NOTIFY_INC_EPOCH` (include/uapi/linux/fuse.h), for which fuser has no method.
const INC_EPOCH: i32 = 8;
/// `struct fuse_out_header`: length, code, and 0 for what is no answer.
const HEADER: usize = 16;

/// The connection, for notifications alone.
#[derive(Debug)]
pub(super) struct Caches {
    notifier: Notifier,
    device: Mutex<File>,
}

impl Caches {
    /// `device` is another descriptor of the session's connection.
    pub(super) fn new(notifier: Notifier, device: File) -> Self {
        Self {
            notifier,
            device: Mutex::new(device),
        }
    }
}

impl KernelCaches for Caches {
    fn forget_names(&self) -> io::Result<bool> {
        let length = u32::try_from(HEADER).unwrap_or_default().to_ne_bytes();
        let message = [length, INC_EPOCH.to_ne_bytes(), [0; 4], [0; 4]].concat();
        let mut device = self
            .device
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match device.write(&message) {
            Ok(_) => Ok(true),
            // fuse_notify (fs/fuse/dev.c) on a code that it does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn forget_name(&self, parent: NodeId, name: &[u8]) -> io::Result<()> {
        // Names that the kernel does not know (ENOENT) are no errors to fuser; nor is a directory
        // in use (ENOTEMPTY), whose name is dropped all the same.
        match self
            .notifier
            .inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
        {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            other => other,
        }
    }

    fn wait_for_listings(&self, directory: NodeId) -> io::Result<()> {
        // fuse_reverse_inval_entry (fs/fuse/dir.c) takes the directory's lock for itself, which
        // getdents(2) shares until it has put into the cache what it was answered. No name in the
        // kernel's table of names is `.`, so nothing else comes of it.
        self.forget_name(directory, b".")
    }

    fn forget_node(&self, node: NodeId) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(node.0), 0, 0)
    }
}
