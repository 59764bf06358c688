//! Races on the export, from the host.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};
use virtfs_mediator_core::weak::Wall;

use crate::case::{Arrangement, Attempt, Case, Seat, Verdict};
use crate::driver::actor::{Where, act, begin};
use crate::driver::raw::{ROOT, Raw, Reply};
use crate::driver::start::{LIMIT, Start};
use crate::driver::weaker::{Bind, Server};
use crate::driver::{CLIENT, OrTell as _, Outcome, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

pub(crate) const CASES: &[Case] = &[
    Case {
        row: 1,
        id: "symlink",
        seat: Seat::R,
        what: "a directory swapped for a symbolic link while a file below it is opened",
        stopped_by: "one component at a time, by descriptor, never followed",
        run: swaps,
    },
    Case {
        row: 5,
        id: "special",
        seat: Seat::R,
        what: "a file swapped for a FIFO or a device between its lookup and its open",
        stopped_by: "what was looked up is what is opened; only regular files are",
        run: special,
    },
    Case {
        row: 27,
        id: "later",
        seat: Seat::R,
        what: "something mounted under the export later",
        stopped_by: "the mediator's copy of the export is private",
        run: later,
    },
];

const BINDFS: Arrangement = Arrangement::Other("bindfs, path-based, as root");

/// What was read while the directory was swapped.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Raced {
    opens: u64,
    /// Reads that returned what lies outside.
    betrayed: u64,
    harmless: u64,
    failed: u64,
}

impl Raced {
    /// Whether both the directory and the link were there when it was opened: else there was no
    /// race. A kernel that remembers one of them for a second may see it many times over.
    fn met_both(&self) -> bool {
        self.harmless > 0 && self.betrayed + self.failed > 0
    }
}

/// Opens `d/canary` over and over, in one step and in two, until `stop` appears and it is
/// enough.
fn open_on(root: &Path, enough: fn(&Raced) -> bool, betrays: &dyn Fn(&[u8]) -> bool) -> Raced {
    let mut raced = Raced::default();
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = root.join("d/canary");
    let mut stopped = None;
    loop {
        if raced.opens.is_multiple_of(64) && root.join("stop").exists() {
            let since: &mut Instant = stopped.get_or_insert_with(Instant::now);
            if enough(&raced) || since.elapsed() > LIMIT / 2 {
                return raced;
            }
        }
        raced.opens += 1;
        let opened = if raced.opens.is_multiple_of(2) {
            rustix::fs::openat(CWD, &path, flags, Mode::empty())
        } else {
            // As QEMU walks: no link is followed on our side.
            rustix::fs::openat(
                CWD,
                root.join("d"),
                directory | OFlags::NOFOLLOW,
                Mode::empty(),
            )
            .and_then(|dir| {
                rustix::fs::openat(&dir, "canary", flags | OFlags::NOFOLLOW, Mode::empty())
            })
        };
        let mut bytes = Vec::new();
        match opened.map(|fd| fs::File::from(fd).read_to_end(&mut bytes)) {
            Ok(Ok(_)) if betrays(&bytes) => raced.betrayed += 1,
            Ok(Ok(_)) => raced.harmless += 1,
            Ok(Err(_)) | Err(_) => raced.failed += 1,
        }
    }
}

/// How long a race lasts at the least, so that there is something to race with.
const LEAST: Duration = Duration::from_millis(1500);
/// How long it may last at the most.
const BOUND: Duration = Duration::from_secs(240);

fn race(
    seat: Where<'_>,
    place: &Place,
    root: &Path,
    swaps: u64,
    enough: fn(&Raced) -> bool,
) -> Result<(u64, Raced), String> {
    let export = place.export();
    let dir = export.join("d");
    fs::create_dir(&dir).or_tell("mkdir")?;
    fs::write(dir.join("canary"), "harmless").or_tell("write")?;
    for path in [dir.clone(), dir.join("canary")] {
        chown(path, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    }
    symlink(place.outside(), export.join("l")).or_tell("symlink")?;
    let actor = begin(seat, CLIENT, || {
        open_on(root, enough, &|bytes| place.betrays(bytes))
    })?;
    let (from, to) = (dir, export.join("l"));
    let least = Instant::now() + LEAST;
    let mut done = 0;
    let mut told = false;
    while !actor.is_done() {
        rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).or_tell("swap")?;
        done += 1;
        if !told && done >= swaps && Instant::now() > least {
            fs::write(export.join("stop"), "").or_tell("write")?;
            told = true;
        }
        if Instant::now() > least + BOUND {
            return Err(format!("the race did not end within {BOUND:?}"));
        }
    }
    Ok((done, actor.finish(LIMIT)?))
}

