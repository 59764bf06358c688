//! Answers from an older policy, behind a reload: out of the client's kernel, by what was opened
//! before, by a request that is under way.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use serde::{Deserialize, Serialize};
use virtfs_mediator_core::weak::Wall;

use crate::case::Arrangement;
use crate::driver::actor::{Where, begin};
use crate::driver::control::reload;
use crate::driver::mark::Mark;
use crate::driver::process::{Spawned, holds_within, scratch};
use crate::driver::start::{LIMIT, Start, View};
use crate::driver::{CLIENT, OrTell as _, Outcome, Tried, product, verdict, weaker};
use crate::lab::{Lab, Place};
use crate::raw;

const FORGETFUL: Arrangement =
    Arrangement::Walls("all but a reload's order to the kernel to forget");
const IMPATIENT: Arrangement = Arrangement::Walls("all but a reload's wait for requests under way");

/// What the client meets first: one name is missing.
const BEFORE: &str = r#"
default = "allow"
[[rule]]
name = "not yet"
path = "/later"
action = "hide"
"#;

/// What is in force then: it is there, and others are not.
const AFTER: &str = r#"
default = "allow"
[[rule]]
name = "gone"
path = ["/gone", "/gone/**"]
action = "hide"
[[rule]]
name = "closed"
path = "/closed"
do = ["read"]
action = "deny"
[[rule]]
name = "unseen"
path = "/unseen"
do = ["look"]
action = "deny"
[[rule]]
name = "unlisted"
path = "/unlisted"
do = ["list"]
action = "deny"
"#;

/// Ways to an older answer, each with the rule that refuses it now.
const WAYS: [(&str, &str); 13] = [
    ("stat of a name that is remembered", "gone"),
    (
        "open of a file through its directory, which is open",
        "gone",
    ),
    ("stat of an open file", "gone"),
    ("read of an open file, of a page that is cached", "gone"),
    ("a symbolic link that was read", "gone"),
    ("a listing with the name", "gone"),
    ("open by a name that is remembered", "closed"),
    (
        "read of an open file, of a page that is cached, by its rule",
        "closed",
    ),
    ("a page that is mapped", "closed"),
    ("attributes that are remembered", "unseen"),
    ("attributes of what is open", "unseen"),
    ("a listing that is remembered", "unlisted"),
    ("a name that was missing", "later"),
];

/// What was opened, read and asked before; so that the kernel remembers it all.
struct Known {
    gone: File,
    gone_dir: OwnedFd,
    closed: File,
    unseen: File,
    /// Where a page of `closed` is.
    mapped: libc::c_long,
    page: usize,
}

fn stat(path: &Path) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn lists(path: &Path, name: &str) -> bool {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().as_encoded_bytes() == name.as_bytes())
}

fn first_byte(file: &File) -> bool {
    file.read_at(&mut [0], 0).is_ok_and(|count| count == 1)
}

/// Asks everything once.
fn know(root: &Path) -> Result<Known, String> {
    let open = |name: &str| File::open(root.join(name)).or_tell(name);
    let (gone, closed, unseen) = (open("gone/file")?, open("closed")?, open("unseen")?);
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let gone_dir = openat(CWD, root.join("gone"), directory, Mode::empty()).or_tell("gone")?;
    let length = rustix::param::page_size();
    let mapped = raw::call(
        libc::SYS_mmap,
        [
            0,
            libc::c_long::try_from(length).or_tell("a page")?,
            raw::number(libc::PROT_READ),
            raw::number(libc::MAP_SHARED),
            raw::number(std::os::fd::AsRawFd::as_raw_fd(&closed)),
            0,
        ],
    )
    .or_tell("mmap")?;
    let known = Known {
        gone,
        gone_dir,
        closed,
        unseen,
        mapped,
        page: length,
    };
    let tried = tries(root, &known);
    match WAYS.iter().zip(&tried).find(|(_, got)| !**got) {
        None => Ok(known),
        Some(((way, _), _)) => Err(format!("before the reload: {way}: refused")),
    }
}

