//! Whole paths instead of fids, as a user of the guest: what a guest's kernel does for a system call.
//!
//! Paths lead from the export's root; a leading slash changes nothing. `..` and symbolic links are not resolved: the
//! server sees each component as it is.
//!
//! Every method returns [`Error::Remote`] or [`Error::PartialWalk`] (both have an errno), or a fault of the transport.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::message::Rgetattr;
use crate::ops::{AT_REMOVEDIR, DirEntry, SetAttr};
use crate::scratch::Ids;
use crate::session::Session;
use crate::wire::Fid;

/// `P9_MAXWELEM`: names in one Twalk.
const MOST_NAMES: usize = 16;

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_DIRECTORY: u32 = 0o200_000;

/// The session as one of the guest's users; see [`Session::user`].
#[derive(Debug)]
pub struct User<'a> {
    session: &'a mut Session,
    root: Fid,
    gid: u32,
}

fn components(path: &Path) -> Vec<&OsStr> {
    path.as_os_str()
        .as_bytes()
        .split(|&octet| octet == b'/')
        .filter(|name| !name.is_empty())
        .map(OsStr::from_bytes)
        .collect()
}

impl Session {
    /// The helpers for paths, as a user and group of the guest: what they make belongs to these. Attaches once a user.
    ///
    /// # Errors
    /// As Tattach.
    pub fn user(&mut self, ids: Ids) -> Result<User<'_>> {
        let root = match self.roots.get(&ids.uid) {
            Some(&root) => root,
            None => {
                let root = self.attach(ids.uid)?;
                self.roots.insert(ids.uid, root);
                root
            }
        };
        Ok(User {
            session: self,
            root,
            gid: ids.gid,
        })
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the module's head says it for all"
)]
impl User<'_> {
    /// A new fid for a path: clunk it.
    pub fn walk(&mut self, path: impl AsRef<Path>) -> Result<Fid> {
        self.walk_names(&components(path.as_ref()))
    }

    fn walk_names(&mut self, names: &[&OsStr]) -> Result<Fid> {
        let mut chunks = names.chunks(MOST_NAMES);
        let mut fid = self.step(self.root, chunks.next().unwrap_or(&[]))?;
        for chunk in chunks {
            let next = self.step(fid, chunk);
            self.session.clunk(fid)?;
            fid = next?;
        }
        Ok(fid)
    }

    /// Twalk; where it stops short, again to learn the errno of the component that stopped it.
    fn step(&mut self, from: Fid, names: &[&OsStr]) -> Result<Fid> {
        match self.session.walk(from, names) {
            Err(Error::PartialWalk { reached, wanted }) if reached < wanted => {
                let parent = self.session.walk(from, &names[..reached])?;
                let result = self.session.walk(parent, &names[reached..=reached]);
                self.session.clunk(parent)?;
                let fid = result?;
                // It is there now: somebody else made it.
                self.session.clunk(fid)?;
                Err(Error::PartialWalk { reached, wanted })
            }
            result => result,
        }
    }

    /// Does something with a path's fid and clunks it.
    pub fn with<T>(
        &mut self,
        path: impl AsRef<Path>,
        act: impl FnOnce(&mut Session, Fid) -> Result<T>,
    ) -> Result<T> {
        let fid = self.walk(path)?;
        self.finish(fid, act)
    }

    /// Does something with the fid of a path's directory and the path's last name.
    pub fn with_parent<T>(
        &mut self,
        path: impl AsRef<Path>,
        act: impl FnOnce(&mut Session, Fid, &OsStr) -> Result<T>,
    ) -> Result<T> {
        let names = components(path.as_ref());
        let (name, parents) = names
            .split_last()
            .ok_or_else(|| Error::Protocol("the root has no name".to_owned()))?;
        let fid = self.walk_names(parents)?;
        self.finish(fid, |session, fid| act(session, fid, name))
    }

    /// The act's error counts more than the clunk's.
    fn finish<T>(
        &mut self,
        fid: Fid,
        act: impl FnOnce(&mut Session, Fid) -> Result<T>,
    ) -> Result<T> {
        let result = act(self.session, fid);
        let clunked = self.session.clunk(fid);
        let value = result?;
        clunked.map(|()| value)
    }

    /// Makes a new file, open for writing, its owner and group the user's; write to the fid and clunk it.
    pub fn create(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<Fid> {
        let names = components(path.as_ref());
        let (name, parents) = names
            .split_last()
            .ok_or_else(|| Error::Protocol("the root has no name".to_owned()))?;
        let fid = self.walk_names(parents)?;
        match self
            .session
            .lcreate(fid, name, O_WRONLY | O_EXCL, mode, self.gid)
        {
            Ok(_) => Ok(fid),
            Err(error) => {
                self.session.clunk(fid)?;
                Err(error)
            }
        }
    }

    /// A new fid for an existing file, open with open(2)'s flags: clunk it.
    pub fn open(&mut self, path: impl AsRef<Path>, flags: u32) -> Result<Fid> {
        let fid = self.walk(path)?;
        match self.session.lopen(fid, flags) {
            Ok(_) => Ok(fid),
            Err(error) => {
                self.session.clunk(fid)?;
                Err(error)
            }
        }
    }

    /// Creates a file with that mode, or truncates the one that is there, and writes all of the data.
    pub fn write_all(&mut self, path: impl AsRef<Path>, mode: u32, data: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let fid = match self.create(path, mode) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                self.open(path, O_WRONLY | O_TRUNC)?
            }
            result => result?,
        };
        self.finish(fid, |session, fid| {
            let (mut rest, mut offset) = (data, 0);
            while !rest.is_empty() {
                let count = session.write(fid, offset, rest)?;
                let done = usize::try_from(count)
                    .ok()
                    .filter(|&done| 0 < done && done <= rest.len());
                rest = &rest
                    [done.ok_or_else(|| Error::Protocol(format!("Rwrite of {count} octets")))?..];
                offset += u64::from(count);
            }
            Ok(())
        })
    }

    /// A file's whole content.
    pub fn read_all(&mut self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let fid = self.open(path, O_RDONLY)?;
        self.finish(fid, |session, fid| {
            let mut content = Vec::new();
            loop {
                let data = session.read(fid, content.len() as u64, u32::MAX)?;
                if data.is_empty() {
                    return Ok(content);
                }
                content.extend_from_slice(&data);
            }
        })
    }

    /// A directory's entries without `.` and `..`, sorted by name.
    pub fn list(&mut self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let fid = self.open(path, O_RDONLY | O_DIRECTORY)?;
        self.finish(fid, |session, fid| {
            let (mut entries, mut offset) = (Vec::new(), 0);
            loop {
                let more = session.readdir(fid, offset, u32::MAX)?;
                let Some(last) = more.last() else { break };
                offset = last.offset;
                entries.extend(
                    more.into_iter()
                        .filter(|entry| entry.name != b"." && entry.name != b".."),
                );
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
    }

    /// lstat(2).
    pub fn stat(&mut self, path: impl AsRef<Path>) -> Result<Rgetattr> {
        self.with(path, Session::getattr)
    }

    /// chmod, chown, truncate, utimensat of a path.
    pub fn setattr(&mut self, path: impl AsRef<Path>, change: &SetAttr) -> Result<()> {
        self.with(path, |session, fid| session.setattr(fid, change))
    }

    /// mkdir(2).
    pub fn mkdir(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let gid = self.gid;
        self.with_parent(path, |session, directory, name| {
            session.mkdir(directory, name, mode, gid).map(drop)
        })
    }

    /// mkdir(2) of each component that is missing.
    pub fn mkdir_p(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        for part in path
            .as_ref()
            .ancestors()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if components(part).is_empty() {
                continue;
            }
            match self.mkdir(part, mode) {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// symlink(2).
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<OsStr>) -> Result<()> {
        let gid = self.gid;
        self.with_parent(path, |session, directory, name| {
            session.symlink(directory, name, target, gid).map(drop)
        })
    }

    /// mknod(2); `mode` with the type's bits, `device` as major and minor number.
    pub fn mknod(&mut self, path: impl AsRef<Path>, mode: u32, device: (u32, u32)) -> Result<()> {
        let gid = self.gid;
        self.with_parent(path, |session, directory, name| {
            session.mknod(directory, name, mode, device, gid).map(drop)
        })
    }

    /// readlink(2).
    pub fn readlink(&mut self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.with(path, Session::readlink)
    }

    /// link(2).
    pub fn link(&mut self, existing: impl AsRef<Path>, new: impl AsRef<Path>) -> Result<()> {
        let fid = self.walk(existing)?;
        let result = self.with_parent(new, |session, directory, name| {
            session.link(directory, fid, name)
        });
        self.finish(fid, |_, _| result)
    }

    /// rename(2), by Trenameat.
    pub fn rename(&mut self, old: impl AsRef<Path>, new: impl AsRef<Path>) -> Result<()> {
        let names = components(new.as_ref());
        let (new_name, parents) = names
            .split_last()
            .ok_or_else(|| Error::Protocol("the root has no name".to_owned()))?;
        let to = self.walk_names(parents)?;
        let result = self.with_parent(old, |session, from, name| {
            session.renameat(from, name, to, new_name)
        });
        self.finish(to, |_, _| result)
    }

    /// unlink(2).
    pub fn unlink(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.with_parent(path, |session, directory, name| {
            session.unlinkat(directory, name, 0)
        })
    }

    /// rmdir(2).
    pub fn rmdir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.with_parent(path, |session, directory, name| {
            session.unlinkat(directory, name, AT_REMOVEDIR)
        })
    }

    /// lgetxattr(2); with an empty name the names, each ended by NUL.
    pub fn getxattr(&mut self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Result<Vec<u8>> {
        let fid = self.walk(path)?;
        let opened = self.session.xattrwalk(fid, name);
        let (value, size) = self.finish(fid, |_, _| opened)?;
        self.finish(value, |session, fid| {
            let mut content = Vec::new();
            while (content.len() as u64) < size {
                let data = session.read(fid, content.len() as u64, u32::MAX)?;
                if data.is_empty() {
                    break;
                }
                content.extend_from_slice(&data);
            }
            Ok(content)
        })
    }

    /// lsetxattr(2), flags 0. An empty value removes the attribute: 9p has no other way.
    pub fn setxattr(
        &mut self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: &[u8],
    ) -> Result<()> {
        self.with(path, |session, fid| {
            session.xattrcreate(fid, name, value.len() as u64, 0)?;
            if !value.is_empty() {
                session.write(fid, 0, value)?;
            }
            Ok(())
        })
    }
}
