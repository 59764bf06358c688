//! Pid 1 of a pid namespace: of a mediator's (the warden) or of the client's.
//!
//! Both are uid 0 without any capability: the keeper may kill them, what runs below them may not
//! signal them, and they cannot do more than wait.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::PidfdFlags;

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::keep::KeptView;
use crate::launch::{client, namespace, walls};
use crate::plan::Plan;
use crate::report::{Report, Reporter};
use crate::sys::{self, Forked};

/// The warden: ends with the mediator, or when the keeper is gone.
pub(crate) fn wait_for(child: Pid, life: &OwnedFd) -> ! {
    let status = Waiter::new(life)
        .and_then(|waiter| waiter.until(|pid, status| (pid == child).then_some(status)))
        .unwrap_or(Class::Confinement.status());
    sys::exit_now(status)
}

/// The client's init: mounts its /proc, starts the client, reaps, and tidies up below /run should
/// the keeper have been killed.
pub(crate) fn client_init(
    plan: &Plan,
    reporter: &Reporter,
    life: &OwnedFd,
    run: &OwnedFd,
    views: &[KeptView],
) -> ! {
    let names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let status = match start(plan, reporter, life, run) {
        Ok(client) => reap(client, reporter, life, run, &names),
        Err(error) => {
            reporter.fail(&error);
            error.class().status()
        }
    };
    sys::exit_now(status)
}

fn start(
    plan: &Plan,
    reporter: &Reporter,
    life: &OwnedFd,
    run: &OwnedFd,
) -> Result<Option<Pid>> {
    let keep = [reporter.raw(), life.as_raw_fd(), run.as_raw_fd()];
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // The host's /proc would show every process of the client's user, and /proc/PID/root of each
    // leads to the original below the view.
    namespace::fresh_proc()?;
    let child = match &plan.command {
        None => None,
        Some(command) => match sys::clone_process(0)
            .map_err(|error| Error::step(Class::ClientNotStarted, "fork(client)", error))?
        {
            Forked::Child => {
                let error = client::execute(
                    &plan.client,
                    &command.argv,
                    &command.directory,
                    command.umask,
                    &[reporter.raw()],
                );
                reporter.fail(&error);
                sys::exit_now(error.class().status())
            }
            Forked::Parent(child) => {
                announce(child, reporter);
                Some(child)
            }
        },
    };
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    Ok(child)
}

/// The launcher signals the client by pidfd, since this init may not: it has no CAP_KILL.
fn announce(client: Pid, reporter: &Reporter) {
    let pidfd = rustix::process::Pid::from_raw(client.as_raw())
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    reporter.send(&Report::ClientStarted, pidfd.as_ref().map(AsFd::as_fd));
}

fn reap(
    client: Option<Pid>,
    reporter: &Reporter,
    life: &OwnedFd,
    run: &OwnedFd,
    names: &[String],
) -> u8 {
    let mut background = false;
    let waited = Waiter::new(life).and_then(|waiter| {
        waiter.until(|pid, status| {
            if background || client != Some(pid) {
                return None;
            }
            if status == 0 && has_children() {
                background = true;
                reporter.send(&Report::Background, None);
                return None;
            }
            Some(status)
        })
    });
    waited.unwrap_or_else(|| {
        // Killed keeper: nobody else is left to do it.
        rundir::remove_all(run, names);
        Class::Mount.status()
    })
}

fn has_children() -> bool {
    // WNOWAIT: only looks.
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    !matches!(nix::sys::wait::waitid(nix::sys::wait::Id::All, flags), Err(Errno::ECHILD))
}

/// Waits for children and for the keeper's end.
struct Waiter<'a> {
    signals: SignalFd,
    life: &'a OwnedFd,
}

impl<'a> Waiter<'a> {
    fn new(life: &'a OwnedFd) -> Option<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block().ok()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).ok()?;
        Some(Self { signals, life })
    }

    /// Reaps until `each` tells a status to end with, or no child is left although there was one;
    /// `None` when the keeper is gone.
    fn until(&self, mut each: impl FnMut(Pid, u8) -> Option<u8>) -> Option<u8> {
        loop {
            let mut last = None;
            loop {
                let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) => (pid, u8::try_from(code).unwrap_or(255)),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u8),
                    Ok(_) => break,
                    Err(Errno::ECHILD) => match last {
                        Some(status) => return Some(status),
                        None => break,
                    },
                    Err(_) => break,
                };
                if let Some(status) = each(pid, status) {
                    return Some(status);
                }
                last = Some(status);
            }
            let mut fds = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.life.as_fd(), PollFlags::POLLIN),
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
