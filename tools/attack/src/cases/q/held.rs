//! Requests that a stepping console holds: for how long, how many, and what becomes of them when
//! the console goes, or the view.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use virtfs_mediator_core::mediate::HELD_MAX;
use virtfs_mediator_core::weak::Wall;

use crate::case::Arrangement;
use crate::driver::actor::{Actor, Where, begin};
use crate::driver::control::{Console, status};
use crate::driver::mark::Mark;
use crate::driver::process::{Spawned, holds_within, scratch};
use crate::driver::role;
use crate::driver::start::{LIMIT, Start, View};
use crate::driver::{CLIENT, OrTell as _, Outcome, Tried};
use crate::lab::{Lab, Place};

const UNBOUNDED: Arrangement =
    Arrangement::Walls("all but the bounds of what a stepping console holds");
const CLIENT_FIRST: Arrangement =
    Arrangement::Walls("all, but the client is ended before its view");

/// How long the consoles here may hold a request.
const HOLD: Duration = Duration::from_secs(2);
/// Longer than [`HOLD`]: a request that has no answer by then is held for good.
const FOR_GOOD: Duration = Duration::from_secs(10);
/// How long a request that nobody holds may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what belongs to a view may take to end.
const END: Duration = Duration::from_secs(5);
/// What a mediator may take more of memory for a flood, in KiB.
const GROWTH: u64 = 64 * 1024;

const AT_STOP: &str = "path = \"/stop/**\"\ndo = [\"open\"]";
const AT_CREATES: &str = "path = \"/stop/**\"\ndo = [\"create\"]";
const REFUSED: [&str; 2] = [
    "refused",
    "held by the stepping console until its time limit",
];

/// A view with a directory where a console stops and another where none does.
fn view(lab: &Lab, place: &Place, walls: &[Wall]) -> Result<View, String> {
    furnish(place)?;
    let start = Start::product(lab, place.export());
    if walls.is_empty() {
        start.open()
    } else {
        start.without(walls)?.open()
    }
}

fn furnish(place: &Place) -> Result<(), String> {
    for dir in ["stop", "free"] {
        let dir = place.export().join(dir);
        fs::create_dir(&dir).or_tell("mkdir")?;
        chown(&dir, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    }
    for number in 0..THREADS {
        let file = place.export().join(format!("stop/{number}"));
        fs::write(&file, "held").or_tell("write")?;
        let own = place.export().join(format!("stop/d{number}"));
        fs::create_dir(&own).or_tell("mkdir")?;
        for path in [file, own] {
            chown(&path, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
        }
    }
    Ok(())
}

/// What opens came to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Opened {
    done: u64,
    refused: u64,
    slowest_ms: u64,
}

const THREADS: usize = 32;

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Opens files where the console stops, each in a thread of its own.
fn open_all(root: &Path, threads: usize) -> Opened {
    let [done, refused, slowest] = [(); 3].map(|()| AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..threads {
            let path = root.join(format!("stop/{number}"));
            let (done, refused, slowest) = (&done, &refused, &slowest);
            scope.spawn(move || {
                let started = Instant::now();
                let count = match fs::File::open(path) {
                    Ok(_) => done,
                    Err(_) => refused,
                };
                count.fetch_add(1, Ordering::Relaxed);
                slowest.fetch_max(milliseconds(started), Ordering::Relaxed);
            });
        }
    });
    Opened {
        done: done.into_inner(),
        refused: refused.into_inner(),
        slowest_ms: slowest.into_inner(),
    }
}

/// What the rest of the view goes on with; the slowest of fifty files, in milliseconds.
fn go_on(root: &Path) -> u64 {
    let mut worst = 0;
    for number in 0..50 {
        let started = Instant::now();
        let file = root.join(format!("free/{number}"));
        if fs::write(&file, "x")
            .and_then(|()| fs::remove_file(&file))
            .is_err()
        {
            return u64::MAX;
        }
        worst = worst.max(milliseconds(started));
    }
    worst
}

/// Whether others are served meanwhile.
fn others(view: &View) -> Result<u64, String> {
    begin(Where::Client(view), CLIENT, || go_on(&view.export))?.finish(PATIENCE)
}

fn opening(view: &View, threads: usize) -> Result<Actor<Opened>, String> {
    begin(Where::Client(view), CLIENT, || {
        open_all(&view.export, threads)
    })
}

