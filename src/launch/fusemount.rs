//! The FUSE mount of a view: made detached, attached by descriptor, gated by the kernel.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::kernel_view;
use crate::plan::ViewPlan;

/// A view's mount before it is attached, and the device descriptor that serves it.
pub(crate) struct Mounted {
    /// `/dev/fuse`: whoever holds a copy keeps the connection alive.
    pub(crate) device: OwnedFd,
    /// The detached mount.
    pub(crate) mount: OwnedFd,
}

/// Mounts a view, attached nowhere yet.
///
/// Without `allow_other` the kernel lets in only processes whose real, effective and saved ids are
/// all the client's (fs/fuse/dir.c, `fuse_allow_current_process`): host root gets EACCES.
///
/// # Errors
///
/// Mount: /dev/fuse is missing or the kernel refuses.
pub(crate) fn mount(view: &ViewPlan, client: &Ids, shared: bool) -> Result<Mounted> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty()).map_err(|errno| {
        Error::step(Class::Mount, "open(/dev/fuse)", errno)
            .cure("load the module (`modprobe fuse`), or give this container the device")
    })?;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| Error::step(Class::Mount, "fsopen(fuse)", errno))?;
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).map_err(|errno| {
            Error::step(
                Class::Mount,
                format!("fsconfig(fuse, {key}={value})"),
                errno,
            )
        })
    };
    set("source", &view.name)?;
    set("subtype", "virtfs-mediator")?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", &client.uid.to_string())?;
    set("group_id", &client.gid.to_string())?;
    if shared {
        for key in ["allow_other", "default_permissions"] {
            rustix::mount::fsconfig_set_flag(context.as_fd(), key).map_err(|errno| {
                Error::step(Class::Mount, format!("fsconfig(fuse, {key})"), errno)
            })?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())
        .map_err(|errno| Error::step(Class::Mount, "fsconfig(fuse, create)", errno))?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if view.policy.readonly() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| Error::step(Class::Mount, "fsmount(fuse)", errno))?;
    Ok(Mounted { device, mount })
}

/// The mount id (proc_pid_mountinfo(5)). From fdinfo: statx would ask the mediator, and the gate
/// refuses root.
pub(crate) fn mount_id(mount: &OwnedFd) -> Result<u64> {
    kernel_view::fdinfo(mount, "mnt_id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Error::new(Class::Mount, "/proc/self/fdinfo names no mnt_id", ""))
}
