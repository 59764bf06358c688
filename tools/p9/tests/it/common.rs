//! What the tests share: a directory, a QEMU on it, and the host's own view of its files.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use virtfs_p9::{Errno, Export, Ids, Launch, Machine, Qemu, Result, Session};

pub(crate) const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};

/// A session on a new directory. Dropped in this order: session, QEMU, directory.
pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) machine: Machine,
    directory: TempDir,
}

impl Bench {
    /// QEMU as root.
    pub(crate) fn new() -> Self {
        Self::with(&Launch::new())
    }

    pub(crate) fn with(launch: &Launch) -> Self {
        needs_root();
        let directory = export();
        let machine = Machine::boot(
            &Qemu::new().export(Export::local("share", directory.path())),
            launch,
        )
        .unwrap();
        let session = machine.session("share").unwrap();
        Self {
            session,
            machine,
            directory,
        }
    }

    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Type and permission bits, owner and group on the host.
    pub(crate) fn host_owner(&self, name: &str) -> (u32, Ids) {
        let seen = fs::symlink_metadata(self.host(name)).unwrap();
        (
            seen.mode(),
            Ids {
                uid: seen.uid(),
                gid: seen.gid(),
            },
        )
    }
}

/// A directory that everyone may write.
pub(crate) fn export() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("virtfs-p9-export-")
        .tempdir()
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

pub(crate) fn needs_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests start QEMU as root and as others: run them as root (sudo)"
    );
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, errno: Errno) {
    match result {
        Err(error) if error.errno() == Some(errno) => {}
        other => panic!("{errno:?} was wanted, not {other:?}"),
    }
}

/// Whether a process of that id exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
