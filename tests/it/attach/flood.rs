//! Askers that come in numbers, or bring what nobody asked for.

use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};
use rustix::process::{Gid, Uid};

use crate::attach::lab::{Domain, Lab};
use crate::attach::peers::Start;
use crate::common::{Export, LIMIT, await_that};

/// The directory of the service's socket, by which a thread without power finds it.
fn run(lab: &Lab) -> OwnedFd {
    rustix::fs::open(
        lab.path("/run"),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

/// The calling thread alone is somebody else from now on.
fn become_thread_of(uid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
}

fn connected(run: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let path = format!(
        "/proc/self/fd/{}/virtfs-mediator-attach.sock",
        run.as_raw_fd()
    );
    // The name itself may be too long for an address otherwise.
    connect(&socket, &SocketAddrUnix::new(Path::new(&path))?)?;
    Ok(socket)
}

/// Two thousand connections of a stranger, many at once, most of them silent: the domain's own QEMU
/// gets its views meanwhile, each stranger is closed, and the log stays readable.
#[test]
fn flood_of_a_stranger_stops_nobody() {
    const THREADS: usize = 20;
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("flooded", [&export]);
    lab.arm(&domain);
    let run = run(&lab);
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (run, made, stop) = (&run, &made, &stop);
            scope.spawn(move || {
                become_thread_of(61_399);
                let mut held = Vec::new();
                // Until the honest one has come through, and a hundred each at least.
                let mut count = 0;
                while count < 100 || !stop.load(Ordering::Relaxed) {
                    let Ok(socket) = connected(run) else { continue };
                    if number % 2 == 0 {
                        let _may_be_closed = rustix::io::write(&socket, b"attach 1");
                    }
                    held.push(socket);
                    if held.len() > 50 {
                        held.clear();
                    }
                    count += 1;
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        await_that(LIMIT, "the flood is there", || {
            made.load(Ordering::Relaxed) > 500
        });
        let mut peer = Start::of(&domain).spawn(&lab);
        peer.ready();
        assert!(peer.sees_view(export.path()));
        stop.store(true, Ordering::Relaxed);
    });
    let made = made.load(Ordering::Relaxed);
    assert!(made >= 2000, "{made}");
    // A few are told one by one, the others by their number.
    lab.logged("of 61399:61399: no domain with its user is about to start");
    lab.logged("more of uid 61399");
}

/// Silent connections of the domain's own user take no turn from its QEMU for longer than they may.
#[test]
fn silent_connections_of_the_domains_user_are_few_and_short() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("silent", [&export]);
    lab.arm(&domain);
    let run = run(&lab);
    let answers = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_thread_of(domain.uid);
            let sockets: Vec<OwnedFd> = (0..50).map(|_| connected(&run).unwrap()).collect();
            // Each is answered and closed: most at once, some when their time is over.
            let answer = |socket: &OwnedFd| {
                let mut text = [0; 256];
                let (_, count) = recv(socket, &mut text[..], RecvFlags::empty()).unwrap();
                String::from_utf8_lossy(&text[..count]).into_owned()
            };
            sockets.iter().map(answer).collect::<Vec<_>>()
        });
        thread.join().unwrap()
    });
    let slow = answers
        .iter()
        .filter(|answer| *answer == "no too slow")
        .count();
    let many = answers
        .iter()
        .filter(|answer| answer.contains("too many"))
        .count();
    assert_eq!((slow, many), (4, 46), "{answers:?}");
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
}

/// Descriptors that come with a message stay nobody's.
#[test]
fn descriptors_that_an_asker_sends_are_not_taken() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("sent", [&export]);
    lab.arm(&domain);
    let run = run(&lab);
    let service = lab.service();
    let open = || {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", service.pid)).unwrap();
        listed.count()
    };
    let before = open();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"x").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            become_thread_of(domain.uid);
            for _ in 0..20 {
                let socket = connected(&run).unwrap();
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [file.as_fd()];
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
                let word = [IoSlice::new(b"attach 0")];
                sendmsg(&socket, &word, &mut control, SendFlags::NOSIGNAL).unwrap();
                let mut text = [0; 256];
                let (_, count) = recv(&socket, &mut text[..], RecvFlags::empty()).unwrap();
                assert!(text[..count].starts_with(b"no "));
            }
        });
    });
    lab.logged("no word of the protocol");
    await_that(LIMIT, "the service holds no more than before", || {
        open() <= before
    });
}
