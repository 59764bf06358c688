//! What `doctor` promises as a command: it changes nothing, says what it could not try, and its
//! exit status and output are a contract.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::catalogue::{Level, Problem};
use super::harness::{Doctor, Refused, Report, on, open_directory, output};
use crate::common::{Export, host_mounts, ours, program, shown, stdout};

/// Everything below a directory that `ls -lcu` would tell, and more.
fn state(path: &Path) -> Vec<String> {
    let mut all = vec![];
    let meta = fs::symlink_metadata(path).unwrap();
    all.push(format!(
        "{} {:o} {}:{} {} {}.{} {}.{} {}",
        path.display(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.size(),
    ));
    if meta.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inside.sort();
        all.extend(inside.iter().flat_map(|path| state(path)));
    }
    all
}

#[test]
fn nothing_of_the_export_or_the_host_is_changed() {
    let export = Export::new();
    fs::create_dir(export.path().join("d")).unwrap();
    fs::write(export.path().join("d/file"), "text").unwrap();
    let directory = export.path().parent().unwrap();
    let sysctls = ["user/max_user_namespaces", "fs/protected_symlinks"];
    let settings = || sysctls.map(|name| fs::read(format!("/proc/sys/{name}")).unwrap());
    let before = (state(directory), settings());
    let report = on(export.path()).run();
    for problem in [Problem::Owners, Problem::NoXattr, Problem::UserNamespaces] {
        // What would have changed something was really tried.
        report.ok(problem);
    }
    assert_eq!(before, (state(directory), settings()));
    assert!(!host_mounts().contains("virtfs-mediator"));
}

#[test]
fn doctor_as_a_user_says_what_it_could_not_try() {
    let export = Export::new();
    let doctor = on(export.path());
    let copy = export.beside("virtfs-mediator");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut words = doctor.words();
    words[0] = copy.into();
    let user = "setpriv --reuid=61234 --regid=61235 --clear-groups";
    let report = Report::of(&output(user.split(' ').map(Into::into).chain(words)));
    for problem in [
        Problem::Capabilities,
        Problem::UserNamespaces,
        Problem::Namespaces,
        Problem::MountApi,
        Problem::OwnDescriptors,
        Problem::Privileges,
        Problem::FuseMount,
        Problem::OldFuse,
        Problem::NoPassthrough,
        Problem::NoWay,
        Problem::Reach,
        Problem::Owners,
        Problem::Kvm,
    ] {
        report.untried(problem);
    }
    for problem in [
        Problem::MountId,
        Problem::Seccomp,
        Problem::NoLandlock,
        Problem::Pidfd,
        Problem::CloseRange,
        Problem::Unfit,
        Problem::NoXattr,
        Problem::Folding,
        Problem::No9p,
    ] {
        report.ok(problem);
    }
    let failed: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Fail.word())
        .collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    assert_eq!(report.status, 77);
}

/// A wall before the mount, the mount before what was configured.
#[test]
fn status_is_that_of_the_first_class_that_fails() {
    let wrong = Doctor::new(["--client", "root"]);
    assert_eq!(wrong.run().status, 78);
    let no_fuse = |doctor: &Doctor| {
        super::harness::elsewhere(|| {
            rustix::mount::mount_bind("/dev/null", "/dev/fuse").unwrap();
            doctor.run()
        })
    };
    assert_eq!(no_fuse(&wrong).status, 74);
    let no_wall = wrong.refusing(&[Refused::missing(libc::SYS_pidfd_open)]);
    assert_eq!(no_wall.status, 71);
}

#[test]
fn several_exports_and_the_client_of_a_policy() {
    let (first, second) = (Export::new(), Export::new());
    let file = first.beside("policy.toml");
    let text = "default = \"allow\"\nclient = { user = 61234, group = 61235 }\n";
    fs::write(&file, text).unwrap();
    let with_policy = format!("{}={}", shown(first.path()), shown(&file));
    let report = Doctor::new([with_policy, shown(second.path())]).run();
    report.ok_saying(Problem::NoClient, &["61234", "61235"]);
    for export in [&first, &second] {
        report.ok_saying(Problem::Unfit, &[&shown(export.path())]);
    }
    // What is typed wins.
    let words = ["--client", "61300", &shown(second.path())];
    Doctor::new(words)
        .run()
        .ok_saying(Problem::NoClient, &["61300"]);
}

/// Whoever is named may be the only one who gets to the program.
#[test]
fn text_has_a_line_for_each_finding_and_a_sum() {
    // Users that no other test starts anything as: both runs must see the same.
    let doctor = Doctor::new(["--client", "61401", "--mediator-user", "61402"]);
    let report = doctor.run();
    let words = doctor.words().into_iter().filter(|word| word != "--json");
    let output = output(words);
    let text = stdout(&output);
    for finding in &report.findings {
        let has = |line: &str| {
            let words = line.split_whitespace().take(2);
            words.eq([&finding.level, &finding.check]) && line.ends_with(&finding.found)
        };
        assert!(text.lines().any(has), "{finding:?} is not in\n{text}");
        assert!(finding.cure.is_empty() || text.contains(&format!("-> {}", finding.cure)));
    }
    let sum = text.lines().last().unwrap();
    assert!(sum.ends_with("failures"), "{sum}");
    assert_eq!(output.status.code(), Some(report.status));
}

#[test]
fn help_tells_the_exit_status() {
    for flag in ["-h", "--help"] {
        let output = ours(["doctor", flag]);
        assert!(output.status.success());
        let text = stdout(&output);
        for word in ["--json", "--qemu", "Exit status", "71", "74", "77", "78"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

/// Without a directory of its own: a scratch export on the file system that the host has.
#[test]
fn host_of_the_tests_passes() {
    let export = open_directory();
    let report = Doctor::plain(["--client", "61234", &shown(export.path())]).run();
    assert_eq!(report.status, 0, "{report:#?}");
}
