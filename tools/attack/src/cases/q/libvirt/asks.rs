//! The service's socket: asked for B's views by everything that A has.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

use super::pair::{GO, HELD, HOLD, Kind, Pair};
use crate::case::Attempt;
use crate::driver::actor::{Where, begin, in_child, leave_child};
use crate::driver::emulator::{Errand, ask, connected, is_given, say};
use crate::driver::process::holds_within;
use crate::driver::start::LIMIT;
use crate::driver::{OrTell as _, Outcome};
use crate::lab::Lab;
use crate::trial;

/// A flood ends when this is there.
const STOP: &str = "/run/stop";

/// What came of a way to ask.
#[derive(Debug, Serialize, Deserialize)]
struct Answers {
    /// Whether views were given.
    given: bool,
    what: String,
}

impl Answers {
    fn of(answer: Result<String, String>) -> Self {
        let what = answer.unwrap_or_else(|why| why);
        Self {
            given: is_given(&what),
            what,
        }
    }
}

/// A process for each ask, so that one may be given the number that is waited for.
fn forks(count: usize) -> Answers {
    let mut given = 0;
    for _ in 0..count {
        let child = in_child(|| i32::from(ask().is_ok_and(|answer| is_given(&answer))));
        given += usize::from(child == Ok(1));
    }
    Answers {
        given: given > 0,
        what: format!("{count} processes asked, {given} were given views"),
    }
}

/// The connection of a process that has ended, with its child at the end of it.
fn orphan() -> Result<String, String> {
    let (read, write) = rustix::pipe::pipe().or_tell("pipe")?;
    let speak = |socket: &OwnedFd, parent| {
        // It has forked this one and ends at once.
        holds_within(LIMIT, || nix::unistd::getppid() != parent);
        let answer = say(socket, b"attach 1").unwrap_or_else(|why| why);
        i32::from(nix::unistd::write(&write, answer.as_bytes()).is_err())
    };
    in_child(|| {
        let (socket, own) = (connected(), nix::unistd::getpid());
        let spoken = socket.map(|socket| leave_child(|| speak(&socket, own)));
        i32::from(!matches!(spoken, Ok(Ok(_))))
    })
    .or_tell("fork")?;
    let mut answer = [0; 4096];
    let count = nix::unistd::read(&read, &mut answer).or_tell("read")?;
    Ok(String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned())
}

/// Keeps as many silent connections as it is let, until it is told to stop; tells when it is under way.
fn flood(told: &Path) -> usize {
    let (mut held, mut count) = (Vec::new(), 0);
    let end = Instant::now() + LIMIT;
    while !fs::exists(STOP).unwrap_or(true) && Instant::now() < end {
        let Ok(socket) = connected() else { continue };
        count += 1;
        if count == 64 && fs::write(told, "").is_err() {
            break;
        }
        held.push(socket);
        held.retain(|socket| {
            let heard = recv(socket.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_DONTWAIT);
            heard == Err(nix::errno::Errno::EAGAIN)
        });
        if held.len() > 64 {
            held.clear();
        }
    }
    count
}

/// Row 32.
pub(super) fn asks(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [
        Kind::OneUserUnrecorded,
        Kind::Unrecorded,
        Kind::OneUser,
        Kind::Product,
    ] {
        attempts.extend(asked(&Pair::defined(lab, kind)?)?);
    }
    Ok(attempts)
}

fn spawn(mut command: Command) -> Result<Child, String> {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .or_tell("virsh")
}

fn asked(pair: &Pair) -> Outcome {
    let errand = Errand {
        own: pair.a.place.export(),
        secret: pair.b.secret(),
        asks: 50,
    };
    pair.emulator_of_a(|program| errand.script(program))?;
    let start = |name: &str| {
        let words = ["virsh", "--quiet", "start", "--paused", name];
        spawn(pair.libvirt.command(words))
    };
    let starting_a = start(&pair.a.name)?;
    if !errand.await_there(LIMIT) {
        return Err(format!("A does not start: {}", pair.libvirt.service_log()));
    }
    pair.file_of_b()?;
    pair.libvirt.write(HOLD, "")?;
    let starting_b = start(&pair.b.name)?;
    let held = pair.libvirt.path(HELD);
    if !holds_within(LIMIT, || held.exists()) {
        return Err("the start of B is not held".to_owned());
    }

    let mut attempts = Vec::new();
    let report = errand.report(LIMIT)?;
    let got = report
        .read
        .as_ref()
        .is_ok_and(|bytes| pair.b.place.betrays(bytes));
    let given = report.answers.keys().any(|answer| is_given(answer));
    let what = format!("{:?}", report.answers);
    let way = "A's own QEMU asks again while B is about to start";
    attempts.push(pair.attempt(way, got || given, what, refused(pair)));
    trial::ends_within(starting_a, LIMIT)?;
    let go = || pair.libvirt.write(GO, "");
    if given {
        // B's one attach is used up: its start fails, which is all that is left to see.
        go()?;
        trial::ends_within(starting_b, LIMIT)?;
        return Ok(attempts);
    }

    let answers = pair.as_a(|| Answers::of(ask()))?;
    attempts.push(tried(pair, "another process of A's asks", answers));
    let answers = pair.as_a(|| Answers::of(orphan()))?;
    let way = "a connection whose process has ended, spoken over by its child";
    attempts.push(tried(pair, way, answers));
    let seat = pair.seat(&pair.a)?;
    let race = begin(Where::Domain(&seat), pair.a.ids, || forks(300))?;
    go()?;
    let started = trial::ends_within(starting_b, LIMIT)?.success();
    let mut answers = race.finish(LIMIT)?;
    if !started {
        answers.given = true;
        answers.what += "; B did not start";
    }
    attempts.push(tried(pair, "processes forked while B attaches", answers));
    if started {
        pair.is_alive()?;
        let answers = pair.as_a(|| Answers::of(ask()))?;
        attempts.push(tried(pair, "after B has attached", answers));
        pair.libvirt.virsh(&["destroy", &pair.b.name])?;
    }

    pair.libvirt.run(["rm", HOLD])?;
    let told = pair.a.place.export().join("flooding");
    let flooding = begin(Where::Domain(&seat), pair.a.ids, || flood(&told))?;
    if !holds_within(LIMIT, || told.exists()) {
        return Err("the flood did not begin".to_owned());
    }
    let started = pair.start(&pair.b);
    pair.libvirt.write(STOP, "")?;
    let count = flooding.finish(LIMIT)?;
    let what = match &started {
        Ok(()) => format!("{count} silent connections, and B starts"),
        Err(_) => format!("{count} silent connections, and B does not start"),
    };
    let way = "a flood of silent connections while B attaches";
    attempts.push(pair.attempt(way, started.is_err(), what, refused(pair)));
    if started.is_ok() {
        pair.is_alive()?;
    }
    Ok(attempts)
}

fn tried(pair: &Pair, way: &str, answers: Answers) -> Attempt {
    pair.attempt(way, answers.given, answers.what, refused(pair))
}

/// What the service told of A.
fn refused(pair: &Pair) -> Option<String> {
    pair.told(&[
        "refused",
        &format!("of {}:{}", pair.a.ids.uid, pair.a.ids.gid),
    ])
}
