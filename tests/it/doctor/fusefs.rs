//! A FUSE file system with one file, for what the host's own file systems may not have: a
//! directory that folds names, and a mount that keeps the mediator out.

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, IoctlFlags,
    ReplyAttr, ReplyDirectory, ReplyEntry, ReplyIoctl, Request, Session, SessionACL,
};
use rustix::mount::{MountFlags, UnmountFlags};

/// `FS_IOC_GETFLAGS` (include/uapi/linux/fs.h); the kernel asks it when a program does.
const GETFLAGS: u32 = 0x8008_6601;
/// `FS_CASEFOLD_FL`.
const CASEFOLD: u32 = 0x4000_0000;
/// Answers are good for no time at all: nothing is remembered.
const TTL: Duration = Duration::ZERO;

/// How names are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// As they are.
    Exact,
    /// As they are; only the directory's flag says otherwise.
    Flagged,
    /// Without regard to case, and nothing says so.
    Folded,
}

/// The mount; unmounted when dropped, which ends its server.
pub(super) struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _may_be_gone = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Mounts it in the calling thread's namespace, as a user's own mount, with options besides.
pub(super) fn mount(at: &Path, names: Names, user: u32, options: &str) -> Mounted {
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let fd = device.as_raw_fd();
    let options = format!("fd={fd},rootmode=40000,user_id={user},group_id={user}{options}");
    let options = std::ffi::CString::new(options).unwrap();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("doctor", at, "fuse", flags, options.as_c_str()).unwrap();
    let mounted = Mounted(at.to_owned());
    let session = Session::from_fd(
        OneFile(names),
        device.into(),
        SessionACL::All,
        Config::default(),
    );
    let _ends_with_the_mount = session.unwrap().spawn().unwrap();
    mounted
}

struct OneFile(Names);

impl OneFile {
    const NAME: &str = "Name";
    const FILE: INodeNo = INodeNo(2);

    fn attr(ino: INodeNo) -> FileAttr {
        let time = SystemTime::UNIX_EPOCH;
        let (kind, perm) = if ino == Self::FILE {
            (FileType::RegularFile, 0o644)
        } else {
            (FileType::Directory, 0o777)
        };
        FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = match self.0 {
            Names::Exact | Names::Flagged => name == Self::NAME,
            Names::Folded => name.eq_ignore_ascii_case(Self::NAME),
        };
        if found {
            reply.entry(&TTL, &Self::attr(Self::FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &Self::attr(ino));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            let _full = reply.add(Self::FILE, 1, FileType::RegularFile, Self::NAME);
        }
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        if cmd == GETFLAGS && self.0 == Names::Flagged {
            reply.ioctl(0, &CASEFOLD.to_ne_bytes());
        } else {
            reply.error(Errno::ENOTTY);
        }
    }
}
