//! Older kernels, as far as system calls go: a view whose processes get ENOSYS for one of them. What is
//! needed is named at the start; what is not costs what is said here, and nothing else.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, View, assert_nothing_left, program, shown, stderr, unique_name,
    within,
};

/// The number of the call that [`inside`] takes away, and the words that it then becomes, a line each.
const CALL: &str = "VIRTFS_IT_WITHOUT_CALL";
const WORDS: &str = "VIRTFS_IT_WITHOUT_WORDS";

/// Younger than Linux 4.4 and needed, with the kernel that has it. README, Limits: 5.14.
const NEEDED: [(&str, i64); 8] = [
    // 4.11
    ("statx", libc::SYS_statx),
    // 5.2
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    // 5.3
    ("pidfd_open", libc::SYS_pidfd_open),
    // 5.6
    ("openat2", libc::SYS_openat2),
    // 5.9
    ("close_range", libc::SYS_close_range),
    // 5.12
    ("mount_setattr", libc::SYS_mount_setattr),
];

/// Others, with the probes of [`PROBES`] that fail without them.
const SPARED: [(&str, i64, &[&str]); 6] = [
    // 2.6.23, and not in every file system.
    (
        "fallocate",
        libc::SYS_fallocate,
        &["allocate", "keep size", "punch"],
    ),
    // 4.5: the client's kernel copies by reading and writing.
    ("copy_file_range", libc::SYS_copy_file_range, &[]),
    // 5.3
    ("clone3", libc::SYS_clone3, &[]),
    // 5.8
    ("faccessat2", libc::SYS_faccessat2, &[]),
    // 5.13: a wall is missing, and the log says so.
    ("landlock", libc::SYS_landlock_create_ruleset, &[]),
    // 6.6
    ("fchmodat2", libc::SYS_fchmodat2, &[]),
];

/// Each by itself in a directory of its own.
const PROBES: [(&str, &str); 11] = [
    ("write", "echo text >f && test \"$(cat f)\" = text"),
    (
        "mode",
        "echo >f && chmod 640 f && test \"$(stat -c %a f)\" = 640",
    ),
    (
        "owner",
        "echo >f && chown 7:8 f && test \"$(stat -c %u:%g f)\" = 7:8",
    ),
    (
        "times",
        "echo >f && touch -d @7 f && test \"$(stat -c %Y f)\" = 7",
    ),
    ("rename", "echo >f && mv f g && test -e g && test ! -e f"),
    (
        "link",
        "echo >f && ln f g && rm f && test \"$(stat -c %h g)\" = 1",
    ),
    (
        "list",
        "mkdir d && touch d/a d/b && test \"$(ls d | wc -l)\" = 2",
    ),
    (
        "copy",
        "cp /bin/sh f && cp f g && cmp /bin/sh g && chmod 755 g && ./g -c true",
    ),
    (
        "allocate",
        "fallocate -l 65536 f && test \"$(stat -c %s f)\" = 65536",
    ),
    (
        "keep size",
        "echo >f && fallocate -n -l 65536 f && test \"$(stat -c %s f)\" = 1",
    ),
    (
        "punch",
        "cp /bin/sh f && fallocate -p -o 0 -l 8192 f && cmp -n 8192 f /dev/zero",
    ),
];

/// Not a test by itself: becomes a command that lacks a call, and so do its children.
#[test]
fn inside() {
    let (Ok(call), Ok(words)) = (std::env::var(CALL), std::env::var(WORDS)) else {
        return;
    };
    let rules = BTreeMap::from([(call.parse().unwrap(), Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, architecture).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    let words: Vec<_> = words.lines().collect();
    panic!("{}", Command::new(words[0]).args(&words[1..]).exec());
}

/// `mount --shared` by a process without the call.
fn mount_without(call: i64, export: &Export, name: &str) -> Output {
    let client = format!("{CLIENT_UID}:{CLIENT_GID}");
    let words = [
        program(),
        "mount",
        "--shared",
        "--name",
        name,
        "--client",
        &client,
        &shown(export.path()),
    ]
    .join("\n");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "older_kernels::inside", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(CALL, call.to_string())
        .env(WORDS, words)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn needed_call_that_is_missing_is_named_at_the_start() {
    for (name, call) in NEEDED {
        let export = Export::new();
        let view = unique_name();
        let output = mount_without(call, &export, &view);
        let told = stderr(&output);
        assert!(!output.status.success(), "{name}: {told}");
        assert!(told.contains(name), "{name}: {told}");
        assert!(told.contains("Function not implemented"), "{name}: {told}");
        assert_nothing_left(&view);
    }
}

#[test]
fn other_calls_that_are_missing_cost_what_is_said() {
    for (name, call, lost) in SPARED {
        let export = Export::new();
        let view = unique_name();
        let output = mount_without(call, &export, &view);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let _view = View::of(&view);
        let warned = stderr(&output).contains("a wall is missing");
        assert_eq!(warned, name == "landlock", "{name}: {}", stderr(&output));
        let failed = |at: &str, probe: &str, script: &str| {
            let script = format!("mkdir '{at}/{probe}' && cd '{at}/{probe}' && {script}");
            !within(&view, ["sh", "-c", &script]).status.success()
        };
        let failed: Vec<_> = PROBES
            .iter()
            .filter(|(probe, script)| failed(&shown(export.path()), probe, script))
            .map(|(probe, _)| *probe)
            .collect();
        assert_eq!(failed, lost, "without {name}");
    }
}
