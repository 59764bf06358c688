//! `virtfs-mediator-qemu`: what a libvirt domain's `<emulator>` names, by a link that is called as the
//! emulator is.
//!
//! With an `-fsdev local` or `-virtfs local` on its command line it asks the service for its views
//! and becomes the emulator that the answer names, or nothing; without one (libvirt asks an emulator
//! what it can do) it becomes the emulator at once. It has no power of its own, and can give none:
//! whether views are laid is the service's to decide, by who asks.

#![allow(
    clippy::print_stderr,
    reason = "libvirt shows what a program says on stderr before it ends"
)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

#[path = "../serve/protocol.rs"]
mod protocol;

/// How long the service may take for all: a view answers within a second, on a busy host later.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where an emulator is looked for when nobody says.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/libexec", "/usr/local/bin"];
/// `statfs(2)`: a view is FUSE.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let shares = shares(&words);
    let emulator = if shares.is_empty() {
        find(&called)
    } else {
        attach().and_then(|emulator| verify(&shares).map(|()| emulator))
    };
    let why = match emulator {
        Ok(emulator) => {
            // Signals are as a parent's exec gives them: none blocked, SIGPIPE not ignored. libvirt
            // leaves them so, and Rust's runtime has changed the second.
            let error = Command::new(&emulator).args(&words).exec();
            format!("{}: {error}", emulator.display())
        }
        Err(why) => why,
    };
    eprintln!("virtfs-mediator-qemu: {why}");
    ExitCode::from(78)
}

/// A directory that QEMU is to share.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    path: Option<PathBuf>,
    /// The guest's owners and modes are those of the files: what a view is for.
    passthrough: bool,
}

/// What the command line shares through QEMU's own file server. What is in a file of options cannot
/// be seen: it is taken for one.
fn shares(words: &[OsString]) -> Vec<Share> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let option = match word.as_bytes() {
            [b'-', b'-', rest @ ..] | [b'-', rest @ ..] => rest,
            _ => continue,
        };
        let value = words.get(at + 1).map(|value| value.as_bytes());
        match (option, value) {
            (b"fsdev" | b"virtfs", Some(value)) => found.extend(share(value)),
            (b"readconfig", _) => found.push(Share {
                path: None,
                passthrough: false,
            }),
            _ => {}
        }
    }
    found
}

/// One `-fsdev`: `local,path=...,security_model=...`, where `,,` is a comma.
fn share(value: &[u8]) -> Option<Share> {
    let options = split(value);
    let get = |key: &[u8]| {
        options.iter().rev().find_map(|option| {
            let rest = option.strip_prefix(key)?;
            rest.strip_prefix(b"=")
        })
    };
    let driver = get(b"fsdriver").or_else(|| options.first().map(Vec::as_slice));
    (driver == Some(b"local")).then(|| Share {
        path: get(b"path").map(|path| OsStr::from_bytes(path).into()),
        passthrough: get(b"security_model") == Some(b"passthrough"),
    })
}

fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            options.push(Vec::new());
        } else if let Some(last) = options.last_mut() {
            last.push(byte);
        }
    }
    options
}

/// The emulator by the name that we are called by.
fn find(called: &OsStr) -> Result<PathBuf, String> {
    let name = Path::new(called).file_name().unwrap_or_default();
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()))
    };
    let own = identity(Path::new("/proc/self/exe"));
    PLACES
        .iter()
        .map(|place| Path::new(place).join(name))
        // Not ourselves, for ever.
        .find(|path| path.is_file() && identity(path) != own)
        .ok_or_else(|| {
            format!(
                "no emulator '{}' in {}: call it by a link that is named as the emulator is, such as \
                 /usr/lib/virtfs-mediator/emulators/qemu-system-x86_64",
                name.display(),
                PLACES.join(", ")
            )
        })
}

