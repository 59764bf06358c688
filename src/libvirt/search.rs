//! Which directories a domain's user must search and may not, and letting it: one entry of a POSIX
//! ACL for that user alone, as virt-manager does it for the user that all domains share.
//!
//! The entry gives search (`x`), never read or write: what lies in the directory is named by who
//! knows its name, as before. Nobody else gains anything, a later chmod(1) of the directory (a
//! package's upgrade) does not take it away, and taking it back leaves what was.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::doctor::child;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;

/// Where the kernel keeps a file's access ACL (acl(5)).
const NAME: &str = "system.posix_acl_access";
/// Its layout: this number, then entries of a tag, permissions and an id
/// (include/uapi/linux/posix_acl_xattr.h), all in little endian.
const VERSION: u32 = 2;
/// Of an entry that has no id.
const NO_ID: u32 = u32::MAX;

/// Tags of include/uapi/linux/posix_acl.h.
mod tag {
    pub(super) const USER_OBJ: u16 = 0x01;
    pub(super) const USER: u16 = 0x02;
    pub(super) const GROUP_OBJ: u16 = 0x04;
    pub(super) const MASK: u16 = 0x10;
    pub(super) const OTHER: u16 = 0x20;
}

const SEARCH: u16 = 1;

/// The directories, outermost first, that a process with these ids may not search although it must,
/// to reach what `paths` name.
///
/// # Errors
///
/// Confinement: it cannot be tried.
pub(crate) fn closed_to(ids: &Ids, paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut directories: Vec<PathBuf> = paths
        .iter()
        .filter_map(|path| {
            // Links are followed by whoever opens the path, and so must what they lead to be. What
            // is not there yet will be made in the last directory that is.
            let mut above = path.ancestors().skip(1);
            let place = path.canonicalize();
            match place {
                Ok(path) => path.parent().map(Path::to_owned),
                Err(_) => above.find_map(|directory| directory.canonicalize().ok()),
            }
        })
        .flat_map(|directory| {
            let all = directory.ancestors().map(Path::to_owned);
            all.collect::<Vec<_>>()
        })
        .collect();
    directories.sort();
    directories.dedup();
    // By this process: below a closed directory the next one can be tried only from inside.
    let opened: Vec<_> = directories
        .into_iter()
        .filter_map(|path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).ok()?;
            Some((path, fd))
        })
        .collect();
    child::run(0, |_| {
        child::become_user(ids)?;
        let closed = opened.into_iter().filter(|(_, fd)| {
            rustix::fs::statat(fd, ".", AtFlags::empty()).err() == Some(Errno::ACCESS)
        });
        Ok(closed.map(|(path, _)| path).collect())
    })
    .result()
}

/// Lets a user search a directory.
///
/// # Errors
///
/// Configuration: the file system keeps no ACLs, or the directory is not there.
pub(crate) fn allow(directory: &Path, uid: u32) -> Result<()> {
    change(directory, |acl| acl.allow(uid)).map_err(|errno| failed(directory, uid, errno))
}

/// Takes that back; a directory that is gone, or an entry that is, is none of our business.
///
/// # Errors
///
/// Configuration: the kernel refuses it.
pub(crate) fn take_back(directory: &Path, uid: u32) -> Result<()> {
    match change(directory, |acl| acl.remove(uid)) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed(directory, uid, errno)),
    }
}

fn failed(directory: &Path, uid: u32, errno: Errno) -> Error {
    let shown = directory.display();
    Error::new(
        Class::Configuration,
        format!("an ACL on {shown} for uid {uid}: {errno}"),
        format!("let others search it (`chmod o+x {shown}`), or put the files elsewhere"),
    )
}

/// One entry: tag, permissions, id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// An access ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acl(Vec<Entry>);

fn change(directory: &Path, act: impl FnOnce(&mut Acl)) -> std::result::Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
    let mut value = vec![0; 64 * 1024];
    let before = match rustix::fs::fgetxattr(&fd, NAME, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Acl::parse(&value).ok_or(Errno::INVAL)?
        }
        Err(Errno::NODATA) => Acl::of_mode(rustix::fs::fstat(&fd)?.st_mode),
        Err(errno) => return Err(errno),
    };
    let mut acl = before.clone();
    act(&mut acl);
    if acl == before {
        return Ok(());
    }
    rustix::fs::fsetxattr(&fd, NAME, &acl.bytes(), XattrFlags::empty())
}

