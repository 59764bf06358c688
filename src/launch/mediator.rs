//! From a fork to a mediator behind its walls: the warden, which starts it and maps its ids. What
//! happens in the mediator itself is [`sandbox`]'s.
//!
//! The warden is pid 1 of the mediator's pid namespace: uid 0 without any capability, so that the
//! keeper, likewise, may kill it, and the kernel then ends the mediator.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use virtfs_mediator_core::policy::{IdSpan, Policy};
use virtfs_mediator_core::{AuditTo, DataMode};

use crate::cli::CacheOption;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::keep::init;
use crate::launch::inside::{Inside, Wall};
use crate::launch::namespace;
use crate::launch::sandbox::become_mediator;
use crate::launch::seccomp::Verdict;
use crate::launch::walls;
use crate::pipes::{await_byte, pipe};
use crate::report::Reporter;
use crate::submounts::Submounts;
use crate::sys::{self, Forked};

/// What a mediator is started with.
pub(crate) struct Start<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) maps: Maps,
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
    pub(crate) submounts: Submounts,
    pub(crate) data: DataMode,
    /// Its end of the socket to its registrar.
    pub(crate) registrar: Option<OwnedFd>,
    pub(crate) debug: bool,
    /// Where refusals are told.
    pub(crate) audit: AuditTo,
    /// The writing end of the log.
    pub(crate) log: BorrowedFd<'a>,
    /// A wall that this kernel lacks ends the start.
    pub(crate) strict: bool,
    pub(crate) inside: &'static dyn Inside,
}

/// Runs as pid 1 of the new namespaces: starts the mediator, maps its ids, gives everything up,
/// and waits.
pub(crate) fn warden(start: Start<'_>) -> ! {
    let reporter = start.reporter;
    let verdict = Verdict::of(start.debug);
    let error = match raise(start) {
        Ok(waiting) => match waiting.confine(verdict) {
            Ok(()) => waiting.run(),
            Err(error) => error,
        },
        Err(error) => error,
    };
    reporter.fail(&error);
    sys::exit_now(error.class().status())
}

fn raise(start: Start<'_>) -> Result<init::Warden> {
    let mut keep = vec![
        start.tree.as_raw_fd(),
        start.device.as_raw_fd(),
        start.control.as_raw_fd(),
        start.ready.as_raw_fd(),
        start.life.as_raw_fd(),
        start.reporter.as_raw_fd(),
        start.log.as_raw_fd(),
    ];
    keep.extend(start.audit.lines().map(|fd| fd.as_raw_fd()));
    keep.extend(start.registrar.iter().map(AsRawFd::as_raw_fd));
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    walls::leave_terminal()?;
    namespace::fresh_proc()?;
    // By descriptor: the mediator's pivot_root changes our root directory as well.
    let proc = namespace::open_plain(Path::new("/proc"))?;
    sys::forget_environment();
    let (ask, asked) = pipe()?;
    let (answer, answered) = pipe()?;
    match sys::clone_process(0)
        .map_err(|error| Error::step(Class::Confinement, "fork(mediator)", error))?
    {
        Forked::Child => {
            drop((ask, answered));
            become_mediator(start, &asked, &answer)
        }
        Forked::Parent(mediator) => {
            drop((asked, answer));
            await_byte(&ask)
                .map_err(|why| Error::new(Class::Confinement, format!("the mediator {why}"), ""))?;
            if start.inside.walls().has(Wall::UserNamespace) {
                start.maps.write(&proc, mediator.as_raw())?;
            }
            nix::unistd::write(&answered, b"m")
                .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))?;
            // A copy of the device here would outlive the mediator and keep the client waiting.
            drop(sys::own(start.log.as_raw_fd()));
            drop((start.device, start.tree, start.control, start.ready));
            drop((start.audit, start.registrar));
            // The mediator's pivot_root has made the export our root directory, too: that goes here.
            init::Warden::new(mediator, start.life, Verdict::of(start.debug))
        }
    }
}

/// The lines of the mediator's uid_map and gid_map. Every id keeps its number inside.
///
/// Without a `map` in the policy that is the identity: capabilities count inside the user
/// namespace only, while every id keeps its meaning on the export. With one, only the host ids
/// that the policy can store and the mediator's own are there: no capability counts for a file of
/// anyone else (`capable_wrt_inode_uidgid`), and chown(2) cannot name another.
pub(crate) struct Maps {
    uids: String,
    gids: String,
}

impl Maps {
    /// # Errors
    ///
    /// Configuration: more ranges than a user namespace can have.
    pub(crate) fn of(policy: &Policy, ids: &Ids) -> Result<Self> {
        Ok(Self {
            uids: lines(policy.host_uids(), ids.uid)?,
            gids: lines(policy.host_gids(), ids.gid)?,
        })
    }

    /// From the parent: only a holder of SETUID, SETGID and SETFCAP in the parent namespace may map
    /// more than its own id (user_namespaces(7)).
    pub(crate) fn write(&self, proc: &OwnedFd, mediator: i32) -> Result<()> {
        for (file, lines) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("{mediator}/{file}");
            let failed = |errno: &dyn std::fmt::Display| {
                let shown = lines.trim_end().replace('\n', ", ");
                let call = format!("write(/proc/{path}, {shown})");
                Error::step(Class::Confinement, call, errno)
            };
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let map = rustix::fs::openat(proc, path.as_str(), flags, Mode::empty())
                .map_err(|errno| failed(&errno))?;
            // One write: the kernel takes a map once and whole.
            nix::unistd::write(&map, lines.as_bytes()).map_err(|errno| failed(&errno))?;
        }
        Ok(())
    }
}

/// `spans` and the mediator's own id; `None`: every id but 4294967295, which is none.
fn lines(spans: Option<&[IdSpan]>, own: u32) -> Result<String> {
    // user_namespaces(7): 340 lines; and map_write (kernel/user_namespace.c) takes less than a page.
    const MOST: (usize, usize) = (340, 4095);
    let Some(spans) = spans else {
        return Ok("0 0 4294967295\n".to_owned());
    };
    let spans = IdSpan::united(spans.iter().copied().chain([IdSpan::one(own)]));
    let line = |span: &IdSpan| format!("{0} {0} {1}\n", span.first, span.count);
    let lines: String = spans.iter().map(line).collect();
    if spans.len() > MOST.0 || lines.len() > MOST.1 {
        return Err(Error::new(
            Class::Configuration,
            format!(
                "the policy's `map` leads to {} ranges of host ids, more than a user namespace takes",
                spans.len()
            ),
            format!(
                "join ranges: {} at the most, in {} bytes of /proc/PID/uid_map",
                MOST.0, MOST.1
            ),
        ));
    }
    Ok(lines)
}
