//! Walls that depend on the policy, on the kernel, or on what the caller asks for; and what
//! `status` tells of all of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};
use serde_json::Value;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, Start, assert_nothing_left, ours, shown, stderr, stdout,
};
use crate::process::Process;

fn status(view: &str) -> Value {
    let output = ours(["status", view, "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The walls of a process in `status --json`.
#[track_caller]
fn walls<'s>(status: &'s Value, process: &str) -> &'s Vec<Value> {
    status["processes"][process]["walls"]
        .as_array()
        .unwrap_or_else(|| panic!("no walls of {process}: {status}"))
}

#[track_caller]
fn found<'s>(status: &'s Value, process: &str, wall: &str) -> &'s str {
    let named = walls(status, process)
        .iter()
        .find(|one| one["wall"] == wall);
    named.unwrap_or_else(|| panic!("no {wall}: {status}"))["found"]
        .as_str()
        .unwrap()
}

fn policy(export: &Export, text: &str) -> String {
    let file = export.beside("policy.toml");
    fs::write(&file, text).unwrap();
    format!("--policy={}", shown(&file))
}

/// A policy whose ids lie from 100,000 on, and an export that belongs there.
fn mapped(export: &Export) -> String {
    chown(export.path(), Some(100_000), Some(100_000)).unwrap();
    policy(
        export,
        "default = \"allow\"\nmap = [{ guest = 0, host = 100000, count = 1000 }]\n",
    )
}

#[test]
fn status_tells_every_wall_as_proc_does() {
    let export = Export::new();
    let running = Start::new(&export).shell_ready("echo ready; exec sleep 1000");
    let (family, told) = (running.family(), status(&running.name));
    let client = format!("client {}", family.client().pid);
    for process in ["keeper", "init", "warden", "mediator", "registrar", &client] {
        for wall in walls(&told, process) {
            assert_eq!(wall["stands"], true, "{process}: {wall}");
        }
    }
    let mediator = family.mediator();
    let number = |process: Process, field: &str| {
        u64::from_str_radix(&process.field(field).unwrap(), 16).unwrap()
    };
    let capabilities = format!("eff {:x}, prm 1b", number(mediator, "CapEff"));
    assert!(found(&told, "mediator", "capabilities").starts_with(&capabilities));
    let uid = mediator.field("Uid").unwrap();
    let uid = format!("uid {},", uid.split(' ').next().unwrap());
    assert!(found(&told, "mediator", "own user and group").starts_with(&uid));
    let filters = mediator.field("Seccomp_filters").unwrap();
    assert_eq!(
        found(&told, "mediator", "seccomp"),
        format!("mode 2, {filters} filters")
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", mediator.pid)).unwrap();
    let nproc = limits
        .lines()
        .find(|line| line.starts_with("Max processes"));
    let nproc = nproc.unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert!(nproc.parse::<u64>().unwrap() <= 32, "{limits}");
    assert!(found(&told, "mediator", "limits").contains(&format!("processes {nproc}")));
    assert!(found(&told, "mediator", "Landlock").starts_with("ABI "));
    assert_eq!(
        found(&told, "mediator", "no further namespaces"),
        "user.max_user_namespaces 0"
    );
    let client_ids = format!("uid {CLIENT_UID}, gid {CLIENT_GID}, groups none");
    assert_eq!(found(&told, &client, "the client's ids"), client_ids);
    // For people: one line each.
    let lines = stdout(&ours(["status", &running.name]));
    let expected = walls(&told, "mediator").len();
    let (_, of_mediator) = lines.split_once("mediator (process ").unwrap();
    let lines: Vec<&str> = of_mediator
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .collect();
    assert_eq!(lines.len(), expected);
    assert!(
        lines.iter().all(|line| line.contains(" stands ")),
        "{lines:?}"
    );
}

#[test]
fn map_is_all_that_the_mediators_user_namespace_holds() {
    let export = Export::new();
    let policy = mapped(&export);
    let running = Start::new(&export)
        .option(policy)
        .option("--mediator-user=61300:61301")
        .shell_ready("echo ready; exec sleep 1000");
    let pid = running.family().mediator().pid;
    for (file, own) in [("uid_map", "61300"), ("gid_map", "61301")] {
        let map = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let words: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(words, [own, own, "1", "100000", "100000", "1000"], "{map}");
    }
    let told = status(&running.name);
    assert!(found(&told, "mediator", "user namespace").contains("100000 100000 1000"));
}

#[test]
fn map_of_more_ranges_than_a_user_namespace_holds_is_refused() {
    let export = Export::new();
    let range = |at: u32| format!("{{ guest = {at}, host = {}, count = 1 }}", 100_000 + 2 * at);
    let map = |count: u32| (0..count).map(range).collect::<Vec<_>>().join(", ");
    chown(export.path(), Some(100_000), Some(100_000)).unwrap();
    let with = |count| {
        let text = format!("default = \"allow\"\nmap = [{}]\n", map(count));
        let start = Start::new(&export).option(policy(&export, &text));
        (start.output(["true"]), start)
    };
    // Sixteen bytes each, and the mediator's own id.
    let (output, _) = with(254);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (output, start) = with(255);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("256 ranges"), "{output:?}");
    assert_nothing_left(start.name());
}

