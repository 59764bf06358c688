//! What a registrar takes, gives and refuses, over a socket as a mediator has it.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::*;

/// A connection that keeps nothing: ids that are out, each once.
#[derive(Default)]
struct Ids {
    next: u32,
    out: Vec<u32>,
}

impl Kernel for Ids {
    fn open(&mut self, _file: BorrowedFd<'_>) -> std::result::Result<u32, Errno> {
        self.next += 1;
        self.out.push(self.next);
        Ok(self.next)
    }

    fn close(&mut self, id: u32) {
        self.out.retain(|out| *out != id);
    }
}

/// Asks all of it, one after the other, and hangs up; the answers, and what is still out.
fn told(asked: &[(&[u8], &[RawFd])], mount: u64) -> (Vec<std::result::Result<u32, i32>>, Vec<u32>) {
    let (ours, theirs) = channel().unwrap();
    for (bytes, files) in asked {
        let rights = [ControlMessage::ScmRights(files)];
        let rights = if files.is_empty() {
            &rights[..0]
        } else {
            &rights
        };
        let parts = [std::io::IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(ours.as_raw_fd(), &parts, rights, flags, None).unwrap();
    }
    rustix::net::shutdown(&ours, rustix::net::Shutdown::Write).unwrap();
    let mut ids = Ids::default();
    serve(&theirs, &mut ids, Some(mount));
    drop(theirs);
    let mut answers = Vec::new();
    let mut bytes = [0; 64];
    while let Ok(length @ 1..) = rustix::io::read(&ours, &mut bytes) {
        answers.push(protocol::parse_answer(&bytes[..length]).unwrap());
    }
    (answers, ids.out)
}

const OPEN: [u8; QUESTION] = [1, 0, 0, 0, 0, 0, 0, 0];

fn close(id: u8) -> [u8; QUESTION] {
    [2, 0, 0, 0, id, 0, 0, 0]
}

fn mount_of(fd: &impl AsFd) -> u64 {
    look(fd.as_fd()).unwrap().1
}

#[test]
fn regular_file_of_the_export_is_registered_and_given_back() {
    assert_eq!(Question::Open.to_bytes(), OPEN);
    let file = tempfile::tempfile().unwrap();
    let fd = [file.as_raw_fd()];
    let asked: [(&[u8], &[RawFd]); 4] = [
        (&OPEN, &fd),
        (&OPEN, &fd),
        (&close(1), &[]),
        // Nobody's.
        (&close(9), &[]),
    ];
    let (answers, out) = told(&asked, mount_of(&file));
    assert_eq!(answers, [Ok(1), Ok(2)]);
    assert_eq!(out, [2]);
}

#[test]
fn what_is_no_open_regular_file_of_the_export_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = std::fs::File::open(directory.path()).unwrap();
    let mount = mount_of(&place);
    let file = std::fs::File::create(directory.path().join("file")).unwrap();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let by_name = rustix::fs::open(
        directory.path().join("file"),
        flags,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let (reading, writing) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = channel().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let elsewhere = std::fs::File::open("/proc/self/status").unwrap();
    for (what, fd, errno) in [
        ("a directory", place.as_raw_fd(), Errno::INVAL),
        ("O_PATH", by_name.as_raw_fd(), Errno::BADF),
        ("a pipe", reading.as_raw_fd(), Errno::INVAL),
        ("a pipe's other end", writing.as_raw_fd(), Errno::INVAL),
        ("a socket", socket.as_raw_fd(), Errno::INVAL),
        ("a device", null.as_raw_fd(), Errno::INVAL),
        ("another mount's", elsewhere.as_raw_fd(), Errno::XDEV),
    ] {
        let (answers, out) = told(&[(&OPEN, &[fd])], mount);
        assert_eq!(answers, [Err(errno.raw_os_error())], "{what}");
        assert!(out.is_empty(), "{what}");
    }
    let good = file.as_raw_fd();
    let nonsense = Err(Errno::INVAL.raw_os_error());
    for (what, bytes, files) in [
        ("none", &OPEN[..], &[][..]),
        ("two", &OPEN[..], &[good, good][..]),
        ("a close with one", &close(1)[..], &[good][..]),
        ("too long", &[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[good][..]),
        ("too short", &[1][..], &[good][..]),
        ("another kind", &[3, 0, 0, 0, 0, 0, 0, 0][..], &[good][..]),
        ("very long", &[1; 4096][..], &[good][..]),
    ] {
        let (answers, out) = told(&[(bytes, files), (&OPEN, &[good])], mount);
        // And it goes on.
        assert_eq!(answers, [nonsense, Ok(1)], "{what}");
        assert_eq!(out, [1], "{what}");
    }
}

#[test]
fn connection_gives_out_so_many_ids_and_takes_back_its_own_alone() {
    // No connection at all: what is asked of the kernel fails, what is refused before does not ask.
    let file = tempfile::tempfile().unwrap();
    let mut connection = Connection {
        device: file.as_fd(),
        registered: [7; IDS_MAX],
        count: IDS_MAX,
    };
    assert_eq!(connection.open(file.as_fd()), Err(Errno::MFILE));
    connection.close(8);
    assert_eq!(connection.count, IDS_MAX);
    connection.close(7);
    assert_eq!(connection.count, IDS_MAX - 1);
    assert_eq!(connection.open(file.as_fd()), Err(Errno::NOTTY));
    assert_eq!(connection.count, IDS_MAX - 1);
}
