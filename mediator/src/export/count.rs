//! Walks the export as it lies on the disk, past the table of nodes: to count what is there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode as RawMode, OFlags};
use rustix::io::Errno;

use super::attr::{Inode, Seen};
use super::fault::Call;
use super::handle::Kind;
use super::{Export, Fault, Submounts};
use crate::ids::FileKind;
use crate::name::Name;
use crate::sys;

/// Room for the entries of one getdents64(2), in bytes.
const BATCH: usize = 32 * 1024;
/// Deeper trees are not counted: each directory is gone to from the top, so that a walk holds two
/// descriptors whatever the depth.
const DEEPEST: usize = 1024;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Which file.
    pub inode: Inode,
    /// Its type.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its links.
    pub nlink: u32,
}

/// An export's tree, apart from the export: a thread that walks it needs nothing else.
#[derive(Debug)]
pub struct Tree {
    root: Arc<OwnedFd>,
    /// The one mount that is walked; `None`: all that lie below.
    mount: Option<u64>,
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Into this directory.
    Into,
    /// Past this name.
    Past,
    /// Nowhere: the walk ends.
    End,
}

impl Tree {
    /// Hands over every name below the root with its path (`/a/b`). What vanishes meanwhile is
    /// left out, as is what lies on mounts that the view hides.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG for a tree of more than 1024 levels; what openat(2), getdents64(2) and
    /// statx(2) say.
    pub fn walk(&self, each: &mut dyn FnMut(&[u8], Counted) -> Walk) -> Result<(), Fault> {
        let mut todo = vec![b"/".to_vec()];
        while let Some(path) = todo.pop() {
            if self.walk_one(&path, &mut todo, each)? == Walk::End {
                return Ok(());
            }
        }
        Ok(())
    }

    fn walk_one(
        &self,
        path: &[u8],
        todo: &mut Vec<Vec<u8>>,
        each: &mut dyn FnMut(&[u8], Counted) -> Walk,
    ) -> Result<Walk, Fault> {
        let Some(dir) = self.open(path)? else {
            return Ok(Walk::Past);
        };
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); BATCH];
        let mut ended = Ok(Walk::Past);
        let mut child = path.to_vec();
        loop {
            let more = sys::read_entries(dir.as_fd(), &mut buffer, &mut |entry| {
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") || !matches!(ended, Ok(Walk::Past)) {
                    return;
                }
                child.truncate(path.len());
                if child.last() != Some(&b'/') {
                    child.push(b'/');
                }
                child.extend_from_slice(name.to_bytes());
                match self.count(&dir, name) {
                    Ok(None) => {}
                    Ok(Some(counted)) => match each(&child, counted) {
                        Walk::Into if counted.kind == FileKind::Directory => {
                            todo.push(child.clone());
                        }
                        Walk::Into | Walk::Past => {}
                        Walk::End => ended = Ok(Walk::End),
                    },
                    Err(fault) => ended = Err(fault),
                }
            });
            let more = more.call("getdents64")?;
            if !more || !matches!(ended, Ok(Walk::Past)) {
                return ended;
            }
        }
    }

    /// `None` if it is gone.
    fn open(&self, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
        let mut at = self.root.clone();
        let components = path
            .split(|byte| *byte == b'/')
            .filter(|one| !one.is_empty());
        for (depth, component) in components.enumerate() {
            if depth >= DEEPEST {
                return Err((Errno::NAMETOOLONG, "openat").into());
            }
            let name = Name::new(component).call("openat")?;
            at = match sys::open_path(at.as_fd(), name.as_c_str()) {
                Ok(fd) => Arc::new(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err((errno, "openat").into()),
            };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&at, c".", flags, RawMode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err((errno, "openat").into()),
        }
    }

    fn count(&self, dir: &OwnedFd, name: &std::ffi::CStr) -> Result<Option<Counted>, Fault> {
        let st = match sys::stat_at(dir.as_fd(), name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            st => st.call("statx")?,
        };
        let seen = Seen::new(&st).call("statx")?;
        let mount = seen.identity.mount;
        Ok(self
            .mount
            .is_none_or(|only| only == mount)
            .then_some(Counted {
                inode: Inode(seen.identity),
                kind: seen.attr.kind,
                size: seen.attr.size,
                nlink: seen.attr.nlink,
            }))
    }
}

impl Export {
    /// The tree, for a thread of its own.
    #[must_use]
    pub fn tree(&self) -> Tree {
        Tree {
            root: self.root.clone(),
            mount: (self.submounts != Submounts::Follow).then_some(self.mount),
        }
    }

    /// Open files without a name: by the last one that they had, each with its size in bytes. A
    /// walk does not find them, and they take room all the same.
    ///
    /// # Errors
    ///
    /// What statx(2) says.
    pub fn unlinked_open(&self) -> Result<Vec<(Vec<u8>, u64)>, Fault> {
        let files = self.with(|table| {
            let mut files: Vec<_> = table
                .handles()
                .filter(|handle| matches!(handle.open, Kind::File(_)))
                .map(|handle| (handle.node, handle.fd.clone()))
                .collect();
            files.sort_by_key(|(node, _)| node.0);
            files.dedup_by_key(|(node, _)| node.0);
            files
        });
        let mut found = Vec::new();
        for (node, fd) in files {
            let seen = Seen::new(&sys::stat(fd.as_fd()).call("statx")?).call("statx")?;
            if seen.attr.nlink == 0 {
                let mut path = Vec::new();
                self.with(|table| {
                    if let Ok(slot) = table.slot(node) {
                        table.nodes.write_path(slot, &mut path);
                    }
                });
                found.push((path, seen.attr.size));
            }
        }
        Ok(found)
    }
}