/// Row 1.
fn swaps(lab: &Lab) -> Outcome {
    let way = "d and a link to the canary's directory, swapped";
    let weak = || -> Result<Attempt, String> {
        let place = Place::new().or_tell("a place")?;
        let (user, group) = (CLIENT.uid.to_string(), CLIENT.gid.to_string());
        let options = ["-u", &user, "-g", &group, "-p", "u+rwX"];
        let server = Server::bindfs(&place.export(), &options)?;
        // It takes far fewer to succeed.
        let few = lab.swaps() / 20;
        let (swaps, raced) = race(Where::Host, &place, server.path(), few, |raced| {
            raced.betrayed > 0
        })?;
        let what = format!("{swaps} swaps: {raced:?}");
        Ok(weaker(BINDFS, way, verdict(raced.betrayed > 0, what)))
    };
    let mut attempts = vec![or_untried(BINDFS, way, weak())];
    for cache in ["auto", "none"] {
        let place = Place::new().or_tell("a place")?;
        let view = Start::product(lab, place.export())
            .option(format!("--cache={cache}"))
            .open()?;
        let (swaps, raced) = race(
            Where::Client(&view),
            &place,
            &view.export,
            lab.swaps(),
            Raced::met_both,
        )?;
        let what = format!("{swaps} swaps: {raced:?}");
        let fine = raced.betrayed == 0 && place.is_untouched() && view.lives();
        let told = fine
            .then(|| format!("the link is told as a link, the client's kernel meets it: {what}"));
        let outcome = if fine && !raced.met_both() {
            Verdict::Untried(format!("there was no race: {what}"))
        } else {
            verdict(!fine, what)
        };
        attempts.push(product(format!("{way}, --cache={cache}"), outcome, told));
    }
    attempts.push(core_alone(lab, &[Wall::Names])?);
    attempts.push(core_alone(lab, &[])?);
    Ok(attempts)
}

