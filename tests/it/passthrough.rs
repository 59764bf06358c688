//! File data that goes past the mediator: the same bytes on both sides, none of them counted by it,
//! and no open that is answered with EIO.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use rustix::fs::{FallocateFlags, XattrFlags};
use serde_json::Value;
use virtfs_p9::{Ids, Launch, Machine, Qemu};

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, Running, Start, assert_nothing_left, await_that, ours,
    program, shown, stderr, stdout,
};

/// What [`client`] is to do, and where.
const CASE: &str = "VIRTFS_IT_PASSTHROUGH";
const VIEW: &str = "VIRTFS_IT_VIEW";

type Case = (&'static str, fn(&Path) -> std::io::Result<()>);

const CASES: [Case; 6] = [
    ("everything", everything),
    ("small", small),
    ("write-one", write_one),
    ("hold", hold),
    ("race", race),
    ("reopen", reopen),
];

/// Not a test by itself: the client. Prints `ready` when its case is done, and stays.
#[test]
fn client() {
    let (Some(case), Some(view)) = (std::env::var_os(CASE), std::env::var_os(VIEW)) else {
        return;
    };
    let (_, run) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    // Seen by the test, since the pipe ends.
    run(Path::new(&view)).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    println!("\nready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

/// Starts a view whose client does a case.
fn start(export: &Export, start: &Start, case: &str) -> Running {
    let copy: PathBuf = export.beside("client");
    if !copy.exists() {
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut words = vec!["env".to_owned()];
    words.push(format!("{CASE}={case}"));
    words.push(format!("{VIEW}={}", shown(export.path())));
    words.push(shown(&copy));
    let rest = "--exact passthrough::client --nocapture --test-threads 1";
    words.extend(rest.split(' ').map(str::to_owned));
    let mut command = start.command(words);
    command.stdin(Stdio::piped());
    Running::spawn(command, start.name().to_owned())
}

/// As [`start`], up to the case's end.
#[track_caller]
fn done(export: &Export, how: &Start, case: &str) -> Running {
    let mut running = start(export, how, case);
    running.ready();
    recorded(how.name());
    running
}

fn recorded(view: &str) {
    await_that(LIMIT, "the launcher has recorded the view", || {
        ours(["status", view]).status.success()
    });
}

fn metrics(view: &str) -> BTreeMap<String, f64> {
    let output = ours(["metrics", view]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn metric(view: &str, name: &str) -> f64 {
    metrics(view)[&format!("virtfs_{name}{{view=\"{view}\"}}")]
}

fn asked(view: &str, operation: &str) -> f64 {
    let prefix = format!("virtfs_requests_total{{view=\"{view}\",operation=\"{operation}\"");
    let found = metrics(view);
    let rows = found.iter().filter(|(name, _)| name.starts_with(&prefix));
    rows.map(|(_, value)| value).sum()
}

fn status(view: &str) -> Value {
    let output = ours(["status", view, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn data(view: &str) -> Value {
    status(view)["mediator"]["status"]["data"].clone()
}

/// A file of the client's on the host.
fn put(export: &Export, name: &str, data: &[u8]) -> PathBuf {
    let path = export.path().join(name);
    fs::write(&path, data).unwrap();
    std::os::unix::fs::chown(&path, Some(CLIENT_UID), Some(CLIENT_GID)).unwrap();
    path
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at / 7 % 251).unwrap())
        .collect()
}

const LARGE: usize = 1 << 20;

fn open(path: &Path) -> std::io::Result<fs::File> {
    fs::File::options().read(true).write(true).open(path)
}

/// Everything that can be done with the data of `large`, which [`expected`] says once more.
fn everything(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let mut file = open(&path)?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    assert_eq!(read, pattern(LARGE));
    file.write_all_at(b"written", 5000)?;
    let mut back = [0; 9];
    file.read_exact_at(&mut back, 4999)?;
    assert_eq!(&back[1..8], b"written");
    // Behind the end, by a descriptor of its own.
    let mut end = fs::File::options().append(true).open(&path)?;
    end.write_all(b"appended")?;
    assert_eq!(file.metadata()?.len(), LARGE as u64 + 8);
    assert_eq!(file.seek(SeekFrom::End(0))?, LARGE as u64 + 8);
    mapped(&file, 8192, b"mapped")?;
    // A hole, and a shorter file: requests of their own, seen by whoever reads past the mediator.
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 65_536, 65_536)?;
    let mut zero = vec![1; 65_536];
    file.read_exact_at(&mut zero, 65_536)?;
    assert!(zero.iter().all(|byte| *byte == 0));
    file.set_len(LARGE as u64 - 4096)?;
    assert_eq!(file.metadata()?.len(), LARGE as u64 - 4096);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &file, Some(&mut 200_000), 4096)?;
    assert_eq!(copied, 4096);
    direct(&path)?;
    // Without a name.
    fs::rename(&path, at.join("moved"))?;
    let other = open(&at.join("moved"))?;
    fs::remove_file(at.join("moved"))?;
    file.write_all_at(b"nameless", 0)?;
    let mut same = [0; 8];
    other.read_exact_at(&mut same, 0)?;
    assert_eq!(&same, b"nameless");
    file.sync_all()?;
    // What is left of it, for the host to compare: cached, since it is new.
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut rest)?;
    fs::write(at.join("result"), rest)
}

fn expected() -> Vec<u8> {
    let mut data = pattern(LARGE);
    data[5000..5007].copy_from_slice(b"written");
    data[8192..8198].copy_from_slice(b"mapped");
    data[65_536..131_072].fill(0);
    data.truncate(LARGE - 4096);
    let start = data[..4096].to_vec();
    data[200_000..204_096].copy_from_slice(&start);
    data[300_000 / 4096 * 4096..][..4096].fill(b'd');
    data[..8].copy_from_slice(b"nameless");
    data
}

/// Writes by a shared mapping and reads the same place by read(2), and the other way round.
#[allow(unsafe_code, reason = "a mapping is raw memory")]
fn mapped(file: &fs::File, offset: usize, text: &[u8]) -> std::io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping, where the kernel likes it.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LARGE,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the mapping is LARGE bytes long, the file is longer, and nobody else has it.
    let memory = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), LARGE) };
    assert_eq!(&memory[5000..5007], b"written");
    memory[offset..offset + text.len()].copy_from_slice(text);
    let mut read = vec![0; text.len()];
    file.read_exact_at(&mut read, offset as u64)?;
    assert_eq!(read, text);
    // SAFETY: mapped above, and not used again.
    unsafe { libc::munmap(at, LARGE) };
    Ok(())
}

