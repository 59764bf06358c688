//! Exports: what a start refuses, file systems, mounts, and what client and mediator can do there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::mount::MountFlags;

use super::catalogue::Problem;
use super::fusefs::{self, Names};
use super::harness::{
    Doctor, Refused, Report, SOURCE, Seen, elsewhere, mount, on, open_directory, provoke, tmpfs,
};
use crate::common::{Export, Start, shown};

provoke! {
    policy_missing_or_mistaken => [BadPolicy];
    policy_of_another_export => [BadPolicy];
    export_that_a_start_refuses => [Unfit];
    export_that_is_a_view => [Unfit];
    nfs => [Nfs];
    file_server => [Network];
    file_system_that_folds => [FoldingKind];
    fuse_mount => [Fuse];
    fuse_mount_without_allow_other => [Reach];
    fuse_mount_of_another_user => [Unfit];
    directory_with_the_folding_flag => [Folding];
    directory_that_folds_and_does_not_say_so => [Folding];
    overlay => [Overlay];
    read_only_mount => [ReadOnly];
    set_id_honoured => [SetId];
    bind_mount_elsewhere => [OtherMounts];
    parent_closed_to_the_client => [NoWay];
    parent_that_a_user_owns => [Movable];
    chown_refused => [Owners];
    no_user_attributes => [NoXattr];
    acl_on_the_root => [Acl];
}

/// An export with a policy file, made beside it.
fn with_policy(export: &Export, text: &str) -> Doctor {
    let file = export.beside("policy.toml");
    fs::write(&file, text).unwrap();
    let words = format!("{}={}", shown(export.path()), shown(&file));
    Doctor::new(["--client", "61234:61235", &words])
}

/// Plainly, and after a mount on the export in a namespace of its own.
fn mounting(change: impl FnOnce(&Path) + Send) -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    Seen {
        control: doctor.run(),
        changed: elsewhere(|| {
            change(export.path());
            doctor.run()
        }),
    }
}

fn policy_missing_or_mistaken() -> Seen {
    let export = Export::new();
    let bad = with_policy(&export, "default = \"allow\"\nreadonyl = true\n").run();
    bad.says(Problem::BadPolicy, &["policy.toml:2:", "readonyl"]);
    let none = Doctor::new(["--policy", "/none.toml", &shown(export.path())]).run();
    assert_eq!(none.status, 78);
    Seen {
        control: with_policy(&export, "default = \"allow\"\n").run(),
        changed: none,
    }
}

fn policy_of_another_export() -> Seen {
    let export = Export::new();
    let named = |path: &str| {
        let text = format!("default = \"allow\"\nexport = \"{path}\"\n");
        with_policy(&export, &text).run()
    };
    Seen {
        control: named(&shown(export.path())),
        changed: named("/elsewhere"),
    }
}

/// Each of the refusals of a start, by the start's own words.
fn export_that_a_start_refuses() -> Seen {
    let export = Export::new();
    let refused = |path: &Path, words: &[&str]| {
        let report = on(path).run();
        report.says(Problem::Unfit, words);
        assert_eq!(report.status, 78);
        report
    };
    let file = export.beside("file");
    fs::write(&file, "").unwrap();
    let link = export.beside("link");
    symlink(export.path(), &link).unwrap();
    refused(Path::new("/"), &["root directory"]);
    refused(&export.beside("none"), &["none", "exists"]);
    refused(&file, &["not a directory"]);
    refused(&link, &["symbolic link"]);
    refused(
        Path::new("/proc/sys"),
        &["proc mount", "kernel file systems"],
    );
    let control = on(export.path()).run();
    let inner = export.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let changed = elsewhere(|| {
        tmpfs(&inner);
        refused(export.path(), &[&shown(&inner), "one by one"])
    });
    Seen { control, changed }
}

/// Where the view is, seen as root, whom a view for everybody lets in.
fn export_that_is_a_view() -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let control = doctor.run();
    let view = Start::new(&export).option("--shared").mount();
    let init = view.family.init.pid;
    let changed = doctor.by(&["nsenter", &format!("--target={init}"), "--mount", "--pid"]);
    changed.says(Problem::Unfit, &["is itself a view"]);
    Seen { control, changed }
}

/// Mounts of kinds that not every kernel has: the kernel's list of mounts is covered by one that
/// gives a tmpfs another kind. The shell's /proc entry is `doctor`'s, since it becomes `doctor`.
fn said_to_be(kind: &str) -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let list = export.beside("mountinfo");
    let as_kind = |kind: &str| {
        elsewhere(|| {
            tmpfs(export.path());
            let list = shown(&list);
            doctor.after(&format!(
                "sed 's, - tmpfs {SOURCE} , - {kind} {SOURCE} ,' /proc/$$/mountinfo >{list}\n\
                 mount --bind {list} /proc/$$/mountinfo"
            ))
        })
    };
    Seen {
        control: as_kind("tmpfs"),
        changed: as_kind(kind),
    }
}

fn nfs() -> Seen {
    let seen = said_to_be("nfs4");
    seen.changed
        .says(Problem::Nfs, &["judges the mediator", "sec=sys"]);
    assert_eq!(seen.changed.status, 78);
    seen
}

fn file_server() -> Seen {
    said_to_be("9p")
}

fn file_system_that_folds() -> Seen {
    let seen = said_to_be("vfat");
    seen.changed.says(Problem::FoldingKind, &["vfat"]);
    seen
}

/// `doctor` on two FUSE mounts, or on a plain directory and one.
fn with_fuse(control: Option<(Names, &str)>, changed: (Names, &str)) -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let with = |(names, options): (Names, &str)| -> Report {
        elsewhere(|| {
            let _mounted = fusefs::mount(export.path(), names, 0, options);
            doctor.run()
        })
    };
    Seen {
        control: control.map_or_else(|| doctor.run(), with),
        changed: with(changed),
    }
}

