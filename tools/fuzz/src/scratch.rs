//! What a view is served of, and what lies outside of it.
//!
//! ```text
//! SCRATCH/            removed with the thread that made it
//! +- export/          the root of the view; made anew for every input
//! +- outside/canary   neither read nor changed by anyone
//! +- elsewhere/       where the host moves things to
//! ```
//!
//! As root, the mediator's threads and the host's side give up root's rights over files first, so
//! that a view with a hole in it (one that was planted on purpose, too) cannot harm the machine.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use memchr::memmem::Finder;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::wire::Sender;

/// Whom root becomes (the kernel's overflow id): it owns nothing on a sane machine.
const NOBODY: u32 = 65534;

/// The largest file that is ever made in bytes: a tmpfs is memory.
pub const FILE_MAX: u64 = 4 << 20;

/// The user and group that the view's client and mediator have.
#[must_use]
pub fn client() -> Sender {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (NOBODY, NOBODY);
        return Sender { uid, gid };
    }
    Sender {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    }
}

/// While it lives, this thread has no more rights over files than [`client`].
#[derive(Debug)]
pub struct Lowered {
    was: Option<(Uid, Gid)>,
}

impl Lowered {
    /// Gives the rights up, if there are any (setfsuid(2): this thread's alone).
    #[must_use]
    pub fn now() -> Self {
        let was = rustix::process::geteuid().is_root().then(|| {
            let gid = setfsgid(Gid::from_raw(NOBODY));
            (setfsuid(Uid::from_raw(NOBODY)), gid)
        });
        Self { was }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.was {
            setfsuid(uid);
            setfsgid(gid);
        }
    }
}

/// Gives root's rights up for good, in this thread and those that it starts.
pub fn lower_thread() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (uid, gid) = (
        rustix::process::Uid::from_raw(NOBODY),
        rustix::process::Gid::from_raw(NOBODY),
    );
    rustix::thread::set_thread_groups(&[]).expect("setgroups");
    rustix::thread::set_thread_res_gid(gid, gid, gid).expect("setresgid");
    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setresuid");
}

/// A directory with an export in it and a canary outside.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    export: OwnedFd,
    elsewhere: OwnedFd,
    canary: OwnedFd,
    before: Stat,
    content: Finder<'static>,
}

impl Scratch {
    /// Makes one in the default directory for temporary files.
    #[must_use]
    pub fn new() -> Self {
        let rlimit = rustix::process::Rlimit {
            current: Some(FILE_MAX),
            ..rustix::process::getrlimit(rustix::process::Resource::Fsize)
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, rlimit).expect("RLIMIT_FSIZE");
        let mut builder = tempfile::Builder::new();
        // Whoever root becomes must get through.
        let through = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        let dir = builder
            .prefix("virtfs-fuzz-")
            .permissions(through)
            .tempdir()
            .expect("a scratch directory");
        let owner = client();
        let give = |path: &Path| {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).expect("chown")
        };
        for name in ["export", "outside", "elsewhere"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("mkdir");
            give(&path);
        }
        let path = dir.path().join("outside/canary");
        // Not to be guessed, nor to be learned from what the fuzzer sees compared.
        let content = random_text();
        std::fs::write(&path, &content).expect("the canary");
        give(&path);
        let canary = open(CWD, &path, OFlags::PATH);
        // With an access time before the change time, the first read changes it (relatime).
        let past = rustix::fs::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: past,
            last_modification: past,
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).expect("utimensat");
        let before = rustix::fs::fstat(&canary).expect("fstat");
        let directory = |name| {
            open(
                CWD,
                dir.path().join(name),
                OFlags::RDONLY | OFlags::DIRECTORY,
            )
        };
        Self {
            export: directory("export"),
            elsewhere: directory("elsewhere"),
            canary,
            before,
            content: Finder::new(&content).into_owned(),
            dir,
        }
    }

    /// The export's root.
    #[must_use]
    pub fn export(&self) -> BorrowedFd<'_> {
        self.export.as_fd()
    }

    /// The directory that all of it lies in.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it lies on a tmpfs, which has ways of its own with directories.
    ///
    /// # Panics
    ///
    /// If the file system does not say what it is.
    #[must_use]
    pub fn is_tmpfs(&self) -> bool {
        // TMPFS_MAGIC, linux/magic.h.
        rustix::fs::fstatfs(&self.export).expect("fstatfs").f_type == 0x0102_1994
    }

    /// Finds the canary's content in something.
    #[must_use]
    pub fn canary(&self) -> &Finder<'static> {
        &self.content
    }

    /// Nobody has been at the canary.
    ///
    /// # Panics
    ///
    /// If someone has.
    pub fn check_canary(&self) {
        let now = rustix::fs::fstat(&self.canary).expect("fstat");
        let told = |st: &Stat| {
            let times = (st.st_atime, st.st_mtime, st.st_ctime, st.st_ctime_nsec);
            (
                times,
                st.st_size,
                st.st_mode,
                st.st_nlink,
                st.st_uid,
                st.st_gid,
            )
        };
        assert_eq!(
            told(&now),
            told(&self.before),
            "the canary was read or changed"
        );
        let path = self.dir.path().join("outside");
        let names = std::fs::read_dir(path).expect("outside").count();
        assert_eq!(
            names, 1,
            "something was made or removed outside of the export"
        );
    }

    /// Removes all that is in the export or was moved out of it, and what was done to its root.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn clear(&self) {
        rustix::fs::fchmod(&self.export, Mode::from(0o755)).expect("fchmod");
        let mut names = [0; 1024];
        let listed = rustix::fs::flistxattr(&self.export, &mut names).unwrap_or(0);
        for name in names[..listed]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            rustix::fs::fremovexattr(&self.export, name).expect("fremovexattr");
        }
        clear(self.export());
        clear(self.elsewhere.as_fd());
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

fn random_text() -> Vec<u8> {
    use std::hash::{BuildHasher, Hasher};
    let mut text = b"canary ".to_vec();
    for _ in 0..3 {
        // Each state has keys of its own, from the system's random numbers.
        let random = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        text.extend_from_slice(format!("{random:016x}").as_bytes());
    }
    text
}

fn open(dir: BorrowedFd<'_>, path: impl rustix::path::Arg, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(
        dir,
        path,
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .expect("openat")
}

fn clear(dir: BorrowedFd<'_>) {
    let mut buffer = Vec::with_capacity(8 << 10);
    let mut directories = Vec::new();
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).expect("lseek");
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.expect("getdents64");
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let name = name.to_owned();
        let list = if entry.file_type() == FileType::Directory {
            &mut directories
        } else {
            &mut names
        };
        list.push(name);
    }
    for name in names {
        rustix::fs::unlinkat(dir, &name, AtFlags::empty()).expect("unlinkat");
    }
    for name in directories {
        match rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {
                // Only as an ordinary user does the mode matter.
                let _as_root = rustix::fs::chmodat(dir, &name, Mode::RWXU, AtFlags::empty());
                let below = open(dir, &name, OFlags::RDONLY | OFlags::DIRECTORY);
                clear(below.as_fd());
                rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR).expect("rmdir");
            }
            Err(errno) => panic!("rmdir {name:?}: {errno}"),
        }
    }
}
