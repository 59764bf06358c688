//! Pid 1 of a pid namespace: of a mediator's (the warden) or of the client's.
//!
//! Both are uid 0 without any capability: the keeper may kill them, what runs below them may not
//! signal them, and they cannot do more than wait: their seccomp lists are in
//! [`crate::launch::calls`].

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::kernel_view;
use crate::launch::landlock::{self, Room};
use crate::launch::seccomp::{self, Verdict};
use crate::launch::stage::KeptView;
use crate::launch::walls::Silence;
use crate::launch::{calls, client, namespace, walls};
use crate::pipes::await_byte;
use crate::plan::Plan;
use crate::report::{Report, Reporter};
use crate::sys::{self, Forked};

/// The warden: ends with the mediator, or when the keeper is gone.
pub(crate) struct Warden {
    mediator: Pid,
    waiter: Waiter,
    life: OwnedFd,
}

impl Warden {
    /// Builds every wall but the last.
    pub(crate) fn new(mediator: Pid, life: OwnedFd, verdict: Verdict) -> Result<Self> {
        let waiter = Waiter::new()?;
        give_up(Room::Nothing, verdict)?;
        Ok(Self {
            mediator,
            waiter,
            life,
        })
    }

    /// The last wall. Nothing may be dropped behind it: `close` is not on the list.
    pub(crate) fn confine(&self, verdict: Verdict) -> Result<()> {
        seccomp::confine(&calls::WARDEN, &self.waiter.signals, verdict)
    }

    pub(crate) fn run(&self) -> ! {
        let status = self.waiter.until(&self.life, |event| match event {
            Event::Exited(pid, status) => (pid == self.mediator).then_some(status),
            Event::Alone => None,
        });
        sys::exit_now(status.unwrap_or(Class::Confinement.status()))
    }
}

/// A root directory with nothing in it, no capability, no file but those of the room: every wall but
/// the last.
fn give_up(room: Room<'_>, verdict: Verdict) -> Result<()> {
    let root = namespace::empty_root()?;
    namespace::enter_empty(&root)?;
    walls::limit_resources()?;
    walls::limit_to_few_descriptors()?;
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    // The caller's descriptors are the client's alone: whoever reads them waits for its end, not
    // for ours.
    walls::silence(Silence::of(verdict))?;
    // What this kernel lacks, the mediators have told.
    landlock::restrict_to(room, &root).map(|_found| ())
}

/// The client's init: mounts its /proc, starts the client, reaps, and tidies up below /run should
/// the keeper have been killed.
pub(crate) fn client_init(plan: &mut Plan, lines: &Lines<'_>, views: &[KeptView]) -> ! {
    let names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let status = match start(plan, lines) {
        Ok((client, waiter)) => reap(client, &waiter, lines, &names),
        Err(error) => {
            lines.reporter.fail(&error);
            error.class().status()
        }
    };
    sys::exit_now(status)
}

/// What connects the client's init with the others.
pub(crate) struct Lines<'a> {
    /// To the launcher.
    pub(crate) reporter: &'a Reporter,
    /// It hangs up when the keeper is gone.
    pub(crate) life: &'a OwnedFd,
    /// To the keeper: the client has ended.
    pub(crate) end: &'a OwnedFd,
    /// To the keeper: this init has given everything up.
    pub(crate) walled: &'a OwnedFd,
    /// From the keeper: so has the keeper; the client may start.
    pub(crate) go: &'a OwnedFd,
    /// The directory of all views below /run.
    pub(crate) run: &'a OwnedFd,
}

