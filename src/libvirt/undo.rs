//! What `enable` changed of a domain, so that `disable` puts back exactly that:
//! `/var/lib/virtfs-mediator/libvirt/DOMAIN.json`, root's alone.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::libvirt::domain_file::checked_name;
use crate::libvirt::search::Allowance;

/// Where the records lie.
const DIRECTORY: &str = "/var/lib/virtfs-mediator/libvirt";

/// What was, and what was put in its place. Host ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    pub(crate) uuid: String,
    /// The emulator that the definition named.
    pub(crate) emulator: PathBuf,
    /// The text of the DAC label that was replaced; `None`: there was none.
    pub(crate) label: Option<String>,
    /// The ids of the label in its place; `None`: it was kept.
    pub(crate) ids: Option<(u32, u32)>,
    /// Sources that were written without links: before, after.
    pub(crate) sources: Vec<(PathBuf, PathBuf)>,
    /// Filesystems that were added: directory, tag.
    pub(crate) added: Vec<(PathBuf, String)>,
    /// The user that was made, and its id.
    pub(crate) user: Option<(String, u32)>,
    /// Directories that the domain's user was let search.
    pub(crate) searchable: Vec<Allowance>,
    /// The domain's file of an administrator's own making.
    pub(crate) file: Option<String>,
    /// The text of the file in its place.
    #[serde(default)]
    pub(crate) written: Option<String>,
}

impl Undo {
    /// Reads a domain's record; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be read, or not understood.
    pub(crate) fn read(domain: &str) -> Result<Option<Self>> {
        let path = path_of(domain)?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, &error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed(&path, &error))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be written.
    pub(crate) fn write(&self, domain: &str) -> Result<()> {
        let path = path_of(domain)?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(&path, &error))?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(DIRECTORY)
            .map_err(|error| failed(&path, &error))?;
        let mut fresh = tempfile::Builder::new()
            .prefix(".undo-")
            .tempfile_in(DIRECTORY)
            .map_err(|error| failed(&path, &error))?;
        fresh
            .write_all(&text)
            .and_then(|()| fresh.as_file().sync_all())
            .map_err(|error| failed(&path, &error))?;
        fresh
            .persist(&path)
            .map_err(|error| failed(&path, &error.error))?;
        Ok(())
    }

    /// Removes a domain's record, and the directories with the last one.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be removed.
    pub(crate) fn remove(domain: &str) -> Result<()> {
        let path = path_of(domain)?;
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, &error)),
        }
        for directory in Path::new(DIRECTORY).ancestors().take(2) {
            let _others_may_be_there = std::fs::remove_dir(directory);
        }
        Ok(())
    }
}

fn path_of(domain: &str) -> Result<PathBuf> {
    Ok(Path::new(DIRECTORY).join(format!("{}.json", checked_name(domain)?)))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(
        Class::Configuration,
        format!("{}: {error}", path.display()),
        "",
    )
}
