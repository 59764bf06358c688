//! What the processes of a running view are allowed, read back from `/proc`.

use std::fs;
use std::time::Duration;

use crate::common::{CLIENT_GID, CLIENT_UID, Export, RUN, Running, Start, await_that};
use crate::process::Process;

/// CHOWN (0), DAC_OVERRIDE (1), FOWNER (3), FSETID (4): capabilities(7).
const MEDIATOR_CAPABILITIES: &str = "000000000000001b";
const NONE: &str = "0000000000000000";
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn running(export: &Export) -> Running {
    Start::new(export).shell_ready("echo ready; exec sleep 1000")
}

fn host() -> Process {
    Process::find(std::process::id().try_into().unwrap()).unwrap()
}

/// Effective, permitted and bounding are `held`; inheritable and ambient nothing; and no exec adds any.
#[track_caller]
fn assert_capabilities(process: Process, held: &str) {
    for (set, expected) in [
        ("CapEff", held),
        ("CapPrm", held),
        ("CapBnd", held),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        assert_eq!(process.field(set).as_deref(), Some(expected), "{set}");
    }
}

#[track_caller]
fn assert_ids(process: Process, uid: u32, gid: u32) {
    let four = |id: u32| format!("{id} {id} {id} {id}");
    assert_eq!(process.field("Uid"), Some(four(uid)));
    assert_eq!(process.field("Gid"), Some(four(gid)));
}

/// Which namespaces of a process are not the host's.
fn own_namespaces(process: Process) -> Vec<&'static str> {
    NAMESPACES
        .into_iter()
        .filter(|kind| process.namespace(kind) != host().namespace(kind))
        .collect()
}

/// The descriptors of one that was given nothing to read files with: pipes, sockets, and what the
/// kernel makes for waiting.
#[track_caller]
fn assert_only_channels(process: Process, besides: &[&str]) {
    for (number, what) in process.descriptors() {
        let fits = [
            "pipe:[",
            "socket:[",
            "anon_inode:[signalfd]",
            // Before Linux 6.9, and since.
            "anon_inode:[pidfd]",
            "pidfd:[",
            "/dev/null",
        ]
        .iter()
        .any(|start| what.starts_with(start))
            || besides.contains(&what.as_str());
        assert!(fits, "descriptor {number} is {what}");
    }
}

#[test]
fn client_has_its_ids_and_no_capability() {
    let export = Export::new();
    let running = running(&export);
    let client = running.family().client();
    assert_ids(client, CLIENT_UID, CLIENT_GID);
    assert_eq!(client.field("Groups").as_deref(), Some(""));
    assert_capabilities(client, NONE);
}

#[test]
fn client_shares_the_hosts_namespaces_but_mounts_and_processes() {
    let export = Export::new();
    let running = running(&export);
    let client = running.family().client();
    assert_eq!(own_namespaces(client), ["mnt", "pid"]);
    assert_eq!(
        client.namespace("mnt"),
        running.family().keeper.namespace("mnt")
    );
}

#[test]
fn client_inherits_its_standard_descriptors_and_no_other() {
    let export = Export::new();
    // A descriptor that the caller left open, of a file that the client could not open itself.
    let secret = export.beside("secret");
    fs::write(&secret, "secret").unwrap();
    let start = Start::new(&export);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "exec 7<\"$1\"; shift; exec \"$@\"", "sh"])
        .arg(&secret)
        .args(start.run_words())
        // A shell that stays: a program that is being loaded has its libraries open.
        .args(["sh", "-c", "sleep 1000 & echo ready; wait"])
        .current_dir("/")
        .stdin(std::process::Stdio::null());
    let mut running = Running::spawn(command, start.name().to_owned());
    assert!(
        running.launcher.field("Name").is_some(),
        "the shell became the launcher"
    );
    running.ready();
    let descriptors = running.family().client().descriptors();
    let open: Vec<u32> = descriptors.iter().map(|(number, _)| *number).collect();
    assert_eq!(open, [0, 1, 2], "{descriptors:?}");
    for process in running.family().all() {
        for (number, what) in process.descriptors() {
            assert!(!what.contains("secret"), "{process:?}: {number} is {what}");
        }
    }
}

#[test]
fn mediator_has_its_own_ids_and_four_capabilities() {
    let export = Export::new();
    let running = running(&export);
    let mediator = running.family().mediator();
    assert_capabilities(mediator, MEDIATOR_CAPABILITIES);
    let uid: u32 = mediator
        .field("Uid")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(uid != 0 && uid != CLIENT_UID, "{uid}");
    assert_eq!(mediator.field("Groups").as_deref(), Some(""));
}

#[test]
fn mediator_of_a_read_only_view_keeps_dac_override_alone() {
    let export = Export::new();
    let running = Start::new(&export)
        .option("--readonly")
        .shell_ready("echo ready; exec sleep 1000");
    assert_capabilities(running.family().mediator(), "0000000000000002");
}

