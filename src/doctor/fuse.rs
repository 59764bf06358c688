//! FUSE: the device, a real mount that is attached nowhere, and the kernel's greeting on it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use virtfs_mediator_core::OLDEST_PROTOCOL;

use crate::doctor::NEEDS_ROOT;
use crate::doctor::catalogue::Problem;
use crate::doctor::child;
use crate::doctor::findings::Findings;
use crate::error::{Class, Error, Result};

/// Where `unmount` looks for it.
const FUSERMOUNT: &str = "/usr/bin/fusermount3";

/// The least that the kernel wants to be read at once (include/uapi/linux/fuse.h,
/// `FUSE_MIN_READ_BUFFER`).
const READ_AT_ONCE: usize = 8192;

/// All checks of this group.
pub(super) fn check(findings: &mut Findings, root: bool) {
    match device() {
        Ok(_device) => findings.ok(Problem::FuseDevice, "/dev/fuse opens"),
        // It may be root's alone.
        Err(Errno::ACCESS) if !root => findings.untried(Problem::FuseDevice, NEEDS_ROOT),
        Err(errno) => findings.tell(
            Problem::FuseDevice,
            format!("open(/dev/fuse): {errno}"),
            "load the module (`modprobe fuse`), or give this container the device",
        ),
    }
    registered(findings);
    if root {
        protocol(findings);
    } else {
        findings.untried(Problem::FuseMount, NEEDS_ROOT);
        findings.untried(Problem::OldFuse, NEEDS_ROOT);
        findings.untried(Problem::NoPassthrough, NEEDS_ROOT);
    }
    fusermount(findings);
}

fn registered(findings: &mut Findings) {
    let listed = std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| {
        text.lines()
            .any(|line| line.trim_start_matches("nodev").trim() == "fuse")
    });
    if listed {
        findings.ok(Problem::FuseUnregistered, "the kernel lists fuse");
    } else {
        findings.tell(
            Problem::FuseUnregistered,
            "/proc/filesystems does not list fuse",
            "load the module at boot: `echo fuse >/etc/modules-load.d/fuse.conf`, `modprobe fuse`",
        );
    }
}

fn protocol(findings: &mut Findings) {
    // In a child: a kernel that never says hello must not hold us.
    match child::run(0, |_| greeting()).result() {
        Ok((major, minor, offers)) => {
            passthrough(findings, offers);
            findings.ok(Problem::FuseMount, "a view can be mounted");
            let shown = format!("{major}.{minor}");
            if (major, minor) >= OLDEST_PROTOCOL {
                findings.ok(Problem::OldFuse, shown);
            } else {
                let (major, minor) = OLDEST_PROTOCOL;
                findings.tell(
                    Problem::OldFuse,
                    format!("{shown} is older than {major}.{minor}"),
                    "take a newer kernel",
                );
            }
        }
        Err(error) => {
            findings.tell(
                Problem::FuseMount,
                error.what(),
                "start from the host; in a container, it needs CAP_SYS_ADMIN and /dev/fuse",
            );
            findings.untried(Problem::OldFuse, "there is no mount to ask");
            findings.untried(Problem::NoPassthrough, "there is no mount to ask");
        }
    }
}

/// Without it, every view works, and all data is mediated.
fn passthrough(findings: &mut Findings, offered: bool) {
    if offered {
        findings.ok(
            Problem::NoPassthrough,
            "file data can go past the mediator (--data)",
        );
    } else {
        findings.tell(
            Problem::NoPassthrough,
            "this kernel has no FUSE passthrough: all file data goes through the mediator",
            "for speed, take Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH",
        );
    }
}

fn device() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty())
}

/// Mounts, attached nowhere, and reads the INIT request that the kernel sends at once: the
/// protocol's major and minor, and whether it offers passthrough. The connection ends with the
/// descriptors.
fn greeting() -> Result<(u32, u32, bool)> {
    let device = device().map_err(|errno| step("open(/dev/fuse)", errno))?;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| step("fsopen(fuse)", errno))?;
    let number = device.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "doctor"),
        ("subtype", "virtfs-mediator"),
        ("fd", number.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)
            .map_err(|errno| step(&format!("fsconfig(fuse, {key}={value})"), errno))?;
    }
    rustix::mount::fsconfig_create(context.as_fd())
        .map_err(|errno| step("fsconfig(fuse, create)", errno))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let _mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| step("fsmount(fuse)", errno))?;
    let mut request = vec![0; READ_AT_ONCE];
    let len =
        rustix::io::read(&device, &mut request).map_err(|errno| step("read(/dev/fuse)", errno))?;
    request
        .get(..len)
        .and_then(parse_init)
        .ok_or_else(|| step("read(/dev/fuse)", "the first request is not INIT"))
}

/// `fuse_in_header` is 40 bytes, its second word the opcode; `fuse_init_in` starts with major and
/// minor, read-ahead, and two words of flags (include/uapi/linux/fuse.h). In the byte order of the
/// host.
fn parse_init(request: &[u8]) -> Option<(u32, u32, bool)> {
    const INIT: u32 = 26;
    const INIT_EXT: u32 = 1 << 30;
    /// Bit 37 of both words.
    const PASSTHROUGH: u32 = 1 << (37 - 32);
    let word = |at: usize| {
        let bytes = request.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    // Older kernels have no second word.
    let extended = word(52).is_some_and(|flags| flags & INIT_EXT != 0);
    let offers = extended && word(56).is_some_and(|flags| flags & PASSTHROUGH != 0);
    (word(4)? == INIT).then_some((word(40)?, word(44)?, offers))
}

fn fusermount(findings: &mut Findings) {
    let path = Path::new(FUSERMOUNT);
    match path.metadata() {
        Err(error) => findings.tell(
            Problem::NoFusermount,
            format!("{FUSERMOUNT}: {error}; `unmount` needs it"),
            "install it (Debian: apt-get install fuse3)",
        ),
        Ok(meta) if meta.uid() == 0 && meta.mode() & 0o4000 != 0 => {
            findings.ok(Problem::NoFusermount, format!("{FUSERMOUNT}, set-user-id root"));
        }
        Ok(_) => findings.tell(
            Problem::PlainFusermount,
            format!("{FUSERMOUNT} is not set-user-id root: views do not need that, users' own FUSE mounts do"),
            "",
        ),
    }
}

fn step(call: &str, why: impl std::fmt::Display) -> Error {
    Error::step(Class::Mount, call, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_is_read_and_nothing_else_taken_for_it() {
        let mut request = vec![0_u8; 104];
        request[4..8].copy_from_slice(&26_u32.to_ne_bytes());
        request[40..44].copy_from_slice(&7_u32.to_ne_bytes());
        request[44..48].copy_from_slice(&45_u32.to_ne_bytes());
        assert_eq!(parse_init(&request), Some((7, 45, false)));
        assert_eq!(parse_init(&request[..46]), None);
        request[56..60].copy_from_slice(&(1_u32 << 5).to_ne_bytes());
        assert_eq!(parse_init(&request), Some((7, 45, false)), "no second word");
        request[52..56].copy_from_slice(&(1_u32 << 30).to_ne_bytes());
        assert_eq!(parse_init(&request), Some((7, 45, true)));
        request[4] = 3;
        assert_eq!(parse_init(&request), None);
    }
}
