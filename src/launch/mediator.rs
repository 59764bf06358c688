//! From a fork to a served view: the mediator and its warden.
//!
//! The warden is pid 1 of the mediator's pid namespace: uid 0 without any capability, so that the
//! keeper, likewise, may kill it, and the kernel then ends the mediator.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use virtfs_mediator_core::policy::Policy;
use virtfs_mediator_core::{Service, ViewMode};

use crate::cli::CacheOption;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::keep::init;
use crate::launch::seccomp::Verdict;
use crate::launch::walls::Silence;
use crate::launch::{landlock, namespace, seccomp, walls};
use crate::pipes::{await_byte, pipe};
use crate::report::Reporter;
use crate::sys::{self, Forked};

/// What a mediator is started with.
pub(crate) struct Start<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) readonly: bool,
    pub(crate) policy: Policy,
    pub(crate) view: String,
    pub(crate) tree: OwnedFd,
    pub(crate) device: OwnedFd,
    pub(crate) control: OwnedFd,
    pub(crate) ready: OwnedFd,
    pub(crate) life: OwnedFd,
    pub(crate) reporter: &'a Reporter,
    pub(crate) shared: bool,
    pub(crate) cache: CacheOption,
    pub(crate) debug: bool,
    /// Nobody stays in the foreground to read what is logged.
    pub(crate) background: bool,
}

/// Runs as pid 1 of the new namespaces: starts the mediator, maps its ids, gives everything up,
/// and waits.
pub(crate) fn warden(start: Start<'_>) -> ! {
    let reporter = start.reporter;
    match raise(start) {
        Ok((mediator, life)) => init::wait_for(mediator, &life),
        Err(error) => {
            reporter.fail(&error);
            sys::exit_now(error.class().status())
        }
    }
}

fn raise(start: Start<'_>) -> Result<(nix::unistd::Pid, OwnedFd)> {
    let keep = [
        start.tree.as_raw_fd(),
        start.device.as_raw_fd(),
        start.control.as_raw_fd(),
        start.ready.as_raw_fd(),
        start.life.as_raw_fd(),
        start.reporter.raw(),
    ];
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // Out of the caller's session: its terminal can neither signal us nor be typed into.
    nix::unistd::setsid().map_err(|errno| Error::step(Class::Confinement, "setsid", errno))?;
    namespace::fresh_proc()?;
    // By descriptor: the mediator's pivot_root changes our root directory as well.
    let proc = namespace::open_plain(Path::new("/proc"))?;
    let (ask, asked) = pipe()?;
    let (answer, answered) = pipe()?;
    match sys::clone_process(0)
        .map_err(|error| Error::step(Class::Confinement, "fork(mediator)", error))?
    {
        Forked::Child => {
            drop((ask, answered));
            let reporter = start.reporter;
            let error = match become_mediator(start, &asked, &answer) {
                Ok(()) => sys::exit_now(0),
                Err(error) => error,
            };
            reporter.fail(&error);
            sys::exit_now(error.class().status())
        }
        Forked::Parent(mediator) => {
            drop((asked, answer));
            await_byte(&ask)
                .map_err(|why| Error::new(Class::Confinement, format!("the mediator {why}"), ""))?;
            map_ids(&proc, mediator.as_raw())?;
            nix::unistd::write(&answered, b"m")
                .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))?;
            // A copy of the device here would outlive the mediator and keep the client waiting.
            drop((start.device, start.tree, start.control, start.ready));
            walls::reduce_to(&[])?;
            walls::not_dumpable()?;
            walls::silence(Silence::All)?;
            Ok((mediator, start.life))
        }
    }
}

/// The identity map: the mediator's capabilities count inside its user namespace only, while every
/// id keeps its meaning on the export. 4294967295 is not an id.
///
/// Written from the parent: only a holder of SETUID, SETGID and SETFCAP in the parent namespace
/// may map more than its own id (user_namespaces(7)).
fn map_ids(proc: &OwnedFd, mediator: i32) -> Result<()> {
    for file in ["uid_map", "gid_map"] {
        let path = format!("{mediator}/{file}");
        let failed = |errno: &dyn std::fmt::Display| {
            Error::step(
                Class::Confinement,
                format!("write(/proc/{path}, 0 0 4294967295)"),
                errno,
            )
        };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let map = rustix::fs::openat(proc, path.as_str(), flags, Mode::empty())
            .map_err(|errno| failed(&errno))?;
        nix::unistd::write(&map, b"0 0 4294967295\n").map_err(|errno| failed(&errno))?;
    }
    Ok(())
}

