//! What the kernel lacks, or does not let us have.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::catalogue::Problem;
use super::harness::{
    Doctor, Refused, Report, Seen, cover_directory, elsewhere, open_directory, provoke,
};
use crate::common::program;

provoke! {
    root_gone => [NotRoot];
    capability_missing => [Capabilities];
    kernel_old => [OldKernel];
    user_namespaces_used_up => [UserNamespaces];
    user_namespaces_kept_from_users => [UsersNamespaces];
    net_namespaces_used_up => [Namespaces];
    mount_setattr_missing => [MountApi];
    move_mount_missing => [MountApi];
    proc_covered_in_a_container => [OwnDescriptors];
    statx_missing => [MountId];
    no_new_privs_refused => [Privileges];
    securebits_refused => [Privileges];
    seccomp_missing => [Seccomp];
    landlock_missing => [NoLandlock];
    pidfd_missing => [Pidfd];
    close_range_missing => [CloseRange];
}

const NONE: [&str; 0] = [];

/// Without an export, since these do not concern one.
fn doctor() -> Doctor {
    Doctor::new(NONE)
}

fn refusing(call: Refused) -> Seen {
    let doctor = doctor();
    Seen {
        control: doctor.run(),
        changed: doctor.refusing(&[call]),
    }
}

fn root_gone() -> Seen {
    let doctor = doctor();
    // Where another user may execute it.
    let scratch = open_directory();
    let copy = scratch.path().join("virtfs-mediator");
    std::fs::copy(program(), &copy).unwrap();
    let mut words = doctor.words();
    words[0] = copy.into();
    let user = [
        "setpriv",
        "--reuid=61234",
        "--regid=61234",
        "--clear-groups",
    ];
    let words = user.iter().map(Into::into).chain(words);
    let changed = Report::of(&super::harness::output(words));
    assert_eq!(changed.status, 77, "{changed:#?}");
    Seen {
        control: doctor.run(),
        changed,
    }
}

fn capability_missing() -> Seen {
    let doctor = doctor();
    let without = ["setpriv", "--inh-caps=-setfcap", "--bounding-set=-setfcap"];
    let changed = doctor.by(&without);
    changed.says(Problem::Capabilities, &["CAP_SETFCAP"]);
    assert_eq!(changed.status, 71);
    Seen {
        control: doctor.run(),
        changed,
    }
}

/// setarch(8): the kernel calls itself 2.6 to this process.
fn kernel_old() -> Seen {
    let doctor = doctor();
    let changed = doctor.by(&["setarch", "--uname-2.6"]);
    changed.says(Problem::OldKernel, &["Linux 2.6", "5.14"]);
    Seen {
        control: doctor.run(),
        changed,
    }
}

/// Runs `doctor` in a user namespace that maps every id, after a script: `user.*` sysctls are each
/// namespace's own (user_namespaces(7)).
fn in_user_namespace(doctor: &Doctor, script: &str) -> Report {
    // Who executes a program before its ids are mapped loses the capabilities of the namespace's
    // maker, and gets them as its root by another program.
    let wait = "echo ready; read -r go; exec \"$@\"";
    let script = format!("{script}\nexec \"$@\"");
    let mut child = Command::new("unshare")
        .args(["--user", "--mount", "sh", "-ec", wait, "sh"])
        .args(["sh", "-ec", &script, "sh"])
        .args(doctor.words())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // unshare(1) became the shell, which is to become `doctor`.
    let pid = child.id();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 0 4294967295\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut rest).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = rest;
    Report::of(&output)
}

fn in_namespace_with(sysctl: &str) -> Seen {
    let doctor = doctor();
    Seen {
        control: in_user_namespace(&doctor, ""),
        changed: in_user_namespace(&doctor, &format!("echo 0 >/proc/sys/user/{sysctl}")),
    }
}

fn user_namespaces_used_up() -> Seen {
    let seen = in_namespace_with("max_user_namespaces");
    let cure = "user.max_user_namespaces";
    seen.changed
        .says(Problem::UserNamespaces, &["CLONE_NEWUSER", cure]);
    seen
}

fn net_namespaces_used_up() -> Seen {
    let seen = in_namespace_with("max_net_namespaces");
    seen.changed
        .says(Problem::Namespaces, &["user.max_*_namespaces"]);
    seen
}

/// As container managers do it: part of /proc is covered, so that no fresh one may be mounted
/// (fs/namespace.c, `mount_too_revealing`).
fn proc_covered_in_a_container() -> Seen {
    let doctor = doctor();
    elsewhere(|| {
        let control = in_user_namespace(&doctor, "");
        rustix::mount::mount_bind("/dev/null", "/proc/version").unwrap();
        let changed = in_user_namespace(&doctor, "");
        changed.says(Problem::OwnDescriptors, &["fsmount(proc)"]);
        Seen { control, changed }
    })
}

/// Debian's and Ubuntu's settings, which other kernels do not have.
fn user_namespaces_kept_from_users() -> Seen {
    let doctor = doctor();
    let with = |name: &str, value: &str| {
        elsewhere(|| {
            cover_directory("/proc/sys/kernel", name, value);
            doctor.run()
        })
    };
    let ubuntu = with("apparmor_restrict_unprivileged_userns", "1\n");
    ubuntu.says(Problem::UsersNamespaces, &["apparmor"]);
    Seen {
        control: with("unprivileged_userns_clone", "1\n"),
        changed: with("unprivileged_userns_clone", "0\n"),
    }
}

fn mount_setattr_missing() -> Seen {
    let seen = refusing(Refused::missing(libc::SYS_mount_setattr));
    seen.changed.says(Problem::MountApi, &["mount_setattr"]);
    seen
}

fn move_mount_missing() -> Seen {
    let seen = refusing(Refused::missing(libc::SYS_move_mount));
    seen.changed.says(Problem::MountApi, &["move_mount"]);
    seen
}

fn statx_missing() -> Seen {
    refusing(Refused::missing(libc::SYS_statx))
}

fn no_new_privs_refused() -> Seen {
    let call = Refused::forbidden(libc::SYS_prctl).with(0, libc::PR_SET_NO_NEW_PRIVS);
    let seen = refusing(call);
    seen.changed.says(Problem::Privileges, &["no_new_privs"]);
    seen
}

fn securebits_refused() -> Seen {
    let call = Refused::forbidden(libc::SYS_prctl).with(0, libc::PR_SET_SECUREBITS);
    let seen = refusing(call);
    seen.changed.says(Problem::Privileges, &["securebits"]);
    seen
}

fn seccomp_missing() -> Seen {
    refusing(Refused::missing(libc::SYS_seccomp))
}

fn landlock_missing() -> Seen {
    let seen = refusing(Refused::missing(libc::SYS_landlock_create_ruleset));
    seen.changed.says(Problem::NoLandlock, &["lsm=landlock"]);
    assert_eq!(seen.changed.status, 0, "one wall less is not the end");
    seen
}

fn pidfd_missing() -> Seen {
    refusing(Refused::missing(libc::SYS_pidfd_open))
}

fn close_range_missing() -> Seen {
    refusing(Refused::missing(libc::SYS_close_range))
}
