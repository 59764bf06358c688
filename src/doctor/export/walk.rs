//! A bounded look at what lies inside an export: owners outside of the policy's map, and
//! directories that take names without regard to case. Nothing is followed, opened or changed but
//! directories, which are listed.

use std::ffi::{CStr, CString, OsStr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::doctor::catalogue::Problem;
use crate::doctor::export::Export;
use crate::doctor::findings::Findings;

/// How many entries are looked at, and for how long.
const MAX_ENTRIES: u64 = 100_000;
const MAX_TIME: Duration = Duration::from_secs(5);
/// How many names are told of each kind.
const SHOWN: usize = 5;
/// `FS_CASEFOLD_FL` (include/uapi/linux/fs.h): ext4, f2fs, tmpfs.
const CASEFOLD: u32 = 0x4000_0000;

/// What was counted, and the first few by name.
#[derive(Debug, Default)]
struct Count {
    count: u64,
    first: Vec<String>,
}

impl Count {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(what());
        }
    }

    fn shown(&self) -> String {
        let more = self.count > SHOWN as u64;
        let more = if more { ", ..." } else { "" };
        format!("{}{more}", self.first.join(", "))
    }
}

/// What a walk saw.
#[derive(Debug, Default)]
struct Walk {
    entries: u64,
    /// Why it stopped before its end.
    cut: Option<&'static str>,
    unreadable: Count,
    outside: Count,
    folding: Count,
}

/// All checks of this part.
pub(super) fn check(findings: &mut Findings, export: &Export<'_>) {
    let ranges = export.policy.host_ranges();
    root_owner(findings, export, ranges.as_deref());
    let mut walk = Walk::default();
    walk.all(export.fd, ranges.as_deref());
    match (&ranges, walk.outside.count) {
        (None, _) => findings.ok(Problem::Unmapped, export.says("the policy maps no ids")),
        (Some(_), 0) => findings.ok(
            Problem::Unmapped,
            export.says("every owner and group that was seen is in the policy's map"),
        ),
        (Some(ranges), count) => findings.tell(
            Problem::Unmapped,
            export.says(format!(
                "{count} files belong to ids outside of the policy's map, and will be refused with \
                 EACCES: {}",
                walk.outside.shown()
            )),
            format!(
                "chown them into {}, or add a range to `map`",
                shown_ranges(ranges)
            ),
        ),
    }
    if walk.folding.count == 0 {
        findings.ok(
            Problem::Folding,
            export.says("no directory that ignores case was seen"),
        );
    } else {
        findings.tell(
            Problem::Folding,
            export.says(format!(
                "{} directories take names without regard to case: {}",
                walk.folding.count,
                walk.folding.shown()
            )),
            "rules judge the spelling that is asked for: do not rely on rules with paths there \
             (`chattr -F` on an empty directory ends it)",
        );
    }
    if let Some(why) = walk.cut {
        findings.tell(
            Problem::WalkCut,
            export.says(format!(
                "only {} entries were looked at: {why}",
                walk.entries
            )),
            "name directories below it to `doctor` to see the rest",
        );
    } else if walk.unreadable.count > 0 {
        findings.tell(
            Problem::WalkCut,
            export.says(format!(
                "{} directories could not be listed: {}",
                walk.unreadable.count,
                walk.unreadable.shown()
            )),
            "call it as root",
        );
    } else {
        let found = format!("all of its {} entries were looked at", walk.entries);
        findings.ok(Problem::WalkCut, export.says(found));
    }
}

/// A start refuses an export whose root's owner or group is outside of the map.
fn root_owner(
    findings: &mut Findings,
    export: &Export<'_>,
    ranges: Option<&[RangeInclusive<u32>]>,
) {
    let Some(ranges) = ranges else {
        findings.ok(Problem::RootUnmapped, export.says("the policy maps no ids"));
        return;
    };
    match rustix::fs::fstat(export.fd) {
        Err(errno) => findings.untried(Problem::RootUnmapped, &export.says(errno)),
        Ok(stat) if is_outside(&stat, ranges) => {
            let range = shown_ranges(ranges);
            let to = ranges.first().map_or(0, |range| *range.start());
            findings.tell(
                Problem::RootUnmapped,
                export.says(format!(
                    "it belongs to {}:{}, outside of the policy's map ({range})",
                    stat.st_uid, stat.st_gid
                )),
                format!(
                    "`chown {to}:{to} {}`, or add a range to `map`",
                    export.path.display()
                ),
            );
        }
        Ok(_) => findings.ok(Problem::RootUnmapped, export.says("in the policy's map")),
    }
}

fn is_outside(stat: &Stat, ranges: &[RangeInclusive<u32>]) -> bool {
    let within = |id: u32| ranges.iter().any(|range| range.contains(&id));
    !within(stat.st_uid) || !within(stat.st_gid)
}

fn shown_ranges(ranges: &[RangeInclusive<u32>]) -> String {
    let shown: Vec<String> = ranges
        .iter()
        .map(|range| format!("{} to {}", range.start(), range.end()))
        .collect();
    shown.join(", ")
}

