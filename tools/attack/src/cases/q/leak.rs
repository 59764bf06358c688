//! Ways past the view, and to the processes behind it, from inside the client's namespaces.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::actor::{Where, act, try_signal};
use crate::driver::process::{Spawned, scratch};
use crate::driver::start::{LIMIT, Start, View, line_with};
use crate::driver::weaker::Bind;
use crate::driver::{CLIENT, OrTell as _, Outcome, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

/// What the view hides: who reads it has the original.
const ORIGINAL: &str = "the original export";
const HIDES: &str =
    "default = \"allow\"\n[[rule]]\nname = \"original\"\npath = \"/original\"\naction = \"hide\"\n";

/// Tries every way to `original` that a process has: where it is, what is open, every process's
/// root and working directory, and the places that it is given as arguments.
const HUNT: &str = r#"
for at in . .. /proc/self/cwd /proc/self/root "$@" /proc/[0-9]*/cwd /proc/self/fd/* \
    /proc/self/fd/*/..; do
    cat "$at/original" 2>/dev/null && echo " by $at"
done
for root in /proc/[0-9]*/root; do
    for at in "$@"; do
        cat "$root$at/original" 2>/dev/null && echo " by $root$at"
    done
done
echo hunted
"#;

fn place() -> Result<Place, String> {
    let place = Place::new().or_tell("a place")?;
    fs::write(place.export().join("original"), ORIGINAL).or_tell("write")?;
    fs::create_dir(place.export().join("deep")).or_tell("mkdir")?;
    Ok(place)
}

/// Another process of QEMU's user on the host, in no view.
fn bystander() -> Result<Spawned, String> {
    let mut command = as_client();
    command.args(["sleep", "600"]).current_dir("/");
    Spawned::start(command, scratch()?, false)
}

fn as_client() -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        format!("--reuid={}", CLIENT.uid),
        format!("--regid={}", CLIENT.gid),
        "--clear-groups".to_owned(),
        "--".to_owned(),
    ]);
    command
}

/// Leaves descriptor 7 open on a directory: the caller's fault that must not become the client's
/// way.
const LEAK: &str = "dir=$1; shift; exec 7<\"$dir\"; exec \"$@\"";

/// Row 30.
pub(super) fn original(lab: &Lab) -> Outcome {
    let mut attempts = vec![overmounted()?];
    for isolate in [false, true] {
        let way = if isolate {
            "cwd, descriptor 7, /proc, with --isolate"
        } else {
            "cwd, descriptor 7, /proc"
        };
        attempts.push(hunt(lab, way, isolate)?);
        attempts.push(stdin(lab, isolate)?);
    }
    attempts.extend(elsewhere(lab)?);
    Ok(attempts)
}

fn verdict_of(out: &str) -> Verdict {
    if !out.contains("hunted") {
        return Verdict::Untried(format!("the hunt did not end: '{out}'"));
    }
    let found = line_with(out, &[ORIGINAL]);
    match found {
        Some(way) => Verdict::Succeeded(way),
        None => Verdict::Refused("no way led to it".to_owned()),
    }
}

/// A mount namespace and a mount over the export, and nothing else.
fn overmounted() -> Result<Attempt, String> {
    let place = place()?;
    let _bystander = bystander()?;
    let export = place.export();
    let script =
        "mount -t tmpfs none \"$1\"; dir=$1; shift; exec \"$@\" sh -c \"$HUNT\" sh \"$dir\"";
    let client = as_client();
    let mut command = Command::new("sh");
    command
        .args(["-c", LEAK, "sh"])
        .arg(&export)
        .args(["unshare", "-m", "sh", "-ec", script, "sh"])
        .arg(&export)
        .arg(client.get_program())
        .args(client.get_args())
        .env("HUNT", HUNT)
        .current_dir(export.join("deep"));
    let ended = Spawned::ended(command, LIMIT)?;
    let plain = Arrangement::Other("a mount namespace with a mount over the export");
    Ok(weaker(
        plain,
        "cwd, descriptor 7, /proc",
        verdict_of(&ended.out),
    ))
}

