//! Which directories a domain's user must search and may not, and letting it: one entry of a POSIX
//! ACL for that user alone, as virt-manager does it for the user that all domains share.
//!
//! The entry gives search (`x`), never read or write: what lies in the directory is named by who
//! knows its name, as before. Nobody else gains anything: where an ACL's mask would have to be raised for
//! others too, it is refused. Taking it back leaves what was, as far as nobody has changed it since. A later
//! chmod(1) of the directory (a package's upgrade) sets the mask by its group bits, and may take the
//! search away: `doctor --libvirt` tells.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

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
    #[cfg(test)]
    pub(super) const GROUP: u16 = 0x08;
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
    closed(paths, || child::become_user(ids))
}

/// The directories that root may not search without a capability that goes past mode bits, to reach what
/// `paths` name: as the service is, which lays the views.
///
/// # Errors
///
/// Confinement: it cannot be tried.
pub(crate) fn closed_to_the_service(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let root = Ids {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    closed(paths, || {
        child::become_user(&root)?;
        caps::clear(None, caps::CapSet::Effective)
            .map_err(|error| Error::step(Class::Confinement, "capset", error))
    })
}

/// What that means, of the first such directory.
pub(crate) fn closed_to_the_service_says(first: &Path) -> String {
    format!(
        "the service that lays views is root without power over mode bits, and may not search {}: the \
         domain does not start",
        first.display()
    )
}

/// What to do about it.
pub(crate) fn closed_to_the_service_cure(first: &Path) -> String {
    let of_roots_group = rustix::fs::stat(first).is_ok_and(|stat| stat.st_gid == 0);
    format!(
        "chmod {}+x {}, or give the service CAP_DAC_READ_SEARCH (virtfs-mediator(8), LIBVIRT)",
        if of_roots_group { 'g' } else { 'o' },
        first.display()
    )
}

/// What it means for a domain (`whose`) that others than root may rename what is in a directory above an
/// export of its.
pub(crate) fn movable_says(above: &Path, export: &Path, whose: &str) -> String {
    format!(
        "others than root may rename what is in {}, above {}: among their own directories, they choose \
         what {whose} shares at its next start",
        above.display(),
        export.display()
    )
}

/// As whom `become_them` makes this process.
fn closed(paths: &[PathBuf], become_them: impl FnOnce() -> Result<()>) -> Result<Vec<PathBuf>> {
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
        become_them()?;
        let closed = opened.into_iter().filter(|(_, fd)| {
            rustix::fs::statat(fd, ".", AtFlags::empty()).err() == Some(Errno::ACCESS)
        });
        Ok(closed.map(|(path, _)| path).collect())
    })
    .result()
}

/// A directory that a user is let search, and what its ACL said of that before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allowance {
    pub(crate) directory: PathBuf,
    pub(crate) uid: u32,
    before: Before,
}

/// What an ACL said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// The permissions of the user's own entry; `None`: it had none.
    entry: Option<u16>,
    mask: Option<u16>,
    /// Some user or group was named.
    named: bool,
}

impl Allowance {
    /// Looks at a directory; nothing is changed yet.
    ///
    /// # Errors
    ///
    /// Configuration: the file system keeps no ACLs, the directory is not there, or others would gain by it.
    pub(crate) fn plan(directory: &Path, uid: u32) -> Result<Self> {
        let failed = |errno| failed(directory, uid, errno);
        let acl = read(&open(directory).map_err(failed)?).map_err(failed)?;
        if let Some(other) = acl.limited(uid) {
            let shown = directory.display();
            return Err(Error::new(
                Class::Configuration,
                format!(
                    "uid {uid} may not search {shown}: an entry of its ACL would let it, but the ACL's mask \
                     keeps search from others, who would get it too ({other})"
                ),
                format!("if they may have it: {}", acl.setfacl(directory, uid)),
            ));
        }
        Ok(Self {
            directory: directory.to_owned(),
            uid,
            before: acl.before(uid),
        })
    }

    /// Lets the user search it.
    ///
    /// # Errors
    ///
    /// Configuration: it has been changed since it was looked at, or the kernel refuses.
    pub(crate) fn allow(&self) -> Result<()> {
        let failed = |errno| failed(&self.directory, self.uid, errno);
        let fd = open(&self.directory).map_err(failed)?;
        let mut acl = read(&fd).map_err(failed)?;
        if acl.before(self.uid) != self.before {
            return Err(Error::new(
                Class::Configuration,
                format!(
                    "the ACL of {} was changed meanwhile",
                    self.directory.display()
                ),
                "look at it again, and say `enable` again",
            ));
        }
        acl.allow(self.uid);
        write(&fd, &acl).map_err(failed)
    }

    /// Puts back what was, as far as nobody has changed it since; tells what is left. A directory that is
    /// gone, or to which the path leads no more, is none of our business.
    ///
    /// # Errors
    ///
    /// Configuration: the kernel refuses it.
    pub(crate) fn take_back(&self) -> Result<Option<String>> {
        let act = || {
            let fd = open(&self.directory)?;
            let before = read(&fd)?;
            let mut acl = before.clone();
            let left = acl.put_back(self.uid, self.before);
            if acl != before {
                write(&fd, &acl)?;
            }
            Ok(left)
        };
        match act() {
            Ok(true) => Ok(Some(format!(
                "the ACL entry of uid {} on {} was changed since, and stays",
                self.uid,
                self.directory.display()
            ))),
            Ok(false) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::OPNOTSUPP) => {
                Ok(None)
            }
            Err(errno) => Err(failed(&self.directory, self.uid, errno)),
        }
    }
}

