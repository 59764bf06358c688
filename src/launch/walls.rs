//! What a process gives up, and the proof that it did: every wall is read back.

use std::os::fd::OwnedFd;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitiesSecureBits;

use crate::error::{Class, Error, Result};
use crate::launch::seccomp::Verdict;
use crate::sys;

/// What a mediator may do inside its own user namespace, and why.
///
/// * CHOWN: give files the owners that the guest asks for.
/// * DAC_OVERRIDE: reach files whatever their mode, as QEMU as root would.
/// * FOWNER: chmod, times and xattrs of files that it does not own.
/// * FSETID: without it, chmod 2775 on a foreign group silently loses set-group-id.
///
/// Not DAC_READ_SEARCH: DAC_OVERRIDE covers what it is wanted for, and with it
/// `open_by_handle_at` reads any file of the file system.
pub(crate) const MEDIATOR: &[Capability] = &[
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

/// What a mediator keeps of [`MEDIATOR`]: of a read-only view DAC_OVERRIDE alone, and FSETID only
/// if the policy gives set-id bits to anything, a directory's group inheritance among them.
pub(crate) fn for_mediator(readonly: bool, set_id: bool) -> Vec<Capability> {
    let keeps = |capability| {
        capability == Capability::CAP_DAC_OVERRIDE
            || (!readonly && (set_id || capability != Capability::CAP_FSETID))
    };
    MEDIATOR.iter().copied().filter(|one| keeps(*one)).collect()
}

/// Room for a mediator's threads: its workers, the writer of its log, the one that ends listings, the
/// control socket with what
/// goes on there, and a stepping console's (24 in all), and some more.
const THREADS: u64 = 32;

/// Reduces all five capability sets: effective, permitted and bounding to `keep`; inheritable and
/// ambient to nothing. Locks the securebits, so that no later exec or setuid brings anything back,
/// and sets no_new_privs. Reads everything back.
///
/// # Errors
///
/// Confinement: names the wall that the kernel did not build.
pub(crate) fn reduce_to(keep: &[Capability]) -> Result<()> {
    let keep: CapsHashSet = keep.iter().copied().collect();
    lock_securebits()?;
    reduce_bounding(&keep)?;
    caps::clear(None, CapSet::Ambient).map_err(|error| wall("ambient capabilities", &error))?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())
        .map_err(|error| wall("inheritable capabilities", &error))?;
    caps::set(None, CapSet::Effective, &keep)
        .map_err(|error| wall("effective capabilities", &error))?;
    caps::set(None, CapSet::Permitted, &keep)
        .map_err(|error| wall("permitted capabilities", &error))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| wall("no_new_privs", &errno))?;
    verify(&keep)
}

/// What [`reduce_to`] does, for a process that changes from root to the client: the bounding set
/// and the securebits before it gives its ids up (they need SETPCAP), no_new_privs too. The other
/// sets go with the ids; [`verify_nothing_left`] proves it.
pub(crate) fn before_client_ids() -> Result<()> {
    reduce_bounding(&CapsHashSet::new())?;
    caps::clear(None, CapSet::Ambient).map_err(|error| wall("ambient capabilities", &error))?;
    caps::clear(None, CapSet::Inheritable)
        .map_err(|error| wall("inheritable capabilities", &error))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| wall("no_new_privs", &errno))
}

/// No capability in any of the five sets, and no_new_privs.
pub(crate) fn verify_nothing_left() -> Result<()> {
    verify(&CapsHashSet::new())
}

fn reduce_bounding(keep: &CapsHashSet) -> Result<()> {
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| wall("capability bounding set", &error))?;
        }
    }
    Ok(())
}

/// Reads the five sets and no_new_privs back from the kernel.
fn verify(keep: &CapsHashSet) -> Result<()> {
    let empty = CapsHashSet::new();
    let wanted = [
        (CapSet::Effective, keep),
        (CapSet::Permitted, keep),
        (CapSet::Bounding, keep),
        (CapSet::Inheritable, &empty),
        (CapSet::Ambient, &empty),
    ];
    for (set, expected) in wanted {
        let found = caps::read(None, set).map_err(|error| wall("reading capabilities", &error))?;
        if found != *expected {
            return Err(wall(
                "capabilities",
                &format!("{set:?} is {found:?}, not {expected:?}"),
            ));
        }
    }
    match rustix::thread::no_new_privs() {
        Ok(true) => Ok(()),
        Ok(false) => Err(wall("no_new_privs", &"not set although the kernel said so")),
        Err(errno) => Err(wall("no_new_privs", &errno)),
    }
}

