//! `virtfs-mediator-qemu`: what a libvirt domain's `<emulator>` names, by a link that is called as the
//! emulator is.
//!
//! With an `-fsdev local` or `-virtfs local` on its command line it asks the service for its views
//! and becomes the emulator that the answer names, or nothing. It gives the emulator each view by a
//! descriptor in the place of its path: what was looked at is what is shared, whoever renames what lies
//! above it meanwhile. Without a share (libvirt asks an emulator what it can do) it becomes the emulator
//! at once. It has no power of its own, and can give none:
//! whether views are laid is the service's to decide, by who asks.

#![allow(
    clippy::print_stderr,
    reason = "libvirt shows what a program says on stderr before it ends"
)]

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
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
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};

#[path = "../serve/protocol.rs"]
mod protocol;

/// How long the service may take for all: a view answers within a second, on a busy host later.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let mut words: Vec<OsString> = words.collect();
    let shares = shares(&words);
    let emulator = if shares.is_empty() {
        find(&called)
    } else {
        attach().and_then(|given| pin(&mut words, &shares, &given.views).map(|()| given.emulator))
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
    /// Which word says so.
    at: usize,
    /// What that says, option by option.
    options: Vec<Vec<u8>>,
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
            (b"fsdev" | b"virtfs", Some(value)) => found.extend(share(at + 1, value)),
            (b"readconfig", _) => found.push(Share {
                at,
                options: Vec::new(),
                path: None,
                passthrough: false,
            }),
            _ => {}
        }
    }
    found
}

/// One `-fsdev`: `local,path=...,security_model=...`, where `,,` is a comma.
fn share(at: usize, value: &[u8]) -> Option<Share> {
    let options = split(value);
    let get = |key: &[u8]| {
        options.iter().rev().find_map(|option| {
            let rest = option.strip_prefix(key)?;
            rest.strip_prefix(b"=")
        })
    };
    let driver = get(b"fsdriver").or_else(|| options.first().map(Vec::as_slice));
    if driver != Some(b"local") {
        return None;
    }
    let path = get(b"path").map(|path| OsStr::from_bytes(path).into());
    let passthrough = get(b"security_model") == Some(b"passthrough");
    Some(Share {
        at,
        path,
        passthrough,
        options,
    })
}

impl Share {
    /// The word with another path in it.
    fn with_path(&self, path: &str) -> OsString {
        let mut word = Vec::new();
        for (at, option) in self.options.iter().enumerate() {
            if at > 0 {
                word.push(b',');
            }
            if option.starts_with(b"path=") {
                word.extend(b"path=");
                word.extend(path.bytes());
                continue;
            }
            for byte in option {
                word.push(*byte);
                if *byte == b',' {
                    word.push(b',');
                }
            }
        }
        OsString::from_vec(word)
    }
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
    protocol::EMULATOR_HOMES
        .iter()
        .map(|place| Path::new(place).join(name))
        // Not ourselves, for ever.
        .find(|path| path.is_file() && identity(path) != own)
        .ok_or_else(|| {
            format!(
                "no emulator '{}' in {}: call it by a link that is named as the emulator is, such as \
                 /usr/lib/virtfs-mediator/emulators/qemu-system-x86_64",
                name.display(),
                protocol::EMULATOR_HOMES.join(", ")
            )
        })
}

/// What the service gave.
struct Given {
    emulator: PathBuf,
    /// The id of each view's mount, and the path that it was laid over.
    views: Vec<(u64, PathBuf)>,
}

impl Given {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == 0);
        let emulator = OsStr::from_bytes(parts.next()?).into();
        let view = |part: &[u8]| {
            let space = part.iter().position(|byte| *byte == b' ')?;
            let (mount, path) = (part.get(..space)?, part.get(space + 1..)?);
            let mount = std::str::from_utf8(mount).ok()?.parse().ok()?;
            Some((mount, OsStr::from_bytes(path).into()))
        };
        let views = parts.map(view).collect::<Option<_>>()?;
        Some(Self { emulator, views })
    }
}

