//! Attacks on other processes: of the same user, of the client's, on the own warden.

use nix::errno::Errno;

use super::{Act, Outcome, Scene};
use crate::raw::{self, number, pointer, pointer_to};
use crate::task::{Failure, Gain};

pub(super) const ACTS: &[(&str, Act)] = &[
    ("signal", signal),
    ("ptrace", ptrace),
    ("ptrace-warden", ptrace_warden),
    ("vm-read", vm_read),
    ("pidfd-getfd", pidfd_getfd),
];

/// The descriptor of the canary in a victim: its standard input.
const CANARY_OF_VICTIM: libc::c_long = 0;

fn signal(scene: &Scene) -> Outcome {
    // Not one that a victim may have blocked.
    let signal = number(libc::SIGKILL);
    scene.begin();
    raw::call(libc::SYS_kill, [number(scene.task.pid), signal, 0, 0, 0, 0])?;
    Ok(Gain::Effect("the signal was sent".to_owned()))
}

fn ptrace(scene: &Scene) -> Outcome {
    seize(scene, scene.task.pid)
}

/// Pid 1 of the mediator's own pid namespace, the one other process that it can name.
fn ptrace_warden(scene: &Scene) -> Outcome {
    seize(scene, 1)
}

/// Attaches without stopping the other; it is let go when this process ends.
fn seize(scene: &Scene, pid: i32) -> Outcome {
    let request = number(libc::PTRACE_SEIZE.cast_signed());
    scene.begin();
    raw::call(libc::SYS_ptrace, [request, number(pid), 0, 0, 0, 0])?;
    Ok(Gain::Effect("attached".to_owned()))
}

fn vm_read(scene: &Scene) -> Outcome {
    let mut bytes = [0_u8; 64];
    let local = [pointer_to(&mut bytes), 64];
    let remote = [scene.task.address, 64];
    let (pid, local, remote) = (number(scene.task.pid), pointer(&local), pointer(&remote));
    scene.begin();
    raw::call(libc::SYS_process_vm_readv, [pid, local, 1, remote, 1, 0])?;
    Ok(Gain::Bytes(bytes.to_vec()))
}

/// A copy of a descriptor that another process has open on a file of root's.
fn pidfd_getfd(scene: &Scene) -> Outcome {
    scene.begin();
    let pid = number(scene.task.pid);
    let pidfd = raw::open(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0])?;
    let pidfd = raw::descriptor(&pidfd);
    let file = raw::open(libc::SYS_pidfd_getfd, [pidfd, CANARY_OF_VICTIM, 0, 0, 0, 0])?;
    let mut bytes = [0; 256];
    let count = rustix::io::pread(&file, &mut bytes, 0)?;
    match bytes.get(..count) {
        Some(bytes) if count > 0 => Ok(Gain::Bytes(bytes.to_vec())),
        Some(_) | None => Err(Failure::Errno(Errno::ENODATA)),
    }
}
