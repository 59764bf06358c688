//! The export on a directory of its own, as root: operation by operation, against a model, and
//! under attack.

mod attack;
mod budget;
mod model;
mod names;
mod operations;
mod submounts;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode as RawMode, OFlags, openat};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{Attr, DirEntry, Entry, Export, Fault, Handed, Pin, Settings, Submounts};
use crate::ids::{FileKind, HandleId, HostGid, HostOwner, HostUid, Mode, NodeId};
use crate::name::Name;
use crate::op::{Birth, Changes, OpenAs, Operation, RenameHow, SetTime, WriteAs, rows};
use crate::policy::Permit;

/// An export on a new directory, removed when it is dropped.
struct World {
    export: Export,
    dir: TempDir,
}

fn allow<O: Operation<Grant = ()>>() -> Permit<O> {
    Permit::for_test(())
}

fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::new(bytes.as_ref()).unwrap()
}

fn open_path(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, RawMode::empty()).unwrap()
}

const OWNER: HostOwner = HostOwner {
    uid: HostUid(1234),
    gid: HostGid(4321),
};

const READ_WRITE: OpenAs = OpenAs {
    read: true,
    write: true,
    append: false,
    truncate: false,
    exclusive: false,
    sync: false,
    direct: false,
    no_atime: false,
};

const NO_CHANGES: Changes = Changes {
    uid: None,
    gid: None,
    mode: None,
    size: None,
    atime: SetTime::Omit,
    mtime: SetTime::Omit,
};

fn birth(kind: FileKind, mode: u32) -> Birth {
    Birth {
        owner: OWNER,
        owner_is_forced: false,
        kind,
        mode: Mode::new(mode),
        open: READ_WRITE,
    }
}

impl World {
    fn new() -> Self {
        Self::with(4096, Submounts::Refuse)
    }

    fn with(max_descriptors: usize, submounts: Submounts) -> Self {
        // As in the mediator: the client's own umask was applied by its kernel.
        rustix::process::umask(RawMode::empty());
        let dir = tempfile::tempdir().unwrap();
        let export = Export::open(Settings {
            root: open_path(dir.path()),
            proc_fd: open_path(Path::new("/proc/self/fd")),
            max_descriptors,
            submounts,
            exact_names: true,
        })
        .unwrap();
        Self { export, dir }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn root(&self) -> Pin {
        self.export.pin(NodeId::ROOT).unwrap()
    }

    fn lookup(&self, parent: &Pin, child: &str) -> Result<Entry, Fault> {
        let child_name = name(child);
        let child = self.export.glance(parent, &child_name)?;
        self.export.lookup(allow(), parent, &child_name, &child)
    }

    /// Looks up a path, component by component.
    fn walk(&self, path: &str) -> Pin {
        let mut at = self.root();
        for component in path.split('/').filter(|c| !c.is_empty()) {
            let entry = self.lookup(&at, component).unwrap();
            at = self.export.pin(entry.node).unwrap();
        }
        at
    }

    fn create(&self, parent: &Pin, child: &str, mode: u32) -> (Entry, HandleId) {
        let permit = Permit::for_test(birth(FileKind::Regular, mode));
        self.export.create(permit, parent, &name(child)).unwrap()
    }

    /// A closed, empty file.
    fn touch(&self, parent: &Pin, child: &str) -> Entry {
        let (entry, handle) = self.create(parent, child, 0o644);
        self.export.release(handle);
        entry
    }

    fn mkdir(&self, parent: &Pin, child: &str, mode: u32) -> Entry {
        let permit = Permit::for_test(birth(FileKind::Directory, mode));
        self.export.mkdir(permit, parent, &name(child)).unwrap()
    }

    fn open(&self, pin: &Pin, open: OpenAs) -> Result<HandleId, Fault> {
        self.export.open_file(Permit::for_test(open), pin)
    }

    fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<usize, Fault> {
        self.write_as(handle, (offset, WriteAs::Placed), data)
    }

    fn write_as(
        &self,
        handle: HandleId,
        place: (u64, WriteAs),
        data: &[u8],
    ) -> Result<usize, Fault> {
        self.export.write(allow(), handle, place, data)
    }

    fn read(&self, handle: HandleId, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let mut buf = vec![0; len];
        let n = self.export.read(allow(), handle, offset, &mut buf)?;
        buf.truncate(n);
        Ok(buf)
    }

    fn set(&self, pin: &Pin, changes: Changes) -> Result<Attr, Fault> {
        self.export.setattr(Permit::for_test(changes), pin, None)
    }

    fn rename(&self, from: (&Pin, &str), to: (&Pin, &str), how: RenameHow) -> Result<(), Fault> {
        let (old, new) = (name(from.1), name(to.1));
        self.export
            .rename(Permit::for_test(how), (from.0, &old), (to.0, &new))
    }

    fn unlink(&self, parent: &Pin, child: &str) -> Result<(), Fault> {
        self.export.unlink(allow(), parent, &name(child))
    }

    fn path_of(&self, pin: &Pin) -> String {
        let mut path = Vec::new();
        self.export.write_path(pin, &mut path);
        String::from_utf8(path).unwrap()
    }

    /// Everything in a directory from a cookie on.
    fn list(&self, dir: &Pin) -> Vec<(String, u64, u64)> {
        let handle = self.export.opendir(allow(), dir).unwrap();
        let mut all = Vec::new();
        let mut each = |entry: DirEntry<'_>| {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            all.push((name, entry.ino, entry.cookie));
            Handed::Taken
        };
        let permit = allow::<rows::Readdir>();
        self.export.readdir(&permit, handle, 0, &mut each).unwrap();
        self.export.release(handle);
        all
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, Fault>) -> Errno {
    result.unwrap_err().errno
}