/// `O_DIRECT`, where the file system has it, which asks for aligned memory.
fn direct(path: &Path) -> std::io::Result<()> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let file = fs::File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    file.write_all_at(&Page([b'd'; 4096]).0, 300_000 / 4096 * 4096)
}

#[test]
fn data_of_a_large_file_goes_past_the_mediator_and_is_the_same_on_both_sides() {
    for (mode, cache) in [
        ("auto", "auto"),
        ("passthrough", "exclusive"),
        ("mediated", "none"),
    ] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--cache={cache}"));
        let mut running = done(&export, &how, "everything");
        let result = fs::read(export.path().join("result")).unwrap();
        assert!(result == expected(), "{mode}: {} bytes", result.len());
        let view = how.name();
        let past = metric(view, "passthrough_opened_total");
        if mode == "mediated" {
            assert_eq!(past, 0.0);
            assert!(asked(view, "read") > 0.0 && asked(view, "write") > 0.0);
            assert_eq!(running.family().registrars, []);
        } else {
            assert!(past >= 4.0, "{past}");
            assert_eq!(asked(view, "read"), 0.0, "{mode}");
            // The result's own: a file is small when it is made.
            let own = if mode == "auto" { 1.0 } else { 0.0 };
            assert!(asked(view, "write") >= own);
            assert!(mode == "auto" || asked(view, "write") == 0.0);
            // The two of `everything` are open no more.
            assert_eq!(metric(view, "passthrough_backing_ids"), 0.0);
        }
        running.signal(Signal::SIGTERM);
        running.end();
        assert_nothing_left(view);
    }
}

fn small(at: &Path) -> std::io::Result<()> {
    fs::write(at.join("new"), b"made")?;
    let mut file = open(&at.join("small"))?;
    file.write_all(b"changed")?;
    let mut text = String::new();
    fs::File::open(at.join("new"))?.read_to_string(&mut text)?;
    assert_eq!(text, "made");
    Ok(())
}