/// The command that lets a user search a directory, and takes nothing from it.
pub(crate) fn setfacl(directory: &Path, uid: u32) -> String {
    match open(directory).and_then(|fd| read(&fd)) {
        Ok(acl) => acl.setfacl(directory, uid),
        Err(_) => Acl(Vec::new()).setfacl(directory, uid),
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

/// By the path that was shown, which was canonical: a link in it, however late, is somebody's who would
/// have another directory opened.
fn open(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(CWD, directory, flags, Mode::empty(), resolve)
}

fn read(fd: &OwnedFd) -> rustix::io::Result<Acl> {
    let mut value = vec![0; 64 * 1024];
    match rustix::fs::fgetxattr(fd, NAME, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Acl::parse(&value).ok_or(Errno::INVAL)
        }
        Err(Errno::NODATA) => Ok(Acl::of_mode(rustix::fs::fstat(fd)?.st_mode)),
        Err(errno) => Err(errno),
    }
}

fn write(fd: &OwnedFd, acl: &Acl) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(fd, NAME, &acl.bytes(), XattrFlags::empty())
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

    fn permissions(&self, wanted: impl Fn(&Entry) -> bool) -> Option<u16> {
        let entry = self.0.iter().find(|entry| wanted(entry));
        entry.map(|entry| entry.permissions)
    }

    fn of_user(&self, uid: u32) -> Option<u16> {
        self.permissions(|entry| entry.tag == tag::USER && entry.id == uid)
    }

    fn mask(&self) -> Option<u16> {
        self.permissions(|entry| entry.tag == tag::MASK)
    }

    fn before(&self, uid: u32) -> Before {
        Before {
            entry: self.of_user(uid),
            mask: self.mask(),
            named: self.0.iter().any(Entry::is_named),
        }
    }

    /// An entry of somebody else that would let search, did the mask not keep it from that.
    fn limited(&self, uid: u32) -> Option<String> {
        let mask = self.mask()?;
        let other = |entry: &&Entry| {
            let own = entry.tag == tag::USER && entry.id == uid;
            let masked = entry.tag == tag::GROUP_OBJ || entry.is_named();
            masked && !own && entry.permissions & SEARCH != 0
        };
        let other = self.0.iter().find(other).filter(|_| mask & SEARCH == 0)?;
        Some(match other.tag {
            tag::USER => format!("uid {}", other.id),
            tag::GROUP_OBJ => "the group that it belongs to".to_owned(),
            _ => format!("gid {}", other.id),
        })
    }

    fn setfacl(&self, directory: &Path, uid: u32) -> String {
        let permissions = self.of_user(uid).unwrap_or_default() | SEARCH;
        let letters: String = [(4, 'r'), (2, 'w'), (SEARCH, 'x')]
            .into_iter()
            .filter_map(|(bit, letter)| (permissions & bit != 0).then_some(letter))
            .collect();
        format!("setfacl -m u:{uid}:{letters} {}", directory.display())
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
            // Nobody else gains: `limited`.
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

    /// What [`Acl::allow`] changed; tells whether the user's entry stays, since somebody has changed it.
    fn put_back(&mut self, uid: u32, before: Before) -> bool {
        let Some(now) = self.of_user(uid) else {
            return false;
        };
        if now != before.entry.unwrap_or_default() | SEARCH {
            return true;
        }
        match before.entry {
            None => self
                .0
                .retain(|entry| entry.tag != tag::USER || entry.id != uid),
            Some(permissions) => {
                for entry in &mut self.0 {
                    if entry.tag == tag::USER && entry.id == uid {
                        entry.permissions = permissions;
                    }
                }
            }
        }
        self.put_mask_back(before);
        false
    }

    fn put_mask_back(&mut self, before: Before) {
        let named = self.0.iter().any(Entry::is_named);
        let masked = |entry: &Entry| entry.tag == tag::GROUP_OBJ || entry.is_named();
        let searched = |entry: &Entry| masked(entry) && entry.permissions & SEARCH != 0;
        let Some(now) = self.mask() else { return };
        if !named && (before.mask.is_none() || before.named) {
            // Nobody is named any more: the mode says it all, as before the first entry. A chmod(1) since
            // has set the mask, and counts.
            if let Some(group) = self.find(tag::GROUP_OBJ) {
                group.permissions &= now;
            }
            self.0.retain(|entry| entry.tag != tag::MASK);
        } else if let Some(mask) = before.mask
            && now == mask | SEARCH
            // Another domain's user may need it by now.
            && !self.0.iter().any(searched)
            && let Some(entry) = self.find(tag::MASK)
        {
            entry.permissions = mask;
        }
    }
}

impl Entry {
    /// Of a user or group by its id.
    fn is_named(&self) -> bool {
        let plain = [tag::USER_OBJ, tag::GROUP_OBJ, tag::MASK, tag::OTHER];
        !plain.contains(&self.tag)
    }
}

#[cfg(test)]
mod tests;
