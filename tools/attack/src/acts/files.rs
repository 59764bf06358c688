//! What can be done with the export's own files, and with sockets that others listen on.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::{Act, Outcome, Scene, read, read_at, unprepared};
use crate::raw::{self, number, pointer, text};
use crate::task::{Failure, Gain};

/// What `d/canary` holds inside the export, where `d` is a directory.
pub(crate) const INNOCENT: &[u8] = b"innocent";

pub(super) const ACTS: &[(&str, Act)] = &[
    ("follow", follow),
    ("device", device),
    ("log-setuid", log_setuid),
    ("exec", exec),
    ("exec-regain", exec_regain),
    ("setuid-root", setuid_root),
    ("file-capability", file_capability),
    ("read-roots", read_roots),
    ("connect-inet", connect_inet),
    ("connect-path", connect_path),
    ("connect-abstract", connect_abstract),
];

/// How long a race goes on that has met no link.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a file server does that opens by path and follows links, while `d` is swapped for one.
fn follow(scene: &Scene) -> Outcome {
    let (mut rounds, mut own, mut last) = (0_u64, 0_u64, Errno::UnknownErrno);
    scene.begin();
    let start = Instant::now();
    // Longer on a machine so busy that no link was met.
    while rounds < scene.task.rounds || (own == rounds && start.elapsed() < PATIENCE) {
        rounds += 1;
        match read_at(&scene.root, "d/canary") {
            Ok(Gain::Bytes(bytes)) if bytes == INNOCENT => own += 1,
            Ok(gain) => return Ok(gain),
            Err(Failure::Errno(errno)) => last = errno,
            Err(why) => return Err(why),
        }
    }
    if own == rounds {
        return Err(Failure::Unprepared("no link was ever met".to_owned()));
    }
    Err(Failure::Nothing(format!(
        "{last:?}: {rounds} opened by name, {own} led to the export's own file, the links nowhere"
    )))
}

/// A device that lies in the export already: /dev/zero's, which harms nobody.
fn device(scene: &Scene) -> Outcome {
    scene.begin();
    let fd = rustix::fs::openat(&scene.root, "zero", OFlags::RDONLY, Mode::empty())?;
    match read(fd)? {
        Gain::Bytes(bytes) if bytes.len() == 256 && bytes.iter().all(|byte| *byte == 0) => {
            Ok(Gain::Effect("the device was opened and read".to_owned()))
        }
        gain @ (Gain::Bytes(_) | Gain::Effect(_)) => Err(Failure::Nothing(format!("{gain:?}"))),
    }
}

/// A program that a guest or client has put into the export.
fn exec(scene: &Scene) -> Outcome {
    execute(
        scene,
        c"echo 'virtfs-attack: did ran a program of the export' >&2",
    )
}

/// uid 0 gets every capability of the bounding set back by executing anything (capabilities(7)):
/// setting the host name, in a UTS namespace of its own, shows it.
fn exec_regain(scene: &Scene) -> Outcome {
    execute(
        scene,
        c"if /busybox hostname attacked; \
          then echo 'virtfs-attack: did got CAP_SYS_ADMIN back' >&2; \
          else echo 'virtfs-attack: errno 1' >&2; fi",
    )
}

fn execute(scene: &Scene, script: &'static CStr) -> Outcome {
    let root = raw::descriptor(&scene.root);
    let arguments = [text(c"busybox"), text(c"sh"), text(c"-c"), text(script), 0];
    let environment = [0 as libc::c_long];
    let program = text(c"busybox");
    let (argv, envp) = (pointer(&arguments), pointer(&environment));
    scene.begin();
    raw::call(libc::SYS_execveat, [root, program, argv, envp, 0, 0])?;
    Err(Failure::Nothing("execveat returned".to_owned()))
}

