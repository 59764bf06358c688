//! A client that asks a view for everything that it knows, for tests that look at what the
//! mediator does: this test binary itself, started again as the client.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom,
    Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use crate::common::{CLIENT_GID, CLIENT_UID, Export, shown};

/// Where the view is, for [`client`].
const VIEW: &str = "VIRTFS_IT_VIEW";
/// `some`: what is refused is passed over, as on a read-only view.
const HOW: &str = "VIRTFS_IT_HOW";

/// The words that start it.
pub(crate) fn words(export: &Export, all: bool) -> Vec<String> {
    let how = if all { "all" } else { "some" };
    let at = shown(export.path());
    itself(export, "workload::client", &[(VIEW, &at), (HOW, how)])
}

/// The words that start one of this binary's tests as a client, from a copy in a place where that
/// may execute it.
pub(crate) fn itself(export: &Export, test: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let copy: PathBuf = export.beside("client");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut words = vec!["env".to_owned()];
    let set = environment.iter();
    words.extend(set.map(|(name, value)| format!("{name}={value}")));
    words.push(shown(&copy));
    let rest = ["--exact", test, "--nocapture", "--test-threads", "1"];
    words.extend(rest.map(str::to_owned));
    words
}

/// Not a test by itself: the inside of [`words`]. Prints `ready` when it is done, and stays.
#[test]
fn client() {
    let (Some(view), Some(how)) = (std::env::var_os(VIEW), std::env::var_os(HOW)) else {
        return;
    };
    let all = how == "all";
    let view = Path::new(&view);
    for (name, step) in STEPS {
        match step(&view.join(name)) {
            Ok(()) => {}
            Err(error) => assert!(!all, "{name}: {error}"),
        }
    }
    // The test's own line goes before.
    println!("\nready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

type Step = fn(&Path) -> std::io::Result<()>;

/// Each in a directory of its own.
const STEPS: [(&str, Step); 10] = [
    ("data", data),
    ("past", past),
    ("space", space),
    ("nodes", nodes),
    ("names", names),
    ("attributes", attributes),
    ("xattrs", xattrs),
    ("listing", listing),
    ("nameless", nameless),
    ("refused", refused),
];

/// A file that is large enough to be read and written past the mediator once it is opened again.
fn past(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    let path = at.join("large");
    create(&path)?.write_all(&[7; 128 << 10])?;
    let file = fs::File::options().read(true).write(true).open(&path)?;
    file.write_all_at(b"x", 4096)?;
    let mut read = [0; 2];
    file.read_exact_at(&mut read, 4095)?;
    assert_eq!(&read, b"\x07x");
    Ok(())
}

fn rw() -> Mode {
    Mode::RUSR | Mode::WUSR
}

fn create(path: &Path) -> std::io::Result<fs::File> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rw()).map(fs::File::from)?)
}

fn data(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    rustix::fs::statfs(at)?;
    let file = create(&at.join("file"))?;
    file.write_all_at(&[7; 100_000], 0)?;
    rustix::fs::fdatasync(&file)?;
    rustix::fs::fsync(&file)?;
    // A read that the page cache cannot answer.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut read = [0; 1000];
    file.read_exact_at(&mut read, 50_000)?;
    assert_eq!(read, [7; 1000]);
    // A copy of the descriptor that is closed: FLUSH.
    drop(file.try_clone()?);
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    rustix::fs::flock(&file, FlockOperation::Unlock)?;
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::ftruncate(&file, 10)?;
    drop(file);
    rustix::fs::access(at.join("file"), rustix::fs::Access::READ_OK)?;
    let mut appending = fs::OpenOptions::new().append(true).open(at.join("file"))?;
    appending.write_all(b"more")?;
    drop(appending);
    drop(fs::File::create(at.join("file"))?);
    let directory = fs::File::open(at)?;
    Ok(rustix::fs::fsync(&directory)?)
}

fn space(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    let (from, to) = (create(&at.join("from"))?, create(&at.join("to"))?);
    rustix::fs::fallocate(&from, FallocateFlags::empty(), 0, 1 << 20)?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&from, hole, 0, 1 << 16)?;
    from.write_all_at(b"data", 1 << 18)?;
    rustix::fs::fsync(&from)?;
    rustix::fs::seek(&from, SeekFrom::Data(0))?;
    rustix::fs::seek(&from, SeekFrom::Hole(0))?;
    let copied = rustix::fs::copy_file_range(&from, None, &to, None, 1 << 16)?;
    assert!(copied > 0);
    Ok(())
}

fn nodes(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    for (name, kind) in [
        ("file", FileType::RegularFile),
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
    ] {
        rustix::fs::mknodat(CWD, at.join(name), kind, rw(), 0)?;
    }
    fs::remove_file(at.join("fifo"))
}

fn names(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    for directory in ["a", "b"] {
        fs::create_dir(at.join(directory))?;
    }
    let (a, b) = (at.join("a"), at.join("b"));
    drop(create(&a.join("one"))?);
    drop(create(&b.join("two"))?);
    std::os::unix::fs::symlink("/nowhere", a.join("symlink"))?;
    fs::read_link(a.join("symlink"))?;
    fs::hard_link(a.join("one"), b.join("link"))?;
    let exchange = RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(CWD, a.join("one"), CWD, b.join("two"), exchange)?;
    let new = RenameFlags::NOREPLACE;
    rustix::fs::renameat_with(CWD, a.join("one"), CWD, b.join("new"), new)?;
    fs::rename(b.join("new"), b.join("two"))?;
    assert!(fs::metadata(a.join("missing")).is_err());
    fs::remove_file(a.join("symlink"))?;
    fs::remove_dir(a)
}

fn attributes(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    let path = at.join("file");
    let file = create(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o2755))?;
    let time = Timespec {
        tv_sec: 1_000_000,
        tv_nsec: 5,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
    std::os::unix::fs::chown(&path, Some(1234), Some(4321))?;
    std::os::unix::fs::lchown(at, Some(CLIENT_UID), Some(CLIENT_GID))?;
    file.metadata()?;
    fs::symlink_metadata(&path).map(drop)
}

fn xattrs(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    let path = at.join("file");
    drop(create(&path)?);
    rustix::fs::setxattr(&path, "user.one", b"value", XattrFlags::CREATE)?;
    let mut value = [0; 64];
    rustix::fs::getxattr(&path, "user.one", &mut value)?;
    rustix::fs::listxattr(&path, &mut [0_u8; 256])?;
    Ok(rustix::fs::removexattr(&path, "user.one")?)
}

/// More entries than one READDIR holds, then again from the start.
fn listing(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    for number in 0..300 {
        drop(create(&at.join(format!("file-{number:040}")))?);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd = rustix::fs::open(at, flags, Mode::empty())?;
    let mut entries = rustix::fs::Dir::new(directory)?;
    let count = |entries: &mut rustix::fs::Dir| entries.by_ref().filter(Result::is_ok).count();
    assert_eq!(count(&mut entries), 302);
    entries.rewind();
    assert_eq!(count(&mut entries), 302);
    Ok(())
}

/// A file that has lost its name.
fn nameless(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    let file = create(&at.join("file"))?;
    fs::remove_file(at.join("file"))?;
    file.write_all_at(b"still there", 0)?;
    file.set_len(5)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.metadata().map(drop)
}

/// The floor: a device that anyone may ask for.
fn refused(at: &Path) -> std::io::Result<()> {
    let made = rustix::fs::mknodat(CWD, at, FileType::CharacterDevice, rw(), 0);
    assert!(matches!(made, Err(Errno::PERM | Errno::ROFS)), "{made:?}");
    Ok(())
}
