//! What goes wrong at a start: an exit status by class and one sentence that names the thing;
//! nothing is left behind.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{
    CLIENT_UID, Export, Start, assert_nothing_left, needs_root, ours, program, shown, stderr,
    unique_name,
};

const USAGE: i32 = 64;
const CONFINEMENT: i32 = 71;
const MOUNT: i32 = 74;
const PRIVILEGE: i32 = 77;
const CONFIGURATION: i32 = 78;

/// The status, one line on stderr with each of `words` in it.
#[track_caller]
fn refused(output: &Output, status: i32, words: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    for word in words {
        assert!(told.contains(word), "'{word}' is not in: {told}");
    }
    assert_eq!(output.stdout, b"", "{output:?}");
}

/// `run --name NAME --client CLIENT ARGUMENTS`, refused, and nothing left.
#[track_caller]
fn run_refused(arguments: &[&str], status: i32, words: &[&str]) {
    let name = unique_name();
    let client = CLIENT_UID.to_string();
    let mut all = vec!["run", "--name", &name, "--client", &client];
    all.extend(arguments);
    refused(&ours(all), status, words);
    assert_nothing_left(&name);
}

/// Our program started by a shell script that first changes its surroundings in a mount namespace
/// of its own; the script gets the program's words as its arguments.
fn in_changed_mounts(script: &str, start: &Start) -> Output {
    Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
        ])
        .args(start.run_words())
        .arg("true")
        .current_dir("/")
        .output()
        .unwrap()
}

#[test]
fn no_root_is_told() {
    let export = Export::new();
    // Where another user may execute it.
    let copy = export.beside("virtfs-mediator");
    // By a process of its own: a child that another test forks meanwhile would hold it open for
    // writing, and it could not be executed (ETXTBSY).
    let copied = Command::new("install")
        .arg("--mode=755")
        .arg(program())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    for arguments in [
        &["run", &shown(export.path()), "--", "true"][..],
        &["mount", &shown(export.path())],
        &["list"],
        &["status", "x"],
        &["unmount", "x"],
        &["enter", "x", "--", "true"],
    ] {
        let output = Command::new("setpriv")
            .args(["--reuid=61234", "--regid=61234", "--clear-groups"])
            .arg(&copy)
            .args(arguments)
            .output()
            .unwrap();
        refused(&output, PRIVILEGE, &["root", "sudo"]);
    }
}

#[test]
fn missing_device_is_told() {
    let export = Export::new();
    let start = Start::new(&export);
    let hide = "mount -t tmpfs none /dev; : >/dev/null; exec \"$@\"";
    let output = in_changed_mounts(hide, &start);
    refused(&output, MOUNT, &["/dev/fuse", "modprobe fuse"]);
    assert_nothing_left(start.name());
}

#[test]
fn missing_capability_is_told() {
    let export = Export::new();
    let start = Start::new(&export);
    let output = Command::new("setpriv")
        .args(["--inh-caps=-sys_admin", "--bounding-set=-sys_admin"])
        .args(start.run_words())
        .arg("true")
        .output()
        .unwrap();
    refused(&output, CONFINEMENT, &["unshare(CLONE_NEWNS)"]);
    assert_nothing_left(start.name());
}

#[test]
fn export_that_is_missing_or_no_directory_is_refused() {
    let export = Export::new();
    let missing = shown(&export.beside("none"));
    run_refused(&[&missing, "--", "true"], CONFIGURATION, &[&missing]);
    let file = export.beside("file");
    fs::write(&file, "").unwrap();
    let file = shown(&file);
    run_refused(
        &[&file, "--", "true"],
        CONFIGURATION,
        &[&file, "not a directory"],
    );
}

#[test]
fn root_directory_as_an_export_is_refused() {
    needs_root();
    run_refused(&["/", "--", "true"], CONFIGURATION, &["root directory"]);
}

#[test]
fn symbolic_link_as_export_or_place_is_refused() {
    let export = Export::new();
    let link = export.beside("link");
    symlink(export.path(), &link).unwrap();
    let link = shown(&link);
    // With a slash or a dot behind it, the kernel would follow it.
    for typed in [&link, &format!("{link}/"), &format!("{link}/.")] {
        run_refused(
            &[typed, "--", "true"],
            CONFIGURATION,
            &[typed, "symbolic link"],
        );
    }
    run_refused(
        &["--at", &link, &shown(export.path()), "--", "true"],
        CONFIGURATION,
        &[&link, "symbolic link"],
    );
}