/// Row 22.
pub(super) fn held(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for (way, attack) in [
        (
            "a breakpoint left alone",
            alone as fn(&Lab, &[Wall]) -> Result<Tried, String>,
        ),
        ("the console killed", |lab, walls| {
            console_goes(lab, walls, Signal::SIGKILL)
        }),
        ("the console stopped (SIGSTOP)", |lab, walls| {
            console_goes(lab, walls, Signal::SIGSTOP)
        }),
        ("more at once than may be held", crowd),
        ("a flood of creates at a console that reads nothing", flood),
    ] {
        attempts.push(attack(lab, &[Wall::HoldLimit])?.weaker(UNBOUNDED, way));
        attempts.push(attack(lab, &[])?.product(way));
    }
    for (way, end) in [
        (
            "SIGTERM to the launcher while one is held",
            terminate as fn(&Lab, &View) -> Result<(), String>,
        ),
        ("unmount while one is held", unmount),
        ("the client killed while one is held", kill_client),
    ] {
        attempts.push(ends(lab, Ends::ClientFirst, end)?.weaker(CLIENT_FIRST, way));
        attempts.push(ends(lab, Ends::AsBuilt, end)?.product(way));
    }
    Ok(attempts)
}

/// A console that stays and never answers.
fn alone(lab: &Lab, walls: &[Wall]) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    let view = view(lab, &place, walls)?;
    let mut console = Console::attach(&view, HOLD, AT_STOP)?;
    let opening = opening(&view, 1)?;
    console.wait_for_held()?;
    let others = others(&view);
    let opened = opening.finish(FOR_GOOD);
    let told = walls.is_empty().then(|| view.told(&REFUSED)).flatten();
    let fine = others.is_ok() && opened.as_ref().is_ok_and(|opened| opened.refused == 1);
    Ok(Tried {
        got: !fine,
        what: format!("held {HOLD:?}: {opened:?}; the slowest other, in ms: {others:?}"),
        told,
    })
}

/// A console in a process of its own, which gets a signal while it holds a request.
fn console_goes(lab: &Lab, walls: &[Wall], signal: Signal) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    let view = view(lab, &place, walls)?;
    let (attached, holds) = (Mark::new()?, Mark::new()?);
    let ids = virtfs_p9::Ids { uid: 0, gid: 0 };
    // One that is killed must not be helped by the limit.
    let limit = if signal == Signal::SIGKILL {
        FOR_GOOD * 4
    } else {
        HOLD
    };
    let console = begin(Where::Host, ids, || -> Result<(), String> {
        let mut console = Console::attach(&view, limit, AT_STOP)?;
        attached.set()?;
        console.wait_for_held()?;
        holds.set()?;
        std::thread::sleep(LIMIT * 4);
        Ok(())
    })?;
    attached.wait(LIMIT)?;
    let opening = opening(&view, 1)?;
    holds.wait(LIMIT)?;
    let pid = console.pid().ok_or("no console")?;
    kill(Pid::from_raw(pid), signal).or_tell("kill")?;
    let others = others(&view);
    let opened = opening.finish(FOR_GOOD);
    let killed = signal == Signal::SIGKILL;
    // The policy allows it; a limit that is over refuses it.
    let as_wanted = |opened: &Opened| {
        if killed {
            opened.done == 1
        } else {
            opened.refused == 1
        }
    };
    let fine = others.is_ok() && opened.as_ref().is_ok_and(as_wanted);
    let told = match (walls.is_empty(), killed) {
        (false, _) => None,
        (true, true) => {
            let free = holds_within(PATIENCE, || {
                status(&view).is_ok_and(|status| !status.stepping && status.held == 0)
            });
            free.then(|| "`status`: no console is attached, nothing is held".to_owned())
        }
        (true, false) => view.told(&REFUSED),
    };
    Ok(Tried {
        got: !fine,
        what: format!("{opened:?}; the slowest other, in ms: {others:?}"),
        told,
    })
}

