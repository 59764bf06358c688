//! Raw system calls that succeed for root without the walls, each by a name.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// The arguments of a call.
pub(super) type Raw = [libc::c_long; 6];
/// Its name in the tests, its number, and its arguments.
pub(super) type Attack = (&'static str, libc::c_long, Raw);

fn pointer<T: ?Sized>(to: &T) -> libc::c_long {
    std::ptr::from_ref(to).cast::<u8>() as libc::c_long
}

fn text(text: &'static CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}

/// Calls that succeed for root without the walls.
pub(super) fn attacks(leaked: &OwnedFd) -> Vec<Attack> {
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
pub(super) fn attacks_on_small_lists(run: &OwnedFd, leaked: &OwnedFd) -> Vec<Attack> {
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
pub(super) fn attacks_on_the_warden(leaked: &OwnedFd) -> Vec<Attack> {
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