/// The same, as root, without a sandbox, and without a client's kernel that would walk one
/// component at a time: the core is what holds, or `d/canary` is opened in one step.
fn core_alone(lab: &Lab, walls: &[Wall]) -> Result<Attempt, String> {
    let place = Place::new().or_tell("a place")?;
    let (dir, link) = (place.export().join("d"), place.export().join("l"));
    fs::create_dir(&dir).or_tell("mkdir")?;
    fs::write(dir.join("canary"), "harmless").or_tell("write")?;
    symlink(place.outside(), &link).or_tell("symlink")?;
    let raw = Raw::start(&place.export(), walls, "")?;
    let (swaps, done) = (lab.swaps() / 4, AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let mut raced = Raced::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _both_exist =
                    rustix::fs::renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (least, end) = (Instant::now() + LEAST, Instant::now() + BOUND / 4);
        let is_enough = |raced: &Raced| {
            done.load(Ordering::Relaxed) >= swaps && Instant::now() > least && raced.met_both()
        };
        while !is_enough(&raced) && Instant::now() < end {
            raced.opens += 1;
            let read = if walls.is_empty() {
                let node = raw.lookup(ROOT, b"d").and_then(Reply::node);
                node.and_then(|node| {
                    let read = raw.fetch(node, b"canary");
                    raw.forget(node, 1).and(read)
                })
            } else {
                raw.fetch(ROOT, b"d/canary")
            };
            match read {
                Ok(bytes) if place.betrays(&bytes) => raced.betrayed += 1,
                Ok(_) => raced.harmless += 1,
                Err(_) => raced.failed += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let way = "by raw messages, as root, without a sandbox";
    let what = format!("{} swaps: {raced:?}", done.into_inner());
    let outcome = if raced.met_both() {
        verdict(raced.betrayed > 0 || !place.is_untouched(), what)
    } else {
        Verdict::Untried(format!("there was no race: {what}"))
    };
    let alone = if walls.is_empty() {
        "the core alone"
    } else {
        "the core alone, without the check of names"
    };
    Ok(weaker(Arrangement::Walls(alone), way, outcome))
}

/// What is put in the file's place.
#[derive(Clone, Copy, Debug)]
enum Special {
    Fifo,
    Device,
}

impl Special {
    fn make(self, path: &Path) -> Result<(), String> {
        let (kind, device) = match self {
            Self::Fifo => (FileType::Fifo, 0),
            // /dev/full: reads give zeros, writes ENOSPC, and nothing happens.
            Self::Device => (FileType::CharacterDevice, rustix::fs::makedev(1, 7)),
        };
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, path, kind, mode, device).or_tell("mknod")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).or_tell("chmod")
    }
}

/// Looks a file up, has it swapped, opens it while its name and type are still remembered.
/// What was opened, or the errno; `Err` if the open did not come back.
fn swapped(
    seat: Where<'_>,
    place: &Place,
    root: &Path,
    what: Special,
    (number, flags): (u32, i32),
) -> Result<Result<Opened, i32>, String> {
    let name = format!("f{number}");
    let (file, other) = (place.export().join(&name), place.export().join("special"));
    fs::write(&file, "regular").or_tell("write")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).or_tell("chmod")?;
    what.make(&other)?;
    let path = root.join(&name);
    act(seat, CLIENT, LIMIT, || fs::metadata(&path).is_ok())?;
    rustix::fs::rename(&other, &file).or_tell("rename")?;
    act(seat, CLIENT, Duration::from_secs(3), || {
        let mut bytes = vec![0; 16];
        let mut open = fs::OpenOptions::new();
        open.read(true).custom_flags(flags);
        open.open(&path)
            .and_then(|mut file| {
                let count = file.read(&mut bytes)?;
                bytes.truncate(count);
                let is_regular = file.metadata()?.is_file();
                Ok(Opened { is_regular, bytes })
            })
            .map_err(|error| error.raw_os_error().unwrap_or(-1))
    })
}

/// What a client's open led to, as its own kernel sees it. What is not a regular file to that is
/// opened by it alone: no server is asked (`init_special_inode`, fs/inode.c).
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    is_regular: bool,
    bytes: Vec<u8>,
}

/// Row 5.
fn special(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for what in [Special::Fifo, Special::Device] {
        let way = format!("a file that becomes a {what:?} after its lookup");
        attempts.push(or_untried(BINDFS, &way, special_on_bindfs(what, &way)));
        attempts.push(special_on_view(lab, what, way)?);
        attempts.push(special_raw(&[Wall::Floor, Wall::Kinds], what)?);
        attempts.push(special_raw(&[Wall::Floor], what)?);
        attempts.push(special_raw(&[Wall::Kinds], what)?);
        attempts.push(special_raw(&[], what)?);
    }
    Ok(attempts)
}

fn special_on_bindfs(what: Special, way: &str) -> Result<Attempt, String> {
    let place = Place::new().or_tell("a place")?;
    let server = Server::bindfs(&place.export(), &["-o", "attr_timeout=60,entry_timeout=60"])?;
    let opened = swapped(Where::Host, &place, server.path(), what, (0, 0));
    let (got, shown) = match opened {
        Err(why) => (true, format!("the server waits in open(2): {why}")),
        Ok(Ok(opened)) => (
            opened.bytes != b"regular",
            format!("the device was opened: {opened:?}"),
        ),
        Ok(Err(errno)) => (false, format!("errno {errno}")),
    };
    Ok(weaker(BINDFS, way, verdict(got, shown)))
}

