//! From the mediator's fork to its first request: every wall, in the order that the kernel forces.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use virtfs_mediator_core::{Service, Submounts, ViewMode};

use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::covers::Covers;
use crate::launch::descriptors::{self, Kind, Named};
use crate::launch::inside::Wall;
use crate::launch::landlock::Room;
use crate::launch::mediator::Start;
use crate::launch::seccomp::Verdict;
use crate::launch::walls::Silence;
use crate::launch::{calls, landlock, namespace, seccomp, walls};
use crate::pipes::await_byte;
use crate::report::{Found, Report};
use crate::sys;

/// Everything between the fork and the first request; then serves, and ends with the view.
pub(super) fn become_mediator(start: Start<'_>, ask: &OwnedFd, answer: &OwnedFd) -> ! {
    match raise_walls(&start, ask, answer) {
        Ok(raised) => serve(start, raised),
        // Told before anything of `start` is closed: the keeper sees that, and knows no cause.
        Err(error) => {
            start.reporter.fail(&error);
            sys::exit_now(error.class().status())
        }
    }
}

/// What the walls leave to work with.
struct Raised {
    proc_fd: OwnedFd,
    root: OwnedFd,
    submounts: Submounts,
    /// How many descriptors may be open.
    files: u64,
}

fn raise_walls(start: &Start<'_>, ask: &OwnedFd, answer: &OwnedFd) -> Result<Raised> {
    let has = |wall| start.inside.walls().has(wall);
    start.inside.before_walls();
    let proc_fd = namespace::own_descriptors()?;
    let limits = namespace::open_plain(Path::new("/proc/sys/user"))?;
    // Before the user namespace: the mount namespace stays the first user namespace's, and the
    // mediator's capabilities never count in it.
    let covers = Covers::prepare(&start.submounts, &start.tree)?;
    let root = if has(Wall::Root) {
        namespace::pivot_onto(&start.tree)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/", flags, Mode::empty())
    } else {
        rustix::io::fcntl_dupfd_cloexec(&start.tree, 0)
    }
    .map_err(|errno| Error::step(Class::Confinement, "open(/)", errno))?;
    let submounts = covers.lay(&root)?;
    if has(Wall::UserNamespace) {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
            Error::step(Class::Confinement, "unshare(CLONE_NEWUSER)", errno)
                .cure("allow user namespaces: sysctl user.max_user_namespaces must not be 0")
        })?;
    }
    nix::unistd::write(ask, b"u")
        .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))?;
    await_byte(answer)
        .map_err(|why| Error::new(Class::Confinement, format!("the warden {why}"), ""))?;
    let mut found = Found::default();
    if has(Wall::NamespaceLimits)
        && has(Wall::UserNamespace)
        && let Err(error) = walls::no_more_namespaces(&limits)
    {
        found.missing.push(error.to_string());
    }
    drop(limits);
    if has(Wall::Ids) {
        take_ids(start.ids)?;
    }
    let files = if has(Wall::Limits) {
        walls::limit_resources()?;
        walls::limit_threads()?;
        walls::limit_descriptors()?
    } else {
        1024
    };
    if has(Wall::Capabilities) {
        let kept = walls::for_mediator(start.readonly, start.policy.set_id_bits().has_set_id());
        walls::reduce_to(&kept)?;
        found.securebits_locked = true;
    }
    if has(Wall::NotDumpable) {
        walls::not_dumpable()?;
    }
    // What the caller gave us stays out of reach: by its name in /proc/self/fd a descriptor is a file
    // whose mode and owner can be changed, and Landlock covers neither.
    walls::silence(Silence::AllButErrors)?;
    rustix::stdio::dup2_stderr(start.log)
        .map_err(|errno| Error::step(Class::Confinement, "dup2(log)", errno))?;
    let mut named = vec![
        Named::new("the detached /proc/self/fd", &proc_fd, Kind::ProcDirectory),
        Named::new("the export", &root, Kind::Directory),
        Named::new("/dev/fuse", &start.device, Kind::Fuse),
        Named::new("the control socket", &start.control, Kind::Socket),
        Named::new("the word that the view is ready", &start.ready, Kind::Pipe),
        Named::new("the way to the launcher", start.reporter, Kind::Socket),
    ];
    let audit = start.audit.lines();
    let registrar = start.registrar.iter();
    named.extend(registrar.map(|fd| Named::new("the registrar", fd, Kind::Socket)));
    named.extend(audit.map(|fd| Named::new("the audit records", &fd, Kind::Pipe)));
    if has(Wall::Descriptors) {
        let keep: Vec<_> = named.iter().map(Named::number).collect();
        sys::close_all_but(&keep)
            .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    }
    if has(Wall::DescriptorTest) {
        descriptors::only(&named, &proc_fd)?;
    }
    if has(Wall::Landlock) {
        found.landlock = landlock::restrict_to(Room::Export(&root), &proc_fd)?;
        found.missing.extend(found.landlock.missing());
    }
    for missing in &found.missing {
        tracing::warn!(view = start.view, "a wall is missing: {missing}");
    }
    if start.strict && !found.missing.is_empty() {
        return Err(Error::new(
            Class::Confinement,
            format!("a wall is missing: {}", found.missing.join("; ")),
            "use a kernel that has it, or start without --require-confinement",
        ));
    }
    let report = Report::Walls {
        view: start.view.clone(),
        found,
    };
    start.reporter.send(&report, None);
    descriptors::make_room(&proc_fd, files);
    // Last, since the steps above make calls that it refuses; and before the first thread, so that
    // every thread has it.
    if has(Wall::Seccomp) {
        let verdict = Verdict::of(start.debug);
        // First: the list, once it stands, allows no further filter.
        seccomp::refuse_set_id(start.policy.set_id_bits(), verdict)?;
        let given = std::iter::once(proc_fd.as_raw_fd());
        let given: Vec<_> = given
            .chain(start.registrar.as_ref().map(AsRawFd::as_raw_fd))
            .collect();
        seccomp::confine_around(&calls::MEDIATOR, &given, verdict)?;
    }
    Ok(Raised {
        proc_fd,
        root,
        submounts,
        files,
    })
}

fn serve(start: Start<'_>, raised: Raised) -> ! {
    let Raised {
        proc_fd,
        root,
        submounts,
        files,
    } = raised;
    // Closed already.
    std::mem::forget((start.tree, start.life));
    let (ready, reporter) = (start.ready, start.reporter.as_raw_fd());
    let service = Service {
        device: start.device,
        root,
        proc_fd,
        control: Some(start.control),
        policy: start.policy,
        submounts,
        cache: start.cache.into(),
        mode: if start.shared {
            ViewMode::Shared
        } else {
            ViewMode::Client
        },
        debug: start.debug,
        audit: start.audit,
        view: start.view,
        // Room for open handles besides: a node's descriptor can be re-opened, a handle cannot.
        max_descriptors: usize::try_from(files / 2).unwrap_or(1024).max(64),
        threads: 2,
        data: start.data,
        registrar: start.registrar,
    };
    let mut ready = Some(ready);
    let served = start.inside.serve(service, &mut || {
        let Some(ready) = ready.take() else { return };
        // From here on untrusted bytes are read: nothing of the launcher's may stay in reach.
        drop(sys::own(reporter));
        if let Err(errno) = nix::unistd::write(ready.as_fd(), b"r") {
            tracing::warn!(%errno, "the keeper is gone");
        }
    });
    match served {
        Ok(()) => sys::exit_now(0),
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
pub(crate) fn take_ids(ids: &Ids) -> Result<()> {
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
