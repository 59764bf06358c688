//! Trees that change or are large while they are walked.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::case::{Arrangement, Verdict};
use crate::driver::actor::{Where, act, begin};
use crate::driver::start::{LIMIT, Start};
use crate::driver::weaker::Server;
use crate::driver::{CLIENT, OrTell as _, Outcome, product, verdict, weaker};
use crate::lab::{Lab, Place};

const DIRECTORIES: u64 = 8;
const THREADS: u64 = 16;

/// What the threads saw.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    operations: u64,
    /// Reads that found, in a directory, the file of another.
    wrong: u64,
    answers: bool,
}

/// Directories that each hold a file with their own name; the name moves along with both.
fn tree(place: &Place) -> Result<(), String> {
    for number in 0..DIRECTORIES {
        let dir = place.export().join(format!("d{number}"));
        fs::create_dir(&dir).or_tell("mkdir")?;
        fs::write(dir.join("id"), number.to_string()).or_tell("write")?;
        chown(&dir, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).or_tell("chmod")?;
    }
    Ok(())
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

fn read_at(dir: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Sixteen threads that rename, walk, read, make and unlink.
fn storm(root: &Path, time: Duration) -> Seen {
    let (operations, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let owners: Mutex<HashMap<u64, String>> = Mutex::new(HashMap::new());
    let end = Instant::now() + time;
    let look = |dir: &OwnedFd| {
        let (Ok(stat), Some(text)) = (rustix::fs::fstat(dir), read_at(dir, "id")) else {
            return;
        };
        let mut owners = owners.lock().unwrap_or_else(PoisonError::into_inner);
        if *owners.entry(stat.st_ino).or_insert_with(|| text.clone()) != text {
            wrong.fetch_add(1, Ordering::Relaxed);
        }
    };
    let one = |thread: u64| {
        let mut round = thread;
        while Instant::now() < end {
            round = round
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(thread | 1);
            let path = |bits: u32| root.join(format!("d{}", (round >> bits) % DIRECTORIES));
            operations.fetch_add(1, Ordering::Relaxed);
            // What fails lost a race, which is what they are here for.
            let _lost = match thread % 4 {
                0 => rustix::fs::renameat_with(CWD, path(33), CWD, path(43), RenameFlags::EXCHANGE),
                1 => {
                    let scratch = path(33).join(format!("n{thread}"));
                    let made = fs::write(&scratch, "x").is_ok();
                    let moved = path(43).join(format!("m{thread}"));
                    let _gone = rustix::fs::rename(&scratch, &moved);
                    if made {
                        let _gone = rustix::fs::unlink(&moved);
                    }
                    rustix::fs::unlink(&scratch)
                }
                _ => open_dir(&path(33)).map(|dir| look(&dir)),
            };
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let one = &one;
            scope.spawn(move || one(thread));
        }
    });
    Seen {
        operations: operations.into_inner(),
        wrong: wrong.into_inner(),
        answers: fs::metadata(root).is_ok() && fs::read_dir(root).is_ok(),
    }
}

/// The storm, while the host exchanges the same directories below it.
fn from_both_sides(
    seat: Where<'_>,
    place: &Place,
    root: &Path,
    time: Duration,
) -> Result<Seen, String> {
    let actor = begin(seat, CLIENT, || storm(root, time))?;
    let mut round = 0;
    let end = Instant::now() + time + LIMIT;
    while !actor.is_done() && Instant::now() < end {
        round += 1;
        let path = |number: u64| place.export().join(format!("d{}", number % DIRECTORIES));
        let _lost = rustix::fs::renameat_with(
            CWD,
            path(round),
            CWD,
            path(round * 3 + 1),
            RenameFlags::EXCHANGE,
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    actor.finish(LIMIT)
}

/// Row 4.
pub(super) fn storms(lab: &Lab) -> Outcome {
    let way = "16 threads, and the host";
    let (brief, time) = (
        Duration::from_secs(3),
        Duration::from_secs(if lab.short { 3 } else { 60 }),
    );
    let bindfs = Arrangement::Other("bindfs, path-based, as root");
    let place = Place::new().or_tell("a place")?;
    tree(&place)?;
    let weak = Server::bindfs(&place.export(), &[])
        .and_then(|server| from_both_sides(Where::Host, &place, server.path(), brief))
        .map_or_else(Verdict::Untried, |seen| {
            verdict(seen.wrong > 0 || !seen.answers, format!("{seen:?}"))
        });

    let place = Place::new().or_tell("a place")?;
    tree(&place)?;
    let view = Start::product(lab, place.export()).open()?;
    let seen = from_both_sides(Where::Client(&view), &place, &view.export, time)?;
    let fine = seen.wrong == 0 && seen.answers && view.lives() && place.is_untouched();
    let what = format!("{seen:?}");
    let told = fine.then(|| format!("no request to refuse: {what}"));
    Ok(vec![
        weaker(bindfs, way, weak),
        product(way, verdict(!fine, what), told),
    ])
}

/// The hard limit of descriptors.
const DESCRIPTORS: u32 = 1024;
const A_DIRECTORY: u64 = 1000;

/// What a walk saw.
#[derive(Debug, Serialize, Deserialize)]
struct Walked {
    files: u64,
    error: Option<String>,
}

/// As find(1) does with `-size 0`: each directory listed, each file looked at.
fn find(root: &Path) -> Walked {
    let mut walked = Walked {
        files: 0,
        error: None,
    };
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let listed = fs::read_dir(&dir).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let meta = fs::symlink_metadata(entry.path())?;
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else {
                    walked.files += 1;
                }
            }
            Ok(())
        });
        if let Err(error) = listed {
            walked.error = Some(error.to_string());
            break;
        }
    }
    walked
}

