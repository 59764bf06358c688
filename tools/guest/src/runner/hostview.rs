//! The host's view of a tree that a guest made: type, mode and owner of each path, as root sees it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::Error;

/// Deeper than this, and beside more entries than `WIDTH`, paths are counted rather than listed.
const DEPTH: usize = 6;
const WIDTH: usize = 40;

/// Every path under `export` as `host/PATH` with what the host sees.
///
/// # Errors
/// A directory that root cannot read.
pub fn record(export: &Path) -> Result<BTreeMap<String, String>, Error> {
    let mut all = BTreeMap::new();
    walk(export, "host", 0, &mut all)?;
    Ok(all)
}

fn walk(
    dir: &Path,
    name: &str,
    depth: usize,
    all: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let failed = || Error::io(format!("{}", dir.display()));
    let entries: Vec<_> = fs::read_dir(dir)
        .map_err(failed())?
        .collect::<Result<_, _>>()
        .map_err(failed())?;
    if depth >= DEPTH || (depth > 1 && entries.len() > WIDTH) {
        all.insert(format!("{name}/*"), format!("entries={}", entries.len()));
        return Ok(());
    }
    for entry in entries {
        let path = entry.path();
        let about =
            fs::symlink_metadata(&path).map_err(Error::io(format!("{}", path.display())))?;
        let shown = entry.file_name().as_bytes().escape_ascii().to_string();
        let name = format!("{name}/{}", shortened(&shown));
        // The two directories above a probe's are the runner's own.
        if depth > 1 {
            all.insert(name.clone(), describe(&about));
        }
        if about.is_dir() {
            walk(&path, &name, depth + 1, all)?;
        }
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    if name.len() <= 60 {
        name.to_owned()
    } else {
        format!("{}...{}", &name[..20], name.len())
    }
}

fn describe(about: &fs::Metadata) -> String {
    let mode = about.mode() & 0o7777;
    let owner = format!("{mode:04o} {}:{}", about.uid(), about.gid());
    match FileType::from_raw_mode(about.mode()) {
        FileType::RegularFile => {
            format!("file {owner} links={} size={}", about.nlink(), about.size())
        }
        FileType::Directory => format!("dir {owner}"),
        FileType::Symlink => format!("symlink {owner}"),
        FileType::Fifo => format!("fifo {owner}"),
        FileType::Socket => format!("socket {owner}"),
        FileType::CharacterDevice => format!("chr {owner}"),
        FileType::BlockDevice => format!("blk {owner}"),
        FileType::Unknown => format!("unknown {owner}"),
    }
}