/// A program of root's that gives root's rights to whoever runs it on the host.
fn setuid_root(scene: &Scene) -> Outcome {
    let create = OFlags::CREATE | OFlags::WRONLY;
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::openat(&scene.root, "planted", create, mode).map_err(unprepared("openat"))?;
    scene.begin();
    let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
    rustix::fs::chownat(&scene.root, "planted", uid, gid, AtFlags::empty())?;
    let mode = Mode::from_raw_mode(0o4755);
    rustix::fs::chmodat(&scene.root, "planted", mode, AtFlags::empty())?;
    Ok(Gain::Effect("a set-user-id program of root's".to_owned()))
}

/// A program that gives a capability to whoever runs it on the host: CAP_SETUID, version 2.
fn file_capability(scene: &Scene) -> Outcome {
    let create = OFlags::CREATE | OFlags::WRONLY;
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::openat(&scene.root, "planted", create, mode).map_err(unprepared("openat"))?;
    // By path, since the product's mediator has the export as its root directory as well.
    let value = [0x0200_0001_u32, 1 << 7, 0, 0, 0];
    let (path, name) = (text(c"/planted"), text(c"security.capability"));
    scene.begin();
    raw::call(libc::SYS_setxattr, [path, name, pointer(&value), 20, 0, 0])?;
    Ok(Gain::Effect("a program with CAP_SETUID".to_owned()))
}

/// A file of root's inside the export that nobody else may read.
fn read_roots(scene: &Scene) -> Outcome {
    scene.begin();
    read_at(&scene.root, "roots")
}

fn connect(family: libc::c_int, address: &[u8]) -> Outcome {
    let kind = number(libc::SOCK_STREAM);
    let socket = raw::open(libc::SYS_socket, [number(family), kind, 0, 0, 0, 0])?;
    let size = libc::c_long::try_from(address.len()).map_err(unprepared("address"))?;
    let arguments = [raw::descriptor(&socket), pointer(address), size, 0, 0, 0];
    raw::call(libc::SYS_connect, arguments)?;
    Ok(Gain::Effect("connected".to_owned()))
}

fn family(family: libc::c_int) -> Vec<u8> {
    u16::try_from(family)
        .unwrap_or_default()
        .to_ne_bytes()
        .to_vec()
}

/// A service of the host on 127.0.0.1.
fn connect_inet(scene: &Scene) -> Outcome {
    let mut address = family(libc::AF_INET);
    address.extend(scene.task.port.to_be_bytes());
    address.extend([127, 0, 0, 1]);
    address.extend([0; 8]);
    scene.begin();
    connect(libc::AF_INET, &address)
}

/// A service of the host whose socket lies in the export.
fn connect_path(scene: &Scene) -> Outcome {
    let mut address = family(libc::AF_UNIX);
    address.extend(b"/service.sock\0");
    scene.begin();
    connect(libc::AF_UNIX, &address)
}

/// A service of the host with an abstract name.
fn connect_abstract(scene: &Scene) -> Outcome {
    let mut address = family(libc::AF_UNIX);
    address.push(0);
    address.extend(scene.task.outside.as_os_str().as_bytes());
    scene.begin();
    connect(libc::AF_UNIX, &address)
}

/// The file that standard error is, outside of the export: written anew from its start, and made a
/// set-user-id program of its owner's, who is root.
fn log_setuid(scene: &Scene) -> Outcome {
    let mode = Mode::from_raw_mode(0o4755);
    scene.begin();
    raw::call(libc::SYS_pwrite64, [2, text(c"#!"), 2, 0, 0, 0])?;
    // After the write, which clears it. Most of the first line has been written over: again.
    rustix::fs::chmodat(&scene.proc_fd, "2", mode, AtFlags::empty())?;
    scene.begin();
    let flags = rustix::fs::StatxFlags::BASIC_STATS;
    let stat = rustix::fs::statx(rustix::stdio::stderr(), c"", AtFlags::EMPTY_PATH, flags)?;
    let (mode, uid) = (stat.stx_mode, stat.stx_uid);
    Ok(Gain::Effect(format!(
        "its first bytes are ours, its mode {mode:o}, its owner {uid}"
    )))
}