/// Asks for our views, and waits until they are there.
fn attach() -> Result<Given, String> {
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
    let mut answer = vec![0; protocol::ANSWER_MAX];
    let mut hear = || recv(connection.as_raw_fd(), &mut answer, MsgFlags::empty());
    let count = match hear() {
        // It was refused, and our word not read: that is told once, and then the answer.
        Err(Errno::ECONNRESET) => hear(),
        heard => heard,
    }
    .map_err(|errno| failed(&errno.desc()))?;
    let answer = answer.get(..count).unwrap_or_default();
    if let Some(given) = answer.strip_prefix(protocol::YES) {
        return Given::parse(given).ok_or_else(|| failed(&"what it answered is not understood"));
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

/// Every directory whose owners are the guest's is the view that was laid over it, and is given to the
/// emulator by a descriptor: by its path it would be looked up anew, and whoever may rename a
/// directory above it could lead that elsewhere by then.
fn pin(words: &mut [OsString], shares: &[Share], views: &[(u64, PathBuf)]) -> Result<(), String> {
    for share in shares.iter().filter(|share| share.passthrough) {
        let Some(path) = &share.path else {
            return Err("a local file server without a path".to_owned());
        };
        let view = open_view(path, views)?;
        if let Some(word) = words.get_mut(share.at) {
            // Of the process that opens it: the emulator. It stays open over exec.
            *word = share.with_path(&format!("/proc/self/fd/{}", view.into_raw_fd()));
        }
    }
    Ok(())
}

/// The root of a view's own mount, or nothing.
fn open_view(path: &Path, views: &[(u64, PathBuf)]) -> Result<OwnedFd, String> {
    let shown = path.display();
    let none = || {
        format!(
            "{shown} has no view: name it in the domain's file (virtfs-mediator libvirt enable)"
        )
    };
    // As paths, so that a slash at the end makes no difference.
    let (mount, _) = views
        .iter()
        .find(|(_, laid)| laid == path)
        .ok_or_else(none)?;
    let fd = rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|errno| format!("openat2({shown}, no symlinks): {errno}"))?;
    // Asks the kernel alone: no attribute is wanted that the view would have to tell.
    let found = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(|errno| format!("statx({shown}): {errno}"))?;
    let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    if found.stx_mnt_id == *mount && is_root {
        return Ok(fd);
    }
    Err(format!(
        "{shown} does not lead to its view: somebody has renamed or mounted something in the way"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str]) -> Vec<Share> {
        shares(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn paths(words: &[&str]) -> Vec<PathBuf> {
        let all = found(words).into_iter();
        all.filter(|share| share.passthrough)
            .filter_map(|share| share.path)
            .collect()
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
            assert_eq!(paths(words), [Path::new("/srv/a")], "{words:?}");
        }
        let comma = "local,path=/a,,b,,,security_model=passthrough";
        assert_eq!(paths(&["-fsdev", comma]), [Path::new("/a,b,")]);
        let mapped = found(&["-fsdev", "local,path=/a,security_model=mapped-xattr"]);
        assert!(!mapped[0].passthrough);
        assert_eq!(found(&["-readconfig", "x"]).len(), 1);
    }

    /// As QEMU reads it: the last of several counts, and `,,` is a comma.
    #[test]
    fn word_of_a_share_keeps_all_but_its_path() {
        for (word, then) in [
            (
                "local,security_model=passthrough,id=fs0,path=/srv/a",
                "local,security_model=passthrough,id=fs0,path=/proc/self/fd/7",
            ),
            (
                "local,path=/a,,b,id=x,,y,path=/c,security_model=passthrough,fmode=0644",
                "local,path=/proc/self/fd/7,id=x,,y,path=/proc/self/fd/7,\
                 security_model=passthrough,fmode=0644",
            ),
        ] {
            let share = &found(&["-a", "-fsdev", word])[0];
            assert_eq!(share.at, 2);
            assert_eq!(share.with_path("/proc/self/fd/7"), then);
        }
    }

    #[test]
    fn answer_names_the_emulator_and_each_view() {
        let given = Given::parse(b"/usr/bin/qemu x\x0012 /srv/a b\x007 /srv/c").unwrap();
        assert_eq!(given.emulator, Path::new("/usr/bin/qemu x"));
        let views = [(12, PathBuf::from("/srv/a b")), (7, "/srv/c".into())];
        assert_eq!(given.views, views);
        assert!(Given::parse(b"/q").unwrap().views.is_empty());
        for bad in [&b"/q\0"[..], b"/q\0/srv", b"/q\0x /srv", b"/q\0-1 /srv"] {
            assert!(Given::parse(bad).is_none(), "{bad:?}");
        }
    }

    /// A directory of that path that is no view, a view of another path, or a link to one.
    #[test]
    fn what_is_not_the_view_of_that_path_is_not_opened() {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = |point: &str| {
            let lines = table.lines().rev().map(|line| line.split(' '));
            let mut own = lines.filter(|line| line.clone().nth(4) == Some(point));
            let id = own.next().and_then(|mut line| line.next());
            id.unwrap().parse::<u64>().unwrap()
        };
        let laid = |id, path: &str| vec![(id, PathBuf::from(path))];
        assert!(open_view(Path::new("/proc/"), &laid(mount("/proc"), "/proc")).is_ok());
        for (path, views, why) in [
            ("/proc", laid(mount("/proc"), "/sys"), "has no view"),
            ("/proc", laid(mount("/sys"), "/proc"), "does not lead"),
            (
                "/proc/sys",
                laid(mount("/proc"), "/proc/sys"),
                "does not lead",
            ),
            ("/proc/self", laid(mount("/proc"), "/proc/self"), "openat2"),
            (
                "/proc/self/root",
                laid(mount("/"), "/proc/self/root"),
                "openat2",
            ),
        ] {
            let told = open_view(Path::new(path), &views).unwrap_err();
            assert!(told.contains(why), "{path}: {told}");
        }
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
