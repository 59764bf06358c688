//! Attacks on the walls, from inside: each case is run by a process of its own that enters the
//! walls as a mediator, keeper, warden or init does, and first without them, where it must succeed.
//!
//! Root is needed: the detached clone of `/proc/self/fd` is a mount.
#![allow(
    unsafe_code,
    clippy::cast_possible_truncation,
    reason = "an attack is a raw system call, and only its errno counts"
)]

mod attacks;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

use crate::launch::landlock::{self, Room};
use crate::launch::seccomp::{self, Verdict};
use crate::launch::{calls, namespace, walls};

use attacks::{Raw, attacks, attacks_on_small_lists, attacks_on_the_warden};

const CASE: &str = "VIRTFS_MEDIATOR_TEST_CASE";
const WALLS: &str = "VIRTFS_MEDIATOR_TEST_WALLS";
const PLACE: &str = "VIRTFS_MEDIATOR_TEST_PLACE";

/// What a case ended with.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Its last call succeeded.
    Done,
    /// Its last call failed with this errno, or the process exited with this status.
    Failed(i32),
    /// The kernel killed it.
    Signal(i32),
}

/// Runs a case in a process of its own, with these of the walls.
fn run(case: &str, walls: &str) -> (End, String) {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("export")).unwrap();
    std::fs::write(place.path().join("canary"), "outside").unwrap();
    std::fs::write(place.path().join("export/file"), "inside").unwrap();
    std::fs::create_dir(place.path().join("empty")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        // One test thread: the case then runs in the main thread, alone.
        .args(["--exact", "launch::wall_tests::inside", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(CASE, case)
        .env(WALLS, walls)
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let end = match (output.status.code(), output.status.signal()) {
        (Some(0), _) => End::Done,
        (Some(code), _) => End::Failed(code),
        (None, signal) => End::Signal(signal.unwrap()),
    };
    (end, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn open(at: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(at, flags, Mode::empty()).unwrap()
}

/// Not a test by itself: the inside of [`run`].
#[test]
fn inside() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let wanted = std::env::var(WALLS).unwrap();
    let place = std::env::var_os(PLACE).unwrap();
    let place = Path::new(&place);
    std::env::set_current_dir(place).unwrap();
    let (root, leaked) = (open(&place.join("export")), open(place));
    // For the cases that need one of their own.
    namespace::own_mounts().unwrap();
    let proc_fd = namespace::own_descriptors().unwrap();
    // Prepared before the walls, which would stop the preparation.
    let attack = attacks(&leaked)
        .into_iter()
        .chain(attacks_on_small_lists(&root, &leaked))
        .chain(attacks_on_the_warden(&leaked))
        .find(|(known, ..)| *known == case);
    if wanted.contains('c') {
        walls::reduce_to(walls::MEDIATOR).unwrap();
    }
    if wanted.contains('a') {
        walls::reduce_to(&[caps::Capability::CAP_SYS_ADMIN]).unwrap();
    }
    if wanted.contains('b') {
        landlock::restrict_to(Room::Backing(root.as_fd()), &proc_fd).unwrap();
    }
    if wanted.contains('l') {
        landlock::restrict_to(Room::Export(&root), &proc_fd).unwrap();
    }
    if wanted.contains('r') {
        landlock::restrict_to(Room::Removal(&root), &proc_fd).unwrap();
    }
    if wanted.contains('n') {
        landlock::restrict_to(Room::Nothing, &proc_fd).unwrap();
    }
    for (letter, list, given, verdict) in [
        ('s', &calls::MEDIATOR, &proc_fd, Verdict::Kill),
        ('t', &calls::MEDIATOR, &proc_fd, Verdict::Tell),
        ('K', &calls::KEEPER, &root, Verdict::Kill),
        ('I', &calls::INIT, &root, Verdict::Kill),
        ('W', &calls::WARDEN, &root, Verdict::Kill),
        ('R', &calls::REGISTRAR, &root, Verdict::Kill),
        ('T', &calls::WARDEN, &root, Verdict::Tell),
    ] {
        if wanted.contains(letter) {
            seccomp::confine(list, given, verdict).unwrap();
        }
    }
    let result = match case.as_str() {
        "work" => work(&root, &proc_fd),
        "panic" => {
            std::panic::set_hook(Box::new(|_| {
                drop(std::backtrace::Backtrace::force_capture());
            }));
            crate::abort_on_panic();
            panic!("on purpose")
        }
        "create-by-landlock" => {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&root, "new", flags, Mode::RUSR).map(drop)
        }
        "remove-by-landlock" => rustix::fs::unlinkat(&root, "file", AtFlags::empty()),
        "leak" => rustix::fs::openat(&leaked, "canary", OFlags::RDONLY, Mode::empty()).map(drop),
        "clone3" => raw(libc::SYS_clone3, [0; 6]),
        "getcwd" => raw(libc::SYS_getcwd, [0; 6]),
        "threads" => {
            std::thread::spawn(std::thread::yield_now).join().unwrap();
            Ok(())
        }
        _ => {
            let (_, call, arguments) = attack.unwrap();
            raw(call, arguments)
        }
    };
    crate::sys::exit_now(result.map_or_else(
        |errno| u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX),
        |()| 0,
    ));
}

fn raw(call: libc::c_long, a: Raw) -> rustix::io::Result<()> {
    // SAFETY: the arguments are numbers, or point to what lives until the process ends.
    let result = unsafe { libc::syscall(call, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result >= 0 {
        Ok(())
    } else {
        let error = std::io::Error::last_os_error();
        Err(rustix::io::Errno::from_io_error(&error).unwrap())
    }
}

/// What a mediator does with files, each by the way it does it.
fn work(root: &OwnedFd, proc_fd: &OwnedFd) -> rustix::io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let name = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    rustix::process::fchdir(proc_fd)?;
    for dir in ["a", "b"] {
        rustix::fs::mkdirat(root, dir, Mode::RWXU)?;
    }
    let a = rustix::fs::openat(root, "a", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    drop(rustix::fs::openat(&a, "file", create, mode)?);
    let node = rustix::fs::openat(&a, "file", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let file = rustix::fs::openat(proc_fd, name(&node), OFlags::RDWR, Mode::empty())?;
    rustix::io::pwrite(&file, b"hello", 0)?;
    let mut read = [0; 5];
    rustix::io::pread(&file, &mut read, 0)?;
    assert_eq!(&read, b"hello");
    rustix::fs::ftruncate(&file, 2)?;
    rustix::fs::chmodat(proc_fd, name(&node), mode, AtFlags::empty())?;
    rustix::fs::setxattr(name(&node), "user.x", b"y", XattrFlags::empty())?;
    rustix::fs::getxattr(name(&node), "user.x", &mut read)?;
    rustix::fs::listxattr(name(&node), &mut [0_u8; 256])?;
    rustix::fs::removexattr(name(&node), "user.x")?;
    let plain = rustix::fs::RenameFlags::NOREPLACE;
    rustix::fs::renameat_with(root, "a/file", root, "b/moved", plain)?;
    rustix::fs::linkat(proc_fd, name(&node), &a, "link", AtFlags::SYMLINK_FOLLOW)?;
    let tmp = OFlags::TMPFILE | OFlags::RDWR;
    let tmp = rustix::fs::openat(&a, ".", tmp, mode)?;
    rustix::fs::linkat(proc_fd, name(&tmp), root, "tmp", AtFlags::SYMLINK_FOLLOW)?;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(root, "fifo", fifo, mode, 0)?;
    rustix::fs::symlinkat("/nowhere", root, "symlink")?;
    rustix::fs::unlinkat(&a, "link", AtFlags::empty())?;
    let truncate = OFlags::RDWR | OFlags::TRUNC;
    drop(rustix::fs::openat(
        proc_fd,
        name(&node),
        truncate,
        Mode::empty(),
    )?);
    let list = OFlags::RDONLY | OFlags::DIRECTORY;
    drop(rustix::fs::openat(&a, ".", list, Mode::empty())?);
    rustix::fs::unlinkat(root, "b/moved", AtFlags::empty())?;
    // A file without a name is still re-opened.
    drop(rustix::fs::openat(
        proc_fd,
        name(&node),
        OFlags::RDONLY,
        Mode::empty(),
    )?);
    rustix::fs::fsync(file.as_fd())
}

#[test]
fn work_within_all_walls_is_done() {
    for walls in ["", "l", "s", "clt", "cls"] {
        assert_eq!(run("work", walls).0, End::Done, "walls: {walls}");
        assert_eq!(run("threads", walls).0, End::Done, "walls: {walls}");
    }
}

#[test]
fn calls_not_listed_succeed_without_seccomp_and_kill_with_it_alone() {
    let here = open(Path::new("/"));
    for (name, ..) in attacks(&here) {
        assert_eq!(run(name, "").0, End::Done, "{name}, without walls");
        for list in ["s", "K", "I", "W", "R"] {
            let end = run(name, list).0;
            assert_eq!(end, End::Signal(libc::SIGSYS), "{name}, list {list}");
        }
    }
}

#[test]
fn calls_with_other_arguments_succeed_without_seccomp_and_kill_keeper_warden_and_init() {
    let here = open(Path::new("/"));
    for (name, ..) in attacks_on_small_lists(&here, &here) {
        assert_eq!(run(name, "").0, End::Done, "{name}, without walls");
        for list in ["K", "I", "W", "R"] {
            let end = run(name, list).0;
            assert_eq!(end, End::Signal(libc::SIGSYS), "{name}, list {list}");
        }
    }
    for (name, ..) in attacks_on_the_warden(&here) {
        assert_eq!(run(name, "").0, End::Done, "{name}, without walls");
        assert_eq!(run(name, "W").0, End::Signal(libc::SIGSYS), "{name}");
    }
}

#[test]
fn clone3_and_getcwd_within_seccomp_are_absent() {
    for case in ["clone3", "getcwd"] {
        assert_eq!(run(case, "s").0, End::Failed(libc::ENOSYS), "{case}");
    }
    assert_eq!(run("clone3", "").0, End::Failed(libc::EINVAL));
    assert_eq!(run("getcwd", "").0, End::Failed(libc::ERANGE));
}

#[test]
fn calls_not_listed_with_debug_are_told_by_number() {
    // The warden's list has no `write` of its own.
    for list in ["t", "T"] {
        let (end, told) = run("socket", list);
        assert_eq!(end, End::Failed(128 + libc::SIGSYS), "{list}");
        let number = libc::SYS_socket;
        assert!(
            told.lines().any(|line| {
                line.starts_with("virtfs-mediator: seccomp refused system call number")
                    && line.ends_with(&format!(" {number}"))
            }),
            "{list}: {told}"
        );
    }
}

#[test]
fn descriptor_leaked_from_outside_opens_nothing_with_landlock_alone() {
    assert_eq!(run("leak", "").0, End::Done);
    assert_eq!(run("leak", "s").0, End::Done);
    for room in ["l", "r", "n", "b"] {
        assert_eq!(run("leak", room).0, End::Failed(libc::EACCES), "{room}");
    }
}

#[test]
fn rooms_of_keeper_and_warden_with_landlock_alone_are_what_they_need() {
    for (case, removal, nothing) in [
        (
            "create-by-landlock",
            End::Failed(libc::EACCES),
            End::Failed(libc::EACCES),
        ),
        ("remove-by-landlock", End::Done, End::Failed(libc::EACCES)),
    ] {
        assert_eq!(run(case, "").0, End::Done, "{case}");
        assert_eq!(run(case, "r").0, removal, "{case}");
        assert_eq!(run(case, "n").0, nothing, "{case}");
    }
}

#[test]
fn panic_within_the_walls_aborts() {
    assert_eq!(run("panic", "cls").0, End::Signal(libc::SIGABRT));
}

#[test]
fn rows_have_reasons_and_none_makes_another_void() {
    for list in [
        &calls::MEDIATOR,
        &calls::REGISTRAR,
        &calls::KEEPER,
        &calls::WARDEN,
        &calls::INIT,
    ] {
        let mut seen = std::collections::BTreeMap::<_, Vec<String>>::new();
        for rule in list.allowed.iter().copied().flatten().chain(list.absent) {
            assert!(!rule.why.is_empty(), "{rule:?}");
            assert!(rule.rare.is_none_or(|why| why.starts_with("only ")));
            let rows = seen.entry(rule.call).or_default();
            let checks = format!("{:?}", rule.checks);
            assert!(!rows.contains(&checks), "{}: {rule:?}", list.name);
            rows.push(checks);
            // One without conditions leaves nothing to the others.
            let alone = rows.len() == 1 || rows.iter().all(|checks| checks != "[]");
            assert!(alone, "{}: {rule:?}", list.name);
        }
    }
}
