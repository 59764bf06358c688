//! A place for an attack: an export, and a canary outside of it that must stay untouched.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tempfile::TempDir;

use crate::cases::Pair;

/// What every case is given.
pub(crate) struct Lab {
    /// The product's program.
    pub(crate) mediator: PathBuf,
    /// A short run: fewer swaps and rounds, every case all the same.
    pub(crate) short: bool,
    /// Domains under libvirt that several cases look at, started once.
    pub(crate) pairs: RefCell<Vec<Rc<Pair>>>,
}

impl Lab {
    /// How often a race is run.
    pub(crate) fn swaps(&self) -> u64 {
        if self.short { 20_000 } else { 1_000_000 }
    }
}

/// An export with a canary beside it; removed when dropped.
pub(crate) struct Place {
    dir: TempDir,
    secret: String,
    before: (u64, i64, i64, u32, u32, u32),
}

impl Place {
    pub(crate) fn new() -> std::io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("virtfs-attack-")
            .tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let export = dir.path().join("export");
        fs::create_dir(&export)?;
        fs::set_permissions(&export, fs::Permissions::from_mode(0o777))?;
        let secret = format!("canary-{:016x}", random()?);
        let outside = dir.path().join("outside");
        fs::create_dir(&outside)?;
        fs::write(outside.join("canary"), &secret)?;
        // Only root, or a holder of a capability over it, can read it.
        fs::set_permissions(outside.join("canary"), fs::Permissions::from_mode(0o600))?;
        let before = state(&outside.join("canary"))?;
        Ok(Self {
            dir,
            secret,
            before,
        })
    }

    /// The directory that is shared.
    pub(crate) fn export(&self) -> PathBuf {
        self.dir.path().join("export")
    }

    /// A directory outside of it, on the same file system; it holds `canary`.
    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Whether bytes that an attacker brought back hold the canary's secret.
    pub(crate) fn betrays(&self, bytes: &[u8]) -> bool {
        let secret = self.secret.as_bytes();
        bytes.windows(secret.len()).any(|window| window == secret)
    }

    /// Whether the canary is as it was: content, inode, mode, owner, times of change.
    pub(crate) fn is_untouched(&self) -> bool {
        let canary = self.outside().join("canary");
        state(&canary).is_ok_and(|now| now == self.before)
            && fs::read(&canary).is_ok_and(|now| now == self.secret.as_bytes())
    }
}

fn state(path: &Path) -> std::io::Result<(u64, i64, i64, u32, u32, u32)> {
    let meta = fs::symlink_metadata(path)?;
    let (mtime, ctime) = (meta.mtime_nsec(), meta.ctime_nsec());
    Ok((
        meta.ino(),
        mtime,
        ctime,
        meta.mode(),
        meta.uid(),
        meta.gid(),
    ))
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
