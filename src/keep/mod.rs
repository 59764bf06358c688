//! The keeper: it ends things. It reads nothing that a client or a guest chose, and holds no
//! capability: it ends a pid namespace by killing its init, which is uid 0 as well. Its seccomp list
//! is [`crate::launch::calls::KEEPER`].

pub(crate) mod client;
pub(crate) mod init;
pub(crate) mod registrar;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::keep::client::Client;
use crate::kernel_view;
use crate::launch::inside::{Wall, Walls};
use crate::launch::landlock::{self, Room};
use crate::launch::seccomp::{self, Verdict};
use crate::launch::stage::{self, Given, KeptView};
use crate::launch::{calls, namespace, walls};
use crate::mounts;
use crate::plan::Plan;
use crate::report::{Report, Reporter};
use crate::sys;

/// What the launcher may order, one byte each.
pub(crate) mod order {
    /// Every view can be found: let the client start. The first order of all.
    pub(crate) const GO: u8 = b'G';
    /// Go on without a launcher.
    pub(crate) const DETACH: u8 = b'D';
    /// End everything.
    pub(crate) const STOP: u8 = b'S';
}

/// Why everything ends.
enum End {
    /// The client's exit status; `None` if its init was killed and takes it along.
    Client(Option<u8>),
    /// The launcher said so, or died.
    Stopped,
    /// Every view was unmounted on purpose, or a mediator died.
    Lost { cause: String, fault: bool },
}

/// Runs in the process that the launcher forked; never returns.
pub(crate) fn keeper(plan: Plan, given: Given) -> ! {
    let names: Vec<String> = plan.views.iter().map(|view| view.name.clone()).collect();
    match raise(plan, given) {
        Ok(mut keeper) => keeper.run(),
        Err((error, reporter, run)) => {
            reporter.fail(&error);
            // The inits see our end of the life line go and end; the namespaces go with us.
            rundir::remove_all(&run, &names);
            sys::exit_now(error.class().status())
        }
    }
}

struct Keeper {
    views: Vec<KeptView>,
    client: Client,
    _life: OwnedFd,
    mountinfo: File,
    signals: SignalFd,
    orders: Option<OwnedFd>,
    run: OwnedFd,
    reporter: Reporter,
    /// Standard error stays the caller's when the launcher has gone.
    keeps_log: bool,
    walls: Walls,
}

fn raise(
    mut plan: Plan,
    mut given: Given,
) -> std::result::Result<Keeper, (Error, Reporter, OwnedFd)> {
    match raise_inner(&mut plan, &mut given) {
        Ok((spawned, signals)) => Ok(Keeper {
            views: spawned.views,
            keeps_log: plan.debug || spawned.client.is_peer(),
            walls: plan.inside.walls(),
            client: spawned.client,
            _life: spawned.life,
            mountinfo: spawned.mountinfo,
            signals,
            orders: Some(given.orders),
            run: given.run,
            reporter: given.reporter,
        }),
        Err(error) => Err((error, given.reporter, given.run)),
    }
}

fn raise_inner(plan: &mut Plan, given: &mut Given) -> Result<(stage::Spawned, SignalFd)> {
    let clean = stage::clean(plan, given)?;
    let isolated = stage::isolate(clean)?;
    let mounted = stage::mount(isolated, plan, &given.reporter)?;
    let root = namespace::empty_root()?;
    let signals = kernel_view::signals([
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ])?;
    let spawned = stage::spawn(mounted, plan, given)?;
    let room = match spawned.client {
        Client::Init { .. } => Root::Beside,
        Client::Peer(_) => Root::Instead,
    };
    confine(&root, room, &given.run, Verdict::of(plan.debug))?;
    given.reporter.send(
        &Report::Ready {
            init: spawned.client.init().map(Pid::as_raw),
            wardens: spawned
                .views
                .iter()
                .map(|view| view.warden.pid().as_raw())
                .collect(),
            registrars: spawned
                .views
                .iter()
                .map(|view| Some(view.registrar.as_ref()?.pid().as_raw()))
                .collect(),
            mounts: spawned.views.iter().map(|view| view.mount_id).collect(),
        },
        None,
    );
    // The client starts when its views can be found: it, or who waits for it, may look for them.
    await_go(&given.orders)?;
    spawned.client.go()?;
    Ok((spawned, signals))
}

fn await_go(orders: &OwnedFd) -> Result<()> {
    let mut byte = [0];
    match nix::unistd::read(orders, &mut byte) {
        Ok(1) if byte[0] == order::GO => Ok(()),
        Ok(_) | Err(_) => Err(Error::new(Class::Confinement, "the start was given up", "")),
    }
}

/// What becomes of the mounts in our namespace when the empty root directory is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// The client needs them.
    Beside,
    /// They go: what the host unmounts later would live on here, as long as the client runs.
    Instead,
}

/// A session of its own (the terminal's keys are for the client), a root directory with nothing in
/// it, no capability, no file but to remove views' directories, no system call but those listed.
fn confine(root: &OwnedFd, room: Root, run: &OwnedFd, verdict: Verdict) -> Result<()> {
    nix::unistd::setsid().map_err(|errno| Error::step(Class::Confinement, "setsid", errno))?;
    match room {
        Root::Beside => namespace::enter_empty(root)?,
        Root::Instead => namespace::pivot_onto(root)?,
    }
    sys::forget_environment();
    walls::limit_resources()?;
    walls::limit_descriptors()?;
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    // Its log goes to standard error; see `ordered` for the end of that.
    walls::silence(walls::Silence::AllButErrors)?;
    // What this kernel lacks, the mediators have told.
    landlock::restrict_to(Room::Removal(run), root)?;
    seccomp::confine(&calls::KEEPER, run, verdict)
}