/// Asks for our views, and waits until they are there.
fn attach() -> Result<PathBuf, String> {
    // Nothing that is executed from here on has more power than this process: no set-user-id program
    // takes the view off the directory. The service looks for that.
    rustix::thread::set_no_new_privs(true).map_err(|errno| format!("no_new_privs: {errno}"))?;
    let shown = protocol::SOCKET;
    let failed = |why: &dyn std::fmt::Display| {
        format!(
            "the views of this domain were not laid: {shown}: {why} (systemctl status \
             virtfs-mediator.socket)"
        )
    };
    let connection = connected().map_err(|errno| failed(&errno.desc()))?;
    let peer = getsockopt(&connection, sockopt::PeerCredentials).map_err(|errno| failed(&errno))?;
    if peer.uid() != 0 {
        return Err(failed(&format!(
            "uid {} listens there, not root",
            peer.uid()
        )));
    }
    match send(
        connection.as_raw_fd(),
        protocol::ATTACH,
        MsgFlags::MSG_NOSIGNAL,
    ) {
        // Refused before it was said: the answer is there.
        Ok(_) | Err(Errno::EPIPE) => {}
        Err(errno) => return Err(failed(&errno.desc())),
    }
    let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if nix::poll::poll(&mut fds, limit) == Ok(0) {
        return Err(failed(&format!(
            "no answer within {} seconds",
            PATIENCE.as_secs()
        )));
    }
    let mut answer = [0; protocol::ANSWER_MAX];
    let mut hear = || recv(connection.as_raw_fd(), &mut answer, MsgFlags::empty());
    let count = match hear() {
        // It was refused, and our word not read: that is told once, and then the answer.
        Err(Errno::ECONNRESET) => hear(),
        heard => heard,
    }
    .map_err(|errno| failed(&errno.desc()))?;
    let answer = answer.get(..count).unwrap_or_default();
    if let Some(path) = answer.strip_prefix(protocol::YES) {
        return Ok(OsStr::from_bytes(path).into());
    }
    let why = match answer.strip_prefix(protocol::NO) {
        Some(why) => printable(&String::from_utf8_lossy(why)),
        None => "the service ended without an answer; its log says more".to_owned(),
    };
    Err(format!("the views of this domain were not laid: {why}"))
}

/// One line, whatever it holds.
fn printable(text: &str) -> String {
    let shown = |one: char| match one.is_control() {
        true => one.escape_default().to_string(),
        false => one.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Closed by exec: the emulator gets no descriptor of ours.
fn connected() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // Also how long connect(2) waits while others queue before us.
    let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    setsockopt(
        &connection,
        sockopt::SendTimeout,
        &TimeVal::seconds(seconds),
    )?;
    connect(connection.as_raw_fd(), &UnixAddr::new(protocol::SOCKET)?)?;
    Ok(connection)
}

/// Every directory whose owners are the guest's is a view, as this process sees it.
fn verify(shares: &[Share]) -> Result<(), String> {
    for share in shares.iter().filter(|share| share.passthrough) {
        let Some(path) = &share.path else {
            return Err("a local file server without a path".to_owned());
        };
        let found =
            rustix::fs::statfs(path).map_err(|errno| format!("{}: {errno}", path.display()))?;
        if found.f_type != FUSE_SUPER_MAGIC {
            return Err(format!(
                "{} has no view: name it in the domain's file (virtfs-mediator libvirt enable)",
                path.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str]) -> Vec<Share> {
        shares(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn view(path: &str) -> Share {
        Share {
            path: Some(path.into()),
            passthrough: true,
        }
    }

    #[test]
    fn local_file_servers_are_found_however_they_are_spelt() {
        for words in [
            &[
                "-fsdev",
                "local,security_model=passthrough,id=fs0,path=/srv/a",
            ][..],
            &[
                "--fsdev",
                "fsdriver=local,path=/srv/a,security_model=passthrough",
            ],
            &[
                "-M",
                "q35",
                "-virtfs",
                "local,path=/srv/a,mount_tag=t,security_model=passthrough",
            ],
        ] {
            assert_eq!(found(words), [view("/srv/a")], "{words:?}");
        }
        let comma = found(&["-fsdev", "local,path=/a,,b,,,security_model=passthrough"]);
        assert_eq!(comma, [view("/a,b,")]);
        let mapped = found(&["-fsdev", "local,path=/a,security_model=mapped-xattr"]);
        assert!(!mapped[0].passthrough);
        assert_eq!(found(&["-readconfig", "x"]).len(), 1);
    }

    #[test]
    fn probes_and_other_file_servers_are_passed_through() {
        assert_eq!(
            found(&["-S", "-no-user-config", "-M", "none", "-qmp", "stdio"]),
            []
        );
        assert_eq!(found(&["-fsdev", "synth,id=local"]), []);
        assert_eq!(found(&["-name", "fsdev", "local,path=/x"]), []);
        assert_eq!(found(&["-fsdev"]), []);
    }

    #[test]
    fn emulator_is_found_by_name_and_never_by_a_path_of_the_callers() {
        let shell = find(OsStr::new("/somewhere/env")).unwrap();
        assert_eq!(shell, Path::new("/usr/bin/env"));
        for none in ["no-such-emulator", "/usr/bin/", "..", ""] {
            assert!(find(OsStr::new(none)).is_err(), "{none}");
        }
    }
}