/// Whether each of [`WAYS`] still leads to what it led to before.
fn tries(root: &Path, known: &Known) -> Vec<bool> {
    let read_only = OFlags::RDONLY | OFlags::CLOEXEC;
    vec![
        stat(&root.join("gone/file")),
        openat(&known.gone_dir, "file", read_only, Mode::empty()).is_ok(),
        known.gone.metadata().is_ok(),
        first_byte(&known.gone),
        rustix::fs::readlinkat(&known.gone_dir, "link", Vec::new()).is_ok(),
        lists(root, "gone"),
        openat(CWD, root.join("closed"), read_only, Mode::empty()).is_ok(),
        first_byte(&known.closed),
        is_mapped(known),
        stat(&root.join("unseen")),
        known.unseen.metadata().is_ok(),
        lists(&root.join("unlisted"), "file"),
        !stat(&root.join("later")),
    ]
}

/// Whether a page can still be read: by write(2), which answers EFAULT where a load would end the
/// process (SIGBUS).
fn is_mapped(known: &Known) -> bool {
    let Ok((read, write)) = rustix::pipe::pipe() else {
        return false;
    };
    let one = libc::c_long::from(known.page > 0);
    let to = raw::descriptor(&write);
    let written = raw::call(libc::SYS_write, [to, known.mapped, one, 0, 0, 0]);
    written.is_ok_and(|count| count == 1)
        && File::from(read)
            .read(&mut [0])
            .is_ok_and(|count| count == 1)
}

fn furnish(place: &Place) -> Result<(), String> {
    let at = |name: &str| place.export().join(name);
    for dir in ["gone", "unlisted"] {
        fs::create_dir(at(dir)).or_tell("mkdir")?;
    }
    symlink("file", at("gone/link")).or_tell("symlink")?;
    for file in ["gone/file", "closed", "unseen", "unlisted/file", "later"] {
        fs::write(at(file), "what was there").or_tell("write")?;
    }
    for name in [
        "gone",
        "unlisted",
        "gone/file",
        "closed",
        "unseen",
        "unlisted/file",
        "later",
    ] {
        chown(at(name), Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    }
    Ok(())
}

fn start(lab: &Lab, place: &Place, cache: &str, walls: &[Wall]) -> Result<View, String> {
    let start = Start::product(lab, place.export())
        .option(format!("--cache={cache}"))
        .policy(BEFORE);
    if walls.is_empty() {
        start.open()
    } else {
        start.without(walls)?.open()
    }
}

/// As root does it.
fn reload_by_command(lab: &Lab, view: &View, policy: &str) -> Result<(), String> {
    let dir = scratch()?;
    let file = dir.path().join("policy.toml");
    fs::write(&file, policy).or_tell("the policy file")?;
    let mut command = std::process::Command::new(&lab.mediator);
    command.args(["reload", &view.name, "--policy"]).arg(&file);
    let ended = Spawned::ended(command, LIMIT)?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(format!("reload: {}: {}", ended.status, ended.err))
    }
}

/// Row 29.
pub(super) fn older(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for cache in ["exclusive", "auto"] {
        let (tried, ..) = behind_reload(lab, cache, &[Wall::Invalidation])?;
        for ((way, _), got) in WAYS.iter().zip(tried) {
            let way = format!("{way}, --cache={cache}");
            attempts.push(weaker(
                FORGETFUL,
                way,
                verdict(got, "asked after the reload"),
            ));
        }
        // Removing the place would end the view, and its log with it.
        let (tried, view, _place) = behind_reload(lab, cache, &[])?;
        for ((way, rule), got) in WAYS.iter().zip(tried) {
            let way = format!("{way}, --cache={cache}");
            attempts.push(product(way, verdict(got, "asked anew"), told(&view, rule)));
        }
    }
    Ok(attempts)
}

