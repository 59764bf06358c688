//! `--isolate`: a root directory for the client that holds what QEMU needs, the views, and what
//! `--bind` names; the rest of the host's files are not there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{Class, Error, Result};
use crate::launch::namespace;
use crate::sys;

/// Programs and libraries: symbolic links into /usr on a merged-usr host, directories elsewhere.
const PROGRAMS: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// What the dynamic linker and Debian's alternatives look up, and names for ids. No secret is
/// among them: the client's user can read them all on the host.
const CONFIGURATION: [&str; 5] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
];
/// Devices that give nothing away; kvm by its own mode on the host.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/kvm",
];

/// Whether the minimal root shows what lies at a path of the host, whatever is bound besides.
pub(crate) fn shows(path: &Path) -> bool {
    PROGRAMS
        .iter()
        .chain(&CONFIGURATION)
        .any(|shown| path.starts_with(shown))
}

/// A path of the host that the client sees too, at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// Canonical.
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
}

/// A clone of something on the host, mounted nowhere yet.
struct Piece {
    at: PathBuf,
    tree: OwnedFd,
    kind: FileType,
}

/// Makes the minimal root the root directory of this process and its namespace. `/proc` is an
/// empty directory in it; the views' places exist.
pub(crate) fn enter(binds: &[Bind], views: &[&Path]) -> Result<()> {
    let mut pieces = Vec::new();
    let mut links = Vec::new();
    for path in PROGRAMS.iter().map(Path::new) {
        match std::fs::read_link(path) {
            Ok(target) => links.push((path, target)),
            Err(_) => pieces.extend(piece(path, true, libc::MOUNT_ATTR_NODEV)?),
        }
    }
    for path in CONFIGURATION {
        pieces.extend(piece(Path::new(path), true, libc::MOUNT_ATTR_NODEV)?);
    }
    for path in DEVICES {
        pieces.extend(piece(Path::new(path), false, libc::MOUNT_ATTR_NOEXEC)?);
    }
    for bind in binds {
        let found = piece(&bind.path, bind.readonly, libc::MOUNT_ATTR_NODEV)?;
        pieces.push(found.ok_or_else(|| missing(&bind.path))?);
    }
    // Only now: what is mounted over /proc would hide what is cloned.
    let root = memory("0755")?;
    let proc = namespace::open_plain(Path::new("/proc"))?;
    namespace::attach(&root, &proc, "minimal root")?;
    for (path, target) in links {
        rustix::fs::symlinkat(&target, &root, inside(path))
            .map_err(|errno| step(&format!("symlinkat({})", path.display()), errno))?;
    }
    let scratch = memory("1777")?;
    let place = directory(&root, Path::new("/tmp"))?;
    namespace::attach(&scratch, &place, "/tmp")?;
    for piece in &pieces {
        let place = if piece.kind == FileType::Directory {
            directory(&root, &piece.at)?
        } else {
            file(&root, &piece.at)?
        };
        namespace::attach(&piece.tree, &place, &piece.at.display().to_string())?;
    }
    for view in views.iter().copied().chain([Path::new("/proc")]) {
        directory(&root, view)?;
    }
    sys::mount_setattr(root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)
        .map_err(|error| step("mount_setattr(minimal root, MOUNT_ATTR_RDONLY)", error))?;
    namespace::pivot(&root)
}

/// Runs `act` while the host's /proc is mounted on the minimal root's, which is empty before and
/// after: until the client's init mounts its own, only our processes are about.
pub(crate) fn with_proc<T>(proc: &OwnedFd, act: impl FnOnce() -> Result<T>) -> Result<T> {
    namespace::attach(proc, &namespace::open_plain(Path::new("/proc"))?, "/proc")?;
    let result = act();
    rustix::mount::unmount("/proc", UnmountFlags::DETACH)
        .map_err(|errno| step("umount2(/proc)", errno))?;
    result
}

/// A detached clone of the host's /proc, for [`with_proc`].
pub(crate) fn host_proc() -> Result<OwnedFd> {
    clone(Path::new("/proc"))
}

/// Clones one path (not what is mounted below it); `None` if it is not there.
fn piece(path: &Path, readonly: bool, extra: u64) -> Result<Option<Piece>> {
    let stat = match rustix::fs::stat(path) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(step(&format!("stat({})", path.display()), errno)),
    };
    let tree = clone(path)?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID | extra;
    if readonly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    sys::mount_setattr(tree.as_fd(), attributes, libc::MS_PRIVATE, false)
        .map_err(|error| step(&format!("mount_setattr({})", path.display()), error))?;
    Ok(Some(Piece {
        at: path.to_owned(),
        tree,
        kind: FileType::from_raw_mode(stat.st_mode),
    }))
}

fn clone(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags).map_err(|errno| {
        step(
            &format!("open_tree({}, OPEN_TREE_CLONE)", path.display()),
            errno,
        )
    })
}

/// An empty tmpfs, mounted nowhere yet.
fn memory(mode: &str) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| step("fsopen(tmpfs)", errno))?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", mode)
        .and_then(|()| rustix::mount::fsconfig_set_string(context.as_fd(), "size", "64m"))
        .and_then(|()| rustix::mount::fsconfig_create(context.as_fd()))
        .map_err(|errno| step("fsconfig(tmpfs)", errno))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| step("fsmount(tmpfs)", errno))
}

/// Makes a directory in the new root with all above it, and opens it (`O_PATH`).
fn directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let mut at = open(root, OsStr::new("."), OFlags::DIRECTORY)?;
    for component in path.components() {
        if let Component::Normal(name) = component {
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                // In a bound directory: it is there, or the host's to make.
                Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
                Err(errno) => return Err(step(&format!("mkdirat({})", path.display()), errno)),
            }
            at = open(&at, name, OFlags::DIRECTORY)?;
        }
    }
    Ok(at)
}

/// Makes an empty file to mount a file or a device over.
fn file(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(missing(path));
    };
    let parent = directory(root, parent)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))
        .map_err(|errno| step(&format!("openat({}, O_CREAT)", path.display()), errno))?;
    open(&parent, name, OFlags::empty())
}

fn open(at: &OwnedFd, name: &OsStr, extra: OFlags) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    rustix::fs::openat(at, name, flags, Mode::empty())
        .map_err(|errno| step(&format!("openat({})", name.display()), errno))
}

/// A path without its leading `/`.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn missing(path: &Path) -> Error {
    Error::new(
        Class::Configuration,
        format!("--bind {}: it is not there", path.display()),
        "name a file or directory that exists",
    )
}

fn step(call: &str, errno: impl std::fmt::Display) -> Error {
    Error::step(Class::Confinement, call, errno)
}
