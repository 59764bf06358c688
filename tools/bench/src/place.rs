//! The benchmark's own directory: the export, a mount point, the worker's program, logs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Result, at, step};

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    /// Makes one below `parent`, which every user must be able to search.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("virtfs-bench-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(at("making a directory in", parent))?;
        let place = Self { root };
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
        self.root.path()
    }

    /// The directory that is shared.
    pub(crate) fn export(&self) -> PathBuf {
        self.root.path().join("export")
    }

    /// Where other file systems than ours are mounted.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.root.path().join("mount")
    }

    /// This program, where the client may execute it.
    pub(crate) fn worker(&self) -> PathBuf {
        self.root.path().join("worker")
    }

    /// What a contender printed.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }
}

/// chmod.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at("chmod of", path))
}