#[test]
fn guest_under_a_map_owns_its_files_and_no_others() {
    let export = Export::new();
    let policy = mapped(&export);
    // The host's own, left in the export: readable for everyone by its mode.
    let path = |name: &str| export.path().join(name);
    fs::write(path("roots"), "roots").unwrap();
    fs::set_permissions(path("roots"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(path("rootdir")).unwrap();
    fs::set_permissions(path("rootdir"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(path("rootdir/inner"), "inner").unwrap();
    chown(path("rootdir/inner"), Some(100_000), Some(100_000)).unwrap();
    let script = r#"
        tell() { if eval "$2" 2>/dev/null; then echo "$1 done"; else echo "$1 refused"; fi; }
        tell write 'echo mine > mine'
        tell chmod 'chmod 640 mine'
        tell list 'ls -l | grep -q "roots$"'
        tell read 'cat roots'
        tell append 'echo x >> roots'
        tell mode 'chmod 600 roots'
        tell time 'touch roots'
        tell remove 'rm -f roots'
        tell rename 'mv roots moved'
        tell link 'ln roots linked'
        tell over 'mv -f mine roots'
        tell enter 'ls rootdir'
        tell below 'cat rootdir/inner'
        tell make 'touch rootdir/new'
        tell move 'mv mine rootdir/mine'
    "#;
    let output = Start::new(&export)
        .option(policy)
        .directory(export.path())
        .output(["sh", "-c", script]);
    let lines = stdout(&output);
    let (done, refused): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.ends_with(" done"));
    assert_eq!(
        done,
        ["write done", "chmod done", "list done"],
        "{output:?}"
    );
    assert_eq!(refused.len(), 12, "{output:?}");
    assert!(
        stderr(&output).contains("outside of every range of `map`"),
        "{output:?}"
    );
    let mine = fs::metadata(path("mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (100_000, 100_000));
    assert_eq!(fs::read_to_string(path("roots")).unwrap(), "roots");
    assert_eq!(fs::metadata(path("roots")).unwrap().mode() & 0o777, 0o666);
    assert!(!path("rootdir/new").exists());
}

#[test]
fn export_root_outside_the_map_is_refused_with_the_cure() {
    let export = Export::new();
    let start = Start::new(&export).option(mapped(&export));
    chown(export.path(), Some(0), Some(100_000)).unwrap();
    let output = start.output(["true"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = stderr(&output);
    let cure = format!("chown 100000:100000 {}", shown(export.path()));
    assert!(
        told.contains("belongs to 0:100000") && told.contains(&cure),
        "{told}"
    );
    assert_nothing_left(start.name());
}

/// The filter that ends a mediator for a set-user-id bit is never met by what a guest may ask.
#[test]
fn set_id_bits_that_the_policy_strips_never_reach_the_kernel() {
    let export = Export::new();
    for setgid in ["allow", "deny"] {
        let text = format!("default = \"allow\"\nsetgid_directories = \"{setgid}\"\n");
        let script = "umask 0; touch f; chmod 6755 f; mkdir d; chmod 6775 d; chmod 4775 d; \
                      chmod 1777 d; mkdir -m 6755 e; install -m 6755 /dev/null g; mkfifo -m 6644 p; \
                      mkdir d/sub; chmod g+s d; mkdir d/under; cp -a f h; chmod u+s h; ls -d f d g h; \
                      rm -rf f d e g p h";
        let output = Start::new(&export)
            .option(policy(&export, &text))
            .directory(export.path())
            .output(["sh", "-c", script]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(stdout(&output), "d\nf\ng\nh", "{output:?}");
    }
}

#[test]
fn policy_without_any_set_id_bit_needs_no_fsetid() {
    let export = Export::new();
    let policy = policy(
        &export,
        "default = \"allow\"\nset_id = \"deny\"\nsetgid_directories = \"deny\"\n",
    );
    let mut running = Start::new(&export).option(policy).shell(&format!(
        "cd {}; mkdir d; chmod 2775 d || echo refused; chmod 775 d && echo done; echo ready; \
         exec sleep 1000",
        shown(export.path())
    ));
    assert_eq!(running.stdout.until("ready"), ["refused", "done"]);
    running.look();
    let mediator = running.family().mediator();
    // CHOWN (0), DAC_OVERRIDE (1), FOWNER (3).
    assert_eq!(mediator.field("CapEff").unwrap(), "000000000000000b");
    assert_eq!(mediator.field("CapBnd").unwrap(), "000000000000000b");
    let told = status(&running.name);
    assert!(found(&told, "mediator", "capabilities").starts_with("eff b,"));
}

/// The command on a kernel without Landlock: asked for it, that kernel says ENOSYS.
#[allow(unsafe_code, reason = "a filter between fork and exec")]
fn without_landlock(mut command: Command) -> Command {
    let absent = [(nix::libc::SYS_landlock_create_ruleset, Vec::new())];
    let errno = SeccompAction::Errno(nix::libc::ENOSYS.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(
        absent.into_iter().collect(),
        SeccompAction::Allow,
        errno,
        arch,
    )
    .unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    // SAFETY: two system calls, no allocation.
    unsafe {
        command.pre_exec(move || apply_filter(&program).map_err(std::io::Error::other));
    }
    command
}

fn run_without_landlock(start: &Start, argv: &[&str]) -> Output {
    without_landlock(start.command(argv)).output().unwrap()
}

#[test]
fn wall_that_the_kernel_lacks_is_a_warning() {
    let export = Export::new();
    let output = run_without_landlock(&Start::new(&export), &["true"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        stderr(&output).contains("a wall is missing: Landlock"),
        "{output:?}"
    );
    let start = Start::new(&export);
    let command = start.command(["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut running = crate::common::Running::spawn(without_landlock(command), start.name().into());
    running.ready();
    let told = status(&running.name);
    let down: Vec<&Value> = walls(&told, "mediator")
        .iter()
        .filter(|wall| wall["stands"] == false)
        .collect();
    assert_eq!(down.len(), 1, "{down:?}");
    assert_eq!(down[0]["wall"], "Landlock");
    assert!(
        stdout(&ours(["status", &running.name])).contains("Landlock                       DOWN")
    );
}

#[test]
fn wall_that_the_kernel_lacks_with_require_confinement_is_an_error() {
    let export = Export::new();
    let start = Start::new(&export).option("--require-confinement");
    let output = run_without_landlock(&start, &["echo", "started"]);
    assert_eq!(output.status.code(), Some(71), "{output:?}");
    assert_eq!(stdout(&output), "");
    let told = stderr(&output);
    assert!(
        told.contains("Landlock") && told.contains("--require-confinement"),
        "{told}"
    );
    assert_nothing_left(start.name());
    // A kernel that has all of them is none the worse for being asked.
    let start = Start::new(&export).option("--require-confinement");
    assert_eq!(start.output(["true"]).status.code(), Some(0));
}

/// The program under a shell that opens descriptor 7 on a file.
fn with_seven(start: &Start, open: &str, file: &Path, argv: &[&str]) -> Output {
    Command::new("sh")
        .args([
            "-c",
            &format!("exec 7{open}\"$1\"; shift; exec \"$@\"",),
            "sh",
        ])
        .arg(file)
        .args(start.run_words())
        .args(argv)
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn descriptor_that_was_asked_for_reaches_the_client_and_nobody_else() {
    let export = Export::new();
    // Of a file that the client could not open itself.
    let file = export.beside("handed on");
    fs::write(&file, "handed on").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let start = Start::new(&export).option("--pass-fd=7");
    let script = "cat <&7; echo; cd /proc/self/fd; echo *";
    let output = with_seven(&start, "<", &file, &["sh", "-c", script]);
    // The last is the shell's own, of the directory that it lists.
    assert_eq!(stdout(&output), "handed on\n0 1 2 3 7", "{output:?}");
    let start = Start::new(&export).option("--pass-fd=7");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 7<\"$1\"; shift; exec \"$@\"", "sh"])
        .arg(&file)
        .args(start.run_words())
        .args(["sh", "-c", "echo ready; exec sleep 1000"])
        .current_dir("/")
        .stdin(std::process::Stdio::null());
    let mut running = crate::common::Running::spawn(command, start.name().into());
    running.ready();
    let family = running.family();
    let holders: Vec<Process> = family
        .all()
        .into_iter()
        .chain([running.launcher])
        .filter(|one| {
            one.descriptors()
                .iter()
                .any(|(_, what)| what.ends_with("handed on"))
        })
        .collect();
    assert_eq!(holders, [family.client()]);
}

#[test]
fn descriptor_that_would_lead_past_the_view_is_refused() {
    let export = Export::new();
    fs::write(export.path().join("file"), "").unwrap();
    let refused = |start: Start, file: &Path, status: i32, word: &str| {
        let output = with_seven(&start, "<", file, &["echo", "started"]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(stderr(&output).contains(word), "{output:?}");
        assert_eq!(stdout(&output), "");
        assert_nothing_left(start.name());
    };
    let asked = || Start::new(&export).option("--pass-fd=7");
    refused(asked(), Path::new("/"), 78, "descriptor 7 is a directory");
    refused(asked(), &export.path().join("file"), 78, "inside export");
    let closed = Start::new(&export).option("--pass-fd=9");
    refused(
        closed,
        Path::new("/dev/null"),
        64,
        "descriptor 9 is not open",
    );
    let standard = Start::new(&export).option("--pass-fd=2");
    refused(standard, Path::new("/dev/null"), 64, "--pass-fd");
}

#[test]
fn isolated_client_finds_no_other_mount_of_the_export() {
    let export = Export::new();
    fs::write(export.path().join("file"), "original").unwrap();
    let also = export.beside("also");
    fs::create_dir(&also).unwrap();
    // In a mount namespace of its own, so that a failure leaves nothing on the host.
    let within = |options: &[&str], argv: &[&str]| {
        let start = options
            .iter()
            .fold(Start::new(&export), |start, option| start.option(*option));
        let mount =
            "mount --make-rprivate / && mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        Command::new("unshare")
            .args(["--mount", "sh", "-c", mount, "sh"])
            .args([export.path(), &also])
            .args(start.run_words())
            .args(argv)
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    };
    let file = shown(&also.join("file"));
    let seen = within(&[], &["cat", &file]);
    assert_eq!(stdout(&seen), "original", "{seen:?}");
    assert!(
        stderr(&seen).contains("another mount shows the export"),
        "{seen:?}"
    );
    let hidden = within(&["--isolate"], &["cat", &file]);
    assert_eq!(hidden.status.code(), Some(1), "{hidden:?}");
    assert!(stderr(&hidden).contains("No such file"), "{hidden:?}");
    let bound = within(
        &["--isolate", &format!("--bind={}", shown(&also))],
        &["true"],
    );
    assert_eq!(bound.status.code(), Some(78), "{bound:?}");
    assert!(stderr(&bound).contains("would show export"), "{bound:?}");
}

/// The command with a key in a session keyring of its own, as a login gives root one.
#[allow(unsafe_code, reason = "keyrings have no safe wrapper here")]
fn with_a_key(mut command: Command, name: &'static std::ffi::CStr) -> Command {
    use nix::libc;
    let add = move || {
        // SAFETY: the strings live as long as the program; two system calls, no allocation.
        let serial = unsafe {
            let join: libc::c_int = 1;
            libc::syscall(libc::SYS_keyctl, join, std::ptr::null::<libc::c_char>());
            let (kind, secret) = (c"user", c"secret");
            let session: libc::c_int = -3;
            let length: libc::size_t = 6;
            libc::syscall(
                libc::SYS_add_key,
                kind.as_ptr(),
                name.as_ptr(),
                secret.as_ptr(),
                length,
                session,
            )
        };
        if serial > 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: `add` makes system calls alone.
    unsafe {
        command.pre_exec(add);
    }
    command
}

#[test]
fn client_possesses_no_key_of_the_callers() {
    let export = Export::new();
    let name = c"virtfs-mediator-test-key";
    let shows = |command: Command| {
        let output = with_a_key(command, name).output().unwrap();
        let text = stdout(&output);
        assert!(text.contains("keyring"), "{output:?}");
        text.contains(name.to_str().unwrap())
    };
    // Without us, who changes from root to another user takes the keys along.
    let mut plain = Command::new("setpriv");
    plain.args([
        &format!("--reuid={CLIENT_UID}"),
        &format!("--regid={CLIENT_GID}"),
        "--clear-groups",
        "cat",
        "/proc/keys",
    ]);
    assert!(shows(plain));
    assert!(!shows(Start::new(&export).command(["cat", "/proc/keys"])));
}

#[test]
fn isolated_client_is_out_of_reach_of_other_processes_ipc() {
    let export = Export::new();
    let start = Start::new(&export).option("--isolate");
    let running = start.shell_ready("echo ready; exec sleep 1000");
    let client = running.family().client();
    let host = Process::find(std::process::id().try_into().unwrap()).unwrap();
    assert_ne!(client.namespace("ipc"), host.namespace("ipc"));
    let told = status(&running.name);
    let client = format!("client {}", client.pid);
    assert_eq!(found(&told, &client, "own namespaces"), "mnt pid ipc");
    let entered = ours([
        "enter",
        &running.name,
        "--",
        "readlink",
        "/proc/self/ns/ipc",
    ]);
    let ipc = running.family().client().namespace("ipc");
    assert_eq!(stdout(&entered), ipc, "{entered:?}");
}
