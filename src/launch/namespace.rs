//! Mount namespaces, and the mounts in them that are not FUSE's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::error::{Class, Error, Result};
use crate::sys;

/// A mount namespace of our own in which nothing that is mounted reaches another one, nor the
/// other way round.
///
/// Private, not slave: a mount that the host makes under the export later must not appear here.
pub(crate) fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| step("unshare(CLONE_NEWNS)", errno))?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|errno| step("mount(/, MS_PRIVATE)", errno))
}

/// Opens a directory again in a new mount namespace, and makes sure that it is still the one that
/// was planned: nobody put a link or another directory in its place meanwhile.
pub(crate) fn reopen(path: &Path, planned: &OwnedFd) -> Result<OwnedFd> {
    let found = open_plain(path)?;
    if !is_same(&found, planned)? {
        return Err(Error::new(
            Class::Mount,
            format!("{} was replaced while starting", path.display()),
            "someone else may change its parent directory: find out who, then start again",
        ));
    }
    Ok(found)
}

/// Whether two descriptors are of one directory, by device and inode, through whichever mounts.
pub(crate) fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let identity = |fd: &OwnedFd| {
        rustix::fs::fstat(fd)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(|errno| step("fstat", errno))
    };
    Ok(identity(one)? == identity(other)?)
}

/// Opens a canonical path; a symbolic link anywhere in it is an error.
pub(crate) fn open_plain(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), how)
        .map_err(|errno| step(&format!("openat2({}, no symlinks)", path.display()), errno))
}

/// A detached clone of the directory, alone or with what is mounted below it: nosuid, nodev, noexec,
/// private, read-only if asked, each mount of it.
pub(crate) fn clone_export(export: &OwnedFd, readonly: bool, with_mounts: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, with_mounts);
    let tree = rustix::mount::open_tree(export, "", flags)
        .map_err(|errno| step("open_tree(export, OPEN_TREE_CLONE)", errno))?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if readonly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    sys::mount_setattr(tree.as_fd(), attributes, libc::MS_PRIVATE, with_mounts)
        .map_err(|error| step("mount_setattr(export)", error))?;
    Ok(tree)
}

/// Mounts a fresh procfs of the calling process's pid namespace over `/proc`.
pub(crate) fn fresh_proc() -> Result<()> {
    let proc = detached("proc", MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    attach(&proc, &open_plain(Path::new("/proc"))?, "/proc")
}

/// A read-only directory with nothing in it, mounted nowhere: a root for processes that need no
/// file.
pub(crate) fn empty_root() -> Result<OwnedFd> {
    detached(
        "tmpfs",
        MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// Makes [`empty_root`] the root and the working directory.
pub(crate) fn enter_empty(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root).map_err(|errno| step("fchdir(empty root)", errno))?;
    rustix::process::chroot(".").map_err(|errno| step("chroot(empty root)", errno))
}

fn detached(kind: &str, extra: MountAttrFlags) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| step(&format!("fsopen({kind})"), errno))?;
    rustix::mount::fsconfig_create(&context)
        .map_err(|errno| step(&format!("fsconfig({kind}, create)"), errno))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | extra;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| step(&format!("fsmount({kind})"), errno))
}

/// Attaches a detached mount by descriptor: no path is resolved that could have been changed.
pub(crate) fn attach(mount: &OwnedFd, over: &OwnedFd, shown: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", over, "", flags)
        .map_err(|errno| step(&format!("move_mount({shown})"), errno))
}

/// Makes a detached `tree` the root directory; see [`pivot`].
pub(crate) fn pivot_onto(tree: &OwnedFd) -> Result<()> {
    // Any directory will do to attach it to: /proc has been used by then, and is never missing.
    attach(tree, &open_plain(Path::new("/proc"))?, "new root")?;
    pivot(tree)
}

/// Makes an attached mount the root directory and lets go of the old one for good.
///
/// `pivot_root(".", ".")` (pivot_root(2), NOTES) puts the old root over the new one, from where it
/// is detached: no directory for it is needed inside, and nothing leads back.
pub(crate) fn pivot(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root).map_err(|errno| step("fchdir(new root)", errno))?;
    rustix::process::pivot_root(".", ".").map_err(|errno| step("pivot_root(new root)", errno))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(|errno| step("umount2(old root, MNT_DETACH)", errno))?;
    rustix::process::chdir("/").map_err(|errno| step("chdir(/)", errno))
}

/// A detached clone of this process's own `/proc/self/fd`, whose `..` ends at itself. /proc must
/// be a procfs of this process's own pid namespace.
pub(crate) fn own_descriptors() -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, "/proc/self/fd", flags)
        .map_err(|errno| step("open_tree(/proc/self/fd, OPEN_TREE_CLONE)", errno))
}

fn step(call: &str, errno: impl std::fmt::Display) -> Error {
    Error::step(Class::Confinement, call, errno)
}