/// The caller's terminal can neither signal this process nor be typed into by it.
///
/// It stays in the caller's session, if that can be had without the terminal: the scheduler shares a
/// CPU among sessions first (`sched_autogroup_enabled`, sched(7)), and on a busy machine whoever
/// serves the client from another one waits for everyone else's turn at each of its requests.
pub(crate) fn leave_terminal() -> Result<()> {
    let failed = |call| move |errno| Error::step(Class::Confinement, call, errno);
    if sys::give_up_terminal() {
        let own = nix::unistd::Pid::from_raw(0);
        nix::unistd::setpgid(own, own).map_err(failed("setpgid"))
    } else {
        let session = nix::unistd::setsid();
        session.map_err(failed("setsid")).map(|_id| ())
    }
}

/// NOROOT: uid 0 gets nothing on exec. NO_SETUID_FIXUP: changing ids adds and removes nothing.
/// NO_CAP_AMBIENT_RAISE: no way around the bounding set. All locked for good.
fn lock_securebits() -> Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)
        .map_err(|errno| wall("securebits", &errno))?;
    match rustix::thread::capabilities_secure_bits() {
        Ok(found) if found == bits => Ok(()),
        Ok(found) => Err(wall("securebits", &format!("{found:?}, not {bits:?}"))),
        Err(errno) => Err(wall("securebits", &errno)),
    }
}

/// No core dump, no ptrace by the same user, no access to /proc/PID/mem.
pub(crate) fn not_dumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| wall("PR_SET_DUMPABLE", &errno))
}

/// Which of the caller's standard descriptors lead nowhere from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Input and output; the log still goes to standard error.
    AllButErrors,
    /// All three.
    All,
}

/// Lets go of what the caller gave us to read from and write to. By pipes without another end:
/// where this is called there may be no /dev/null. Two of them, since what is written to a pipe
/// that has a reader, and be it ourselves, blocks when it is full.
pub(crate) fn silence(which: Silence) -> Result<()> {
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| wall("pipe2", &errno))
    };
    let ((read, _), (_, write)) = (pipe()?, pipe()?);
    rustix::stdio::dup2_stdin(&read)
        .and_then(|()| rustix::stdio::dup2_stdout(&write))
        .and_then(|()| match which {
            Silence::AllButErrors => Ok(()),
            Silence::All => rustix::stdio::dup2_stderr(&write),
        })
        .map_err(|errno| wall("dup2(stdio)", &errno))
}

impl Silence {
    /// Of a process that logs nothing: all three, unless a refused system call is to be told.
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Kill => Self::All,
            Verdict::Tell => Self::AllButErrors,
        }
    }
}

/// No core file and no locked memory.
pub(crate) fn limit_resources() -> Result<()> {
    limit(Resource::RLIMIT_CORE, "RLIMIT_CORE", 0)?;
    limit(Resource::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 0)
}

/// As many descriptors as a view's budget, which the host may limit further; returns how many.
pub(crate) fn limit_descriptors() -> Result<u64> {
    const BUDGET: u64 = 65_536;
    let (_soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| wall("RLIMIT_NOFILE", &errno))?;
    let files = hard.min(BUDGET);
    limit(Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE", files)?;
    Ok(files)
}

/// The same for a process that opens next to nothing.
pub(crate) fn limit_to_few_descriptors() -> Result<()> {
    limit(Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE", 64)
}

/// No descriptor above this number, which is not below what is open.
pub(crate) fn limit_descriptors_to(last: std::os::fd::RawFd) -> Result<()> {
    let count = u64::from(last.unsigned_abs()) + 1;
    limit(Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE", count)
}

/// A handful of threads: the workers, the log, the control socket. The kernel counts them by user
/// and user namespace (since Linux 5.14), so that views do not count each other's.
pub(crate) fn limit_threads() -> Result<()> {
    limit(Resource::RLIMIT_NPROC, "RLIMIT_NPROC", THREADS)
}

fn limit(what: Resource, name: &str, value: u64) -> Result<()> {
    setrlimit(what, value, value).map_err(|errno| wall(name, &errno))
}

/// No namespace of any kind can be made in this user namespace any more, not even by a holder of
/// every capability in it. `limits` is `/proc/sys/user`, opened before the old root went: whose
/// limits its files are is decided when they are opened (`set_lookup` in kernel/ucount.c).
///
/// # Errors
///
/// Confinement: names the limit that could not be set.
pub(crate) fn no_more_namespaces(limits: &OwnedFd) -> Result<()> {
    const KINDS: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];
    for kind in KINDS {
        let name = format!("max_{kind}_namespaces");
        let failed = |errno: &dyn std::fmt::Display| wall(&format!("sysctl user.{name}"), errno);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(limits, name.as_str(), flags, Mode::empty())
            .map_err(|errno| failed(&errno))?;
        rustix::io::write(&file, b"0").map_err(|errno| failed(&errno))?;
        let mut read = [0; 8];
        let count = rustix::io::pread(&file, &mut read, 0).map_err(|errno| failed(&errno))?;
        if read.get(..count) != Some(b"0\n") {
            return Err(failed(&"not 0 although the kernel took it"));
        }
    }
    Ok(())
}

fn wall(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::step(Class::Confinement, name, error)
}
