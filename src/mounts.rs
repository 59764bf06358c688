//! Reads /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};

/// One mount of the namespace that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Mount id, unique while the mount exists.
    pub(crate) id: u64,
    /// The mount that it is mounted on.
    pub(crate) parent: u64,
    /// `major:minor` of the file system.
    pub(crate) device: String,
    /// Which directory of the file system is shown.
    pub(crate) root: PathBuf,
    /// Where it is shown.
    pub(crate) point: PathBuf,
    /// What is mounted on it appears in other mounts as well (mount_namespaces(7), `shared:`).
    pub(crate) shared: bool,
    /// File-system type.
    pub(crate) kind: String,
}

/// All mounts of a namespace, in the order they were mounted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(Vec<Mount>);

impl Table {
    /// Reads this process's mounts.
    ///
    /// # Errors
    ///
    /// Confinement: /proc is not mounted.
    pub(crate) fn read() -> Result<Self> {
        std::fs::read("/proc/self/mountinfo")
            .map(|text| Self::parse(&text))
            .map_err(|error| {
                Error::new(
                    Class::Confinement,
                    format!("/proc/self/mountinfo: {error}"),
                    "mount /proc first: it is needed to start",
                )
            })
    }

    /// Reads an open mountinfo from its start: the mounts of the namespace in which it was opened.
    ///
    /// By pread(2) alone: std's `read_to_end` asks for size and position first, and the keeper's
    /// seccomp list need not know of that.
    ///
    /// # Errors
    ///
    /// The errno of pread(2).
    pub(crate) fn read_again(mountinfo: &File) -> io::Result<Self> {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let at = u64::try_from(text.len()).unwrap_or(u64::MAX);
            match mountinfo.read_at(&mut piece, at)? {
                0 => return Ok(Self::parse(&text)),
                count => text.extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Reads lines in the format of mountinfo; lines that are not are passed over.
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(
            text.split(|byte| *byte == b'\n')
                .filter_map(parse_line)
                .collect(),
        )
    }

    /// Mounts strictly below a directory.
    pub(crate) fn below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.0
            .iter()
            .filter(move |mount| mount.point != directory && mount.point.starts_with(directory))
    }

    /// Where everything is mounted.
    pub(crate) fn points(&self) -> Vec<PathBuf> {
        self.0.iter().map(|mount| mount.point.clone()).collect()
    }

    /// The mount that a path lies on: the last one over the longest prefix.
    pub(crate) fn holding(&self, path: &Path) -> Option<&Mount> {
        self.0
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }

    /// Whether a mount is in both: then they are of one namespace.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|mount| other.has(mount.id))
    }

    /// The mount with an id.
    pub(crate) fn by_id(&self, id: u64) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.id == id)
    }

    /// Whether the mount with an id lies at a path, with none over it there.
    pub(crate) fn shows(&self, id: u64, path: &Path) -> bool {
        let at = |mount: &&Mount| mount.point == path;
        self.0.iter().filter(at).any(|mount| mount.id == id)
            && !self.0.iter().filter(at).any(|mount| mount.parent == id)
    }

    /// Whether a mount id is there.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.0.iter().any(|mount| mount.id == id)
    }

    /// Every path under which a directory can be reached, its own first.
    pub(crate) fn places_of(&self, directory: &Path) -> Vec<PathBuf> {
        let mut places = vec![directory.to_owned()];
        places.extend(self.other_places(directory));
        places
    }

    /// Warns of every other path under which the export can be reached: the view covers one.
    pub(crate) fn report_other_mounts(&self, export: &Path) {
        for place in self.other_places(export) {
            tracing::warn!(
                export = %export.display(), also = %place.display(),
                "another mount shows the export: the client sees there what its user may see"
            );
        }
    }

    /// Every other path under which a directory can be reached.
    pub(crate) fn other_places(&self, export: &Path) -> Vec<PathBuf> {
        let Some(own) = self.holding(export) else {
            return Vec::new();
        };
        let Ok(inner) = export.strip_prefix(&own.point) else {
            return Vec::new();
        };
        let within = own.root.join(inner);
        self.0
            .iter()
            .filter(|mount| mount.id != own.id && mount.device == own.device)
            .filter_map(|mount| match within.strip_prefix(&mount.root) {
                Ok(rest) => Some(mount.point.join(rest)),
                Err(_) if mount.root.starts_with(&within) => Some(mount.point.clone()),
                Err(_) => None,
            })
            .filter(|place| place != export)
            .collect()
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8_lossy(fields.next()?).into_owned();
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    // The mount's options, then optional fields up to a `-`.
    let shared = fields
        .by_ref()
        .skip(1)
        .take_while(|field| *field != b"-")
        .fold(false, |shared, field| {
            shared | field.starts_with(b"shared:")
        });
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        shared,
        kind,
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /proc rw - proc proc rw
22 20 8:1 /srv /mnt/a\\040b rw shared:1 master:2 - ext4 /dev/sda1 rw
23 20 8:2 / /data rw - xfs /dev/sdb rw
not a line
";

    #[test]
    fn parse_escapes_and_optional_fields_are_understood() {
        let table = Table::parse(TEXT);
        assert_eq!(table.0.len(), 4);
        assert_eq!(table.0[2].point, Path::new("/mnt/a b"));
        assert_eq!(table.0[2].kind, "ext4");
        let shared: Vec<bool> = table.0.iter().map(|mount| mount.shared).collect();
        assert_eq!(shared, [true, false, true, false]);
        assert!(table.shows(22, Path::new("/mnt/a b")) && !table.shows(22, Path::new("/mnt")));
        assert_eq!(table.holding(Path::new("/data/x")).unwrap().id, 23);
    }

    #[test]
    fn other_places_names_each_path_to_the_export() {
        let table = Table::parse(TEXT);
        assert_eq!(
            table.other_places(Path::new("/srv/share")),
            [Path::new("/mnt/a b/share")]
        );
        assert!(table.other_places(Path::new("/data/share")).is_empty());
    }
}
