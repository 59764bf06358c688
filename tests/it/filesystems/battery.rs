//! The client of these tests: this test binary itself, which does the same in a plain directory, as
//! root, and in a view, as a user, and prints what comes of it.
#![allow(clippy::print_stdout, reason = "what the test reads")]

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirEntryExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown,
    symlink,
};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};

/// Where [`inside`] works.
pub(super) const AT: &str = "VIRTFS_IT_FILESYSTEM";
/// What lines of the battery begin with, among those of the test harness.
pub(super) const MARK: &str = "| ";

/// Not a test by itself: the battery.
#[test]
fn inside() {
    let Some(at) = std::env::var_os(AT) else {
        return;
    };
    // Else it would be taken off what is made below a default ACL: a view's kernel does not know
    // of the ACL, and takes it off everywhere. QEMU gives each file its mode afterwards.
    rustix::process::umask(Mode::empty());
    println!();
    for (name, step) in STEPS {
        let mut told = String::new();
        let at = Path::new(&at).join(name);
        let ended = make_unless_there(&at).and_then(|()| step(&at, &mut told));
        if let Err(error) = ended {
            let _infallible = writeln!(told, "stopped: {error}");
        }
        for line in told.lines() {
            println!("{MARK}{name}: {line}");
        }
    }
    println!("{MARK}end");
}

/// Root's, whoever makes it.
fn make_unless_there(at: &Path) -> io::Result<()> {
    match fs::create_dir(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => chown(at, Some(0), Some(0)),
    }
}

type Step = fn(&Path, &mut String) -> io::Result<()>;

/// Each in a directory of its own.
const STEPS: [(&str, Step); 16] = [
    ("owners", owners),
    ("directories", directories),
    ("links", links),
    ("renames", renames),
    ("attributes", attributes),
    ("times", times),
    ("large", data::large),
    ("holes", data::holes),
    ("data", data::data),
    ("append", data::append),
    ("status", status),
    ("names", names),
    ("listing", listing),
    ("nameless", data::nameless),
    ("room", data::room),
    ("acl", acl),
];

/// What becomes of a call, by its errno.
fn outcome<T>(result: Result<T, impl Into<io::Error>>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(error) => error.into().to_string(),
    }
}

macro_rules! tell {
    ($told:ident, $($text:tt)*) => {
        // Writing to a String cannot fail.
        let _infallible = writeln!($told, $($text)*);
    };
}

// Behind the macro that it uses.
mod data;

fn stat(path: &Path) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let size = if kind.is_dir() { 0 } else { meta.size() };
    let letter = [
        (kind.is_file(), 'f'),
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'l'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 's'),
    ];
    let letter = letter
        .into_iter()
        .find(|(is, _)| *is)
        .map_or('?', |(_, letter)| letter);
    Ok(format!(
        "{letter} {:o} {}:{} size={size}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid()
    ))
}

fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?.into())
}

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// As QEMU makes a file for a guest: made, given away, given its mode.
fn owners(at: &Path, told: &mut String) -> io::Result<()> {
    for (name, uid, gid, bits) in [
        ("root", 0, 0, 0o644),
        ("user", 1000, 1001, 0o600),
        ("high", 4_000_000_000, 4_000_000_001, 0o444),
        ("setuid", 1234, 4321, 0o6755),
        ("nothing", 0, 1000, 0o000),
    ] {
        let path = at.join(name);
        create(&path)?.write_all(name.as_bytes())?;
        chown(&path, Some(uid), Some(gid))?;
        mode(&path, bits)?;
        tell!(told, "{name} {}", stat(&path)?);
    }
    chown(at.join("user"), None, Some(2000))?;
    tell!(told, "group alone {}", stat(&at.join("user"))?);
    chown(at.join("setuid"), Some(1), None)?;
    tell!(told, "given away {}", stat(&at.join("setuid"))?);
    Ok(())
}

fn directories(at: &Path, told: &mut String) -> io::Result<()> {
    let team = at.join("team");
    fs::create_dir(&team)?;
    chown(&team, Some(1000), Some(1000))?;
    mode(&team, 0o2775)?;
    create(&team.join("file"))?;
    fs::create_dir(team.join("below"))?;
    for path in [&team, &team.join("file"), &team.join("below")] {
        let meta = fs::metadata(path)?;
        tell!(told, "{:o} group {}", meta.mode() & 0o2000, meta.gid());
    }
    chown(team.join("file"), Some(1000), None)?;
    chown(team.join("below"), Some(1000), None)?;
    tell!(told, "full: {}", outcome(fs::remove_dir(&team)));
    tell!(told, "links {}", fs::metadata(&team)?.nlink());
    fs::remove_dir(team.join("below"))?;
    tell!(told, "links {}", fs::metadata(&team)?.nlink());
    tell!(
        told,
        "no directory: {}",
        outcome(fs::read_dir(team.join("file")))
    );
    Ok(())
}