#[test]
fn view_inside_its_own_export_is_refused() {
    let export = Export::new();
    let inside = export.path().join("inside");
    fs::create_dir(&inside).unwrap();
    run_refused(
        &["--at", &shown(&inside), &shown(export.path()), "--", "true"],
        CONFIGURATION,
        &[&shown(&inside), "inside its own export"],
    );
}

#[test]
fn export_with_a_procfs_inside_is_refused() {
    let export = Export::new();
    let proc = export.path().join("proc");
    fs::create_dir(&proc).unwrap();
    let start = Start::new(&export);
    let script = format!("mount -t proc proc {}; exec \"$@\"", proc.display());
    let output = in_changed_mounts(&script, &start);
    refused(&output, CONFIGURATION, &[&shown(&proc), "proc mount"]);
    assert_nothing_left(start.name());
}

#[test]
fn export_with_another_file_system_inside_is_refused() {
    let export = Export::new();
    let other = export.path().join("other");
    fs::create_dir(&other).unwrap();
    let start = Start::new(&export);
    let script = format!("mount -t tmpfs none {}; exec \"$@\"", other.display());
    let output = in_changed_mounts(&script, &start);
    refused(&output, CONFIGURATION, &[&shown(&other)]);
    assert_nothing_left(start.name());
}

#[test]
fn view_of_a_view_is_refused() {
    let export = Export::new();
    let view = Start::new(&export).option("--shared").mount();
    let name = unique_name();
    let client = CLIENT_UID.to_string();
    let target = format!("--target={}", view.family.init.pid);
    let path = shown(export.path());
    // Where the view is, and with the /proc that belongs there.
    let output = Command::new("nsenter")
        .args([
            &target,
            "--mount",
            "--pid",
            program(),
            "run",
            "--name",
            &name,
        ])
        .args(["--client", &client, &path, "--", "true"])
        .output()
        .unwrap();
    refused(&output, CONFIGURATION, &[&path, "is itself a view"]);
    assert_nothing_left(&name);
}

#[test]
fn unknown_users_are_refused() {
    let export = Export::new();
    let path = shown(export.path());
    for (client, word) in [
        ("no-such-user", "no-such-user"),
        ("61234:no-such-group", "no-such-group"),
        ("4294967295", "4294967295"),
        ("root", "root"),
    ] {
        let name = unique_name();
        let output = ours([
            "run", "--name", &name, "--client", client, &path, "--", "true",
        ]);
        refused(&output, CONFIGURATION, &[word, "--client"]);
        assert_nothing_left(&name);
    }
    run_refused(
        &["--mediator-user", "no-such-user", &path, "--", "true"],
        CONFIGURATION,
        &["no-such-user"],
    );
    run_refused(
        &[
            "--mediator-user",
            &CLIENT_UID.to_string(),
            &path,
            "--",
            "true",
        ],
        CONFIGURATION,
        &["--mediator-user"],
    );
}

#[test]
fn client_that_nobody_named_is_asked_for() {
    let export = Export::new();
    let name = unique_name();
    let output = Command::new(program())
        .args(["run", "--name", &name, &shown(export.path()), "--", "true"])
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .output()
        .unwrap();
    refused(&output, USAGE, &["--client"]);
    assert_nothing_left(&name);
}

#[test]
fn command_that_is_nowhere_or_no_program_is_told_as_a_shell_does() {
    let export = Export::new();
    let path = shown(export.path());
    run_refused(
        &[&path, "--", "qemu-system-none"],
        127,
        &["qemu-system-none", "apt-get install qemu-system-x86"],
    );
    run_refused(&[&path, "--", "/none/such"], 127, &["/none/such"]);
    let plain = export.beside("plain");
    fs::write(&plain, "").unwrap();
    run_refused(&[&path, "--", &shown(&plain)], 126, &[&shown(&plain)]);
}

#[test]
fn name_that_cannot_be_used_or_is_taken_is_refused() {
    let export = Export::new();
    let path = shown(export.path());
    let client = CLIENT_UID.to_string();
    for bad in ["../x", "$(id)", "a b", ".", ""] {
        let name = format!("--name={bad}");
        let output = ours(["run", &name, "--client", &client, &path, "--", "true"]);
        refused(&output, CONFIGURATION, &["name"]);
    }
    assert!(!Path::new("/run/x").exists());
    let view = Start::new(&export).mount();
    let output = ours([
        "run", "--name", &view.name, "--client", &client, &path, "--", "true",
    ]);
    refused(&output, CONFIGURATION, &[&view.name, "already running"]);
    // And the one that runs is not touched.
    assert!(view.family.mediator().alive());
    assert!(
        Path::new(crate::common::RUN)
            .join(&view.name)
            .join("ns")
            .exists()
    );
}

