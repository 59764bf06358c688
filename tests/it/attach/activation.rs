//! The service as systemd starts it, and what it says where it cannot begin.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use crate::attach::lab::{Domain, Lab};
use crate::attach::peers::Start;
use crate::common::{Export, code, ours, stderr};

/// As `sd_listen_fds(3)` says: the first descriptor is 3.
const ACTIVATED: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";

fn listening(kind: SockType, path: &std::path::Path) -> OwnedFd {
    use std::os::fd::AsRawFd as _;
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(16).unwrap()).unwrap();
    fd
}

#[test]
fn socket_that_systemd_hands_over_is_served_and_readiness_told() {
    let (mut lab, export) = (Lab::new(), Export::new());
    let path = lab.path("/run/virtfs-mediator-attach.sock");
    let socket = listening(SockType::SeqPacket, &path);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let notified = UnixDatagram::bind(lab.path("/run/notify")).unwrap();
    notified
        .set_read_timeout(Some(crate::common::LIMIT))
        .unwrap();
    lab.serve_by(|command| {
        command
            .env("NOTIFY_SOCKET", "/run/notify")
            .stdin(Stdio::from(socket));
        ACTIVATED
    });
    let mut told = [0; 64];
    let count = notified.recv(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..count]);
    assert_eq!(told.lines().next(), Some("READY=1"), "{told}");
    let domain = Domain::new("activated", [&export]);
    lab.arm(&domain);
    let mut peer = Start::of(&domain).spawn(&lab);
    peer.ready();
    assert!(peer.sees_view(export.path()));
    // The socket is systemd's: it stays, and the next one takes over.
    lab.crash_service();
    assert!(path.exists());
}

#[test]
fn socket_of_the_wrong_kind_or_taken_is_refused() {
    let lab = Lab::serving();
    let taken = lab.ours(&["serve"]);
    assert_eq!(code(taken.status), 78);
    assert!(
        stderr(&taken).contains("a service listens there already"),
        "{}",
        stderr(&taken)
    );

    std::fs::write(lab.path("/run/file"), "").unwrap();
    let file = lab.ours(&["serve", "--socket", "/run/file"]);
    assert!(
        stderr(&file).contains("something else is there"),
        "{}",
        stderr(&file)
    );
    assert!(lab.path("/run/file").exists());

    let stream = listening(SockType::Stream, &lab.path("/run/stream.sock"));
    let output = lab
        .command("sh")
        .args(["-c", ACTIVATED, "sh", crate::common::program(), "serve"])
        .stdin(Stdio::from(stream))
        .output()
        .unwrap();
    assert_eq!(code(output.status), 64);
    assert!(
        stderr(&output).contains("ListenSequentialPacket="),
        "{}",
        stderr(&output)
    );
}

#[test]
fn attach_without_what_the_service_hands_over_is_refused() {
    let output = ours(["attach", "--peer", "77", "--connection", "78", "web"]);
    assert_eq!(code(output.status), 64);
    assert!(
        stderr(&output).contains("descriptor 77 is not open"),
        "{}",
        stderr(&output)
    );
}
