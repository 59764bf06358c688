//! What a child is told, and how it answers: one JSON text in the environment, lines on stderr.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// Which part this program plays: [`PRODUCT`], [`WEAKER`] or [`VICTIM`]; not set: the tool itself.
pub(crate) const ROLE: &str = "VIRTFS_ATTACK_SEAT";
/// The product, with an attack in the mediator's place.
pub(crate) const PRODUCT: &str = "M";
/// An attack in a weaker arrangement.
pub(crate) const WEAKER: &str = "weaker";
/// A process that others attack.
pub(crate) const VICTIM: &str = "victim";
/// The [`Task`].
pub(crate) const TASK: &str = "VIRTFS_ATTACK_TASK";

/// One try of one attack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Which of [`crate::acts`].
    pub(crate) act: String,
    /// A weaker arrangement, if it is one.
    pub(crate) weaker: Option<Weaker>,
    /// The product's walls that are built, a bit each; see [`crate::inside`].
    pub(crate) walls: u16,
    /// What a fault of ours would have left open.
    pub(crate) plant: Option<Plant>,
    /// The directory outside of the export that holds `canary`, as the host names it.
    pub(crate) outside: PathBuf,
    /// The canary's file handle.
    pub(crate) handle: Option<Handle>,
    /// Another process, as the host numbers it.
    pub(crate) pid: i32,
    /// Where that process has a secret in its memory.
    pub(crate) address: u64,
    /// A TCP port of 127.0.0.1 where somebody listens.
    pub(crate) port: u16,
    /// How often a race is run.
    pub(crate) rounds: u64,
}

/// Who attacks, without the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Weaker {
    /// uid 0, all capabilities, the host's root directory.
    Root,
    /// uid 0, all capabilities, chroot.
    RootInChroot,
    /// An own uid and five capabilities, chroot.
    UidWithCapabilities,
    /// uid 0 and what virtfs-proxy-helper keeps, chroot.
    ProxyHelper,
}

/// A descriptor that should not be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Plant {
    /// Open, under a number of its own.
    Open(PathBuf),
    /// Under the lowest number that a mediator inherits and does not use.
    Lowest(PathBuf),
    /// Under the number that the plan has for the control socket.
    OverControl(PathBuf),
}

/// A file handle (open_by_handle_at(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handle {
    pub(crate) kind: i32,
    pub(crate) bytes: Vec<u8>,
}

/// What an attack brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gain {
    /// Bytes: whether they are the canary's is for the tool to judge.
    Bytes(Vec<u8>),
    /// An effect, in words.
    Effect(String),
}

/// Why it brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The kernel refused.
    Errno(Errno),
    /// Nothing was refused, and yet nothing was gained: in words.
    Nothing(String),
    /// It never came to the attack.
    Unprepared(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Errno(Errno::from_raw(errno.raw_os_error()))
    }
}

const MARK: &str = "virtfs-attack:";

/// One line of a child's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The next system call is the attack.
    Begins,
    /// How it ended.
    Ended(Result<Gain, Failure>),
}

/// Tells a line. By write(2) alone, which every arrangement allows.
pub(crate) fn tell(line: &Line) {
    let text = match line {
        Line::Begins => "begins".to_owned(),
        Line::Ended(Ok(Gain::Bytes(bytes))) => format!("got {}", hex(bytes)),
        Line::Ended(Ok(Gain::Effect(text))) => format!("did {}", one_line(text)),
        Line::Ended(Err(Failure::Errno(errno))) => format!("errno {}", *errno as i32),
        Line::Ended(Err(Failure::Nothing(text))) => format!("nothing {}", one_line(text)),
        Line::Ended(Err(Failure::Unprepared(text))) => format!("unprepared {}", one_line(text)),
    };
    let text = format!("{MARK} {text}\n");
    let _nobody_listens = nix::unistd::write(std::io::stderr(), text.as_bytes());
}

/// The lines of a child among all that came on its stderr.
pub(crate) fn heard(stderr: &str) -> Vec<Line> {
    stderr.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Line> {
    let said = line.strip_prefix(MARK)?.trim_start();
    let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
    match word {
        "begins" => Some(Line::Begins),
        "got" => unhex(rest).map(|bytes| Line::Ended(Ok(Gain::Bytes(bytes)))),
        "did" => Some(Line::Ended(Ok(Gain::Effect(rest.to_owned())))),
        "errno" => {
            let number = rest.parse().ok()?;
            Some(Line::Ended(Err(Errno::from_raw(number).into())))
        }
        "nothing" => Some(Line::Ended(Err(Failure::Nothing(rest.to_owned())))),
        "unprepared" => Some(Line::Ended(Err(Failure::Unprepared(rest.to_owned())))),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The task of this child.
pub(crate) fn mine() -> Result<Task, String> {
    let text = std::env::var(TASK).map_err(|error| format!("{TASK}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{TASK}: {error}"))
}

/// Opens what is to be left open, to be found by nobody but the attack: not closed again.
pub(crate) fn open_for_good(path: &std::path::Path) -> Result<i32, Failure> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::RDONLY, Mode::empty())
        .map_err(|errno| Failure::Unprepared(format!("open({}): {errno}", path.display())))?;
    let number = fd.as_raw_fd();
    std::mem::forget(fd);
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_heard_as_they_were_told() {
        let heard = heard(
            "noise\nvirtfs-attack: begins\nvirtfs-attack: got 00ff\nvirtfs-attack: errno 1\n\
             virtfs-attack: did a b\nvirtfs-attack: nothing x\nvirtfs-attack: unprepared y\n\
             virtfs-attack: got 0g\n",
        );
        assert_eq!(
            heard,
            [
                Line::Begins,
                Line::Ended(Ok(Gain::Bytes(vec![0, 255]))),
                Line::Ended(Err(Failure::Errno(Errno::EPERM))),
                Line::Ended(Ok(Gain::Effect("a b".to_owned()))),
                Line::Ended(Err(Failure::Nothing("x".to_owned()))),
                Line::Ended(Err(Failure::Unprepared("y".to_owned()))),
            ]
        );
    }

    #[test]
    fn bytes_survive_hex() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
    }
}