impl Walk {
    /// Breadth does not matter, depth does: paths are kept relative, and opened beneath the root.
    fn all(&mut self, root: &OwnedFd, ranges: Option<&[RangeInclusive<u32>]>) {
        let end = Instant::now() + MAX_TIME;
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(path) = waiting.pop() {
            let Ok(directory) = open(root, &path) else {
                self.unreadable.add(|| name_of(&path));
                continue;
            };
            if self
                .one(&directory, &path, &mut waiting, ranges, end)
                .is_err()
            {
                self.unreadable.add(|| name_of(&path));
            }
            if self.cut.is_some() {
                return;
            }
        }
    }

    fn one(
        &mut self,
        directory: &OwnedFd,
        path: &Path,
        waiting: &mut Vec<PathBuf>,
        ranges: Option<&[RangeInclusive<u32>]>,
        end: Instant,
    ) -> rustix::io::Result<()> {
        let mut sample = None;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                self.entries = MAX_ENTRIES;
                self.cut = Some("it holds more");
                break;
            }
            if self.entries.is_multiple_of(256) && Instant::now() > end {
                self.cut = Some("five seconds had passed");
                break;
            }
            let inside = || path.join(OsStr::from_bytes(name.to_bytes()));
            // Whoever changes the export meanwhile may have removed it.
            let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if ranges.is_some_and(|ranges| is_outside(&stat, ranges)) {
                let owner = format!("{}:{}", stat.st_uid, stat.st_gid);
                self.outside
                    .add(|| format!("{} ({owner})", name_of(&inside())));
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                waiting.push(inside());
            }
            if sample.is_none() {
                sample = other_case(name).map(|other| (name.to_owned(), other, stat.st_ino));
            }
        }
        if has_flag(directory) || sample.is_some_and(|sample| folds(directory, &sample)) {
            self.folding.add(|| name_of(path));
        }
        Ok(())
    }
}

fn open(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags, Mode::empty(), how)
}

/// `./a/b` as `/a/b`, as rules name it.
fn name_of(path: &Path) -> String {
    let inside = path.strip_prefix(".").unwrap_or(path);
    format!("/{}", inside.display())
}

fn has_flag(directory: &OwnedFd) -> bool {
    rustix::fs::ioctl_getflags(directory).is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
}

/// A name with its ASCII letters in the other case, if it has any.
fn other_case(name: &CStr) -> Option<CString> {
    let turn = |byte: &u8| {
        if byte.is_ascii_lowercase() {
            byte.to_ascii_uppercase()
        } else {
            byte.to_ascii_lowercase()
        }
    };
    let other: Vec<u8> = name.to_bytes().iter().map(turn).collect();
    if other == name.to_bytes() {
        return None;
    }
    CString::new(other).ok()
}

/// Whether the name in the other case leads to the same file, although the directory does not list
/// it: two names of one file are told apart by listing them.
fn folds(directory: &OwnedFd, (_, other, inode): &(CString, CString, u64)) -> bool {
    let found = rustix::fs::statat(directory, other.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    if !found.is_ok_and(|stat| stat.st_ino == *inode) {
        return false;
    }
    let Ok(entries) = Dir::read_from(directory) else {
        return false;
    };
    let listed = entries
        .filter_map(Result::ok)
        .any(|entry| entry.file_name() == other.as_c_str());
    !listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_case_turns_ascii_letters_and_nothing_else() {
        let turned = |name: &CStr| other_case(name).map(CString::into_bytes);
        assert_eq!(turned(c"Read.ME1"), Some(b"rEAD.me1".to_vec()));
        assert_eq!(turned(c"2024-01"), None);
        assert_eq!(turned(c"\u{e4}"), None);
    }

    #[test]
    fn names_are_shown_as_rules_write_them() {
        assert_eq!(name_of(Path::new(".")), "/");
        assert_eq!(name_of(Path::new("./a/b")), "/a/b");
    }

    #[test]
    fn hard_links_that_differ_in_case_are_no_folding() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("name"), "").unwrap();
        std::fs::hard_link(directory.path().join("name"), directory.path().join("NAME")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let mut walk = Walk::default();
        walk.all(&root, None);
        assert_eq!((walk.entries, walk.folding.count), (2, 0));
    }

    #[test]
    fn owners_outside_are_counted_and_the_first_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        for number in 0..7 {
            std::fs::write(directory.path().join(format!("d/{number}")), "").unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let mut walk = Walk::default();
        walk.all(&root, Some(&[4_000_000_000..=4_000_000_001]));
        assert_eq!((walk.entries, walk.outside.count), (8, 8));
        assert_eq!(walk.outside.first.len(), SHOWN);
        assert!(walk.outside.shown().ends_with(", ..."), "{walk:?}");
        let all = 0..=u32::MAX;
        let mut walk = Walk::default();
        walk.all(&root, Some(&[all]));
        assert_eq!(walk.outside.count, 0);
    }
}