const OTHERS: &str = ",allow_other";

fn fuse_mount() -> Seen {
    let seen = with_fuse(None, (Names::Exact, OTHERS));
    seen.changed
        .says(Problem::Fuse, &["two FUSE servers", "allow_other"]);
    seen
}

fn fuse_mount_without_allow_other() -> Seen {
    let seen = with_fuse(Some((Names::Exact, OTHERS)), (Names::Exact, ""));
    seen.changed
        .says(Problem::Reach, &["Permission denied", "allow_other"]);
    assert_eq!(seen.changed.status, 78);
    seen
}

/// Root is kept out already.
fn fuse_mount_of_another_user() -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let seen = Seen {
        control: doctor.run(),
        changed: elsewhere(|| {
            let _mounted = fusefs::mount(export.path(), Names::Exact, 61_234, "");
            doctor.run()
        }),
    };
    seen.changed
        .says(Problem::Unfit, &["Permission denied", "allow_other"]);
    seen
}

fn directory_with_the_folding_flag() -> Seen {
    with_fuse(Some((Names::Exact, OTHERS)), (Names::Flagged, OTHERS))
}

fn directory_that_folds_and_does_not_say_so() -> Seen {
    let seen = with_fuse(Some((Names::Exact, OTHERS)), (Names::Folded, OTHERS));
    seen.changed
        .says(Problem::Folding, &["1 directories", ": /"]);
    seen
}

fn overlay() -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let layers = export.beside("layers");
    fs::create_dir(&layers).unwrap();
    let control = doctor.run();
    let changed = elsewhere(|| {
        tmpfs(&layers);
        for name in ["lower", "upper", "work"] {
            fs::create_dir(layers.join(name)).unwrap();
        }
        let layers = shown(&layers);
        let options =
            format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
        let options = std::ffi::CString::new(options).unwrap();
        let (kind, flags) = ("overlay", MountFlags::empty());
        rustix::mount::mount(kind, export.path(), kind, flags, options.as_c_str()).unwrap();
        doctor.run()
    });
    Seen { control, changed }
}

fn read_only_mount() -> Seen {
    let export = Export::new();
    let readonly = |doctor: &Doctor| {
        elsewhere(|| {
            mount("tmpfs", export.path(), MountFlags::RDONLY);
            doctor.run()
        })
    };
    let agreed = with_policy(&export, "default = \"allow\"\nreadonly = true\n");
    Seen {
        control: readonly(&agreed),
        changed: readonly(&on(export.path())),
    }
}

fn set_id_honoured() -> Seen {
    let export = Export::new();
    let with = |flags: MountFlags, doctor: &Doctor| {
        elsewhere(|| {
            mount("tmpfs", export.path(), flags);
            doctor.run()
        })
    };
    let stripped = with_policy(&export, "default = \"allow\"\n");
    let stripped = with(MountFlags::empty(), &stripped);
    assert!(!stripped.has(Problem::SetId), "{stripped:#?}");
    let doctor = on(export.path());
    Seen {
        control: with(MountFlags::NOSUID, &doctor),
        changed: with(MountFlags::empty(), &doctor),
    }
}

fn bind_mount_elsewhere() -> Seen {
    let export = Export::new();
    let other = export.beside("other");
    fs::create_dir(&other).unwrap();
    let doctor = on(export.path());
    let seen = Seen {
        control: doctor.run(),
        changed: elsewhere(|| {
            rustix::mount::mount_bind(export.path(), &other).unwrap();
            doctor.run()
        }),
    };
    seen.changed
        .says(Problem::OtherMounts, &[&shown(&other), "--isolate"]);
    seen
}

fn parent_that_a_user_owns() -> Seen {
    let export = Export::new();
    let control = on(export.path()).run();
    control.ok(Problem::Movable);
    let parent = export.path().parent().unwrap();
    std::os::unix::fs::chown(parent, Some(61_399), None).unwrap();
    let changed = on(export.path()).run();
    changed.says(Problem::Movable, &[&shown(parent), "--isolate"]);
    Seen { control, changed }
}

fn parent_closed_to_the_client() -> Seen {
    let parent = open_directory();
    let closed = parent.path().join("closed");
    let export = closed.join("export");
    fs::create_dir_all(&export).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let control = on(&export).run();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let changed = on(&export).run();
    // The innermost that is closed is the one to open.
    changed.says(Problem::NoWay, &[&format!("search {},", closed.display())]);
    Seen { control, changed }
}

fn chown_refused() -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let changed = doctor.refusing(&[Refused::forbidden(libc::SYS_fchown)]);
    changed.says(Problem::Owners, &["fchown"]);
    assert_eq!(changed.status, 78);
    Seen {
        control: doctor.run(),
        changed,
    }
}

/// ramfs has none; tmpfs and ext4 do.
fn no_user_attributes() -> Seen {
    mounting(|export| mount("ramfs", export, MountFlags::empty()))
}

/// acl(5) in its binary form: version 2; rwx for owner, group, mask and others, and for one user.
fn acl_on_the_root() -> Seen {
    let export = Export::new();
    let control = on(export.path()).run();
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, id) in [
        (0x01_u16, u32::MAX),
        (0x02, 61_234),
        (0x04, u32::MAX),
        (0x10, u32::MAX),
        (0x20, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(7_u16.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(export.path(), name, &acl, XattrFlags::empty()).unwrap();
    let changed = on(export.path()).run();
    changed.says(Problem::Acl, &[name]);
    Seen { control, changed }
}