fn hunt(lab: &Lab, way: &str, isolate: bool) -> Result<Attempt, String> {
    let place = place()?;
    let _bystander = bystander()?;
    let export = place.export();
    let shown = export.to_string_lossy().into_owned();
    let mut start = Start::product(lab, &export)
        .policy(HIDES)
        .directory(&export.join("deep"))
        .under(&["sh", "-c", LEAK, "sh", &shown]);
    if isolate {
        start = start.option("--isolate");
    }
    let ended = start.run(&["sh", "-c", HUNT, "sh", &shown], LIMIT)?;
    let told = line_with(&ended.err, &["refused", "lookup", "original"]);
    Ok(product(way, verdict_of(&ended.out), told))
}

/// A directory as standard input leads past every view.
fn stdin(lab: &Lab, isolate: bool) -> Result<Attempt, String> {
    let place = place()?;
    let export = place.export();
    let shown = export.to_string_lossy().into_owned();
    let mut start = Start::product(lab, &export).policy(HIDES);
    if isolate {
        start = start.option("--isolate");
    }
    let dir = fs::File::open(export.join("deep")).or_tell("open")?;
    let ended = start.run_with(&["sh", "-c", HUNT, "sh", &shown], |command| {
        command.stdin(dir);
    })?;
    let way = format!("standard input in the export, --isolate {isolate}");
    let told = line_with(&ended.err, &["descriptor 0"]);
    let refused = ended.status.code() == Some(78) && !ended.out.contains(ORIGINAL);
    let what = format!(
        "status {:?}, out '{}'",
        ended.status.code(),
        ended.out.trim()
    );
    Ok(product(way, verdict(!refused, what), told))
}

/// Another mount of the export.
fn elsewhere(lab: &Lab) -> Outcome {
    let way = "another mount of the export";
    let place = place()?;
    let export = place.export();
    let other = place.outside().join("other");
    fs::create_dir(&other).or_tell("mkdir")?;
    let _bind = Bind::mount(&export, &other)?;
    let (shown, shown_other) = (
        export.to_string_lossy().into_owned(),
        other.to_string_lossy().into_owned(),
    );
    let hunt = ["sh", "-c", HUNT, "sh", &shown, &shown_other];
    let start = || Start::product(lab, &export).policy(HIDES);
    let open = start().run(&hunt, LIMIT)?;
    let warned = line_with(&open.err, &[&shown_other]);
    let closed = start().option("--isolate").run(&hunt, LIMIT)?;
    let told = line_with(&closed.err, &[&shown_other]);
    Ok(vec![
        Attempt {
            told: warned,
            ..weaker(
                Arrangement::Walls("all but a root directory of the client's own (--isolate)"),
                way,
                verdict_of(&open.out),
            )
        },
        product(way, verdict_of(&closed.out), told),
    ])
}

/// Row 32, without libvirt: two clients of one user.
pub(super) fn neighbour(lab: &Lab) -> Outcome {
    let way = "/proc/PID/root of the other client";
    let (of_a, of_b) = (
        Place::new().or_tell("a place")?,
        Place::new().or_tell("a place")?,
    );
    let secret = of_a.export().join("secret");
    fs::write(&secret, ORIGINAL).or_tell("write")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).or_tell("chmod")?;
    // Root's own: QEMU's user reads it in A's view alone.
    let a = Start::product(lab, of_a.export()).open()?;
    let b = Start::product(lab, of_b.export()).open()?;
    let client = a.client;
    let search = || {
        let pids = (1..64).chain([client]);
        let mut errors = Vec::new();
        for pid in pids {
            let path = format!("/proc/{pid}/root{}", secret.display());
            match fs::read_to_string(path) {
                Ok(text) if text == ORIGINAL => return Ok(format!("read through process {pid}")),
                Ok(_) => {}
                Err(error) if pid == client => errors.push(error.to_string()),
                Err(_) => {}
            }
        }
        Err(errors.join(", "))
    };
    let turn = |found: Result<String, String>| match found {
        Ok(what) => Verdict::Succeeded(what),
        Err(what) => Verdict::Refused(what),
    };
    let outside = act(Where::Host, CLIENT, LIMIT, search)?;
    let inside = act(Where::Client(&b), CLIENT, LIMIT, search)?;
    let shared = Arrangement::Walls("all but a pid namespace of B's own");
    let told = inside
        .as_ref()
        .err()
        .map(|why| format!("the kernel's own answer, no request reaches a mediator: {why}"));
    Ok(vec![
        weaker(shared, way, turn(outside)),
        product(way, turn(inside), told),
    ])
}