fn start(plan: &mut Plan, lines: &Lines<'_>) -> Result<(Option<Pid>, Waiter)> {
    let reporter = lines.reporter;
    let mut keep = vec![
        reporter.as_raw_fd(),
        lines.life.as_raw_fd(),
        lines.end.as_raw_fd(),
        lines.run.as_raw_fd(),
        lines.walled.as_raw_fd(),
        lines.go.as_raw_fd(),
    ];
    keep.extend(plan.process.descriptors());
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // The host's /proc would show every process of the client's user, and /proc/PID/root of each
    // leads to the original below the view.
    namespace::fresh_proc()?;
    let child = match plan.process.command() {
        None => None,
        Some(command) => match sys::clone_process(0)
            .map_err(|error| Error::step(Class::ClientNotStarted, "fork(client)", error))?
        {
            Forked::Child => {
                // No instruction of the client's runs while one of us still holds a capability.
                let error = match await_byte(lines.go) {
                    Ok(()) => client::execute(&plan.client, command, Some(reporter.as_raw_fd())),
                    Err(why) => {
                        let what = format!("the client was not started: the keeper {why}");
                        Error::new(Class::Confinement, what, "")
                    }
                };
                reporter.fail(&error);
                sys::exit_now(error.class().status())
            }
            Forked::Parent(child) => {
                announce(child, reporter);
                Some(child)
            }
        },
    };
    plan.close_handed_on();
    sys::forget_environment();
    let waiter = Waiter::new()?;
    let verdict = Verdict::of(plan.debug);
    give_up(Room::Removal(lines.run), verdict)?;
    seccomp::confine(&calls::INIT, lines.run, verdict)?;
    nix::unistd::write(lines.walled, b"w")
        .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))?;
    Ok((child, waiter))
}

/// The launcher signals the client by pidfd, since this init may not: it has no CAP_KILL.
fn announce(client: Pid, reporter: &Reporter) {
    let pidfd = rustix::process::Pid::from_raw(client.as_raw())
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    reporter.send(&Report::ClientStarted, pidfd.as_ref().map(AsFd::as_fd));
}

fn reap(client: Option<Pid>, waiter: &Waiter, lines: &Lines<'_>, names: &[String]) -> u8 {
    let mut background = false;
    let waited = waiter.until(lines.life, |event| match event {
        Event::Exited(pid, status) if client == Some(pid) => {
            // A first process that ends well and leaves others behind has gone to the
            // background, as QEMU does with -daemonize: the view lives as long as they do.
            background = status == 0 && has_children();
            if background {
                lines.reporter.send(&Report::Background, None);
            }
            (!background).then_some(status)
        }
        Event::Exited(..) => None,
        Event::Alone => background.then_some(0),
    });
    let Some(status) = waited else {
        // Killed keeper: nobody else is left to do it.
        rundir::remove_all(lines.run, names);
        return Class::Mount.status();
    };
    // Our end would be theirs who are left in this namespace, and we cannot end before them. One
    // that waits for a mediator which does not answer cannot be killed until the keeper has closed
    // the connection: so the keeper ends us, after that.
    if nix::unistd::write(lines.end, &[status]).is_ok() {
        waiter.until(lines.life, |_event| None);
    }
    status
}

fn has_children() -> bool {
    // WNOWAIT: only looks.
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    !matches!(
        nix::sys::wait::waitid(nix::sys::wait::Id::All, flags),
        Err(Errno::ECHILD)
    )
}

/// A child that ended, with the status that a shell would give it: 128+N for signal N.
pub(crate) fn ended(status: WaitStatus) -> Option<(Pid, u8)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, u8::try_from(code).unwrap_or(255))),
        WaitStatus::Signaled(pid, signal, _) => {
            Some((pid, u8::try_from(128 + signal as i32).unwrap_or(255)))
        }
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => None,
    }
}

/// What an init waits for.
enum Event {
    /// A child ended, with the status that a shell would give it.
    Exited(Pid, u8),
    /// The last child was reaped.
    Alone,
}

/// Waits for children and for the keeper's end.
struct Waiter {
    signals: SignalFd,
}

impl Waiter {
    fn new() -> Result<Self> {
        let signals = kernel_view::signals([Signal::SIGCHLD])?;
        Ok(Self { signals })
    }

    /// Reaps until `each` tells a status to end with; `None` when the keeper is gone, whose `life`
    /// hangs up then.
    fn until(&self, life: &OwnedFd, mut each: impl FnMut(Event) -> Option<u8>) -> Option<u8> {
        loop {
            loop {
                let event = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(status) => match ended(status) {
                        Some((pid, status)) => Event::Exited(pid, status),
                        None => break,
                    },
                    Err(Errno::ECHILD) => Event::Alone,
                    Err(_) => break,
                };
                let alone = matches!(event, Event::Alone);
                if let Some(status) = each(event) {
                    return Some(status);
                }
                if alone {
                    break;
                }
            }
            let mut fds = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(life.as_fd(), PollFlags::POLLIN),
            ];
            match nix::poll::poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
            if fds[1].revents().is_some_and(|events| !events.is_empty()) {
                return None;
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
    }
}