#[test]
fn small_files_are_registered_only_when_that_is_asked_for() {
    for (mode, past) in [("auto", 0.0), ("passthrough", 3.0)] {
        let export = Export::new();
        let small = put(&export, "small", b"original");
        let how = Start::new(&export).option(format!("--data={mode}"));
        let _running = done(&export, &how, "small");
        assert_eq!(fs::read(&small).unwrap(), b"changedl");
        assert_eq!(
            metric(how.name(), "passthrough_opened_total"),
            past,
            "{mode}"
        );
        assert_eq!(asked(how.name(), "write") == 0.0, past > 0.0, "{mode}");
    }
}

/// Writes one byte where it was told to, and looks at the mode before and after.
fn write_one(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let file = open(&path)?;
    println!("\nmode {:o}", file.metadata()?.mode() & 0o7777);
    file.write_all_at(b"x", 100)?;
    println!("mode {:o}", file.metadata()?.mode() & 0o7777);
    println!("mode {:o}", fs::metadata(&path)?.mode() & 0o7777);
    Ok(())
}

#[test]
fn set_id_bits_and_file_capabilities_go_with_a_write_on_either_way() {
    for (mode, cache) in [
        ("passthrough", "auto"),
        ("passthrough", "exclusive"),
        ("auto", "auto"),
        ("mediated", "auto"),
    ] {
        let export = Export::new();
        let path = put(&export, "large", &pattern(LARGE));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        // CAP_NET_RAW, permitted and effective (linux/capability.h, VFS_CAP_REVISION_2).
        let mut capability = [0; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
        let name = "security.capability";
        rustix::fs::setxattr(&path, name, &capability, XattrFlags::empty()).unwrap();
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--cache={cache}"));
        let running = start(&export, &how, "write-one");
        let seen = running.stdout.until("ready");
        let modes: Vec<&str> = seen
            .iter()
            .filter_map(|line| line.strip_prefix("mode "))
            .collect();
        assert_eq!(modes, ["6755", "755", "755"], "{mode}, {cache}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        let left = rustix::fs::getxattr(&path, name, &mut [0_u8; 64]);
        assert_eq!(left, Err(rustix::io::Errno::NODATA), "{mode}, {cache}");
        recorded(how.name());
        assert_eq!(asked(how.name(), "write") == 0.0, mode != "mediated");
    }
}

/// Opens `large`, and at each line that comes from the test, opens it once more and tells what
/// came of that and of a read by the first.
fn hold(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let first = open(&path)?;
    println!("\nheld");
    for _line in std::io::stdin().lines() {
        let again = open(&path).map(|_file| ());
        let mut byte = [0];
        let read = first.read_at(&mut byte, 4097);
        let told = |result: std::io::Result<String>| {
            result.unwrap_or_else(|error| error.raw_os_error().unwrap_or(0).to_string())
        };
        let again = told(again.map(|()| "ok".to_owned()));
        println!("again {again} read {}", told(read.map(|n| n.to_string())));
    }
    Ok(())
}

fn ask(running: &mut Running, stdin: &mut std::process::ChildStdin) -> String {
    stdin.write_all(b"\n").unwrap();
    running.stdout.until_part("again ")
}

#[test]
fn reload_tells_of_files_that_go_past_a_policy_and_the_next_open_of_them_is_refused() {
    let export = Export::new();
    put(&export, "large", &pattern(LARGE));
    let how = Start::new(&export);
    let mut running = start(&export, &how, "hold");
    running.stdout.until("held");
    recorded(how.name());
    let mut stdin = running.stdin();
    assert_eq!(ask(&mut running, &mut stdin), "again ok read 1");
    assert_eq!(data(how.name())["open"], 1);
    let policy = export.beside("strict.toml");
    fs::write(&policy, "default = \"allow\"\nstrict = true\n").unwrap();
    let output = ours(["reload", how.name(), "--policy", &shown(&policy)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(
        told.contains("whatever this policy says of it: 1"),
        "{told}"
    );
    // EBUSY: it could not be judged. The one that is open goes on.
    assert_eq!(ask(&mut running, &mut stdin), "again 16 read 1");
    fs::write(&policy, "default = \"deny\"\n").unwrap();
    assert!(ours(["reload", how.name()]).status.success());
    assert_eq!(ask(&mut running, &mut stdin), "again 13 read 1");
    fs::write(&policy, "default = \"allow\"\n").unwrap();
    assert!(ours(["reload", how.name()]).status.success());
    assert_eq!(ask(&mut running, &mut stdin), "again ok read 1");
    assert_eq!(asked(how.name(), "read"), 0.0);
}

#[test]
fn policy_that_judges_data_keeps_it_with_the_mediator() {
    for (policy, past) in [
        ("default = \"allow\"\n", true),
        ("default = \"allow\"\nstrict = true\n", false),
        (
            "default = \"allow\"\nlimit = { file_size = 9000000 }\n",
            false,
        ),
        (
            "default = \"allow\"\n[[rule]]\npath = \"/large\"\ndo = \"read\"\naction = \"allow\"\nlog = \"all\"\n",
            false,
        ),
        (
            "default = \"allow\"\n[[rule]]\npath = \"/other\"\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n",
            true,
        ),
    ] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        let file = export.beside("policy.toml");
        fs::write(&file, policy).unwrap();
        let how = Start::new(&export).option(format!("--policy={}", shown(&file)));
        let running = done(&export, &how, "write-one");
        let opened = metric(how.name(), "passthrough_opened_total");
        assert_eq!(opened > 0.0, past, "{policy}");
        assert_eq!(asked(how.name(), "write") == 0.0, past, "{policy}");
        let strict = policy.contains("strict");
        assert_eq!(running.family().registrars.is_empty(), strict, "{policy}");
    }
}

#[test]
fn passthrough_and_a_strict_policy_are_refused_together() {
    let export = Export::new();
    let file = export.beside("policy.toml");
    fs::write(&file, "default = \"allow\"\nstrict = true\n").unwrap();
    let how = Start::new(&export)
        .option("--data=passthrough")
        .option(format!("--policy={}", shown(&file)));
    let output = how.output(["true"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("strict = true"), "{output:?}");
    assert_nothing_left(how.name());
}

#[test]
fn registrar_holds_sys_admin_alone_and_the_mediators_ids_for_files() {
    let export = Export::new();
    let how = Start::new(&export).option("--mediator-user=61300:61301");
    let running = how.shell_ready("echo ready; exec sleep 1000");
    let registrar = running.family().registrar();
    for (field, value) in [
        // Real, effective, saved and file system's: backing I/O has the last.
        ("Uid", "0\t61300\t0\t61300"),
        ("Gid", "61301\t61301\t61301\t61301"),
        ("Groups", ""),
        // CAP_SYS_ADMIN is 21.
        ("CapEff", "0000000000200000"),
        ("CapPrm", "0000000000200000"),
        ("CapBnd", "0000000000200000"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = registrar.field(field).unwrap_or_default();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&found), words(value), "{field}");
    }
    let fds: Vec<String> = fs::read_dir(format!("/proc/{}/fd", registrar.pid))
        .unwrap()
        .map(|entry| shown(&fs::read_link(entry.unwrap().path()).unwrap()))
        .filter(|what| !what.starts_with("pipe:["))
        .collect();
    assert_eq!(fds.len(), 2, "{fds:?}");
    assert!(fds.contains(&"/dev/fuse".to_owned()), "{fds:?}");
    let none = Start::new(&export).option("--data=mediated");
    let running = none.shell_ready("echo ready; exec sleep 1000");
    assert_eq!(running.family().registrars, []);
}

#[test]
fn view_goes_on_mediated_without_its_registrar_and_says_so_once() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let export = Export::new();
        put(&export, "large", &pattern(LARGE));
        put(&export, "other", &pattern(LARGE));
        let how = Start::new(&export);
        let mut running = start(&export, &how, "reopen");
        running.stdout.until("held");
        running.look();
        recorded(how.name());
        assert_eq!(data(how.name())["passthrough"], true);
        running.family().registrar().kill(signal);
        let mut stdin = running.stdin();
        stdin.write_all(b"\n").unwrap();
        running.stdout.until("ready");
        assert!(asked(how.name(), "read") > 0.0, "the other file's");
        let told = data(how.name());
        assert_eq!(told["passthrough"], false);
        let why = told["why_not"].as_str().unwrap();
        assert!(why.contains("the registrar is gone"), "{why}");
        running.signal(Signal::SIGTERM);
        running.family().assert_gone();
        let ended = running.end();
        assert_eq!(ended.told("mediated from now on"), 1, "{ended:?}");
        assert_nothing_left(how.name());
    }
}

/// Holds `large` open, and opens `other` twice when it is told to.
fn reopen(at: &Path) -> std::io::Result<()> {
    let large = open(&at.join("large"))?;
    println!("\nheld");
    std::io::stdin().read_line(&mut String::new())?;
    for name in ["other", "other", "large"] {
        let mut read = Vec::new();
        open(&at.join(name))?.read_to_end(&mut read)?;
        assert_eq!(read, pattern(LARGE));
    }
    let mut byte = [0];
    large.read_exact_at(&mut byte, 70_000)
}

/// Four threads open, read, write, truncate and grow the same two files, until the test says enough;
/// none of it may fail.
fn race(at: &Path) -> std::io::Result<()> {
    println!("\nheld");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4_u64)
            .map(|number| {
                let enough = &enough;
                scope.spawn(move || -> std::io::Result<u64> {
                    let mut rounds = 0;
                    while !enough.load(Ordering::Relaxed) {
                        let name = if (rounds + number) % 2 == 0 {
                            "large"
                        } else {
                            "other"
                        };
                        one_round(&at.join(name), rounds + number)?;
                        rounds += 1;
                    }
                    Ok(rounds)
                })
            })
            .collect();
        std::io::stdin().read_line(&mut String::new())?;
        enough.store(true, Ordering::Relaxed);
        for racer in racers {
            let rounds = racer.join().unwrap()?;
            println!("{rounds} rounds");
        }
        Ok(())
    })
}

