//! A domain's emulator that is the attacker's: the very process that libvirt's record names, after its
//! views were laid. It asks the service again, then becomes QEMU, so that the domain goes on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use serde::{Deserialize, Serialize};

use super::OrTell as _;

/// What it is to do, as JSON.
pub(crate) const ROLE: &str = "VIRTFS_ATTACK_EMULATOR";
/// Root's file in its own view that bids it ask, and the ones that it answers by.
const BEGIN: &str = "begin";
const THERE: &str = "there";
const REPORT: &str = "report";
/// How long it waits for a bidding: libvirtd waits for its monitor for half a minute.
const PATIENCE: Duration = Duration::from_secs(25);

/// What it is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// Its own view.
    pub(crate) own: PathBuf,
    /// What is only in another domain's view.
    pub(crate) secret: PathBuf,
    /// How often to ask.
    pub(crate) asks: usize,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Every answer, and how often it came.
    pub(crate) answers: BTreeMap<String, usize>,
    /// The secret's bytes, or the errno.
    pub(crate) read: Result<Vec<u8>, i32>,
}

impl Errand {
    /// The text of an emulator that does it: `program` is this one, as the domain's user reaches it.
    pub(crate) fn script(&self, program: &str) -> Result<String, String> {
        let text = serde_json::to_string(self).or_tell("an errand")?;
        Ok(format!(
            "#!/bin/sh\n{ROLE}='{text}' exec {program} \"$@\"\n"
        ))
    }

    /// Waits until it is there; see [`PATIENCE`].
    pub(crate) fn await_there(&self, limit: Duration) -> bool {
        super::process::holds_within(limit, || self.own.join(THERE).exists())
    }

    /// Bids it ask, and waits for what comes of it.
    pub(crate) fn report(&self, limit: Duration) -> Result<Report, String> {
        fs::write(self.own.join(BEGIN), "").or_tell("bidding the emulator")?;
        let path = self.own.join(REPORT);
        if !super::process::holds_within(limit, || path.exists()) {
            return Err("the emulator did not report".to_owned());
        }
        serde_json::from_slice(&fs::read(path).or_tell("the emulator's report")?)
            .or_tell("the emulator's report")
    }
}

/// One connection and one word to the service: its answer.
pub(crate) fn ask() -> Result<String, String> {
    say(&connected()?, b"attach 1")
}

/// Connects to the service.
pub(crate) fn connected() -> Result<OwnedFd, String> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .or_tell("socket")?;
    let address = UnixAddr::new(virtfs_lab::SOCKET).or_tell("the service's address")?;
    connect(socket.as_raw_fd(), &address).or_tell("connect")?;
    Ok(socket)
}

/// Says a word over a connection: the answer.
pub(crate) fn say(socket: &OwnedFd, word: &[u8]) -> Result<String, String> {
    // Refused before it was said: the answer is there all the same.
    let _told = send(socket.as_raw_fd(), word, MsgFlags::MSG_NOSIGNAL);
    let mut answer = [0; 4096];
    let mut hear = || recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty());
    let count = hear().or_else(|_| hear()).or_tell("recv")?;
    Ok(String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned())
}

/// Whether the service gave views.
pub(crate) fn is_given(answer: &str) -> bool {
    answer.starts_with("ok ")
}

/// Asks, then becomes QEMU.
pub(crate) fn play(errand: &str) -> ExitCode {
    let done = serde_json::from_str(errand)
        .or_tell("the errand")
        .and_then(|errand: Errand| run(&errand));
    if let Err(why) = done {
        tell(&why);
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = Command::new(virtfs_lab::QEMU)
        .args(words)
        .env_remove(ROLE)
        .exec();
    tell(&error.to_string());
    ExitCode::FAILURE
}

#[allow(clippy::print_stderr, reason = "the domain's log")]
fn tell(why: &str) {
    eprintln!("virtfs-attack: {why}");
}

fn run(errand: &Errand) -> Result<(), String> {
    let file = |name: &str| errand.own.join(name);
    fs::write(file(THERE), "").or_tell("a file in its own view")?;
    let end = Instant::now() + PATIENCE;
    while !file(BEGIN).exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut report = Report {
        answers: BTreeMap::new(),
        read: Err(0),
    };
    for _ in 0..errand.asks {
        let answer = ask().unwrap_or_else(|why| why);
        let given = is_given(&answer);
        *report.answers.entry(answer).or_default() += 1;
        if given {
            break;
        }
    }
    report.read = read(&errand.secret);
    let text = serde_json::to_vec(&report).or_tell("a report")?;
    let fresh = file("report.new");
    fs::write(&fresh, text).or_tell("a report")?;
    fs::rename(&fresh, file(REPORT)).or_tell("a report")
}

/// A file's content, or the errno.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, i32> {
    fs::read(path).map_err(|error| error.raw_os_error().unwrap_or(-1))
}
