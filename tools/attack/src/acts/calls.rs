//! Attacks that are one system call each, as data.
//!
//! None takes effect on the host even where it is allowed: what cannot be done harmlessly is
//! called with an argument that the kernel looks at only after it has asked for the privilege.

use std::os::fd::IntoRawFd as _;

use nix::errno::Errno;
use rustix::fs::Mode;

use super::{Outcome, Scene, unprepared};
use crate::raw::{self, Arguments, number, pointer, text};
use crate::task::{Failure, Gain};

/// One system call.
pub(super) struct Call {
    name: &'static str,
    pub(super) number: libc::c_long,
    /// Prepares the arguments, which live until the process ends.
    arguments: fn(&Scene) -> Result<Arguments, Failure>,
    /// What only a caller with the privilege is told; the unprivileged get EPERM first.
    past: &'static [Errno],
}

const fn call(
    name: &'static str,
    number: libc::c_long,
    arguments: fn(&Scene) -> Result<Arguments, Failure>,
) -> Call {
    past(name, number, &[], arguments)
}

const fn past(
    name: &'static str,
    number: libc::c_long,
    past: &'static [Errno],
    arguments: fn(&Scene) -> Result<Arguments, Failure>,
) -> Call {
    Call {
        name,
        number,
        arguments,
        past,
    }
}

pub(super) fn named(name: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.name == name)
}

pub(super) fn run(call: &Call, scene: &Scene) -> Outcome {
    let arguments = (call.arguments)(scene)?;
    scene.begin();
    match raw::call(call.number, arguments) {
        Ok(_) => Ok(Gain::Effect("the call succeeded".to_owned())),
        Err(errno) if call.past.contains(&errno) => Ok(Gain::Effect(format!(
            "past the check of privilege ({errno:?}: an argument that takes no effect)"
        ))),
        Err(errno) => Err(errno.into()),
    }
}

fn lasting<T: ?Sized + 'static>(value: Box<T>) -> libc::c_long {
    let value: &'static T = Box::leak(value);
    pointer(value)
}

fn zeros(bytes: usize) -> libc::c_long {
    lasting(vec![0_u8; bytes].into_boxed_slice())
}

/// A page of its own.
fn page(protection: libc::c_int) -> Arguments {
    let how = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    [0, 4096, number(protection), how, -1, 0]
}

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

fn mapped() -> Result<libc::c_long, Failure> {
    raw::call(libc::SYS_mmap, page(READ_WRITE)).map_err(unprepared("mmap"))
}

