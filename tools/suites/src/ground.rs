//! The disk that all of it happens on: an ext4 of its own, in memory, in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::error::{Error, Result, at, step};

/// Octets of the disk; it takes only what is written to it.
const SIZE: u64 = 8 << 30;

/// mount(8) without mount.fuse, which would start the server anew where pjdfstest remounts.
const MOUNT: &str = "#!/bin/sh
exec /usr/bin/mount -i \"$@\"
";

/// Unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    // Unmounted by `drop` before its directory goes.
    directory: TempDir,
}

impl Ground {
    /// Makes one below `parent`, which every user must be able to search. What is mounted from here
    /// on is seen by this process and its children alone, and goes with the last of them.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        own_mounts()?;
        let directory = tempfile::Builder::new()
            .prefix("virtfs-suites-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(at("making a directory in", parent))?;
        let ground = Self { directory };
        let root = ground.root();
        fs::create_dir(&root).map_err(at("making", &root))?;
        mount_disk(&root)?;
        set_mode(&root, 0o755)?;
        // Where a plain user may execute what this is: where it lies, that user may not get at it.
        let own = std::env::current_exe().map_err(step("finding this program"))?;
        fs::copy(own, ground.walker()).map_err(at("copying this program to", &ground.walker()))?;
        set_mode(&ground.walker(), 0o755)?;
        let shim = ground.programs().join("mount");
        fs::create_dir(ground.programs()).map_err(at("making", &ground.programs()))?;
        fs::write(&shim, MOUNT).map_err(at("writing", &shim))?;
        set_mode(&shim, 0o755)?;
        Ok(ground)
    }

    /// Programs that take the place of the host's.
    pub(crate) fn programs(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// The root directory of the disk.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// On another disk than that: what a rename cannot reach.
    pub(crate) fn elsewhere(&self) -> &Path {
        self.directory.path()
    }

    /// This program, where everyone may execute it.
    pub(crate) fn walker(&self) -> PathBuf {
        self.directory.path().join("walker")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // In this process' own namespace: it goes with the process in any case.
        let _left = umount2(&self.root(), MntFlags::MNT_DETACH);
    }
}

/// Mounts an empty ext4 on a directory. Its loop device goes with the mount, and the file, which has no
/// name then, with both.
pub(crate) fn mount_disk(on: &Path) -> Result<()> {
    let image = tempfile::Builder::new()
        .prefix("virtfs-suites-")
        .tempfile_in("/dev/shm")
        .map_err(step("making a file in /dev/shm"))?;
    let resized = image.as_file().set_len(SIZE);
    resized.map_err(at("resizing", image.path()))?;
    // Values of 64 KiB need inodes of their own.
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-i", "8192", "-O", "ea_inode"])
        .arg(image.path()))?;
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(image.path())
        .arg(on))?;
    // In no view, and closed to a plain user's walk.
    let lost = on.join("lost+found");
    fs::remove_dir(&lost).map_err(at("removing", &lost))
}

fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("making a mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(step("making mounts private"))
}

/// chmod.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at("chmod of", path))
}

/// Runs a program that has to succeed; its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(step(format!("running {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Other {
        who: name,
        what: said.trim().to_owned(),
    })
}
