//! QEMU: real builds where there is one that lacks something, and a script that prints another
//! version where only the table of versions is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::catalogue::Problem;
use super::harness::{
    Doctor, Refused, Report, Seen, cover, elsewhere, fake_qemu, open_directory, output, provoke,
    tmpfs,
};

provoke! {
    qemu_not_installed => [NoQemu];
    qemu_that_is_named_is_missing => [BadQemu];
    qemu_that_the_client_may_not_run => [BadQemu];
    program_that_is_no_qemu => [NoVersion];
    build_without_9p => [No9p];
    build_without_a_sandbox => [NoSandbox];
    sandbox_that_the_kernel_refuses => [NoSandbox];
    version_with_a_fault => [Fault];
    version_with_a_limit => [Limit];
    version_with_the_proxy_driver => [Proxy];
    kvm_closed_to_the_client => [Kvm];
}

const CLIENT: [&str; 2] = ["--client", "61234:61235"];

/// Debian's, and its build for microVMs alone, which has neither 9p nor seccomp.
const FULL: &str = "/usr/bin/qemu-system-x86_64";
const SMALL: &str = "/usr/bin/qemu-system-x86_64-microvm";

#[track_caller]
fn real(program: &str) -> Doctor {
    assert!(
        Path::new(program).exists(),
        "{program} is missing: install it (Debian: apt-get install qemu-system-x86)"
    );
    Doctor::with_qemu(Path::new(program), CLIENT)
}

/// `doctor` on a QEMU that says it is this version.
fn of_version(version: &str) -> Report {
    let scratch = open_directory();
    let qemu = fake_qemu(scratch.path(), &format!("QEMU emulator version {version}"));
    Doctor::with_qemu(&qemu, CLIENT).run()
}

fn qemu_not_installed() -> Seen {
    let doctor = Doctor::plain(CLIENT);
    let control = doctor.run();
    let nowhere = open_directory();
    // The other place where it is looked for is emptied as well, where there is one.
    let changed = elsewhere(|| {
        if Path::new("/usr/libexec").is_dir() {
            tmpfs(Path::new("/usr/libexec"));
        }
        let path = format!("PATH={}", nowhere.path().display());
        doctor.by(&["/usr/bin/env", &path])
    });
    changed.says(Problem::NoQemu, &["qemu-system-", "--qemu"]);
    Seen { control, changed }
}

fn qemu_that_is_named_is_missing() -> Seen {
    let changed = Doctor::with_qemu(Path::new("/none/qemu"), CLIENT).run();
    assert_eq!(changed.status, 78);
    Seen {
        control: of_version("99.0.0"),
        changed,
    }
}

fn qemu_that_the_client_may_not_run() -> Seen {
    let scratch = open_directory();
    let qemu = fake_qemu(scratch.path(), "QEMU emulator version 99.0.0");
    let doctor = Doctor::with_qemu(&qemu, CLIENT);
    let control = doctor.run();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o700)).unwrap();
    Seen {
        control,
        changed: doctor.run(),
    }
}

fn program_that_is_no_qemu() -> Seen {
    Seen {
        control: of_version("99.0.0"),
        changed: Doctor::with_qemu(Path::new("/bin/true"), CLIENT).run(),
    }
}

fn build_without_9p() -> Seen {
    let seen = Seen {
        control: real(FULL).run(),
        changed: real(SMALL).run(),
    };
    seen.changed.says(Problem::No9p, &["lists no virtio-9p"]);
    assert_eq!(seen.changed.status, 78);
    seen
}

fn build_without_a_sandbox() -> Seen {
    let seen = Seen {
        control: real(FULL).run(),
        changed: real(SMALL).run(),
    };
    seen.changed
        .says(Problem::NoSandbox, &["not enabled", "libseccomp"]);
    seen
}

fn sandbox_that_the_kernel_refuses() -> Seen {
    let doctor = real(FULL);
    Seen {
        control: doctor.run(),
        changed: doctor.refusing(&[Refused::missing(libc::SYS_seccomp)]),
    }
}