fn device(scene: &Scene, kind: u32, major: u32, minor: u32) -> Arguments {
    let mode = number((kind | 0o600).cast_signed());
    let device = libc::c_long::try_from(libc::makedev(major, minor)).unwrap_or_default();
    let root = raw::descriptor(&scene.root);
    [root, text(c"device"), mode, device, 0, 0]
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Arguments {
    [number(family), number(kind), number(protocol), 0, 0, 0]
}

const KEYRING_OF_PROCESS: libc::c_long = -2;

const CALLS: &[Call] = &[
    // Namespaces.
    call("unshare-user", libc::SYS_unshare, |_| {
        Ok([number(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0])
    }),
    call("unshare-mount", libc::SYS_unshare, |_| {
        Ok([number(libc::CLONE_NEWNS), 0, 0, 0, 0, 0])
    }),
    call("setns", libc::SYS_setns, |scene| {
        Ok([number(scene.planted()?), 0, 0, 0, 0, 0])
    }),
    // Mounts: in a namespace of the child's own.
    call("mount", libc::SYS_mount, |_| {
        let tmpfs = text(c"tmpfs");
        Ok([tmpfs, text(c"."), tmpfs, 0, 0, 0])
    }),
    // "." is no mount point in a chroot.
    past("umount", libc::SYS_umount2, &[Errno::EINVAL], |_| {
        Ok([text(c"."), number(libc::MNT_DETACH), 0, 0, 0, 0])
    }),
    call("fsopen", libc::SYS_fsopen, |_| {
        Ok([text(c"tmpfs"), 0, 0, 0, 0, 0])
    }),
    past(
        "pivot-root",
        libc::SYS_pivot_root,
        &[Errno::EINVAL, Errno::EBUSY],
        |_| Ok([text(c"."), text(c"."), 0, 0, 0, 0]),
    ),
    // The host as a whole.
    past("reboot", libc::SYS_reboot, &[Errno::EINVAL], |_| {
        Ok([0; 6]) // no magic number: sys_reboot asks for the privilege first
    }),
    call("settimeofday", libc::SYS_settimeofday, |_| {
        Ok([0; 6]) // neither a time nor a zone: nothing to set
    }),
    past("adjtimex", libc::SYS_adjtimex, &[Errno::EINVAL], |_| {
        const ADJ_TICK: u64 = 0x4000;
        let mut timex = Box::new([0_u64; 32]);
        timex[0] = ADJ_TICK; // of 0 microseconds: out of range
        Ok([lasting(timex), 0, 0, 0, 0, 0])
    }),
    call("sethostname", libc::SYS_sethostname, |_| {
        Ok([text(c"attacked"), 8, 0, 0, 0, 0]) // in a UTS namespace of the child's own
    }),
    past("swapon", libc::SYS_swapon, &[Errno::ENOENT], |_| {
        Ok([text(c"/virtfs-attack-none"), 0, 0, 0, 0, 0])
    }),
    past("acct", libc::SYS_acct, &[Errno::ENOENT], |_| {
        Ok([text(c"/virtfs-attack-none"), 0, 0, 0, 0, 0])
    }),
    past("kexec-load", libc::SYS_kexec_load, &[Errno::EINVAL], |_| {
        Ok([0, 1 << 20, 0, 0xffff, 0, 0]) // more segments than there can be, unknown flags
    }),
    past(
        "init-module",
        libc::SYS_init_module,
        &[Errno::ENOEXEC],
        |_| {
            Ok([0, 0, text(c""), 0, 0, 0]) // a module of no bytes
        },
    ),
    past(
        "quotactl",
        libc::SYS_quotactl_fd,
        &[Errno::ESRCH],
        |scene| {
            const GETQUOTA_OF_USER: libc::c_long = 0x80_0007 << 8;
            let directory = number(scene.directory()?.into_raw_fd());
            let other = 12_345;
            Ok([directory, GETQUOTA_OF_USER, other, zeros(256), 0, 0])
        },
    ),
    call("fanotify", libc::SYS_fanotify_init, |_| Ok([0; 6])),
    // The kernel's larger surfaces.
    call("add-key", libc::SYS_add_key, |_| {
        let (kind, name) = (text(c"user"), text(c"virtfs-attack"));
        Ok([kind, name, text(c"x"), 1, KEYRING_OF_PROCESS, 0])
    }),
    call("keyctl", libc::SYS_keyctl, |_| {
        const JOIN_SESSION_KEYRING: libc::c_long = 1;
        Ok([JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0])
    }),
    call("bpf", libc::SYS_bpf, |_| {
        const MAP_CREATE: libc::c_long = 0;
        let mut attributes = Box::new([0_u32; 32]);
        attributes[..4].copy_from_slice(&[2, 4, 4, 1]); // an array of one
        Ok([MAP_CREATE, lasting(attributes), 72, 0, 0, 0])
    }),
    call("io-uring", libc::SYS_io_uring_setup, |_| {
        Ok([1, zeros(120), 0, 0, 0, 0])
    }),
    call("userfaultfd", libc::SYS_userfaultfd, |_| {
        const USER_MODE_ONLY: libc::c_long = 1;
        Ok([USER_MODE_ONLY, 0, 0, 0, 0, 0])
    }),
    call("perf", libc::SYS_perf_event_open, |_| {
        // Of this process, in the kernel too; struct perf_event_attr, version 0: type software,
        // its size, config task clock.
        let mut attributes = Box::new([0_u64; 8]);
        attributes[0] = 1 | 64 << 32;
        attributes[1] = 1;
        Ok([lasting(attributes), 0, -1, -1, 0, 0])
    }),
    // The network. Connections are in `files`.
    call("raw-socket", libc::SYS_socket, |_| {
        Ok(socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))
    }),
    call("packet-socket", libc::SYS_socket, |_| {
        Ok(socket(libc::AF_PACKET, libc::SOCK_RAW, 0))
    }),
    // Devices.
    call("mknod-char", libc::SYS_mknodat, |scene| {
        Ok(device(scene, libc::S_IFCHR, 1, 5))
    }),
    call("mknod-block", libc::SYS_mknodat, |scene| {
        Ok(device(scene, libc::S_IFBLK, 7, 0))
    }),
    call("mknod-zero", libc::SYS_mknodat, |scene| {
        Ok(device(scene, libc::S_IFCHR, 0, 0))
    }),
    // Memory.
    call("mlock", libc::SYS_mlock, |_| {
        Ok([mapped()?, 4096, 0, 0, 0, 0])
    }),
    call("mmap-exec", libc::SYS_mmap, |_| {
        Ok(page(READ_WRITE | libc::PROT_EXEC))
    }),
    call("mprotect-exec", libc::SYS_mprotect, |_| {
        let executable = number(READ_WRITE | libc::PROT_EXEC);
        Ok([mapped()?, 4096, executable, 0, 0, 0])
    }),
    call("memfd", libc::SYS_memfd_create, |_| {
        Ok([text(c"virtfs-attack"), 0, 0, 0, 0, 0])
    }),
    // The process itself.
    call("dumpable", libc::SYS_prctl, |_| {
        Ok([number(libc::PR_SET_DUMPABLE), 1, 0, 0, 0, 0])
    }),
    call("personality", libc::SYS_personality, |_| {
        Ok([number(libc::READ_IMPLIES_EXEC), 0, 0, 0, 0, 0])
    }),
    call("setuid", libc::SYS_setresuid, |_| {
        Ok([12_345, 12_345, 12_345, 0, 0, 0])
    }),
    call("setgid", libc::SYS_setresgid, |_| {
        Ok([12_345, 12_345, 12_345, 0, 0, 0])
    }),
    call("setgroups", libc::SYS_setgroups, |_| {
        Ok([1, lasting(Box::new([0_u32])), 0, 0, 0, 0])
    }),
    call("capset", libc::SYS_capset, |_| {
        const VERSION_3: u32 = 0x2008_0522;
        const SYS_ADMIN: u32 = 1 << 21;
        // Effective, permitted, inheritable, of capabilities 0 to 31 and of those above.
        let sets = Box::new([SYS_ADMIN, SYS_ADMIN, 0, 0, 0, 0_u32]);
        let header = Box::new([VERSION_3, 0]);
        Ok([lasting(header), lasting(sets), 0, 0, 0, 0])
    }),
    // What belongs to somebody outside of a policy's map.
    call("chown-to-root", libc::SYS_fchownat, |scene| {
        let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        rustix::fs::openat(&scene.root, "new", create, Mode::RWXU).map_err(unprepared("openat"))?;
        Ok([raw::descriptor(&scene.root), text(c"new"), 0, 0, 0, 0])
    }),
    call("chown-of-roots", libc::SYS_fchownat, |scene| {
        let own = 100_001;
        Ok([raw::descriptor(&scene.root), text(c"roots"), own, own, 0, 0])
    }),
    call("chmod-of-roots", libc::SYS_fchmodat, |scene| {
        Ok([raw::descriptor(&scene.root), text(c"roots"), 0o777, 0, 0, 0])
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_once() {
        let mut names: Vec<_> = CALLS.iter().map(|call| call.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CALLS.len());
    }
}
