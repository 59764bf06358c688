//! `--submounts hide`: what the mediator has in the place of each mount that is not shared.
//!
//! The clone of the export leaves mounts out, so that what they cover on the host would be seen. An
//! empty read-only directory, or an empty file, lies over each of those places instead: the view
//! leaves the name out, since it lies on another mount, and a broken-into mediator finds nothing there
//! either.

use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use virtfs_mediator_core::policy::SubmountsWord;
use virtfs_mediator_core::{Covered, Submounts as Served};

use crate::error::{Class, Error, Result};
use crate::launch::namespace;
use crate::submounts::Submounts;
use crate::sys;

/// What is to be laid over the mount points, made while files can still be.
pub(crate) enum Covers {
    /// There is nothing to hide; what is below is the clone's own.
    None(Served),
    /// By their places below the export.
    Over(Vec<(PathBuf, OwnedFd)>),
}

impl Covers {
    /// Makes a cover for each place, in a mount namespace of our own.
    ///
    /// # Errors
    ///
    /// Mount: a place is gone; Confinement: a step failed.
    pub(crate) fn prepare(submounts: &Submounts, tree: &OwnedFd) -> Result<Self> {
        match submounts.choice {
            SubmountsWord::Refuse => return Ok(Self::None(Served::Refuse)),
            SubmountsWord::Follow => return Ok(Self::None(Served::Follow)),
            SubmountsWord::Hide => {}
        }
        let mut empty = None;
        let mut covers = Vec::new();
        for place in submounts.topmost() {
            let stat = rustix::fs::fstat(open(tree, place)?)
                .map_err(|errno| step(&format!("fstat({})", place.display()), errno))?;
            let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                namespace::empty_root()?
            } else {
                let memory = match &empty {
                    Some(memory) => memory,
                    None => empty.insert(memory_with_a_file()?),
                };
                file_of(memory)?
            };
            covers.push((place.to_owned(), cover));
        }
        Ok(Self::Over(covers))
    }

    /// Lays them, once `root` is the root directory.
    ///
    /// # Errors
    ///
    /// As [`Covers::prepare`].
    pub(crate) fn lay(self, root: &OwnedFd) -> Result<Served> {
        let covers = match self {
            Self::None(served) => return Ok(served),
            Self::Over(covers) => covers,
        };
        let mut covered = Vec::new();
        for (place, cover) in covers {
            let shown = place.display().to_string();
            let under = open(root, &place)?;
            let stat = rustix::fs::fstat(&under)
                .map_err(|errno| step(&format!("fstat({shown})"), errno))?;
            namespace::attach(&cover, &under, &shown)?;
            let name = place.file_name().unwrap_or_default();
            covered.push(Covered {
                ino: stat.st_ino,
                name: name.as_bytes().to_vec(),
            });
        }
        Ok(Served::Hide(covered))
    }
}

/// One place below the export, by no symbolic link.
fn open(root: &OwnedFd, place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, place, flags, Mode::empty(), how).map_err(|errno| {
        Error::new(
            Class::Mount,
            format!("the mount point {} in the export: {errno}", place.display()),
            "it was moved while starting: start again when the export's mounts are settled",
        )
    })
}

const EMPTY: &str = "empty";

/// A tmpfs with one empty file. Attached, for only what is in a namespace can be cloned; the
/// change of the root directory takes it away again.
fn memory_with_a_file() -> Result<OwnedFd> {
    let failed = |call: &'static str| move |errno: Errno| step(call, errno);
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(failed("fsopen(tmpfs)"))?;
    rustix::mount::fsconfig_create(&context).map_err(failed("fsconfig(tmpfs, create)"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let memory = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount(tmpfs)"))?;
    namespace::attach(
        &memory,
        &namespace::open_plain(Path::new("/proc"))?,
        "/proc",
    )?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&memory, EMPTY, flags, Mode::empty())
        .map_err(failed("openat(tmpfs, O_CREAT)"))?;
    Ok(memory)
}

fn file_of(memory: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let file = rustix::mount::open_tree(memory, EMPTY, flags)
        .map_err(|errno| step("open_tree(empty file, OPEN_TREE_CLONE)", errno))?;
    let attributes = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(file.as_fd(), attributes, libc::MS_PRIVATE, false)
        .map_err(|error| step("mount_setattr(empty file)", error))?;
    Ok(file)
}

fn step(call: &str, errno: impl std::fmt::Display) -> Error {
    Error::step(Class::Confinement, call, errno)
}
