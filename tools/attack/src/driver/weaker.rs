//! Weaker arrangements that exist: bindfs, libfuse's own example, a mount laid over a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::OrTell as _;
use super::process::{Spawned, holds_within, scratch};
use super::start::LIMIT;

/// A FUSE server, path-based or not, as root on a directory; unmounted when dropped.
pub(crate) struct Server {
    spawned: Spawned,
    mount: PathBuf,
}

impl Server {
    /// bindfs, which opens what it serves by path.
    pub(crate) fn bindfs(source: &Path, options: &[&str]) -> Result<Self, String> {
        let mut command = Command::new("bindfs");
        command.arg("-f").args(options).arg(source);
        Self::start(command)
    }

    /// libfuse's passthrough_ll, which keeps a descriptor for each inode that the kernel knows.
    pub(crate) fn passthrough_ll(source: &Path, descriptors: u32) -> Result<Self, String> {
        const EXAMPLES: &str = "/usr/share/doc/libfuse3-dev/examples";
        let dir = scratch()?;
        let program = dir.path().join("passthrough_ll");
        let mut build = Command::new("cc");
        build
            .args([
                "-O2",
                "-w",
                "-D_FILE_OFFSET_BITS=64",
                "-I/usr/include/fuse3",
            ])
            .arg(format!("{EXAMPLES}/passthrough_ll.c"))
            .args(["-lfuse3", "-o"])
            .arg(&program);
        let built = Spawned::ended(build, LIMIT)?;
        if !built.status.success() {
            return Err(format!(
                "passthrough_ll does not build (install libfuse3-dev and gcc): {}",
                built.err
            ));
        }
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}:{descriptors}"))
            .arg(&program)
            .args(["-f", "-o"])
            .arg(format!("source={},allow_other", source.display()));
        // The program is open once it runs; its file may go with `dir`.
        Self::start(command)
    }

    /// `command` is given the mount point as its last word.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        let dir = scratch()?;
        let mount = dir.path().join("mount");
        fs::create_dir(&mount).or_tell("the mount point")?;
        command.arg(&mount);
        let mut spawned = Spawned::start(command, dir, false)?;
        let shown = format!(" {} ", mount.display());
        let mounted =
            || fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| table.contains(&shown));
        let up = holds_within(LIMIT, || {
            mounted() || spawned.wait(Duration::ZERO).is_some()
        });
        let server = Self { spawned, mount };
        if up && mounted() {
            Ok(server)
        } else {
            Err(format!("it did not mount: {}", server.spawned.err()))
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// What it printed on standard error.
    pub(crate) fn log(&self) -> String {
        self.spawned.err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        unmount(&self.mount);
        self.spawned.stop();
    }
}

/// Detaches whatever is mounted on a directory.
pub(crate) fn unmount(path: &Path) {
    while rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).is_ok() {}
}

/// A bind mount, undone when dropped.
pub(crate) struct Bind(PathBuf);

impl Bind {
    pub(crate) fn mount(source: &Path, target: &Path) -> Result<Self, String> {
        rustix::mount::mount_bind(source, target).or_tell("mount --bind")?;
        Ok(Self(target.to_owned()))
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}