/// Everything between the fork and the first request, in the order that the kernel forces.
fn become_mediator(start: Start<'_>, ask: &OwnedFd, answer: &OwnedFd) -> Result<()> {
    let proc_fd = namespace::own_descriptors()?;
    // Before the user namespace: the mount namespace stays the first user namespace's, and the
    // mediator's capabilities never count in it.
    namespace::pivot_onto(&start.tree)?;
    let root = rustix::fs::openat(
        rustix::fs::CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::step(Class::Confinement, "open(/)", errno))?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        Error::step(Class::Confinement, "unshare(CLONE_NEWUSER)", errno)
            .cure("allow user namespaces: sysctl user.max_user_namespaces must not be 0")
    })?;
    nix::unistd::write(ask, b"u")
        .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))?;
    await_byte(answer)
        .map_err(|why| Error::new(Class::Confinement, format!("the warden {why}"), ""))?;
    take_ids(start.ids)?;
    let files = walls::limit_resources()?;
    let capabilities = if start.readonly {
        &[caps::Capability::CAP_DAC_OVERRIDE][..]
    } else {
        walls::MEDIATOR
    };
    walls::reduce_to(capabilities)?;
    walls::not_dumpable()?;
    // Standard error stays for the log; a view in the background lets go of it once it answers.
    walls::silence(Silence::AllButErrors)?;
    let keep = [
        proc_fd.as_raw_fd(),
        root.as_raw_fd(),
        start.device.as_raw_fd(),
        start.control.as_raw_fd(),
        start.ready.as_raw_fd(),
        start.reporter.raw(),
    ];
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    std::mem::forget(start.tree);
    std::mem::forget(start.life);
    landlock::restrict_to(&root, &proc_fd)?;
    // Last, since the steps above make calls that it refuses; and before the first thread, so that
    // every thread has it.
    let verdict = if start.debug {
        Verdict::Tell
    } else {
        Verdict::Kill
    };
    seccomp::confine(&proc_fd, verdict)?;
    let (ready, reporter) = (start.ready, start.reporter.raw());
    // With --debug, its log is what was asked for.
    let background = start.background && !start.debug;
    let service = Service {
        device: start.device,
        root,
        proc_fd,
        control: Some(start.control),
        policy: start.policy,
        cache: start.cache.into(),
        mode: if start.shared {
            ViewMode::Shared
        } else {
            ViewMode::Client
        },
        debug: start.debug,
        view: start.view,
        // Room for open handles besides: a node's descriptor can be re-opened, a handle cannot.
        max_descriptors: usize::try_from(files / 2).unwrap_or(1024).max(64),
        threads: 2,
    };
    let served = virtfs_mediator_core::serve(service, || {
        // From here on untrusted bytes are read: nothing of the launcher's may stay in reach.
        drop(sys::own(reporter));
        // Standard output leads nowhere since before the walls, which allow no new pipe.
        if background && let Err(errno) = rustix::stdio::dup2_stderr(rustix::stdio::stdout()) {
            tracing::warn!(%errno, "standard error stays open");
        }
        if let Err(errno) = nix::unistd::write(ready.as_fd(), b"r") {
            tracing::warn!(%errno, "the keeper is gone");
        }
        drop(ready);
    });
    match served {
        Ok(()) => Ok(()),
        // The way to the launcher may be closed by now, and its number another descriptor's.
        Err(error) => {
            tracing::error!("serving the view: {error}");
            sys::exit_now(Class::Mount.status())
        }
    }
}

/// No groups: a group that a file happens to have must not count for the mediator.
///
/// NO_SETUID_FIXUP is not set yet, so KEEPCAPS keeps the permitted set over the change of ids; the
/// effective one is set again by [`walls::reduce_to`].
fn take_ids(ids: &Ids) -> Result<()> {
    let failed = |call: &'static str| {
        move |errno: nix::errno::Errno| Error::step(Class::Confinement, call, errno)
    };
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    nix::sys::prctl::set_keepcaps(true).map_err(failed("prctl(PR_SET_KEEPCAPS)"))?;
    setgroups(&[]).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    // reduce_to needs SETPCAP in the effective set, which the change of uid has emptied.
    let permitted = caps::read(None, caps::CapSet::Permitted)
        .map_err(|error| Error::step(Class::Confinement, "capget", error))?;
    caps::set(None, caps::CapSet::Effective, &permitted)
        .map_err(|error| Error::step(Class::Confinement, "capset", error))?;
    nix::sys::prctl::set_keepcaps(false).map_err(failed("prctl(PR_SET_KEEPCAPS)"))
}
