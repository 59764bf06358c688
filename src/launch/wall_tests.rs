//! Attacks on the walls, from inside: each case is run by a process of its own that enters the
//! walls as a mediator, keeper, warden or init does, and first without them, where it must succeed.
//!
//! Root is needed: the detached clone of `/proc/self/fd` is a mount.
#![allow(
    unsafe_code,
    clippy::cast_possible_truncation,
    reason = "an attack is a raw system call, and only its errno counts"
)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

use crate::launch::landlock::{self, Room};
use crate::launch::seccomp::{self, Verdict};
use crate::launch::{calls, namespace, walls};

const CASE: &str = "VIRTFS_MEDIATOR_TEST_CASE";
const WALLS: &str = "VIRTFS_MEDIATOR_TEST_WALLS";
const PLACE: &str = "VIRTFS_MEDIATOR_TEST_PLACE";

type Raw = [libc::c_long; 6];

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
                std::process::abort()
            }));
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

fn pointer<T: ?Sized>(to: &T) -> libc::c_long {
    std::ptr::from_ref(to).cast::<u8>() as libc::c_long
}

fn text(text: &'static CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}

/// Calls that succeed for root without the walls.
fn attacks(leaked: &OwnedFd) -> Vec<(&'static str, libc::c_long, Raw)> {
    let n = libc::c_long::from;
    let dir = n(leaked.as_raw_fd());
    let rw_exec = n(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    let private = n(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let page = {
        // SAFETY: a fresh anonymous mapping.
        let page = unsafe {
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4096, rw, how, -1, 0)
        };
        page as libc::c_long
    };
    let pair: &'static mut [i32; 2] = Box::leak(Box::new([0; 2]));
    let argv: &'static [*const libc::c_char; 2] =
        Box::leak(Box::new([c"true".as_ptr(), std::ptr::null()]));
    let handle: &'static mut [u32; 34] = Box::leak(Box::new([0; 34]));
    let char_device = n(0o020_600_i32);
    let fork = n(libc::SIGCHLD);
    let inet = [n(libc::AF_INET), n(libc::SOCK_STREAM), 0, 0, 0, 0];
    let unix = [n(libc::AF_UNIX), n(libc::SOCK_STREAM), 0, 0, 0, 0];
    // Not a user namespace, which a process with threads cannot have: the clone below has one.
    let namespace = [n(libc::CLONE_NEWNET), 0, 0, 0, 0, 0];
    let tmpfs = c"tmpfs";
    vec![
        ("socket", libc::SYS_socket, inet),
        ("socket-unix", libc::SYS_socket, unix),
        ("socketpair", libc::SYS_socketpair, {
            [
                n(libc::AF_UNIX),
                n(libc::SOCK_STREAM),
                0,
                pointer(pair),
                0,
                0,
            ]
        }),
        ("unshare", libc::SYS_unshare, namespace),
        ("clone-namespace", libc::SYS_clone, {
            [fork | n(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0]
        }),
        ("fork", libc::SYS_clone, [fork, 0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, {
            [text(c"/bin/true"), pointer(argv), 0, 0, 0, 0]
        }),
        ("process_vm_readv", libc::SYS_process_vm_readv, {
            [n(std::process::id().cast_signed()), 0, 0, 0, 0, 0]
        }),
        ("mount", libc::SYS_mount, {
            [text(tmpfs), text(c"/proc"), text(tmpfs), 0, 0, 0]
        }),
        ("mmap-exec", libc::SYS_mmap, {
            [0, 4096, rw_exec, private, -1, 0]
        }),
        ("mprotect-exec", libc::SYS_mprotect, {
            [page, 4096, rw_exec, 0, 0, 0]
        }),
        ("mknod-device", libc::SYS_mknodat, {
            [dir, text(c"export/null"), char_device, 0x103, 0, 0]
        }),
        ("mknod-file", libc::SYS_mknodat, {
            [dir, text(c"export/made"), 0o100_600, 0, 0, 0]
        }),
        ("memfd", libc::SYS_memfd_create, [text(c"m"), 0, 0, 0, 0, 0]),
        ("chdir", libc::SYS_chdir, [text(c"/"), 0, 0, 0, 0, 0]),
        ("fchdir", libc::SYS_fchdir, [dir, 0, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [text(c"/"), 0, 0, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0; 6]),
        ("kill", libc::SYS_kill, [0; 6]),
        ("dumpable", libc::SYS_prctl, {
            [n(libc::PR_SET_DUMPABLE), 1, 0, 0, 0, 0]
        }),
        ("handle", libc::SYS_open_by_handle_at, {
            handle[0] = 128;
            let mut mount = 0_i32;
            // SAFETY: the buffer is the struct file_handle with 128 bytes of room.
            unsafe {
                libc::syscall(
                    libc::SYS_name_to_handle_at,
                    leaked.as_raw_fd(),
                    c"canary".as_ptr(),
                    handle.as_mut_ptr(),
                    &raw mut mount,
                    0,
                );
            }
            // By any directory of the file system that can be read: the working directory.
            let here = n(libc::AT_FDCWD);
            [here, pointer(handle), 0, 0, 0, 0]
        }),
    ]
}

/// Calls on files and processes that the keeper and the client's init have no use for, although
/// they have one for the call with other arguments, or for its neighbours.
fn attacks_on_small_lists(
    run: &OwnedFd,
    leaked: &OwnedFd,
) -> Vec<(&'static str, libc::c_long, Raw)> {
    let n = libc::c_long::from;
    let (run, out) = (n(run.as_raw_fd()), n(leaked.as_raw_fd()));
    let own = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
    let pidfd: &'static OwnedFd = Box::leak(Box::new(pidfd));
    let directory = n(libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let (create, times) = (n(libc::O_CREAT | libc::O_WRONLY), 0);
    let file = text(c"file");
    vec![
        ("signal-0", libc::SYS_pidfd_send_signal, {
            [n(pidfd.as_raw_fd()), 0, 0, 0, 0, 0]
        }),
        ("pidfd_open", libc::SYS_pidfd_open, {
            [n(std::process::id().cast_signed()), 0, 0, 0, 0, 0]
        }),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, {
            [n(pidfd.as_raw_fd()), 0, 0, 0, 0, 0]
        }),
        ("open-elsewhere", libc::SYS_openat, {
            [out, text(c"empty"), directory, 0, 0, 0]
        }),
        ("open-by-path", libc::SYS_openat, {
            [n(libc::AT_FDCWD), text(c"/"), directory, 0, 0, 0]
        }),
        ("open-file", libc::SYS_openat, [run, file, 0, 0, 0, 0]),
        ("create", libc::SYS_openat, {
            [run, text(c"new"), create, 0o600, 0, 0]
        }),
        ("openat2", libc::SYS_openat2, {
            let how: &'static [u64; 3] = Box::leak(Box::new([0; 3]));
            [run, file, pointer(how), 24, 0, 0]
        }),
        ("rmdir-elsewhere", libc::SYS_unlinkat, {
            [out, text(c"empty"), n(libc::AT_REMOVEDIR), 0, 0, 0]
        }),
        (
            "mkdir",
            libc::SYS_mkdirat,
            [run, text(c"d"), 0o700, 0, 0, 0],
        ),
        ("mknod-fifo", libc::SYS_mknodat, {
            [run, text(c"fifo"), 0o010_600, 0, 0, 0]
        }),
        (
            "symlink",
            libc::SYS_symlinkat,
            [file, run, text(c"s"), 0, 0, 0],
        ),
        ("link", libc::SYS_linkat, [run, file, run, text(c"l"), 0, 0]),
        ("rename", libc::SYS_renameat2, {
            [run, file, run, text(c"r"), 0, 0]
        }),
        ("chmod", libc::SYS_fchmodat, [run, file, 0o600, 0, 0, 0]),
        ("chown", libc::SYS_fchownat, [run, file, 0, 0, 0, 0]),
        ("utimens", libc::SYS_utimensat, [run, file, times, 0, 0, 0]),
        ("stat", libc::SYS_statx, {
            let buffer: &'static mut [u64; 32] = Box::leak(Box::new([0; 32]));
            [run, file, 0, 0, pointer(buffer), 0]
        }),
        (
            "set_robust_list",
            libc::SYS_set_robust_list,
            [0, 24, 0, 0, 0, 0],
        ),
        ("dup", libc::SYS_dup, [run, 0, 0, 0, 0, 0]),
        ("dup2-elsewhere", libc::SYS_dup3, [2, 77, 0, 0, 0, 0]),
        ("fcntl-flags", libc::SYS_fcntl, [2, 3, 0, 0, 0, 0]),
        ("ioctl", libc::SYS_ioctl, [2, 0x5451, 0, 0, 0, 0]),
        ("getdents", libc::SYS_getdents64, {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let here = rustix::fs::open(".", flags, Mode::empty()).unwrap();
            let here: &'static OwnedFd = Box::leak(Box::new(here));
            let buffer: &'static mut [u64; 64] = Box::leak(Box::new([0; 64]));
            [n(here.as_raw_fd()), pointer(buffer), 512, 0, 0, 0]
        }),
    ]
}

/// Calls that even they may make, and the warden may not.
fn attacks_on_the_warden(leaked: &OwnedFd) -> Vec<(&'static str, libc::c_long, Raw)> {
    let n = libc::c_long::from;
    let (read, write) = rustix::pipe::pipe().unwrap();
    let read: &'static OwnedFd = Box::leak(Box::new(read));
    let write: &'static OwnedFd = Box::leak(Box::new(write));
    rustix::io::write(write, b"x").unwrap();
    let byte: &'static mut [u8; 1] = Box::leak(Box::new([0]));
    vec![
        ("read-elsewhere", libc::SYS_read, {
            [n(read.as_raw_fd()), pointer(byte), 1, 0, 0, 0]
        }),
        ("write", libc::SYS_write, {
            [n(write.as_raw_fd()), pointer(byte), 1, 0, 0, 0]
        }),
        (
            "close",
            libc::SYS_close,
            [n(write.as_raw_fd()), 0, 0, 0, 0, 0],
        ),
        ("mmap", libc::SYS_mmap, {
            let private = n(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            [0, 4096, 1, private, -1, 0]
        }),
        ("unlink", libc::SYS_unlinkat, {
            [n(leaked.as_raw_fd()), text(c"canary"), 0, 0, 0, 0]
        }),
    ]
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
        for list in ["s", "K", "I", "W"] {
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
        for list in ["K", "I", "W"] {
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
    for room in ["l", "r", "n"] {
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