fn links(at: &Path, told: &mut String) -> io::Result<()> {
    let (one, two) = (at.join("one"), at.join("two"));
    create(&one)?.write_all(b"linked")?;
    chown(&one, Some(0), Some(0))?;
    mode(&one, 0o644)?;
    // The client owns it for a moment: fs.protected_hardlinks is the host's, and not asked here.
    mode(&one, 0o666)?;
    fs::hard_link(&one, &two)?;
    let (first, second) = (fs::metadata(&one)?, fs::metadata(&two)?);
    tell!(told, "one inode {}", first.ino() == second.ino());
    tell!(told, "links {}", second.nlink());
    mode(&two, 0o640)?;
    tell!(told, "seen through the other {}", stat(&one)?);
    fs::remove_file(&one)?;
    tell!(told, "links {}", fs::metadata(&two)?.nlink());
    let link = at.join("symlink");
    symlink("/no/such/place", &link)?;
    lchown(&link, Some(1000), Some(1000))?;
    tell!(told, "{} to {:?}", stat(&link)?, fs::read_link(&link)?);
    let long = "t".repeat(1000);
    symlink(&long, at.join("long"))?;
    lchown(at.join("long"), Some(0), Some(0))?;
    tell!(
        told,
        "long {}",
        fs::read_link(at.join("long"))?.as_os_str() == long.as_str()
    );
    Ok(())
}

fn renames(at: &Path, told: &mut String) -> io::Result<()> {
    for (name, data) in [("a", "first"), ("b", "second")] {
        create(&at.join(name))?.write_all(data.as_bytes())?;
        chown(at.join(name), Some(0), Some(0))?;
    }
    let (a, b, c) = (at.join("a"), at.join("b"), at.join("c"));
    let before = fs::metadata(&a)?.ino();
    let flagged =
        |from: &Path, to: &Path, flags| rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    tell!(
        told,
        "noreplace {}",
        outcome(flagged(&a, &b, RenameFlags::NOREPLACE))
    );
    tell!(
        told,
        "exchange {}",
        outcome(flagged(&a, &b, RenameFlags::EXCHANGE))
    );
    tell!(told, "a holds {}", fs::read_to_string(&a)?);
    tell!(told, "one inode {}", fs::metadata(&b)?.ino() == before);
    fs::rename(&b, &c)?;
    tell!(told, "one inode {}", fs::metadata(&c)?.ino() == before);
    fs::rename(&c, &a)?;
    tell!(told, "a holds {}", fs::read_to_string(&a)?);
    fs::create_dir(at.join("d"))?;
    fs::create_dir(at.join("e"))?;
    create(&at.join("d/file"))?;
    chown(at.join("d/file"), Some(0), Some(0))?;
    fs::rename(at.join("d"), at.join("e/d"))?;
    tell!(told, "moved {}", outcome(fs::metadata(at.join("e/d/file"))));
    tell!(
        told,
        "into itself {}",
        outcome(fs::rename(at.join("e"), at.join("e/d/e")))
    );
    for directory in ["e", "e/d"] {
        chown(at.join(directory), Some(0), Some(0))?;
    }
    Ok(())
}

fn attributes(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    create(&path)?;
    chown(&path, Some(0), Some(0))?;
    for (name, length) in [
        ("user.small", 10),
        ("user.empty", 0),
        ("user.middle", 1000),
        ("user.large", 60_000),
    ] {
        let set = rustix::fs::setxattr(&path, name, &vec![7; length], XattrFlags::CREATE);
        tell!(told, "{name} {}", outcome(set));
        let mut value = vec![0; 1 << 16];
        match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Ok(got) => {
                let whole = got == length && value[..got].iter().all(|byte| *byte == 7);
                tell!(told, "  read {whole}");
            }
            Err(errno) => {
                tell!(told, "  read {errno}");
            }
        }
    }
    let again = rustix::fs::setxattr(&path, "user.small", b"x", XattrFlags::CREATE);
    tell!(told, "again {}", outcome(again));
    let missing = rustix::fs::setxattr(&path, "user.none", b"x", XattrFlags::REPLACE);
    tell!(told, "missing {}", outcome(missing));
    tell!(told, "{}", listed(&path)?);
    rustix::fs::removexattr(&path, "user.small")?;
    tell!(
        told,
        "gone {}",
        outcome(rustix::fs::removexattr(&path, "user.small"))
    );
    let directory = rustix::fs::setxattr(at, "user.directory", b"d", XattrFlags::empty());
    tell!(told, "directory {}", outcome(directory));
    Ok(())
}

/// The names of the `user` attributes, in order.
pub(super) fn listed(path: &Path) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut buffer[..])?;
    let mut names: Vec<String> = buffer[..length]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| name.starts_with("user."))
        // A client of a view is told what it may read of the others.
        .collect();
    names.sort();
    Ok(names.join(" "))
}