/// Four times as many as may be held.
fn crowd(lab: &Lab, walls: &[Wall]) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    let view = view(lab, &place, walls)?;
    let mut console = Console::attach(&view, HOLD, AT_STOP)?;
    let opening = opening(&view, THREADS)?;
    console.wait_for_held()?;
    let others = others(&view);
    let held = status(&view).map(|status| status.held);
    let opened = opening.finish(FOR_GOOD);
    let most = u64::try_from(HELD_MAX).unwrap_or(u64::MAX);
    let told = walls.is_empty().then(|| view.told(&REFUSED)).flatten();
    let fine = others.is_ok()
        && held.as_ref().is_ok_and(|held| *held <= most)
        && opened
            .as_ref()
            .is_ok_and(|opened| (1..=most).contains(&opened.refused));
    Ok(Tried {
        got: !fine,
        what: format!("{held:?} held; {opened:?}; the slowest other, in ms: {others:?}"),
        told,
    })
}

/// Creates files where the console stops, from many threads, each in a directory of its own (in one
/// they would wait for its lock, not for us); how many answers came.
fn create(root: &Path, time: Duration) -> u64 {
    super::flood::from_threads(THREADS, time, |thread, number| {
        let name = format!("stop/d{thread}/{}{number}", "x".repeat(200));
        let _refused_or_not = fs::File::create(root.join(name));
    })
}

/// The most memory that a process has taken, in KiB.
fn peak(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn flood(lab: &Lab, walls: &[Wall]) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    let view = view(lab, &place, walls)?;
    let before = peak(view.mediator).ok_or("no VmHWM")?;
    // It is read no more.
    let _console = Console::attach(&view, HOLD, AT_CREATES)?;
    let time = HOLD * 2;
    let creating = begin(Where::Client(&view), CLIENT, || create(&view.export, time))?;
    let mut slowest = Vec::new();
    let end = Instant::now() + time + FOR_GOOD / 2;
    while !creating.is_done() && slowest.iter().all(Result::is_ok) && Instant::now() < end {
        slowest.push(others(&view));
    }
    let answers = creating.finish(FOR_GOOD / 2);
    let after = peak(view.mediator).ok_or("no VmHWM")?;
    let fine = answers.is_ok()
        && slowest.iter().all(Result::is_ok)
        && view.lives()
        && after.saturating_sub(before) < GROWTH;
    let what = format!(
        "{answers:?} answers; the slowest others, in ms: {slowest:?}; the mediator's memory: \
         {before} to {after} KiB"
    );
    let told = (fine && walls.is_empty())
        .then(|| view.told(&REFUSED))
        .flatten();
    Ok(Tried {
        got: !fine,
        what,
        told,
    })
}

fn terminate(_: &Lab, view: &View) -> Result<(), String> {
    kill(Pid::from_raw(view.launcher()), Signal::SIGTERM).or_tell("kill")
}

fn kill_client(_: &Lab, view: &View) -> Result<(), String> {
    kill(Pid::from_raw(view.client), Signal::SIGKILL).or_tell("kill")
}

fn unmount(lab: &Lab, view: &View) -> Result<(), String> {
    let mut command = std::process::Command::new(&lab.mediator);
    command.args(["unmount", "--force", &view.name]);
    let mut unmounting = Spawned::start(command, scratch()?, false)?;
    // What it says of itself is not what counts: the caller looks.
    let ended = unmounting.wait(LIMIT);
    ended
        .map(|_status| ())
        .ok_or_else(|| format!("unmount does not end: {}", unmounting.err()))
}

/// Who a keeper ends first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    AsBuilt,
    ClientFirst,
}

/// The view is ended while a request is held that would be for ten minutes.
fn ends(
    lab: &Lab,
    order: Ends,
    end: fn(&Lab, &View) -> Result<(), String>,
) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    furnish(&place)?;
    let start = Start::product(lab, place.export());
    let mut view = match order {
        Ends::AsBuilt => start,
        Ends::ClientFirst => start.without_outside(role::END_ORDER)?,
    }
    .open()?;
    let mut console = Console::attach(&view, Duration::from_secs(600), AT_STOP)?;
    let opening = opening(&view, 1)?;
    console.wait_for_held()?;
    let started = Instant::now();
    end(lab, &view)?;
    let gone = view.is_gone_within(END);
    let what = format!("all gone: {gone}, after {} ms", milliseconds(started));
    if !gone {
        // What is held is let go.
        console.hang_up()?;
    }
    drop(opening);
    if !gone && !view.is_gone_within(LIMIT) {
        return Err("the view outlives the console that held it".to_owned());
    }
    let told = gone.then(|| what.clone());
    Ok(Tried {
        got: !gone,
        what,
        told,
    })
}
