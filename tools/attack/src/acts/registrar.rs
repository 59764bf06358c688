//! What a registrar could be made to register for a mediator that is broken into.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use virtfs_mediator_core::backing::protocol::{Question, answer, parse_answer};

use super::{Act, Outcome, Scene, unprepared};
use crate::task::{Failure, Gain};

pub(super) const ACTS: &[(&str, Act)] = &[("registrar", registrar)];

/// How many questions are asked at once.
const FLOOD: usize = 64;

/// Everything but a question with one regular file of the export's, then one of those.
fn registrar(scene: &Scene) -> Outcome {
    let missing = || Failure::Unprepared("there is no registrar".to_owned());
    let (socket, device) = scene.registrar.as_ref().ok_or_else(missing)?;
    agree(device)?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&scene.root, "file", flags, Mode::RUSR | Mode::WUSR)
        .map_err(unprepared("openat(file)"))?;
    let by_name = OFlags::PATH | OFlags::CLOEXEC;
    let by_name = rustix::fs::openat(&scene.root, "file", by_name, Mode::empty())
        .map_err(unprepared("openat(file, O_PATH)"))?;
    let directory = scene.directory()?;
    let log = rustix::stdio::stderr();
    // A file that may be registered is: what follows is refused for what it is.
    let first = registered(socket, &Question::Open.to_bytes(), &[file.as_fd()]);
    let first = first.map_err(unprepared("a file of the export"))?;
    scene.begin();
    let open = Question::Open.to_bytes();
    let close = Question::Close(first).to_bytes();
    let long = [1; 4096];
    let tries: [(&str, &[u8], &[BorrowedFd<'_>]); 12] = [
        ("a directory", &open, &[directory.as_fd()]),
        ("a file opened by name only", &open, &[by_name.as_fd()]),
        ("the registrar's own socket", &open, &[socket.as_fd()]),
        ("a pipe", &open, &[log]),
        ("the FUSE device", &open, &[device.as_fd()]),
        (
            "the export's root, by name only",
            &open,
            &[scene.root.as_fd()],
        ),
        ("procfs", &open, &[scene.proc_fd.as_fd()]),
        ("two files", &open, &[file.as_fd(), file.as_fd()]),
        ("no file", &open, &[]),
        ("a close with a file", &close, &[file.as_fd()]),
        ("a question cut off", &open[..3], &[file.as_fd()]),
        ("a question without end", &long, &[file.as_fd()]),
    ];
    for (what, bytes, files) in tries {
        if registered(socket, bytes, files).is_ok() {
            return Ok(Gain::Effect(format!("{what} was registered")));
        }
    }
    // Ids of nobody's: no answer, and the one that is ours stays.
    for id in (1000..2000).chain([0, u32::MAX]) {
        tell(socket, &Question::Close(id).to_bytes(), &[])?;
    }
    for _ in 0..FLOOD {
        tell(socket, &answer(Ok(1)), &[by_name.as_fd()])?;
    }
    for _ in 0..FLOOD {
        if heard(socket).is_ok() {
            return Ok(Gain::Effect(
                "an answer was taken for a question".to_owned(),
            ));
        }
    }
    match registered(socket, &open, &[file.as_fd()]) {
        Ok(_) => Err(Failure::Nothing(
            "each is refused, and it goes on".to_owned(),
        )),
        Err(errno) => Err(Failure::Nothing(format!("each is refused; then {errno}"))),
    }
}

/// Takes the kernel's offer of passthrough (`fuse_init_out`, include/uapi/linux/fuse.h), without which
/// it registers nothing.
fn agree(device: &OwnedFd) -> Result<(), Failure> {
    const INIT_EXT: u32 = 1 << 30;
    let mut init = [0; 1 << 14];
    rustix::io::read(device, &mut init).map_err(unprepared("read(/dev/fuse)"))?;
    let unique = init.get(8..16).unwrap_or_default().to_vec();
    let mut reply = [0_u8; 80];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in reply.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &80_u32.to_ne_bytes());
    put(8, &unique);
    put(16, &7_u32.to_ne_bytes());
    put(20, &41_u32.to_ne_bytes());
    put(28, &INIT_EXT.to_ne_bytes());
    put(36, &(1_u32 << 20).to_ne_bytes());
    put(40, &1_u32.to_ne_bytes());
    // flags2: passthrough is bit 37; max_stack_depth.
    put(48, &(1_u32 << 5).to_ne_bytes());
    put(52, &2_u32.to_ne_bytes());
    let written = nix::sys::uio::writev(device, &[IoSlice::new(&reply)]);
    written.map(drop).map_err(unprepared("write(/dev/fuse)"))
}

fn registered(socket: &OwnedFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<u32, Errno> {
    tell(socket, bytes, files)?;
    heard(socket)
}

fn heard(socket: &OwnedFd) -> Result<u32, Errno> {
    let mut told = [0; 64];
    let length = rustix::io::read(socket, &mut told)?;
    let told = told.get(..length).and_then(parse_answer);
    told.ok_or(Errno::PROTO)?.map_err(Errno::from_raw_os_error)
}

fn tell(socket: &OwnedFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::MSGSIZE);
    }
    let parts = [IoSlice::new(bytes)];
    sendmsg(socket, &parts, &mut rights, SendFlags::NOSIGNAL).map(drop)
}