/// What the kernel said to each try, errno or 0.
#[derive(Debug, Serialize, Deserialize)]
struct Tries {
    process: String,
    kill: i32,
    memory: i32,
    root: i32,
}

fn touch(process: &str, pid: i32) -> Tries {
    let errno = |result: std::io::Result<()>| {
        result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)
    };
    // The access that ptrace(2) asks for as well (PTRACE_MODE_ATTACH, proc(5)).
    let memory = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"));
    Tries {
        process: process.to_owned(),
        memory: errno(memory.map(|_| ())),
        root: errno(fs::read_dir(format!("/proc/{pid}/root/")).map(|_| ())),
        kill: try_signal(pid, Some(Signal::SIGKILL)).err().unwrap_or(0),
    }
}

fn behind(view: &View) -> [(&'static str, i32); 4] {
    [
        ("keeper", view.keeper),
        ("init", view.init),
        ("warden", view.warden),
        ("mediator", view.mediator),
    ]
}

/// Row 15, from QEMU's seat.
pub(super) fn processes(lab: &Lab) -> Outcome {
    let same = Arrangement::Other("a helper of QEMU's own user, in the host's pid namespace");
    let helper = || -> Result<Attempt, String> {
        let mut victim = bystander()?;
        let pid = victim.pid();
        // Not before it is another user's: setpriv is still root for a moment.
        let ready = crate::driver::process::holds_within(LIMIT, || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        let tries = act(Where::Host, CLIENT, LIMIT, || touch("helper", pid))?;
        let dead = victim.wait(Duration::from_secs(5)).is_some();
        let got = ready && dead && tries.kill == 0;
        Ok(weaker(
            same.clone(),
            "SIGKILL, /proc/PID/mem, /proc/PID/root",
            verdict(got, format!("{tries:?}")),
        ))
    };
    let mut attempts = vec![or_untried(same.clone(), "signals", helper())];
    let place = Place::new().or_tell("a place")?;
    chown(place.export(), Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    let view = Start::product(lab, place.export()).open()?;
    let numbers = behind(&view);
    for (way, seat, first) in [
        (
            "from inside; pid 1 too",
            Where::Client(&view),
            Some(("pid 1", 1)),
        ),
        ("with the host's pids in sight", Where::Host, None),
    ] {
        let tries: Vec<Tries> = act(seat, CLIENT, LIMIT, || {
            numbers
                .into_iter()
                .chain(first)
                .map(|(name, pid)| touch(name, pid))
                .collect()
        })?;
        let got = tries
            .iter()
            .any(|one| one.kill == 0 || one.memory == 0 || one.root == 0);
        let alive = numbers
            .iter()
            .all(|(_, pid)| Path::new(&format!("/proc/{pid}")).exists());
        let serves = act(Where::Client(&view), CLIENT, LIMIT, || {
            fs::read_dir(&view.export).is_ok()
        })?;
        let shown: Vec<String> = tries
            .iter()
            .map(|one| {
                let name = |errno: i32| Errno::from_raw(errno).to_string();
                format!(
                    "{}: {}, {}, {}",
                    one.process,
                    name(one.kill),
                    name(one.memory),
                    name(one.root)
                )
            })
            .collect();
        let what = shown.join("; ");
        let told = Some(format!(
            "the kernel's own answers, no request reaches the mediator: {what}"
        ));
        attempts.push(product(way, verdict(got || !alive || !serves, what), told));
    }
    Ok(attempts)
}
