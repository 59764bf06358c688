//! What workloads find: made on the export itself, so that the kernel has the export's own pages,
//! names and attributes in memory for every contender alike.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::{Size, Workload};
use crate::error::{Error, Result, at, step};
use crate::place::{Place, set_mode};
use crate::task::file_name;
use crate::worker::SMALL;

/// The directory that a workload works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Small files, made once, changed by nobody.
    Small,
    /// Large files, made once, read, or written to without a cache.
    Large,
    /// A tree of files, made once.
    Tree,
    /// The same tree as a git repository, made once.
    Repository,
    /// Empty, new each time.
    Empty,
    /// With one large file, new each time: what is dirty is never written to the disk.
    Written,
    /// A tree of files, new each time.
    TreeToRemove,
}

/// Files of one directory of a tree.
const FILES_A_DIRECTORY: usize = 50;

impl Ground {
    /// Below the export.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Tree => "tree",
            Self::Repository => "repository",
            Self::Empty | Self::Written | Self::TreeToRemove => "new",
        }
    }

    fn path(self, place: &Place) -> PathBuf {
        place.export().join(self.directory())
    }

    fn is_new_each_time(self) -> bool {
        matches!(self, Self::Empty | Self::Written | Self::TreeToRemove)
    }

    /// Before each measurement.
    pub(super) fn lay(self, place: &Place, size: Size) -> Result<()> {
        if !self.is_new_each_time() {
            return Ok(());
        }
        let path = self.path(place);
        make_open(&path)?;
        match self {
            Self::Written => large_file(&path.join("written"), size.large)?,
            Self::TreeToRemove => extract(&archive(place), &path)?,
            Self::Small | Self::Large | Self::Tree | Self::Repository | Self::Empty => {}
        }
        // What others left to be written is not written in somebody's time.
        if size.floor_ms > Size::TINY.floor_ms {
            sync(place)?;
        }
        Ok(())
    }

    /// After each measurement.
    pub(super) fn clear(self, place: &Place) -> Result<()> {
        if self.is_new_each_time() {
            let path = self.path(place);
            fs::remove_dir_all(&path).map_err(at("removing", &path))?;
        }
        Ok(())
    }

    /// Once.
    fn make(self, place: &Place, size: Size) -> Result<()> {
        let path = self.path(place);
        match self {
            Self::Small => small_files(&path, size.names),
            Self::Large => {
                make_open(&path)?;
                large_file(&path.join("read"), size.large)?;
                large_file(&path.join("direct"), size.large / 4)
            }
            Self::Tree => {
                make_open(&path)?;
                extract(&archive(place), &path)
            }
            Self::Repository => repository(place, &path),
            Self::Empty | Self::Written | Self::TreeToRemove => Ok(()),
        }
    }
}

/// Makes what these workloads find.
pub(crate) fn prepare(workloads: &[Workload], place: &Place, size: Size) -> Result<()> {
    if workloads.iter().any(|workload| workload.names[0] == "tree") {
        make_archive(place, size.tree)?;
    }
    let mut made = Vec::new();
    for ground in workloads.iter().map(|workload| workload.ground) {
        if !made.contains(&ground) {
            ground.make(place, size)?;
            made.push(ground);
        }
    }
    sync(place)
}

/// syncfs.
fn sync(place: &Place) -> Result<()> {
    let export = place.export();
    let directory = File::open(&export).map_err(at("opening", &export))?;
    rustix::fs::syncfs(&directory).map_err(at("syncing", &export))
}

/// A directory that the client may write.
pub(crate) fn make_open(path: &Path) -> Result<()> {
    fs::create_dir(path).map_err(at("making", path))?;
    set_mode(path, 0o777)
}

/// A directory of files of one page.
pub(crate) fn small_files(path: &Path, count: usize) -> Result<()> {
    make_open(path)?;
    for number in 0..count {
        let path = path.join(file_name(number));
        fs::write(&path, [b's'; SMALL]).map_err(at("writing", &path))?;
    }
    Ok(())
}

fn large_file(path: &Path, octets: usize) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        let block = vec![b'l'; 1 << 20];
        for _ in 0..octets.div_ceil(block.len()) {
            file.write_all(&block)?;
        }
        file.set_permissions(Permissions::from_mode(0o666))
    };
    write().map_err(at("writing", path))
}

/// The tree that tar extracts.
pub(crate) fn archive(place: &Place) -> PathBuf {
    place.root().join("tree.tar")
}

fn make_archive(place: &Place, files: usize) -> Result<()> {
    let source = place.root().join("source");
    make_open(&source)?;
    // Old enough that git does not have to look at contents for fear of a race.
    let time = SystemTime::now() - Duration::from_secs(24 * 3600);
    let write = |number: usize| -> std::io::Result<()> {
        let directory = source.join(format!("directory-{:04}", number / FILES_A_DIRECTORY));
        if number.is_multiple_of(FILES_A_DIRECTORY) {
            fs::create_dir(&directory)?;
            chown(&directory, Some(1234), Some(4321))?;
        }
        let path = directory.join(file_name(number));
        // 0.5 to 8 KiB, the same in every run.
        let octets = 512 * (1 + number * 7 % 16);
        let text = format!("file {number}\n").repeat(octets / 12);
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.set_modified(time)?;
        chown(&path, Some(1234), Some(4321))
    };
    (0..files)
        .try_for_each(write)
        .map_err(at("writing a tree in", &source))?;
    let archive = archive(place);
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&source)
        .arg(".")
        .status();
    succeeded("tar -c", tar)?;
    fs::remove_dir_all(&source).map_err(at("removing", &source))
}

fn extract(archive: &Path, path: &Path) -> Result<()> {
    let tar = Command::new("tar")
        .arg("-xpf")
        .arg(archive)
        .arg("-C")
        .arg(path)
        .status();
    succeeded("tar -x", tar)
}

fn repository(place: &Place, path: &Path) -> Result<()> {
    make_open(path)?;
    extract(&archive(place), path)?;
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(GIT_OPTIONS).args(arguments).current_dir(path);
        command.env("HOME", "/nonexistent").stdout(Stdio::null());
        succeeded("git", command.status())
    };
    git(&["init", "--quiet"])?;
    git(&["add", "."])?;
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    git(&[&author[..], &["commit", "--quiet", "-m", "tree"]].concat())
}

/// The same answer for every contender, whatever inode numbers it shows, and no change of the index.
pub(crate) const GIT_OPTIONS: [&str; 9] = [
    "--no-optional-locks",
    "-c",
    "safe.directory=*",
    "-c",
    "core.checkStat=minimal",
    "-c",
    "core.trustctime=false",
    "-c",
    "gc.auto=0",
];

fn succeeded(what: &str, status: std::io::Result<std::process::ExitStatus>) -> Result<()> {
    let status = status.map_err(step(format!("running {what}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Usage(format!("{what} failed: {status}")))
}