fn times(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    create(&path)?;
    chown(&path, Some(0), Some(0))?;
    let set = |access: (i64, i64), change: (i64, i64)| {
        let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: spec(access),
            last_modification: spec(change),
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())
    };
    for (name, access, change) in [
        ("both", (1_000_000_000, 1), (1_100_000_000, 999_999_999)),
        ("one", (0, UTIME_OMIT), (1_200_000_000, 5)),
        ("far", (4_102_444_800, 0), (7_258_118_400, 0)),
        ("before 1970", (-1, 0), (-1000, 500)),
    ] {
        set(access, change)?;
        let meta = fs::metadata(&path)?;
        tell!(
            told,
            "{name} {}.{} {}.{}",
            meta.atime(),
            meta.atime_nsec(),
            meta.mtime(),
            meta.mtime_nsec()
        );
    }
    Ok(())
}

/// What moves the time of change and nothing else, or no time at all.
fn status(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    create(&path)?.write_all(b"text")?;
    let spec = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
    let times = Timestamps {
        last_access: spec(1000),
        last_modification: spec(2000),
    };
    for (name, flags) in [("noatime", OFlags::NOATIME), ("plain", OFlags::empty())] {
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
        let file = rustix::fs::open(&path, OFlags::RDONLY | flags, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        tell!(
            told,
            "{name} {text} kept {}",
            fs::metadata(&path)?.atime() == 1000
        );
    }
    chown(&path, Some(0), Some(0))?;
    mode(&path, 0o6755)?;
    for place in [&path, at] {
        let time = || fs::metadata(place).map(|meta| (meta.ctime(), meta.ctime_nsec()));
        let before = time()?;
        std::thread::sleep(std::time::Duration::from_millis(20));
        chown(place, None, None)?;
        tell!(told, "{} moved {}", stat(place)?, time()? > before);
    }
    Ok(())
}

fn names(at: &Path, told: &mut String) -> io::Result<()> {
    let of_bytes = |bytes: &[u8]| at.join(std::ffi::OsStr::from_bytes(bytes));
    for (name, bytes) in [
        ("longest", vec![b'n'; 255]),
        ("too long", vec![b'n'; 256]),
        ("no text", b"\xff\xfe\x01".to_vec()),
        ("newline", b"a\nb".to_vec()),
    ] {
        tell!(told, "{name} {}", outcome(create(&of_bytes(&bytes))));
    }
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        let bits = Mode::from_raw_mode(0o640);
        let path = at.join(name);
        tell!(
            told,
            "{name} {}",
            outcome(rustix::fs::mknodat(CWD, &path, kind, bits, 0))
        );
        chown(&path, Some(1000), Some(1000))?;
        tell!(told, "{}", stat(&path)?);
    }
    for entry in fs::read_dir(at)? {
        lchown(entry?.path(), Some(0), Some(0))?;
    }
    Ok(())
}

fn listing(at: &Path, told: &mut String) -> io::Result<()> {
    for number in 0..1200 {
        create(&at.join(format!("{number:04}")))?;
    }
    for number in 0..100 {
        fs::create_dir(at.join(format!("d{number}")))?;
        symlink("nowhere", at.join(format!("l{number}")))?;
    }
    let mut numbers = std::collections::BTreeSet::new();
    let (mut wrong, mut types) = (0, 0);
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let listed = entry.ino();
        // As the directory tells it, where it does.
        let kind = entry.file_type()?;
        let meta = entry.metadata()?;
        wrong += usize::from(listed != meta.ino());
        types += usize::from(kind != meta.file_type());
        numbers.insert(listed);
    }
    tell!(
        told,
        "{} of their own, {wrong} unlike stat's, {types} of another type",
        numbers.len()
    );
    for number in 0..100 {
        fs::remove_dir(at.join(format!("d{number}")))?;
    }
    // Removed while it is listed.
    let mut removed = 0;
    for entry in fs::read_dir(at)? {
        fs::remove_file(entry?.path())?;
        removed += 1;
    }
    tell!(
        told,
        "removed {removed}, left {}",
        fs::read_dir(at)?.count()
    );
    Ok(())
}

/// In directories and on files that the host gave ACLs.
fn acl(at: &Path, told: &mut String) -> io::Result<()> {
    let below = at.join("default");
    if !below.exists() {
        return Ok(());
    }
    drop(create(&below.join("file"))?);
    fs::create_dir(below.join("directory"))?;
    for name in ["file", "directory"] {
        tell!(told, "{name} {:o}", fs::metadata(below.join(name))?.mode());
        chown(below.join(name), Some(0), Some(0))?;
    }
    mode(&at.join("file"), 0o640)?;
    tell!(told, "chmod {}", stat(&at.join("file"))?);
    Ok(())
}