#[test]
fn mediator_user_that_was_asked_for_is_taken() {
    let export = Export::new();
    let running = Start::new(&export)
        .option("--mediator-user=61300:61301")
        .shell_ready("echo ready; exec sleep 1000");
    assert_ids(running.family().mediator(), 61300, 61301);
}

#[test]
fn mediator_is_alone_in_every_namespace() {
    let export = Export::new();
    let running = running(&export);
    let (mediator, family) = (running.family().mediator(), running.family());
    assert_eq!(own_namespaces(mediator), NAMESPACES);
    for other in [family.client(), family.keeper, family.init] {
        for kind in NAMESPACES {
            assert_ne!(mediator.namespace(kind), other.namespace(kind), "{kind}");
        }
    }
    // Only the user namespace is the mediator's alone: its warden stays in the host's, so that
    // nothing the mediator is allowed counts against the mounts that it sees.
    assert_ne!(
        mediator.namespace("user"),
        family.warden().namespace("user")
    );
    assert_eq!(family.warden().namespace("user"), host().namespace("user"));
    assert_eq!(mediator.namespace("mnt"), family.warden().namespace("mnt"));
    let map = fs::read_to_string(format!("/proc/{}/uid_map", mediator.pid)).unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "0", "4294967295"]);
}

#[test]
fn mediator_sees_the_export_and_no_other_mount() {
    let export = Export::new();
    fs::write(export.path().join("inside"), "").unwrap();
    let running = running(&export);
    let mediator = running.family().mediator();
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", mediator.pid)).unwrap();
    let points: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(points, ["/"], "{mounts}");
    let names: Vec<String> = fs::read_dir(format!("/proc/{}/root/", mediator.pid))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["inside"]);
}

#[test]
fn mediator_holds_the_device_the_export_and_channels_only() {
    let export = Export::new();
    let running = running(&export);
    let descriptors = running.family().mediator().descriptors();
    let files: Vec<&str> = descriptors
        .iter()
        .map(|(_, what)| what.as_str())
        .filter(|what| {
            !["pipe:[", "socket:[", "anon_inode:", "/dev/null"]
                .iter()
                .any(|start| what.starts_with(start))
        })
        .collect();
    // The directory of its own descriptors has no path that could be shown but its place in procfs.
    let own_fds = |what: &str| what.ends_with("/fd");
    assert_eq!(
        files.iter().filter(|what| **what == "/dev/fuse").count(),
        // The second is a copy of the first, for notifications.
        2,
        "{descriptors:?}"
    );
    for what in files {
        assert!(
            what == "/dev/fuse" || what == "/" || own_fds(what),
            "{what}: {descriptors:?}"
        );
    }
}

#[test]
fn keeper_warden_and_init_are_root_without_any_capability() {
    let export = Export::new();
    let running = running(&export);
    let family = running.family();
    for process in [family.keeper, family.warden(), family.init] {
        assert_ids(process, 0, 0);
        assert_capabilities(process, NONE);
    }
    assert_eq!(own_namespaces(family.keeper), ["mnt"]);
    assert_eq!(own_namespaces(family.init), ["mnt", "pid"]);
    assert_eq!(
        own_namespaces(family.warden()),
        ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
    );
}

#[test]
fn keeper_warden_and_init_hold_no_device_and_no_file_of_the_host() {
    let export = Export::new();
    let running = running(&export);
    let family = running.family();
    // The pipes of the caller are the terminal's place; mountinfo is what a keeper watches.
    let mountinfo = format!("/proc/{}/mountinfo", family.keeper.pid);
    assert_only_channels(family.keeper, &[RUN, &mountinfo, "/proc/mountinfo"]);
    assert_only_channels(family.init, &[RUN]);
    assert_only_channels(family.warden(), &[]);
}