impl Keeper {
    fn run(&mut self) -> ! {
        let end = loop {
            if let Some(end) = self.wait() {
                break end;
            }
        };
        // The mediators first: while one holds its device, a client with a request in flight
        // cannot be killed.
        let init = if self.walls.has(Wall::EndOrder) {
            self.end_views();
            self.client.end()
        } else {
            let init = self.client.end();
            self.end_views();
            init
        };
        let names: Vec<String> = self.views.iter().map(|view| view.name.clone()).collect();
        rundir::remove_all(&self.run, &names);
        if self.client.is_peer() && matches!(end, End::Client(_)) {
            tracing::info!("ended with their client: {}", names.join(", "));
        }
        let status = match end {
            End::Client(status) => status.or(init).unwrap_or(128 + 9),
            // A client that had to be killed ended as one that was.
            End::Stopped if self.client.is_command() => 128 + 9,
            End::Stopped => 0,
            End::Lost { cause, fault } => {
                if fault && !self.launcher_listens() {
                    tracing::error!("{cause}");
                }
                self.reporter.send(&Report::Ended { cause }, None);
                if fault { Class::Mount.status() } else { 0 }
            }
        };
        sys::exit_now(status)
    }

    fn end_views(&self) {
        for view in &self.views {
            view.warden.end();
            // It holds the device as well.
            if let Some(registrar) = &view.registrar {
                registrar.end();
            }
        }
    }

    /// Waits for one event; tells whether it ends everything.
    fn wait(&mut self) -> Option<End> {
        let (told, client, orders) = {
            let mut fds = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.mountinfo.as_fd(), PollFlags::POLLPRI),
                PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
            ];
            if let Some(orders) = &self.orders {
                fds.push(PollFd::new(orders.as_fd(), PollFlags::POLLIN));
            }
            match nix::poll::poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Some(End::Lost {
                        cause: format!("keeper: poll: {errno}"),
                        fault: true,
                    });
                }
            }
            let any = |at: usize| {
                fds.get(at)
                    .and_then(PollFd::revents)
                    .is_some_and(|events| !events.is_empty())
            };
            (any(0), any(2), any(3))
        };
        // Before the children: an unmount ends the mediator as well, and is the cause of it.
        self.unmounted()
            .or_else(|| if told { self.signalled() } else { None })
            .or_else(|| if client { self.client.ended() } else { None })
            .or_else(|| if orders { self.ordered() } else { None })
    }

    fn unmounted(&self) -> Option<End> {
        let table = mounts::Table::read_again(&self.mountinfo).ok()?;
        let gone = self.views.iter().find(|view| !table.has(view.mount_id))?;
        // Under a client's feet it is a fault; a view without one just ends.
        Some(End::Lost {
            cause: format!("view {} was unmounted", gone.name),
            fault: self.client.is_there(),
        })
    }

    fn signalled(&mut self) -> Option<End> {
        let mut end = None;
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo != u32::try_from(libc::SIGCHLD).unwrap_or_default() {
                end = Some(End::Stopped);
            }
        }
        loop {
            let reaped = waitpid(None, Some(WaitPidFlag::WNOHANG))
                .ok()
                .and_then(init::ended);
            let Some((pid, status)) = reaped else {
                return end;
            };
            // A lost view makes a client end: the view is what is told.
            match self.ended(pid, status) {
                Some(lost @ End::Lost { .. }) => return Some(lost),
                Some(other) => end = Some(other),
                None => {}
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: u8) -> Option<End> {
        if Some(pid) == self.client.init() {
            return Some(End::Client(Some(status)));
        }
        let view = self.views.iter().find(|view| view.warden.pid() == pid)?;
        let cause = format!("view {}: its mediator ended ({})", view.name, told(status));
        Some(End::Lost { cause, fault: true })
    }

    /// Whether a launcher is there to tell of an end; it may have gone, or said that it goes, and that
    /// not been heard yet.
    fn launcher_listens(&self) -> bool {
        let Some(orders) = &self.orders else {
            return false;
        };
        let mut fds = [PollFd::new(orders.as_fd(), PollFlags::POLLIN)];
        if !matches!(nix::poll::poll(&mut fds, PollTimeout::ZERO), Ok(1..)) {
            return true;
        }
        let mut byte = [0u8];
        matches!(nix::unistd::read(orders, &mut byte), Ok(1) if byte[0] == order::STOP)
    }

    fn ordered(&mut self) -> Option<End> {
        let orders = self.orders.as_ref()?;
        let mut byte = [0u8];
        match nix::unistd::read(orders, &mut byte) {
            Ok(1) if byte[0] == order::DETACH => {
                self.orders = None;
                // Whoever reads the launcher's output waits until nobody can write to it. Standard
                // output leads nowhere already. Where the log is kept, the relay goes on as well.
                if !self.keeps_log
                    && let Err(errno) = rustix::stdio::dup2_stderr(rustix::stdio::stdout())
                {
                    tracing::warn!(%errno, "standard error stays open");
                }
                None
            }
            Ok(_) => Some(End::Stopped),
            Err(_) => Some(End::Stopped),
        }
    }
}

/// How a process ended, in words.
fn told(status: u8) -> String {
    match status {
        0 => "by itself".to_owned(),
        129.. => format!("signal {}", status - 128),
        _ => format!("status {status}"),
    }
}