/// A rule's refusal in the log; a name that is no longer hidden is refused by none.
fn told(view: &View, rule: &str) -> Option<String> {
    match rule {
        "later" => Some("nothing to refuse: the name is there".to_owned()),
        rule => view.told(&["refused", rule]),
    }
}

fn behind_reload(
    lab: &Lab,
    cache: &str,
    walls: &[Wall],
) -> Result<(Vec<bool>, View, Place), String> {
    let place = Place::new().or_tell("a place")?;
    furnish(&place)?;
    let view = start(lab, &place, cache, walls)?;
    let (ready, go) = (Mark::new()?, Mark::new()?);
    let asking = begin(
        Where::Client(&view),
        CLIENT,
        || -> Result<Vec<bool>, String> {
            let known = know(&view.export)?;
            ready.set()?;
            go.wait(LIMIT)?;
            Ok(tries(&view.export, &known))
        },
    )?;
    if let Err(why) = ready.wait(LIMIT) {
        return Err(format!("{why}: {:?}", asking.finish(LIMIT)));
    }
    reload_by_command(lab, &view, AFTER)?;
    go.set()?;
    Ok((asking.finish(LIMIT)??, view, place))
}

/// Which policy is in force, for whoever races with reloads: written by the one that reloads.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Changing = b'c',
    Allowed = b'a',
    Denied = b'd',
    Over = b'o',
}

/// A file with a byte for the phase and a number of how often it changed.
struct Phases(File);

impl Phases {
    fn set(&self, phase: Phase, number: u64) -> Result<(), String> {
        let mut bytes = [phase as u8; 9];
        if let Some(rest) = bytes.get_mut(1..) {
            rest.copy_from_slice(&number.to_ne_bytes());
        }
        // Nine bytes of one page: nobody reads half of them (the inode's lock).
        self.0.write_all_at(&bytes, 0).or_tell("a phase")
    }

    fn get(&self) -> [u8; 9] {
        let mut bytes = [0; 9];
        let _is_there = self.0.read_exact_at(&mut bytes, 0);
        bytes
    }
}

/// What was found between two reloads.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Raced {
    asked: u64,
    /// Under the policy that allows, and it was.
    allowed: u64,
    /// Under the one that denies, and it was.
    denied: u64,
    /// Allowed although the policy that denies was in force all the time.
    betrayed: u64,
    /// Denied although the policy that allows was.
    outdated: u64,
}

const DENIES: &str = r#"
default = "allow"
[[rule]]
name = "closed"
path = "/closed"
action = "hide"
"#;

/// Looks up, opens and reads one file over and over.
fn ask(root: &Path, phases: &Phases, ready: &Mark) -> Result<Raced, String> {
    let mut raced = Raced::default();
    let path = root.join("closed");
    let held = File::open(&path).or_tell("open")?;
    ready.set()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    loop {
        let before = phases.get();
        if before[0] == Phase::Over as u8 {
            return Ok(raced);
        }
        raced.asked += 1;
        let got = match raced.asked % 4 {
            0 => stat(&path),
            1 => openat(CWD, &path, flags, Mode::empty()).is_ok(),
            2 => first_byte(&held),
            _ => held.metadata().is_ok(),
        };
        if before != phases.get() {
            continue;
        }
        match (before[0], got) {
            (phase, true) if phase == Phase::Denied as u8 => raced.betrayed += 1,
            (phase, false) if phase == Phase::Denied as u8 => raced.denied += 1,
            (phase, true) if phase == Phase::Allowed as u8 => raced.allowed += 1,
            (phase, false) if phase == Phase::Allowed as u8 => raced.outdated += 1,
            _ => {}
        }
    }
}

/// Row 29 too: asked while the policy changes to and fro.
pub(super) fn race(lab: &Lab) -> Outcome {
    let way = "asked all the time while the policy changes 200 times";
    Ok(vec![
        raced(lab, &[Wall::Invalidation])?.weaker(FORGETFUL, way),
        raced(lab, &[])?.product(way),
    ])
}