#[test]
fn processes_of_ours_leave_no_core_and_no_memory_to_read() {
    let export = Export::new();
    let running = running(&export);
    let family = running.family();
    for process in [
        family.keeper,
        family.warden(),
        family.mediator(),
        family.init,
    ] {
        // Not dumpable: /proc/PID belongs to root whatever the process's ids (proc(5)).
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(format!("/proc/{}/environ", process.pid)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{process:?}");
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        for what in ["Max core file size", "Max locked memory"] {
            let line = limits.lines().find_map(|line| line.strip_prefix(what));
            let words: Vec<&str> = line.unwrap().split_whitespace().collect();
            assert_eq!(words[..2], ["0", "0"], "{what} of {process:?}");
        }
    }
}

#[test]
fn processes_of_ours_have_a_system_call_filter_and_the_client_has_none_of_ours() {
    let export = Export::new();
    for running in [
        running(&export),
        Start::new(&export)
            .option("--debug")
            .shell_ready("echo ready; exec sleep 1000"),
    ] {
        let family = running.family();
        for process in [
            family.keeper,
            family.warden(),
            family.mediator(),
            family.init,
        ] {
            assert_eq!(process.field("Seccomp").as_deref(), Some("2"));
        }
        assert_eq!(family.client().field("Seccomp").as_deref(), Some("0"));
    }
}

#[test]
fn processes_of_ours_keep_nothing_of_the_callers_environment_but_the_client_does() {
    let export = Export::new();
    let running = Start::new(&export)
        .environment("VIRTFS_TEST", "a secret")
        .shell_ready("echo ready; exec sleep 1000");
    let family = running.family();
    let environment =
        |process: Process| fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
    let has_it = |process| {
        environment(process)
            .windows(b"secret".len())
            .any(|part| part == b"secret")
    };
    assert!(has_it(running.launcher));
    // While the script becomes `sleep` its process has no environment for a moment.
    await_that(
        Duration::from_secs(10),
        "the client has its environment",
        || has_it(family.client()),
    );
    for process in [
        family.keeper,
        family.warden(),
        family.mediator(),
        family.init,
    ] {
        let left = environment(process);
        assert!(left.iter().all(|byte| *byte == 0), "{process:?}: {left:?}");
    }
}

#[test]
fn keeper_warden_and_init_have_a_root_directory_with_nothing_in_it() {
    let export = Export::new();
    fs::write(export.path().join("inside"), "").unwrap();
    let running = running(&export);
    let family = running.family();
    for process in [family.keeper, family.warden(), family.init] {
        for link in ["root", "cwd"] {
            let names = fs::read_dir(format!("/proc/{}/{link}/", process.pid)).unwrap();
            assert_eq!(names.count(), 0, "{link} of {process:?}");
        }
    }
}

#[test]
fn clients_proc_shows_its_own_processes_only() {
    let export = Export::new();
    let output = Start::new(&export).output(["sh", "-c", "cd /proc; echo [0-9]*; exit 0"]);
    let shown = crate::common::stdout(&output);
    let pids: Vec<i32> = shown.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(
        pids.contains(&1) && pids.iter().all(|pid| *pid <= 8),
        "{pids:?}"
    );
}

#[test]
fn clients_mounts_show_the_view_over_the_export() {
    let export = Export::new();
    let start = Start::new(&export);
    let output = start.output(["cat", "/proc/self/mountinfo"]);
    let text = crate::common::stdout(&output);
    let path = crate::common::shown(export.path());
    let view: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("fuse.virtfs-mediator"))
        .collect();
    let [line] = view.as_slice() else {
        panic!("{text}")
    };
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[4], path);
    for option in ["nosuid", "nodev"] {
        assert!(words[5].split(',').any(|word| word == option), "{line}");
    }
    assert!(!line.contains("allow_other"), "{line}");
    assert!(
        line.contains(&format!("user_id={CLIENT_UID},group_id={CLIENT_GID}")),
        "{line}"
    );
    assert!(line.contains(&format!(" {} ", start.name())), "{line}");
    // No propagation: what is mounted on either side stays there.
    assert!(
        !text.contains(" shared:") && !text.contains(" master:"),
        "{text}"
    );
}

#[test]
fn client_gets_the_callers_environment_and_umask() {
    let export = Export::new();
    let start = Start::new(&export).environment("VIRTFS_TEST", "a b");
    let output = std::process::Command::new("sh")
        .args(["-c", "umask 027; exec \"$@\"", "sh"])
        .args(start.run_words())
        .args(["sh", "-c", "echo $VIRTFS_TEST; umask"])
        .env("VIRTFS_TEST", "a b")
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(crate::common::stdout(&output), "a b\n0027", "{output:?}");
}

#[test]
fn working_directory_inside_the_export_is_the_views() {
    let export = Export::new();
    fs::create_dir(export.path().join("deep")).unwrap();
    let deep = export.path().join("deep");
    let output = Start::new(&export).directory(&deep).output([
        "sh",
        "-c",
        "pwd; exec 9<.; grep mnt_id: /proc/self/fdinfo/9; grep fuse.virtfs /proc/self/mountinfo",
    ]);
    let text = crate::common::stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    let [directory, of_directory, view] = lines.as_slice() else {
        panic!("{output:?}");
    };
    assert_eq!(*directory, crate::common::shown(&deep));
    let id = of_directory.trim_start_matches("mnt_id:").trim();
    assert_eq!(view.split(' ').next(), Some(id), "{text}");
}

#[test]
fn client_does_not_ignore_signals_that_the_caller_does_not() {
    let export = Export::new();
    let running = running(&export);
    let client = running.family().client();
    // Rust's runtime ignores SIGPIPE in the launcher, and exec would hand that on.
    let sigpipe = 1_u64 << (nix::sys::signal::Signal::SIGPIPE as u32 - 1);
    let ignored = u64::from_str_radix(&client.field("SigIgn").unwrap(), 16).unwrap();
    assert_eq!(ignored & sigpipe, 0, "{ignored:x}");
    assert_eq!(client.field("SigBlk"), Some("0".repeat(16)));
}

#[test]
fn standard_output_inside_the_export_is_refused() {
    let export = Export::new();
    let file = fs::File::create(export.path().join("log")).unwrap();
    let start = Start::new(&export);
    let output = start.command(["true"]).stdout(file).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = crate::common::stderr(&output);
    assert!(
        told.contains("descriptor 1") && told.contains("/log"),
        "{told}"
    );
    crate::common::assert_nothing_left(start.name());
}