/// Row 7.
pub(super) fn many(lab: &Lab) -> Outcome {
    let count: u64 = if lab.short { 20_000 } else { 1_000_000 };
    let limit = Duration::from_secs(if lab.short { 60 } else { 300 });
    let way = format!("find over {count} files with {DESCRIPTORS} descriptors");
    let place = Place::new().or_tell("a place")?;
    for dir in 0..count / A_DIRECTORY {
        let dir = place.export().join(dir.to_string());
        fs::create_dir(&dir).or_tell("mkdir")?;
        for file in 0..A_DIRECTORY {
            fs::File::create(dir.join(file.to_string())).or_tell("create")?;
        }
    }
    let low_level = Arrangement::Other("libfuse's passthrough_ll, as root");
    let weak = Server::passthrough_ll(&place.export(), DESCRIPTORS)
        .and_then(|server| {
            act(Where::Host, virtfs_p9::Ids::ROOT, limit, || {
                find(server.path())
            })
        })
        .map_or_else(Verdict::Untried, |walked| {
            verdict(
                walked.files != count,
                format!("descriptors run out: {walked:?}"),
            )
        });
    let nofile = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let view = Start::product(lab, place.export())
        .under(&["prlimit", &nofile])
        .open()?;
    let walked = act(Where::Client(&view), CLIENT, limit, || find(&view.export))?;
    let open = fs::read_dir(format!("/proc/{}/fd", view.mediator)).map_or(0, Iterator::count);
    let fine = walked.files == count && walked.error.is_none() && view.lives();
    let what = format!("{walked:?}, with {open} descriptors open at the end");
    let told = fine.then(|| format!("no request to refuse: {what}"));
    Ok(vec![
        weaker(low_level, way.clone(), weak),
        product(way, verdict(!fine, what), told),
    ])
}

/// Removes a name whatever it is; for a race's loser.
pub(super) fn remove(path: &Path) {
    let _gone = rustix::fs::unlinkat(CWD, path, AtFlags::empty());
}
