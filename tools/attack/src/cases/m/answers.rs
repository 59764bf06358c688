//! What a broken-into mediator answers to root's commands: nothing of it may reach a terminal as
//! it came, fill memory, keep a command for ever, or make one write what it was not asked to.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case;
use crate::case::{Arrangement, Attempt, Case, Verdict};
use crate::driver::liar::Lie;
use crate::driver::process::{Spawned, scratch};
use crate::driver::start::{Start, View};
use crate::driver::{OrTell as _, Outcome, product, verdict, weaker};
use crate::lab::{Lab, Place};

pub(crate) const CASES: &[Case] = &[case(
    31,
    "answers",
    "answers to root's commands: escapes, endless lines, floods of forged requests",
    "bounds in size, number and time; all words escaped; labels of our own",
    answers,
)];

const PLAIN: Arrangement = Arrangement::Other("a tool that prints what the control socket says");

/// How long a command may take by itself: `reload` waits a minute, since dropping a large view's
/// caches takes long.
const ENDS: Duration = Duration::from_secs(75);
/// How long one that goes on is left alone before it is interrupted.
const GOES_ON: Duration = Duration::from_secs(3);
/// How long it may take to end then.
const INTERRUPTED: Duration = Duration::from_secs(10);
/// The most memory that a command may take, in KiB.
const MEMORY: u64 = 128 * 1024;

/// Every command that asks a mediator; `VIEW` and files are put in. The last tells whether it goes
/// on until it is interrupted.
const COMMANDS: [(&[&str], bool); 8] = [
    (&["status", "VIEW"], false),
    (&["status", "--json", "VIEW"], false),
    (&["metrics", "VIEW"], false),
    (&["reload", "VIEW", "--policy", "policy.toml"], false),
    (&["trace", "VIEW"], true),
    (&["trace", "--json", "VIEW"], true),
    (&["record", "VIEW", "--output", "recording"], true),
    (&["step", "VIEW", "--script", "script"], true),
];

/// All that shows words of the mediator's. The second command is refused, with words of its.
const SCRIPT: &str = "wait 3\ninfo\nfacts\nwhy\nlist\nbreak path /x\n";
/// What a command may leave in its directory.
const FILES: [&str; 5] = ["out", "err", "policy.toml", "script", "recording"];

fn answers(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for lie in Lie::ALL {
        let place = Place::new().or_tell("a place")?;
        let view = Start::product(lab, place.export()).lying(lie)?.open()?;
        attempts.push(printed(lie, &view));
        for (words, goes_on) in COMMANDS {
            // A drip takes that minute already, by the same clock.
            if lie == Lie::Silent && words.contains(&"reload") {
                continue;
            }
            attempts.push(asked(lab, lie, &view, words, goes_on)?);
        }
        if !view.lives() {
            return Err(format!("the liar ended: {}", view.log()));
        }
    }
    Ok(attempts)
}

/// Whether a terminal would obey something of it, or hide something.
fn commands_a_terminal(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return true;
    };
    text.chars().any(|one| {
        (one.is_control() && one != '\n') || matches!(one, '\u{200b}'..='\u{202e}' | '\u{feff}')
    }) || text
        .lines()
        .any(|line| line.starts_with("virtfs-mediator: all is well"))
}

/// A status, without any of our care.
fn printed(lie: Lie, view: &View) -> Attempt {
    let way = lie.name();
    let read = || -> std::io::Result<(Vec<u8>, bool)> {
        let path = Path::new("/run/virtfs-mediator").join(&view.name);
        let mut stream = UnixStream::connect(path.join("control"))?;
        stream.write_all(b"{\"ask\":\"status\"}\n")?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let end = Instant::now() + GOES_ON;
        let (mut all, mut piece) = (Vec::new(), [0; 65536]);
        while Instant::now() < end {
            match stream.read(&mut piece) {
                Ok(0) => return Ok((all, true)),
                Ok(count) => all.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok((all, false))
    };
    match read() {
        Ok((bytes, ended)) => {
            // JSON escapes the low ones: a tool that prints has decoded them.
            let obeys = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|value| {
                let text = value.pointer("/status/view").and_then(|view| view.as_str());
                text.is_some_and(|text| commands_a_terminal(text.as_bytes()))
            });
            let what = format!("{} bytes, ended: {ended}, escapes: {obeys}", bytes.len());
            let got = obeys || !ended || bytes.len() > 1 << 20;
            weaker(PLAIN, way, verdict(got, what))
        }
        Err(error) => weaker(PLAIN, way, Verdict::Untried(error.to_string())),
    }
}

/// The most memory that a process has taken so far, in KiB.
fn peak(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.unwrap_or(0)
}

/// What is in the view's own directory.
fn run_directory(view: &View) -> Vec<std::ffi::OsString> {
    let path = Path::new("/run/virtfs-mediator").join(&view.name);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

fn asked(
    lab: &Lab,
    lie: Lie,
    view: &View,
    words: &[&str],
    goes_on: bool,
) -> Result<Attempt, String> {
    let way = format!("{}, {}", lie.name(), words.join(" ").replace(" VIEW", ""));
    let dir = scratch()?;
    let at = dir.path().to_owned();
    fs::write(at.join("policy.toml"), "default = \"allow\"\n").or_tell("a policy")?;
    fs::write(at.join("script"), SCRIPT).or_tell("a script")?;
    let temporary = scratch()?;
    let mut command = Command::new(&lab.mediator);
    let words = words.iter().map(|word| {
        if *word == "VIEW" {
            view.name.as_str()
        } else {
            word
        }
    });
    command
        .args(words)
        .current_dir(&at)
        .env("TMPDIR", temporary.path());
    let before = run_directory(view);
    let mut spawned = Spawned::start(command, dir, false)?;
    let (started, mut memory, mut status) = (Instant::now(), 0, None);
    let (mut interrupted, mut limit) = (false, if goes_on { GOES_ON } else { ENDS });
    while status.is_none() {
        memory = memory.max(peak(spawned.pid()));
        status = spawned.wait(Duration::from_millis(20));
        if started.elapsed() > limit {
            if interrupted || !goes_on {
                break;
            }
            kill(Pid::from_raw(spawned.pid()), Signal::SIGINT).or_tell("kill")?;
            (interrupted, limit) = (true, limit + INTERRUPTED);
        }
    }
    let mut left: Vec<String> = Vec::new();
    for directory in [at.as_path(), temporary.path()] {
        for entry in fs::read_dir(directory).or_tell("a directory")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if directory != at || !FILES.contains(&name.as_str()) {
                left.push(name);
            }
        }
    }
    let (out, err) = (fs::read(at.join("out")), fs::read(at.join("err")));
    let (out, err) = (out.or_tell("out")?, err.or_tell("err")?);
    let obeys = commands_a_terminal(&out) || commands_a_terminal(&err);
    let took = started.elapsed();
    let same = before == run_directory(view);
    let got = status.is_none() || obeys || memory > MEMORY || !left.is_empty() || !same;
    let first = String::from_utf8_lossy(&err);
    let what = format!(
        "{status:?} after {took:?}, interrupted: {interrupted}, {memory} KiB, {} bytes on the \
         terminal, escapes: {obeys}, other files: {left:?}, /run as before: {same}",
        out.len() + err.len(),
    );
    let told = first
        .lines()
        .next()
        .map_or_else(|| what.clone(), str::to_owned);
    Ok(product(way, verdict(got, what), Some(told)))
}
