//! A plain FUSE mount for a client, to show what any FUSE server meets: libfuse's own example
//! `passthrough_ll`, run by root, which `tools/guest/build --plainfuse` compiles. Packaged servers
//! such as bindfs mount with `default_permissions`, where the kernel judges instead.
//!
//! We mount and hand the descriptor over, as libfuse 3 takes it (`/dev/fd/N`): the mount is the
//! client's alone and is gone with this process's mount namespace.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};

use super::Error;
use super::workspace::Client;

/// Mounts `source` at `at` for the client alone, runs `command` as the client, ends the server.
///
/// # Errors
/// A mount that is refused or a program that cannot be started.
pub fn run(
    server: &Path,
    source: &Path,
    at: &Path,
    client: Client,
    command: &[String],
) -> Result<ExitStatus, Error> {
    std::fs::create_dir_all(at).map_err(Error::io(format!("{}", at.display())))?;
    // Without O_CLOEXEC: the server inherits it.
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
    let mut serving = Command::new("setpriv")
        .args(["--pdeathsig=KILL", "--"])
        .arg(server)
        .arg("-f")
        .args([
            "-o",
            &format!("xattr,cache=never,source={}", source.display()),
        ])
        .arg(format!("/dev/fd/{}", device.as_raw_fd()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io(server.display().to_string()))?;
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
    let _ = serving.kill();
    let _ = serving.wait();
    status
}
