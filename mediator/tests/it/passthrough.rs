//! What is said to kernel and registrar of files whose data goes past the mediator.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use virtfs_mediator_core::backing::protocol::{Question, answer};
use virtfs_mediator_core::{Cache, DataMode, ServeError};

use crate::kernel::{Body, ROOT, View, op};

const FOPEN_DIRECT_IO: u32 = 1 << 0;
const FOPEN_KEEP_CACHE: u32 = 1 << 1;
const FOPEN_PASSTHROUGH: u32 = 1 << 7;

/// Answers opens with 7, 8, ...; all that was asked, at the end.
fn registrar() -> (OwnedFd, std::thread::JoinHandle<Vec<Question>>) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let asked = std::thread::spawn(move || {
        let (mut asked, mut next) = (Vec::new(), 7);
        let mut bytes = [0; 64];
        loop {
            let (length, _) = recv(&theirs, &mut bytes, RecvFlags::empty()).unwrap();
            let Some(question) = Question::parse(&bytes[..length]) else {
                assert_eq!(length, 0, "no question");
                return asked;
            };
            asked.push(question);
            if question == Question::Open {
                send(&theirs, &answer(Ok(next)), SendFlags::NOSIGNAL).unwrap();
                next += 1;
            }
        }
    });
    (ours, asked)
}

#[test]
fn open_that_goes_past_names_its_backing_file_and_its_close_lets_go_of_it() {
    let (socket, asked) = registrar();
    let (view, init) = View::passing(DataMode::Auto, Cache::Exclusive, socket, true);
    // flags2 and max_stack_depth of fuse_init_out.
    assert_ne!(init.u32_at(32) & 1 << 5, 0);
    assert_eq!(init.u32_at(36), 2);
    std::fs::write(view.host("large"), vec![1; 64 << 10]).unwrap();
    std::fs::write(view.host("small"), "small").unwrap();
    let open = |name: &[u8]| {
        let node = view.lookup(ROOT, name).node();
        let flags = u32::try_from(libc::O_RDWR).unwrap();
        let reply = view.ask(op::OPEN, node, Body::new().u32(flags).u32(0)).ok();
        (reply.u64_at(0), reply.u32_at(8), reply.u32_at(12))
    };
    let (first, flags, id) = open(b"large");
    assert_eq!((flags & FOPEN_PASSTHROUGH, id), (FOPEN_PASSTHROUGH, 7));
    assert_eq!(flags & (FOPEN_KEEP_CACHE | FOPEN_DIRECT_IO), 0);
    let (second, _, id) = open(b"large");
    assert_eq!(id, 7);
    let (_, flags, id) = open(b"small");
    assert_eq!((flags & FOPEN_PASSTHROUGH, id), (0, 0));
    assert_ne!(flags & FOPEN_KEEP_CACHE, 0);
    for handle in [first, second] {
        let release = Body::new().u64(handle).u32(0).u32(0).u64(0);
        view.ask(op::RELEASE, 0, release);
    }
    // FUSE_NOTIFY_INVAL_INODE, each time: pages and times that writes past us made stale.
    let told = view
        .notices
        .borrow()
        .iter()
        .filter(|(code, _)| *code == 2)
        .count();
    assert_eq!(told, 2);
    assert_eq!(open(b"large").2, 8);
    view.end().unwrap();
    let asked = asked.join().unwrap();
    assert_eq!(asked, [Question::Open, Question::Close(7), Question::Open]);
}

#[test]
fn kernel_that_offers_no_passthrough_is_served_in_auto_and_an_error_where_it_must() {
    let (socket, asked) = registrar();
    let (view, init) = View::passing(DataMode::Auto, Cache::Auto, socket, false);
    assert_eq!((init.u32_at(32) & 1 << 5, init.u32_at(36)), (0, 0));
    // The registrar is not needed, and sees its end at once.
    assert_eq!(asked.join().unwrap(), []);
    view.end().unwrap();
    let (socket, _asked) = registrar();
    let (view, _) = View::passing(DataMode::Passthrough, Cache::Auto, socket, false);
    let ended = view.ended();
    assert!(matches!(&ended, Err(ServeError::Data(_))), "{ended:?}");
}