fn special_on_view(lab: &Lab, what: Special, way: String) -> Result<Attempt, String> {
    let place = Place::new().or_tell("a place")?;
    let view = Start::product(lab, place.export())
        .option("--cache=exclusive")
        .option("--debug")
        .open()?;
    let rounds = if lab.short { 10 } else { 100 };
    let mut slowest = Duration::ZERO;
    for number in 0..rounds {
        let started = Instant::now();
        // The client learns what it is by now, and would wait for a writer of a FIFO by itself.
        let how = (number, libc::O_NONBLOCK);
        let opened = swapped(Where::Client(&view), &place, &view.export, what, how);
        slowest = slowest.max(started.elapsed());
        let bad = match opened {
            Err(why) => Some(why),
            // What was looked up, by its descriptor; or that it is not there any more.
            Ok(Ok(opened)) => {
                (opened.is_regular && opened.bytes != b"regular").then(|| format!("{opened:?}"))
            }
            // A view is mounted nodev: its kernel opens no device (EACCES).
            Ok(Err(errno)) => {
                let fine = [libc::ESTALE, libc::ENOENT, libc::ENXIO, libc::EACCES];
                (!fine.contains(&errno)).then(|| format!("errno {errno}"))
            }
        };
        if let Some(bad) = bad {
            return Ok(product(way, Verdict::Succeeded(bad), None));
        }
    }
    let what =
        format!("{rounds} times the file that was looked up, or an error; slowest {slowest:.1?}");
    let told = view.told(&["op=\"open\""]);
    let fine = slowest < Duration::from_secs(3) && view.lives();
    Ok(product(way, verdict(!fine, what), told))
}

/// A client that asks for the open of what it knows to be special.
fn special_raw(walls: &[Wall], what: Special) -> Result<Attempt, String> {
    let way = format!("OPEN of a {what:?}'s node (raw message)");
    let place = Place::new().or_tell("a place")?;
    let path = place.export().join("special");
    what.make(&path)?;
    let raw = Raw::start(&place.export(), walls, "")?;
    let node = raw.lookup(ROOT, b"special")?.node()?;
    let reply = raw.open(node, libc::O_RDONLY)?;
    let opened = reply.errno == 0 && holds(raw.pid(), &path);
    let shown = format!("errno {}, the server holds it open: {opened}", reply.errno);
    if walls.is_empty() {
        let told = raw.told(&["refused", "open", "floor"]);
        return Ok(product(
            way,
            verdict(reply.errno == 0 || opened, shown),
            told,
        ));
    }
    let left = match walls {
        [Wall::Floor] => "the core's check of types alone",
        [Wall::Kinds] => "the policy's floor alone",
        _both => "the core, without the floor and without the check of types",
    };
    Ok(weaker(
        Arrangement::Walls(left),
        way,
        verdict(opened, shown),
    ))
}

/// Whether a process has opened a file, other than with O_PATH.
fn holds(pid: i32, path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let flags = fs::read_to_string(info).unwrap_or_default();
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
            .unwrap_or(0);
        let is_path = OFlags::from_bits_retain(flags).contains(OFlags::PATH);
        !is_path && fs::read_link(entry.path()).is_ok_and(|target| target == path)
    })
}

/// Row 27.
fn later(lab: &Lab) -> Outcome {
    let way = "mount --bind under the running export";
    let read = |root: &Path| fs::read(root.join("sub/canary")).map_err(|error| error.to_string());
    let ready = || -> Result<Place, String> {
        let place = Place::new().or_tell("a place")?;
        fs::create_dir(place.export().join("sub")).or_tell("mkdir")?;
        Ok(place)
    };
    let judge = |place: &Place, read: Result<Vec<u8>, String>| match read {
        Ok(bytes) => verdict(place.betrays(&bytes), "the canary was read"),
        Err(why) => Verdict::Refused(why),
    };
    let weak = || -> Result<Attempt, String> {
        let place = ready()?;
        let server = Server::bindfs(&place.export(), &["-p", "a+rX"])?;
        let _bind = Bind::mount(&place.outside(), &place.export().join("sub"))?;
        let found = act(Where::Host, CLIENT, LIMIT, || read(server.path()))?;
        Ok(weaker(BINDFS, way, judge(&place, found)))
    };
    let mut attempts = vec![or_untried(BINDFS, way, weak())];
    let place = ready()?;
    let view = Start::product(lab, place.export())
        .option("--debug")
        .open()?;
    let bind = Bind::mount(&place.outside(), &place.export().join("sub"))?;
    let found = act(Where::Client(&view), CLIENT, LIMIT, || read(&view.export))?;
    drop(bind);
    let told = view.told(&["op=\"lookup\"", "/sub/canary"]).or_else(|| {
        found
            .as_ref()
            .err()
            .map(|why| format!("not there at all: {why}"))
    });
    attempts.push(product(way, judge(&place, found), told));
    Ok(attempts)
}
