//! `/run/virtfs-mediator-libvirt`: domains that libvirt is about to start (`armed/`), each until its
//! QEMU has come for its views (`attached/`). Root's alone (0700); the hook writes, the service reads.
//!
//! A record holds all that root said of the domain when the hook checked it: what is attached later is
//! what was checked, whatever became of the domain's file since.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::control::rundir::since_boot;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::libvirt::domain_file::{DomainFile, checked_name};

/// Where the records are.
pub(crate) const RUN: &str = "/run/virtfs-mediator-libvirt";
const ARMED: &str = "armed";
const ATTACHED: &str = "attached";

/// What is recorded of a domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Armed {
    pub(crate) file: DomainFile,
    /// The file's client, in numbers.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// When it was armed, in clock ticks since boot, as processes' starts are counted: its QEMU starts
    /// later.
    pub(crate) since: u64,
}

/// How far a domain's start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The hook let it start; its QEMU has not asked yet.
    Armed,
    /// Its QEMU has asked; it can ask no more.
    Attached,
}

impl Armed {
    /// Who may ask.
    pub(crate) fn ids(&self) -> Ids {
        Ids {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
        }
    }
}

/// Lets a domain attach, once.
///
/// # Errors
///
/// Configuration: unknown ids, or it cannot be recorded.
pub(crate) fn arm(file: &DomainFile) -> Result<()> {
    let ids = file.client.ids()?;
    let armed = Armed {
        file: file.clone(),
        uid: ids.uid,
        gid: ids.gid,
        groups: ids.groups,
        since: ticks_since_boot(),
    };
    make_directories()?;
    let path = record(ARMED, &file.domain)?;
    // Of an earlier start, whose end nobody told.
    remove(&record(ATTACHED, &file.domain)?)?;
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(&armed).map_err(|error| failed(&path, &error))?;
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(|error| failed(&path, &error))
}

/// Takes that back, whether it has attached or not; tells whether there was anything to take back.
///
/// # Errors
///
/// Configuration: a record cannot be removed.
pub(crate) fn disarm(domain: &str) -> Result<bool> {
    let armed = remove(&record(ARMED, domain)?)?;
    let attached = remove(&record(ATTACHED, domain)?)?;
    Ok(armed || attached)
}

/// Every domain that may attach.
///
/// # Errors
///
/// Configuration: the records cannot be listed, or are not root's alone.
pub(crate) fn all() -> Result<Vec<Armed>> {
    // One that is of no use: nobody attaches by it.
    all_of(ARMED, |error| {
        tracing::debug!("{error}");
        Ok(())
    })
}

/// Another domain that is about to start, or runs, as this uid.
///
/// # Errors
///
/// As [`all`]; a record that cannot be read may be of this uid.
pub(crate) fn another_of(domain: &str, uid: u32) -> Result<Option<String>> {
    let mut all = all_of(ARMED, Err)?;
    all.append(&mut all_of(ATTACHED, Err)?);
    let another = |armed: &Armed| armed.uid == uid && armed.file.domain != domain;
    Ok(all.into_iter().find(another).map(|armed| armed.file.domain))
}

/// `unread` decides about a record that is there and cannot be understood.
fn all_of(kind: &str, unread: impl Fn(Error) -> Result<()>) -> Result<Vec<Armed>> {
    let directory = Path::new(RUN).join(kind);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&directory, &error)),
    };
    verify_roots_own()?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&directory, &error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            match read(&path) {
                Ok(armed) => found.push(armed),
                // Disarmed meanwhile.
                Err(_) if !path.exists() => {}
                Err(error) => unread(error.cure(format!(
                    "if its domain does not run, remove {}",
                    path.display()
                )))?,
            }
        }
    }
    Ok(found)
}

/// Takes a domain's one attach: whoever comes second finds it gone.
///
/// # Errors
///
/// Configuration: it is not armed (any more).
pub(crate) fn claim(domain: &str) -> Result<()> {
    let (from, to) = (record(ARMED, domain)?, record(ATTACHED, domain)?);
    fs::rename(&from, &to).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            let what = format!("domain '{domain}' has its views already, or is not about to start");
            let cure = format!("shut it down and start it again (virsh start {domain})");
            Error::new(Class::Configuration, what, cure)
        } else {
            failed(&from, &error)
        }
    })
}

/// The record of a domain that was claimed.
///
/// # Errors
///
/// Configuration: there is none.
pub(crate) fn claimed(domain: &str) -> Result<Armed> {
    verify_roots_own()?;
    read(&record(ATTACHED, domain)?)
}

/// How far a domain's start has come; `None` if it is not about to start and does not run.
///
/// # Errors
///
/// Configuration: a name that no domain with views has.
pub(crate) fn stage(domain: &str) -> Result<Option<Stage>> {
    for (kind, stage) in [(ARMED, Stage::Armed), (ATTACHED, Stage::Attached)] {
        if record(kind, domain)?.exists() {
            return Ok(Some(stage));
        }
    }
    Ok(None)
}

fn record(kind: &str, domain: &str) -> Result<PathBuf> {
    let name = format!("{}.json", checked_name(domain)?);
    Ok(Path::new(RUN).join(kind).join(name))
}

fn read(path: &Path) -> Result<Armed> {
    let text = fs::read(path).map_err(|error| failed(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| failed(path, &error))
}

fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
    }
}

fn make_directories() -> Result<()> {
    for directory in [
        PathBuf::from(RUN),
        Path::new(RUN).join(ARMED),
        Path::new(RUN).join(ATTACHED),
    ] {
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&directory, &error)),
        }
    }
    verify_roots_own()
}

/// What is below a directory of root's alone is root's.
fn verify_roots_own() -> Result<()> {
    let path = Path::new(RUN);
    let meta = fs::symlink_metadata(path).map_err(|error| failed(path, &error))?;
    if meta.is_dir() && meta.uid() == 0 && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(failed(
        path,
        &"it must be a directory of root's alone (0700)",
    ))
}

fn ticks_since_boot() -> u64 {
    let (now, hertz) = (since_boot(), rustix::param::clock_ticks_per_second());
    now.as_secs() * hertz + u64::from(now.subsec_nanos()) * hertz / 1_000_000_000
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let what = format!("{}: {error}", path.display());
    Error::new(Class::Configuration, what, "")
}