fn one_round(path: &Path, round: u64) -> std::io::Result<()> {
    let truncate = round % 7 == 0;
    let mut options = fs::File::options();
    options.read(true).write(true).truncate(truncate);
    let file = options.open(path)?;
    let second = fs::File::open(path)?;
    if truncate {
        file.set_len(if round % 2 == 0 { 200_000 } else { 100 })?;
    }
    file.write_all_at(b"race", round % 50_000)?;
    let mut read = [0; 4];
    second.read_at(&mut read, round % 50_000)?;
    Ok(())
}

#[test]
fn opens_in_mixed_modes_never_fail_while_policies_and_watchers_come_and_go() {
    for mode in ["auto", "passthrough"] {
        let export = Export::new();
        put(&export, "large", &pattern(200_000));
        put(&export, "other", &pattern(200_000));
        let (plain, judging) = (export.beside("plain.toml"), export.beside("judging.toml"));
        fs::write(&plain, "default = \"allow\"\n").unwrap();
        // Judges the data of neither file.
        let rule = "[[rule]]\npath = \"/x/**\"\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n";
        fs::write(&judging, format!("default = \"allow\"\n{rule}")).unwrap();
        let how = Start::new(&export)
            .option(format!("--data={mode}"))
            .option(format!("--policy={}", shown(&plain)));
        let mut running = start(&export, &how, "race");
        running.stdout.until("held");
        recorded(how.name());
        for round in 0..12 {
            let policy = if round % 2 == 0 { &judging } else { &plain };
            let mut watcher = Command::new(program())
                .args(["trace", how.name(), "--op", "open"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It watches once it tells of something.
            let mut first = [0];
            watcher
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut first)
                .unwrap();
            let output = ours(["reload", how.name(), "--policy", &shown(policy)]);
            assert!(output.status.success(), "{}", stderr(&output));
            watcher.kill().unwrap();
            watcher.wait().unwrap();
        }
        let opened = metric(how.name(), "passthrough_opened_total");
        running.stdin().write_all(b"\n").unwrap();
        let seen = running.stdout.until("ready");
        assert_eq!(
            seen.iter().filter(|line| line.ends_with(" rounds")).count(),
            4,
            "{seen:?}"
        );
        assert!(opened > 0.0);
        assert!(asked(how.name(), "read") > 0.0, "some opens were watched");
        await_that(LIMIT, "all are closed", || {
            metric(how.name(), "passthrough_backing_ids") == 0.0
        });
    }
}

#[test]
fn guest_reads_and_writes_128k_past_the_mediator() {
    let export = Export::new();
    put(&export, "large", &pattern(LARGE));
    let how = Start::new(&export);
    let client = Ids {
        uid: CLIENT_UID,
        gid: CLIENT_GID,
    };
    let qemu = Qemu::new().export(virtfs_p9::Export::local("share", export.path()));
    let launch = Launch::new().wrapper(how.run_words(), client);
    let machine = Machine::boot(&qemu, &launch).unwrap();
    let mut session = machine.session("share").unwrap();
    let mut user = session.user(client).unwrap();
    assert_eq!(user.read_all("large").unwrap(), pattern(LARGE));
    recorded(how.name());
    assert_eq!(asked(how.name(), "read"), 0.0);
    assert!(metric(how.name(), "passthrough_opened_total") > 0.0);
    drop(user);
    drop(session);
    machine.stop().unwrap();
    assert_nothing_left(how.name());
}
