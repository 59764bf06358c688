//! A plain FUSE mount for a client, to show what any FUSE server meets.
//!
//! bindfs would mount with `default_permissions`; so we mount and hand it the descriptor, as
//! libfuse 3 takes it (`/dev/fd/N`). Runs in a mount namespace of its own, with a `/dev` of its
//! own: bindfs resolves its mount point first, and only where `/dev/fd/N` is a real directory
//! does that leave the name that libfuse knows.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::mount::{MountFlags, mount};

use super::Error;
use super::workspace::Client;

/// Mounts `source` at `at` for the client alone, runs `command` as the client, ends bindfs.
///
/// # Errors
/// A mount that is refused or a program that cannot be started.
pub fn run(
    source: &Path,
    at: &Path,
    client: Client,
    command: &[String],
) -> Result<ExitStatus, Error> {
    std::fs::create_dir_all(at).map_err(Error::io(format!("{}", at.display())))?;
    // Without O_CLOEXEC: bindfs inherits it.
    let device = open("/dev/fuse", OFlags::RDWR, Mode::empty())
        .map_err(|e| Error::io("/dev/fuse")(e.into()))?;
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        client.uid,
        client.gid
    );
    let options = std::ffi::CString::new(options)
        .map_err(|e| Error::io("mount options")(std::io::Error::other(e)))?;
    mount(
        "bindfs",
        at,
        "fuse.bindfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )
    .map_err(|e| Error::io(format!("mount {}", at.display()))(e.into()))?;
    let fd_dir = format!("/dev/fd/{}", device.as_raw_fd());
    mount(
        "dev",
        "/dev",
        "tmpfs",
        MountFlags::NOSUID,
        None::<&std::ffi::CStr>,
    )
    .map_err(|e| Error::io("mount a tmpfs on /dev")(e.into()))?;
    std::fs::create_dir_all(&fd_dir).map_err(Error::io(fd_dir.clone()))?;
    mknodat(
        CWD,
        "/dev/null",
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(1, 3),
    )
    .map_err(|e| Error::io("/dev/null")(e.into()))?;
    let mut server = Command::new("setpriv")
        .args(["--pdeathsig=KILL", "--", "bindfs", "-f"])
        .arg(source)
        .arg(fd_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::io("bindfs"))?;
    drop(device);
    let (program, args) = command
        .split_first()
        .ok_or_else(|| Error::io("no command")(std::io::ErrorKind::InvalidInput.into()))?;
    let status = client
        .command(program)
        .args(args)
        .status()
        .map_err(Error::io("setpriv"));
    // Its mount goes with this process's namespace.
    let _ = server.kill();
    let _ = server.wait();
    status
}