#[test]
fn view_that_does_not_run_is_told() {
    needs_root();
    for arguments in [
        &["status", "it-none"][..],
        &["unmount", "it-none"],
        &["enter", "it-none", "--", "true"],
    ] {
        refused(&ours(arguments), CONFIGURATION, &["it-none", "list"]);
    }
}

#[test]
fn policy_that_is_missing_or_has_mistakes_is_refused() {
    let export = Export::new();
    let path = shown(export.path());
    let missing = shown(&export.beside("none.toml"));
    run_refused(
        &["--policy", &missing, &path, "--", "true"],
        CONFIGURATION,
        &[&missing],
    );
    run_refused(
        &[&format!("{path}={missing}"), "--", "true"],
        CONFIGURATION,
        &[&missing],
    );
    let bad = export.beside("bad.toml");
    fs::write(&bad, "default = \"allow\"\nreadonyl = true\n").unwrap();
    let bad = shown(&bad);
    let name = unique_name();
    let client = CLIENT_UID.to_string();
    let output = ours([
        "run", "--name", &name, "--client", &client, "--policy", &bad, &path, "--", "true",
    ]);
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{output:?}");
    // Named with line and column.
    let told = stderr(&output);
    assert!(
        told.contains(&format!("{bad}:2:")) && told.contains("readonyl"),
        "{told}"
    );
    assert_nothing_left(&name);
}

#[test]
fn pidfile_that_is_none_is_left_as_it_is() {
    let export = Export::new();
    let (path, notes, link) = (
        shown(export.path()),
        export.beside("notes"),
        export.beside("link"),
    );
    fs::write(&notes, "buy milk\n").unwrap();
    std::os::unix::fs::symlink(&notes, &link).unwrap();
    for (pidfile, why) in [(&notes, "something else"), (&link, "a symbolic link")] {
        let option = format!("--pidfile={}", pidfile.display());
        run_refused(
            &[&option, &path, "--", "true"],
            CONFIGURATION,
            &["--pidfile", why],
        );
    }
    assert_eq!(fs::read_to_string(&notes).unwrap(), "buy milk\n");
    assert!(link.is_symlink());
}

#[test]
fn command_line_that_makes_no_sense_is_told() {
    let export = Export::new();
    let other = Export::new();
    let (path, second) = (shown(export.path()), shown(other.path()));
    run_refused(&[&path, &second, "--", "true"], USAGE, &["--name"]);
    run_refused(
        &[&path, "--", "qemu-system-x86_64", "-pidfile", "/x"],
        USAGE,
        &["-pidfile", "--pidfile FILE"],
    );
    for arguments in [
        &["run", "--no-such-option"][..],
        &["run", &path],
        &["nonsense"],
        &["--log-level", "loud", "list"],
    ] {
        let output = ours(arguments);
        assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    }
    for arguments in [&["--help"][..], &["run", "--help"], &["-h"], &["--version"]] {
        let output = ours(arguments);
        assert!(
            output.status.success() && stderr(&output).is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn views_that_would_cover_each_other_are_refused() {
    let export = Export::new();
    let inner = export.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let output = ours([
        "run",
        "--client",
        &CLIENT_UID.to_string(),
        &shown(export.path()),
        &shown(&inner),
        "--",
        "true",
    ]);
    refused(&output, CONFIGURATION, &[&shown(&inner), "cover"]);
}

/// A directory as a descriptor is a way past the view, whatever root the client gets:
/// `/proc/self/fd/0/..` leads to the original (CVE-2024-21626's class).
#[test]
fn directory_on_stdin_is_refused_with_and_without_isolate() {
    let export = Export::new();
    for isolate in [false, true] {
        let name = unique_name();
        let mut command = Command::new(program());
        command
            .args(["run", "--name", &name, "--client"])
            .arg(CLIENT_UID.to_string());
        if isolate {
            command.arg("--isolate");
        }
        let above = export.path().parent().unwrap();
        let output = command
            .arg(export.path())
            .args(["--", "true"])
            .stdin(fs::File::open(above).unwrap())
            .output()
            .unwrap();
        refused(&output, CONFIGURATION, &["descriptor 0"]);
        assert_nothing_left(&name);
    }
}
