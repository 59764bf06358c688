//! Floods of one view, and another that must stay usable.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::actor::{Where, act, begin};
use crate::driver::start::{LIMIT, Start};
use crate::driver::weaker::Server;
use crate::driver::{CLIENT, OrTell as _, Outcome, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

const THREADS: usize = 64;
/// How long a neighbour may wait for one answer before it counts as shut out.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks up names that nobody remembers, from sixty-four threads; how many answers there were.
fn flood(root: &Path, time: Duration) -> u64 {
    from_threads(THREADS, time, |thread, number| {
        let _missing = fs::metadata(root.join(format!("none-{thread}-{number}")));
    })
}

/// Asks again and again, from so many threads and for so long; how many answers there were. Each
/// is told which thread it is and how many times that one has asked, from 1.
pub(super) fn from_threads(threads: usize, time: Duration, ask: impl Fn(usize, u64) + Sync) -> u64 {
    let answers = AtomicU64::new(0);
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (answers, ask) = (&answers, &ask);
            scope.spawn(move || {
                let mut number = 0_u64;
                while Instant::now() < end {
                    number += 1;
                    ask(thread, number);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    answers.into_inner()
}

/// The longest of a hundred answers, in microseconds.
fn neighbour(root: &Path) -> u64 {
    let mut worst = 0;
    for number in 0..100 {
        let started = Instant::now();
        let _missing = fs::metadata(root.join(format!("mine-{number}")));
        worst = worst.max(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    worst
}

/// Row 21.
pub(super) fn floods(lab: &Lab) -> Outcome {
    let one = Arrangement::Other("one bindfs, as root, that serves two shares");
    let mut attempts = vec![or_untried(one.clone(), "64 threads", blocked(one))];
    let time = Duration::from_secs(if lab.short { 3 } else { 15 });
    let (ours, theirs) = (
        Place::new().or_tell("a place")?,
        Place::new().or_tell("a place")?,
    );
    let mine = Start::product(lab, ours.export()).open()?;
    let other = Start::product(lab, theirs.export()).open()?;
    let flooding = begin(Where::Client(&mine), CLIENT, || flood(&mine.export, time))?;
    std::thread::sleep(time / 3);
    let worst = act(Where::Client(&other), CLIENT, PATIENCE, || {
        neighbour(&other.export)
    });
    let answers = flooding.finish(time + LIMIT)?;
    let after = act(Where::Client(&mine), CLIENT, PATIENCE, || {
        neighbour(&mine.export)
    });
    let what = format!(
        "{answers} answers to the flood; the other view's slowest of 100: {worst:?} us; the \
         flooded view's afterwards: {after:?} us"
    );
    let fine = worst.is_ok() && after.is_ok() && mine.lives() && other.lives();
    let told = fine.then(|| format!("no request to refuse: {what}"));
    attempts.push(product("64 threads of stat", verdict(!fine, what), told));
    Ok(attempts)
}

/// Sixty-four opens of files that have become FIFOs: path-based, each takes one of the server's
/// threads for good.
fn blocked(arrangement: Arrangement) -> Result<Attempt, String> {
    let place = Place::new().or_tell("a place")?;
    for share in ["a", "b"] {
        fs::create_dir(place.export().join(share)).or_tell("mkdir")?;
    }
    let name = |number: usize| format!("a/f{number}");
    for number in 0..THREADS {
        fs::write(place.export().join(name(number)), "").or_tell("write")?;
    }
    let server = Server::bindfs(&place.export(), &["-o", "attr_timeout=60,entry_timeout=60"])?;
    let root = server.path().to_owned();
    act(Where::Host, CLIENT, LIMIT, || {
        (0..THREADS).all(|number| fs::metadata(root.join(name(number))).is_ok())
    })?;
    for number in 0..THREADS {
        let path = place.export().join(name(number));
        super::walk::remove(&path);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).or_tell("mkfifo")?;
    }
    let opening = begin(Where::Host, CLIENT, || {
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let path = root.join(name(number));
                scope.spawn(move || fs::File::open(path).is_ok());
            }
        });
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let share = root.join("b");
    let worst = act(Where::Host, CLIENT, PATIENCE, || neighbour(&share));
    // The opens end with the server.
    drop(server);
    drop(opening);
    let what = format!("the other share's slowest of 100, in us: {worst:?}");
    Ok(weaker(
        arrangement,
        "64 threads that open what became a FIFO",
        verdict(worst.is_err(), what),
    ))
}

/// The hard limit of descriptors; and more than that of files.
const DESCRIPTORS: u32 = 512;
const FILES: u32 = 900;

/// What was held, and whether others were served meanwhile.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    removed: u32,
    refused: Option<i32>,
    others: Option<String>,
}

/// Makes files, holds each by a descriptor that opens nothing, and removes it.
fn hold(root: &Path) -> Held {
    let mut held = Vec::new();
    let one = |number: u32| -> std::io::Result<OwnedFd> {
        let path = root.join(format!("held-{number}"));
        fs::write(&path, "x")?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())?;
        fs::remove_file(&path)?;
        Ok(file)
    };
    let mut refused = None;
    while refused.is_none() && held.len() < FILES as usize {
        match one(u32::try_from(held.len()).unwrap_or(FILES)) {
            Ok(file) => held.push(file),
            Err(error) => refused = error.raw_os_error(),
        }
    }
    let others = || -> std::io::Result<()> {
        let missing = fs::metadata(root.join("missing")).err();
        if missing.is_none_or(|error| error.kind() != std::io::ErrorKind::NotFound) {
            return Err(std::io::Error::other("a name that is not there"));
        }
        fs::read_dir(root)?.try_for_each(|entry| entry.map(drop))?;
        fs::write(root.join("other"), "x")?;
        fs::read(root.join("other")).map(drop)
    };
    Held {
        removed: u32::try_from(held.len()).unwrap_or(FILES),
        refused,
        others: others().err().map(|error| error.to_string()),
    }
}

/// Row 21.
pub(super) fn nameless(lab: &Lab) -> Outcome {
    let way = format!("files removed and held, with {DESCRIPTORS} descriptors");
    let low_level = Arrangement::Other("libfuse's passthrough_ll, as root");
    let place = Place::new().or_tell("a place")?;
    let weak = Server::passthrough_ll(&place.export(), DESCRIPTORS)
        .and_then(|server| {
            act(Where::Host, virtfs_p9::Ids::ROOT, LIMIT, || {
                hold(server.path())
            })
        })
        .map_or_else(Verdict::Untried, |held| {
            verdict(held.others.is_some(), format!("{held:?}"))
        });
    let place = Place::new().or_tell("a place")?;
    let nofile = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let view = Start::product(lab, place.export())
        .under(&["prlimit", &nofile])
        .open()?;
    let held = act(Where::Client(&view), CLIENT, LIMIT, || hold(&view.export))?;
    let refused = held.refused == Some(Errno::NFILE.raw_os_error());
    let fine = refused && held.others.is_none() && view.lives();
    let what = format!("{held:?}");
    let told = fine.then(|| format!("a limit, which is no refusal by rules: {what}"));
    Ok(vec![
        weaker(low_level, way.clone(), weak),
        product(way, verdict(!fine, what), told),
    ])
}
