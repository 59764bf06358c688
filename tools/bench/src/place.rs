//! The benchmark's own directory: the export, a mount point, the worker's program, logs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Error, Result, at, step};

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    // Dropped in this order: unmounted before its directory is removed.
    disk: Option<Disk>,
    directory: TempDir,
}

/// Octets of a disk in memory; it takes only what is written to it.
const DISK: u64 = 8 << 30;

/// An ext4 on a file in memory. Unmounted when dropped.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(parent: &Path) -> Result<Self> {
        let path = parent.join("disk");
        fs::create_dir(&path).map_err(at("making", &path))?;
        let image = tempfile::Builder::new()
            .prefix("virtfs-bench-")
            .tempfile_in("/dev/shm")
            .map_err(step("making a file in /dev/shm"))?;
        let resized = image.as_file().set_len(DISK);
        resized.map_err(at("resizing", image.path()))?;
        // An inode for each block: trees here are of small files.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-i", "4096"])
            .arg(image.path()))?;
        // The loop device goes with the mount, and the file, which has no name then, with both.
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image.path())
            .arg(&path))?;
        let disk = Self(path);
        set_mode(&disk.0, 0o755)?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // In this process' own namespace: it goes with the process in any case.
        let _left = nix::mount::umount(&self.0);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(step(format!("running {name}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Usage(format!("{name} failed: {}", said.trim())))
}

impl Place {
    /// Makes one below `parent`, which every user must be able to search; on a disk of its own, in
    /// memory, if so asked.
    pub(crate) fn new(parent: &Path, in_memory: bool) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("virtfs-bench-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(at("making a directory in", parent))?;
        let disk = in_memory
            .then(|| Disk::mount(directory.path()))
            .transpose()?;
        let place = Self { disk, directory };
        for (path, mode) in [(place.export(), 0o777), (place.mount_point(), 0o755)] {
            fs::create_dir(&path).map_err(at("making", &path))?;
            set_mode(&path, mode)?;
        }
        // Where this program lies, the client may not be able to reach it.
        let own = std::env::current_exe().map_err(step("finding this program"))?;
        fs::copy(own, place.worker()).map_err(at("copying this program to", &place.worker()))?;
        set_mode(&place.worker(), 0o755)?;
        Ok(place)
    }

    pub(crate) fn root(&self) -> &Path {
        let disk = self.disk.as_ref().map(|disk| disk.0.as_path());
        disk.unwrap_or(self.directory.path())
    }

    /// The directory that is shared.
    pub(crate) fn export(&self) -> PathBuf {
        self.root().join("export")
    }

    /// Where other file systems than ours are mounted.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.root().join("mount")
    }

    /// This program, where the client may execute it.
    pub(crate) fn worker(&self) -> PathBuf {
        self.root().join("worker")
    }

    /// What a contender printed.
    pub(crate) fn log(&self) -> PathBuf {
        self.root().join("log")
    }
}

/// chmod.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at("chmod of", path))
}