fn raced(lab: &Lab, walls: &[Wall]) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    furnish(&place)?;
    let view = start(lab, &place, "exclusive", walls)?;
    let phases = Phases(tempfile::tempfile().or_tell("a file")?);
    phases.set(Phase::Changing, 0)?;
    let ready = Mark::new()?;
    let asking = begin(Where::Client(&view), CLIENT, || {
        ask(&view.export, &phases, &ready)
    })?;
    ready.wait(LIMIT)?;
    for number in 1..=200 {
        let (policy, then) = if number % 2 == 0 {
            (BEFORE, Phase::Allowed)
        } else {
            (DENIES, Phase::Denied)
        };
        phases.set(Phase::Changing, number)?;
        reload(&view, policy)?;
        phases.set(then, number)?;
        // Something to be asked meanwhile.
        std::thread::sleep(Duration::from_millis(10));
    }
    phases.set(Phase::Over, 0)?;
    let raced = asking.finish(LIMIT)??;
    if raced.allowed + raced.outdated == 0 || raced.denied + raced.betrayed == 0 {
        return Err(format!("there was no race: {raced:?}"));
    }
    let told = walls
        .is_empty()
        .then(|| view.told(&["refused", "closed"]))
        .flatten();
    Ok(Tried {
        got: raced.betrayed + raced.outdated > 0,
        what: format!("{raced:?}"),
        told,
    })
}

/// What is copied in one request, in bytes: long enough for a reload meanwhile.
const COPIED: u64 = 512 << 20;

const NO_COPY: &str = r#"
default = "allow"
[[rule]]
name = "no copy"
path = "/from"
do = ["copy_file_range"]
action = "deny"
"#;

/// Row 29 too: a request that the older policy allowed is under way when `reload` returns.
pub(super) fn under_way(lab: &Lab) -> Outcome {
    let way = "a copy under way";
    Ok(vec![
        copied(lab, &[Wall::Turns])?.weaker(IMPATIENT, way),
        copied(lab, &[])?.product(way),
    ])
}

fn copied(lab: &Lab, walls: &[Wall]) -> Result<Tried, String> {
    let place = Place::new().or_tell("a place")?;
    furnish(&place)?;
    for name in ["from", "to"] {
        let path = place.export().join(name);
        let file = File::create(&path).or_tell("create")?;
        file.set_len(if name == "from" { COPIED } else { 0 })
            .or_tell("truncate")?;
        chown(&path, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    }
    let view = start(lab, &place, "auto", walls)?;
    let ready = Mark::new()?;
    let copying = begin(Where::Client(&view), CLIENT, || -> Result<u64, String> {
        let from = File::open(view.export.join("from")).or_tell("from")?;
        let to = File::options().write(true).open(view.export.join("to"));
        let to = to.or_tell("to")?;
        ready.set()?;
        let length = usize::try_from(COPIED).or_tell("a length")?;
        let copied = rustix::fs::copy_file_range(&from, None, &to, None, length);
        u64::try_from(copied.or_tell("copy_file_range")?).or_tell("a length")
    })?;
    ready.wait(LIMIT)?;
    // On the export itself: it grows as long as the request goes on.
    let size = || fs::metadata(place.export().join("to")).map_or(0, |meta| meta.len());
    if !holds_within(LIMIT, || size() > 0) {
        return Err(format!("nothing was copied: {:?}", copying.finish(LIMIT)));
    }
    let asked = size();
    reload(&view, NO_COPY)?;
    let returned = size();
    let copied = copying.finish(LIMIT)??;
    if asked >= copied {
        return Err("the copy was over before the policy changed".to_owned());
    }
    let what = format!(
        "{asked} bytes copied when the reload was asked for, {returned} when it returned, {copied} \
         in the end"
    );
    let told = walls
        .is_empty()
        .then(|| format!("nothing to refuse: the reload waits. {what}"));
    Ok(Tried {
        got: returned < copied,
        what,
        told,
    })
}