impl Acl {
    /// The three entries that every file has.
    fn of_mode(mode: u32) -> Self {
        let bits = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or_default();
        let entry = |tag, permissions| Entry {
            tag,
            permissions,
            id: NO_ID,
        };
        Self(vec![
            entry(tag::USER_OBJ, bits(6)),
            entry(tag::GROUP_OBJ, bits(3)),
            entry(tag::OTHER, bits(0)),
        ])
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let entries = entries.chunks_exact(8).map(|chunk| {
            let (tag, rest) = chunk.split_first_chunk::<2>()?;
            let (permissions, id) = rest.split_first_chunk::<2>()?;
            Some(Entry {
                tag: u16::from_le_bytes(*tag),
                permissions: u16::from_le_bytes(*permissions),
                id: u32::from_le_bytes(*id.first_chunk::<4>()?),
            })
        });
        entries.collect::<Option<_>>().map(Self)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    fn find(&mut self, tag: u16) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.tag == tag)
    }

    fn allow(&mut self, uid: u32) {
        let of_user = |entry: &&mut Entry| entry.tag == tag::USER && entry.id == uid;
        match self.0.iter_mut().find(of_user) {
            Some(entry) => entry.permissions |= SEARCH,
            None => self.0.push(Entry {
                tag: tag::USER,
                permissions: SEARCH,
                id: uid,
            }),
        }
        match self.find(tag::MASK) {
            Some(mask) => mask.permissions |= SEARCH,
            None => {
                // Of the group it takes nothing away, and gives it nothing.
                let group = self.find(tag::GROUP_OBJ).map(|entry| entry.permissions);
                self.0.push(Entry {
                    tag: tag::MASK,
                    permissions: group.unwrap_or_default() | SEARCH,
                    id: NO_ID,
                });
            }
        }
        // The kernel wants them so (posix_acl_valid): by tag, and by id.
        self.0.sort_by_key(|entry| (entry.tag, entry.id));
    }

    fn remove(&mut self, uid: u32) {
        self.0
            .retain(|entry| entry.tag != tag::USER || entry.id != uid);
        let named = |entry: &Entry| {
            let plain = [tag::USER_OBJ, tag::GROUP_OBJ, tag::MASK, tag::OTHER];
            !plain.contains(&entry.tag)
        };
        if !self.0.iter().any(named) {
            // Nobody is named any more: the mode says it all, as before the first entry.
            self.0.retain(|entry| entry.tag != tag::MASK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn allowed_and_taken_back_leaves_what_was() {
        for before in [0o750, 0o700, 0o2711] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(before)).unwrap();
            allow(path, 61_234).unwrap();
            allow(path, 61_235).unwrap();
            allow(path, 61_234).unwrap();
            assert_eq!(mode(path) & 0o707, before & 0o707, "nobody else gains");
            take_back(path, 61_234).unwrap();
            take_back(path, 61_235).unwrap();
            take_back(path, 61_235).unwrap();
            assert_eq!(mode(path), before);
            let mut value = [0; 64];
            let rest = rustix::fs::getxattr(path, NAME, value.as_mut_slice());
            assert_eq!(rest, Err(Errno::NODATA));
        }
        take_back(Path::new("/no/such/directory"), 61_234).unwrap();
    }

    #[test]
    fn entries_of_others_stay() {
        let mut acl = Acl::of_mode(0o750);
        acl.allow(7);
        let before = acl.clone();
        acl.allow(5);
        assert_eq!(Acl::parse(&acl.bytes()).unwrap(), acl);
        assert!(acl.0.is_sorted());
        acl.remove(5);
        assert_eq!(acl, before);
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        assert_eq!(Acl::parse(&[]), None);
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), None);
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), None);
        assert_eq!(Acl::parse(&[2, 0, 0, 0]), Some(Acl(vec![])));
    }
}