fn version_with_a_fault() -> Seen {
    let changed = of_version("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)");
    changed.says(Problem::Fault, &["Tlcreate", "7.2.22"]);
    of_version("7.2.9").says(Problem::Fault, &["Treaddir", "7.2.15"]);
    of_version("7.2.0").says(Problem::Fault, &["CVE-2023-2861", "7.2.4"]);
    of_version("10.0.3").says(Problem::Fault, &["CVE-2026-63318", "--readonly"]);
    assert_eq!(changed.status, 0);
    Seen {
        control: of_version("99.0.0"),
        changed,
    }
}

fn version_with_a_limit() -> Seen {
    let changed = of_version("8.2.0");
    changed.says(Problem::Limit, &["FIFOs", "ENXIO"]);
    Seen {
        control: of_version("99.0.0"),
        changed,
    }
}

fn version_with_the_proxy_driver() -> Seen {
    Seen {
        control: of_version("9.2.0"),
        changed: of_version("9.1.2"),
    }
}

/// The device itself may not work where the tests run: what counts is whether it opens.
fn kvm_closed_to_the_client() -> Seen {
    let scratch = open_directory();
    let doctor = Doctor::new(CLIENT);
    let with = |change: &(dyn Fn() + Sync)| {
        elsewhere(|| {
            let devices = scratch.path().join("dev");
            if !Path::new("/dev/kvm").exists() {
                // A place to mount it on, on a copy of what programs need.
                fs::create_dir_all(&devices).unwrap();
                tmpfs(&devices);
                for name in ["null", "fuse"] {
                    fs::write(devices.join(name), "").unwrap();
                    let device = format!("/dev/{name}");
                    rustix::mount::mount_bind(device, devices.join(name)).unwrap();
                }
                fs::write(devices.join("kvm"), "").unwrap();
                rustix::mount::mount_bind_recursive(&devices, "/dev").unwrap();
            }
            change();
            doctor.run()
        })
    };
    let seen = Seen {
        control: with(&|| rustix::mount::mount_bind("/dev/null", "/dev/kvm").unwrap()),
        changed: with(&|| {
            cover(scratch.path(), "/dev/kvm", "");
            let closed = fs::Permissions::from_mode(0o600);
            fs::set_permissions("/dev/kvm", closed).unwrap();
        }),
    };
    seen.changed
        .says(Problem::Kvm, &["61234", "adduser CLIENT kvm"]);
    seen
}

/// Whoever is asked about is asked without privilege.
#[test]
fn qemu_runs_as_the_client_without_groups() {
    let scratch = open_directory();
    let told = scratch.path().join("told");
    fs::create_dir(&told).unwrap();
    fs::set_permissions(&told, fs::Permissions::from_mode(0o777)).unwrap();
    let qemu: PathBuf = scratch.path().join("qemu");
    let script = format!("#!/bin/sh\nid >{0}/id; env >{0}/env\n", told.display());
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let words = Doctor::with_qemu(&qemu, CLIENT).words();
    let secret = "env SECRET=x".split(' ').map(Into::into);
    let report = Report::of(&output(secret.chain(words)));
    assert!(report.has(Problem::NoVersion));
    let id = fs::read_to_string(told.join("id")).unwrap();
    assert_eq!(id, "uid=61234 gid=61235 groups=61235\n");
    let environment = fs::read_to_string(told.join("env")).unwrap();
    assert!(!environment.contains("SECRET"), "{environment}");
}

/// A QEMU that waits for ever is ended, with what it started.
#[test]
fn qemu_that_hangs_is_ended() {
    let scratch = open_directory();
    let qemu = scratch.path().join("qemu");
    let pid = scratch.path().join("pid");
    fs::write(&pid, "").unwrap();
    fs::set_permissions(&pid, fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = --version ] || exit 0\nsleep 600 &\necho $! >{}\nwait\n",
        pid.display()
    );
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let report = Doctor::with_qemu(&qemu, CLIENT).run();
    report.says(Problem::BadQemu, &["ten seconds"]);
    let sleeper = fs::read_to_string(&pid).unwrap();
    let status = format!("/proc/{}/stat", sleeper.trim());
    assert!(crate::common::holds_within(
        crate::common::END_LIMIT,
        || { fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z ")) }
    ));
}
