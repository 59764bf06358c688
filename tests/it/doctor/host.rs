//! FUSE, security modules, limits and settings.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::catalogue::Problem;
use super::harness::{
    Doctor, Seen, cover, cover_directory, elsewhere, open_directory, provoke, tmpfs,
};

provoke! {
    device_missing => [FuseDevice];
    device_is_another => [FuseMount];
    fuse_not_listed => [FuseUnregistered];
    fusermount_missing => [NoFusermount];
    fusermount_without_its_bit => [PlainFusermount];
    security_modules_unknown => [LsmUnknown];
    apparmor_active => [AppArmor];
    apparmor_confines => [AppArmorConfined];
    selinux_permissive => [Selinux];
    selinux_enforcing => [SelinuxEnforcing];
    files_very_few => [FewFiles];
    files_some => [SomeFiles];
    tiocsti_allowed => [Tiocsti];
    hardlinks_unprotected => [Hardlinks];
    symlinks_unprotected => [Symlinks];
    ptrace_allowed => [Ptrace];
}

const NONE: [&str; 0] = [];
const MODULES: &str = "/sys/kernel/security";

fn doctor() -> Doctor {
    Doctor::new(NONE)
}

/// Plainly, and after a change in a mount namespace of its own; the change is given a directory to
/// keep files in.
fn changing(change: impl FnOnce(&Path) + Send) -> Seen {
    let doctor = doctor();
    let scratch = open_directory();
    Seen {
        control: doctor.run(),
        changed: elsewhere(|| {
            change(scratch.path());
            doctor.run()
        }),
    }
}

/// The same file, once with one content and once with another.
fn covering(file: &str, good: &str, bad: &str) -> Seen {
    let doctor = doctor();
    let scratch = open_directory();
    let with = |text: &str| {
        elsewhere(|| {
            cover(scratch.path(), file, text);
            doctor.run()
        })
    };
    Seen {
        control: with(good),
        changed: with(bad),
    }
}

fn device_missing() -> Seen {
    let seen = changing(|_| {
        tmpfs(Path::new("/dev"));
        // The test needs it to start programs.
        fs::write("/dev/null", "").unwrap();
    });
    seen.changed
        .says(Problem::FuseDevice, &["/dev/fuse", "modprobe fuse"]);
    assert_eq!(seen.changed.status, 74);
    seen
}

fn device_is_another() -> Seen {
    let seen = changing(|_| rustix::mount::mount_bind("/dev/null", "/dev/fuse").unwrap());
    seen.changed.says(Problem::FuseMount, &["fsconfig(fuse"]);
    assert_eq!(seen.changed.status, 74);
    seen
}

fn fuse_not_listed() -> Seen {
    let seen = covering(
        "/proc/filesystems",
        "nodev\ttmpfs\n\text4\nnodev\tfuse\n",
        "nodev\ttmpfs\n\tfuseblk\nnodev\tfusectl\n",
    );
    seen.changed
        .says(Problem::FuseUnregistered, &["modprobe fuse"]);
    seen
}

fn fusermount_missing() -> Seen {
    let seen = changing(|_| tmpfs(Path::new("/usr/bin")));
    seen.changed.says(Problem::NoFusermount, &["fuse3"]);
    seen
}

fn fusermount_without_its_bit() -> Seen {
    changing(|scratch| {
        let copy = scratch.join("fusermount3");
        fs::copy("/usr/bin/fusermount3", &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        rustix::mount::mount_bind(&copy, "/usr/bin/fusermount3").unwrap();
    })
}

fn security_modules_unknown() -> Seen {
    let doctor = doctor();
    Seen {
        control: elsewhere(|| {
            cover_directory(MODULES, "lsm", "capability,landlock");
            doctor.run()
        }),
        changed: elsewhere(|| {
            cover_directory(MODULES, "other", "");
            doctor.run()
        }),
    }
}

/// With a list of security modules, once without and once with one.
fn with_module(module: &str, change: impl Fn() + Sync, script: &str) -> Seen {
    let doctor = doctor();
    let with = |list: &str| {
        elsewhere(|| {
            cover_directory(MODULES, "lsm", list);
            change();
            doctor.after(script)
        })
    };
    Seen {
        control: with("capability,landlock,yama"),
        changed: with(&format!("capability,landlock,{module}")),
    }
}

fn apparmor_active() -> Seen {
    with_module("apparmor", || (), "")
}

/// The shell's /proc entry is `doctor`'s, since it becomes `doctor`.
fn apparmor_confines() -> Seen {
    let scratch = open_directory();
    let label = scratch.path().join("label");
    fs::write(&label, "virt-launcher (enforce)\n").unwrap();
    let script = format!("mount --bind {} /proc/$$/attr/current", label.display());
    let seen = with_module("apparmor", || (), &script);
    seen.changed
        .says(Problem::AppArmorConfined, &["virt-launcher"]);
    seen
}

fn selinux_permissive() -> Seen {
    let seen = with_module("selinux", || (), "");
    assert!(!seen.changed.has(Problem::SelinuxEnforcing));
    seen
}

fn selinux_enforcing() -> Seen {
    let doctor = doctor();
    let with = |enforce: &str| {
        elsewhere(|| {
            cover_directory("/sys/fs", "selinux/enforce", enforce);
            doctor.run()
        })
    };
    let seen = Seen {
        control: with("0"),
        changed: with("1"),
    };
    seen.changed
        .says(Problem::SelinuxEnforcing, &["virt_use_fusefs"]);
    seen
}

fn with_files(good: &str, bad: &str) -> Seen {
    let doctor = doctor();
    let with = |files: &str| doctor.by(&["prlimit", &format!("--nofile={files}:{files}")]);
    Seen {
        control: with(good),
        changed: with(bad),
    }
}

fn files_very_few() -> Seen {
    let seen = with_files("4096", "1024");
    seen.changed
        .says(Problem::FewFiles, &["1024", "LimitNOFILE"]);
    seen
}

fn files_some() -> Seen {
    with_files("1024", "4096")
}

fn tiocsti_allowed() -> Seen {
    covering("/proc/sys/dev/tty/legacy_tiocsti", "0\n", "1\n")
}

fn hardlinks_unprotected() -> Seen {
    covering("/proc/sys/fs/protected_hardlinks", "1\n", "0\n")
}

fn symlinks_unprotected() -> Seen {
    covering("/proc/sys/fs/protected_symlinks", "1\n", "0\n")
}

/// Not every kernel has Yama: its setting is put there.
fn ptrace_allowed() -> Seen {
    let doctor = doctor();
    let with = |scope: &str| {
        elsewhere(|| {
            cover_directory("/proc/sys/kernel", "yama/ptrace_scope", scope);
            doctor.run()
        })
    };
    Seen {
        control: with("1\n"),
        changed: with("0\n"),
    }
}
