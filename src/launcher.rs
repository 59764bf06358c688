//! What the user starts and sees: it plans, forks the keeper, then waits, forwards signals and
//! passes the exit status on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::audit::AuditRelay;
use crate::control::commands;
use crate::control::rundir::{self, Process, State};
use crate::error::{Class, Error, Result};
use crate::keep::{self, order};
use crate::kernel_view;
use crate::launch::stage::Given;
use crate::live::link;
use crate::pidfile::Pidfile;
use crate::pipes::pipe;
use crate::plan::{ClientProcess, Plan, ViewPlan};
use crate::relay::Relay;
use crate::report::{self, Report, Reports};
use crate::service;
use crate::sys::{self, Forked};

/// How long a client may take to end after SIGTERM, SIGINT or SIGHUP, before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// `ssi_code` of a signal that the terminal sent: the client, in the same foreground group, has
/// had it already (sigaction(2), `SI_KERNEL`).
pub(crate) const FROM_TERMINAL: i32 = 0x80;

/// Signals that are the client's.
pub(crate) const FORWARDED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// How a start ended.
#[must_use]
pub(crate) struct Outcome {
    /// The exit status.
    pub(crate) status: u8,
    /// What went wrong, if it was ours; it has been told nowhere.
    pub(crate) failure: Option<String>,
}

impl Outcome {
    /// Tells of a failure in the log.
    pub(crate) fn tell(self) -> u8 {
        if let Some(what) = self.failure {
            tracing::error!("{what}");
        }
        self.status
    }
}

/// Starts everything; returns once the client has ended, or, with `detach`, once every view answers.
pub(crate) fn start(plan: Plan, detach: bool) -> Result<Outcome> {
    let run = rundir::open()?;
    let mut names = Vec::new();
    let started = launch(plan, detach, run, &mut names);
    if started.is_err()
        && let Ok(run) = rundir::open()
    {
        rundir::remove_all(&run, &names);
    }
    started
}

fn launch(mut plan: Plan, detach: bool, run: OwnedFd, names: &mut Vec<String>) -> Result<Outcome> {
    let mut controls = Vec::new();
    for view in &plan.views {
        controls.push(rundir::claim(&run, &view.name)?);
        names.push(view.name.clone());
    }
    let pidfile = plan
        .process
        .command()
        .and_then(|command| command.pidfile.clone());
    let keeps_log = plan.debug || plan.process.peer().is_some();
    let mut states: Vec<State> = plan
        .views
        .iter()
        .map(|view| describe(&plan, view))
        .collect();
    // The client gets an empty mask back.
    let signals = kernel_view::signals(FORWARDED.into_iter().chain([Signal::SIGCHLD]))?;
    let step = plan.step;
    let (relay, log) = Relay::start()?;
    let (mut audit_relays, mut audits) = (Vec::new(), Vec::new());
    for view in &plan.views {
        if let Some((relay, lines)) = AuditRelay::start(&plan.audit, &view.name, log.as_fd())? {
            audit_relays.push(relay);
            audits.push(lines);
        }
    }
    // Only those processes may hold what they write to.
    plan.audit.close();
    let (reporter, reports) = report::channel()?;
    let (orders, to_keeper) = pipe()?;
    match sys::clone_process(0)
        .map_err(|error| Error::step(Class::Confinement, "fork(keeper)", error))?
    {
        Forked::Child => keep::keeper(
            plan,
            Given {
                reporter,
                orders,
                controls,
                run,
                log,
                audits,
            },
        ),
        Forked::Parent(keeper) => {
            plan.close_handed_on();
            drop((reporter, orders, controls, run, plan, log, audits));
            for state in &mut states {
                state.keeper = Process::find(keeper.as_raw()).unwrap_or(Process {
                    pid: keeper.as_raw(),
                    started: 0,
                });
            }
            let mut launcher = Launcher {
                keeper,
                relay,
                audit_relays,
                keeps_log,
                signals,
                reports: Some(reports),
                to_keeper: Some(to_keeper),
                client: None,
                states,
                pidfile,
                detach,
                recorded: false,
                step: if step { Step::Wanted } else { Step::No },
                failure: None,
                deadline: None,
            };
            launcher.run()
        }
    }
}

fn describe(plan: &Plan, view: &ViewPlan) -> State {
    State {
        view: view.name.clone(),
        export: view.export.clone(),
        at: view.at.clone(),
        policy: view.policy_file.clone(),
        policy_text: view.policy_text.clone(),
        readonly: view.readonly,
        client_uid: plan.client.uid,
        client_gid: plan.client.gid,
        client_groups: plan.client.groups.clone(),
        command: match &plan.process {
            ClientProcess::Command(command) => command
                .argv
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            ClientProcess::Nobody => Vec::new(),
            ClientProcess::Peer(peer) => peer.command(),
        },
        shared: plan.shared,
        isolated: plan.isolate.is_some(),
        keeper: Process { pid: 0, started: 0 },
        peer: plan.process.peer().map(|peer| peer.process),
        walls: None,
        init: None,
        warden: None,
        registrar: None,
        mount: None,
        data: view.data.word().to_owned(),
        submounts: view.submounts.seen(),
    }
}

/// Whether a stepping console is to come before the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    No,
    Wanted,
    /// Everything else is ready.
    Awaited,
}

/// How often it is looked for, in milliseconds.
const LOOK_MS: u8 = 200;

struct Launcher {
    keeper: Pid,
    relay: Relay,
    audit_relays: Vec<AuditRelay>,
    /// The log goes on without us: it is what was asked for, or a service's.
    keeps_log: bool,
    signals: SignalFd,
    reports: Option<Reports>,
    /// The keeper ends everything when this closes.
    to_keeper: Option<OwnedFd>,
    /// The client's pidfd.
    client: Option<OwnedFd>,
    states: Vec<State>,
    pidfile: Option<Pidfile>,
    /// Leave once every view answers, or once the client has gone to the background.
    detach: bool,
    /// The views can be found below /run, and their consoles have come if they were waited for.
    recorded: bool,
    /// Whether a stepping console is waited for, on each view.
    step: Step,
    /// The first cause that was told: what follows from it is not told again.
    failure: Option<(u8, String)>,
    /// When the client is killed if it has not ended.
    deadline: Option<Instant>,
}

impl Launcher {
    fn run(&mut self) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.step()? {
                return Ok(outcome);
            }
        }
    }

    fn step(&mut self) -> Result<Option<Outcome>> {
        let (signalled, reported) = self.poll()?;
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            tracing::warn!("the client did not end in time: it is killed");
            self.stop();
        }
        if self.step == Step::Awaited && self.consoles_are_there() {
            self.step = Step::No;
            self.go();
            if let Some(outcome) = self.leave_if_asked()? {
                return Ok(Some(outcome));
            }
        }
        if reported && let Some(outcome) = self.hear()? {
            return Ok(Some(outcome));
        }
        if signalled && self.take_signals() {
            while self.reports.is_some() {
                self.hear()?;
            }
            return self.finished().map(Some);
        }
        Ok(None)
    }

    fn poll(&self) -> Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(reports) = &self.reports {
            fds.push(PollFd::new(reports.as_fd(), PollFlags::POLLIN));
        }
        let never = match self.step {
            Step::Awaited => PollTimeout::from(LOOK_MS),
            Step::No | Step::Wanted => PollTimeout::NONE,
        };
        let timeout = self.deadline.map_or(never, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match nix::poll::poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::step(Class::Confinement, "poll", errno)),
        }
        let any = |at: usize| {
            fds.get(at)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        Ok((any(0), any(1)))
    }

    /// Takes one report; an outcome ends the launcher.
    fn hear(&mut self) -> Result<Option<Outcome>> {
        let Some(reports) = &self.reports else {
            return Ok(None);
        };
        match reports.next() {
            None => self.reports = None,
            Some((Report::Walls { view, found }, _)) => {
                let named = self.states.iter_mut().find(|state| state.view == view);
                if let Some(state) = named {
                    state.walls = Some(found);
                }
            }
            Some((
                Report::Ready {
                    init,
                    wardens,
                    registrars,
                    mounts,
                },
                _,
            )) => {
                let started = wardens.into_iter().zip(registrars).zip(mounts);
                for (state, ((warden, registrar), mount)) in self.states.iter_mut().zip(started) {
                    state.init = init;
                    state.warden = Some(warden);
                    state.registrar = registrar;
                    state.mount = Some(mount);
                    rundir::record(state)?;
                    tracing::debug!(view = state.view, "answers");
                }
                if self.step == Step::Wanted {
                    self.step = Step::Awaited;
                    service::status("waiting for a stepping console");
                    for state in &self.states {
                        tracing::info!(
                            "view '{0}' waits for its console: virtfs-mediator step {0}",
                            state.view
                        );
                    }
                } else {
                    self.go();
                }
            }
            Some((Report::ClientStarted, pidfd)) => {
                self.client = pidfd;
                self.write_pidfile()?;
            }
            Some((Report::Background, _)) => self.detach = true,
            Some((Report::Ended { cause }, _)) => self.fail(Class::Mount.status(), cause),
            Some((Report::Failed { status, what }, _)) => self.fail(status, what),
        }
        self.leave_if_asked()
    }

    /// Lets the client start.
    fn go(&mut self) {
        self.recorded = true;
        if let Some(orders) = &self.to_keeper {
            // If the keeper is gone, its end is told by other ways.
            let _may_be_gone = nix::unistd::write(orders, &[order::GO]);
        }
        // Who leaves is no service's main process.
        if !self.detach {
            service::ready(&self.in_words());
        }
    }

    /// What runs, for `systemctl status`.
    fn in_words(&self) -> String {
        let views: Vec<String> = self
            .states
            .iter()
            .map(|state| format!("{} ({})", state.view, state.export.display()))
            .collect();
        let who = self.states.first().map_or_else(String::new, |state| {
            format!(" for {}:{}", state.client_uid, state.client_gid)
        });
        format!("serving {}{who}", views.join(", "))
    }

    /// Whether every view has its console now.
    fn consoles_are_there(&self) -> bool {
        let stepping = |state: &State| link::status(&state.view).is_ok_and(|told| told.stepping);
        self.states.iter().all(stepping)
    }

    fn leave_if_asked(&mut self) -> Result<Option<Outcome>> {
        // A client can be in the background before the keeper has told that all is ready.
        if self.detach && self.recorded {
            self.write_pidfile_of_those_left()?;
            return Ok(Some(self.leave()));
        }
        Ok(None)
    }

    fn fail(&mut self, status: u8, what: String) {
        if self.failure.is_none() {
            service::status(&what);
            self.failure = Some((status, what));
        }
    }

    /// Goes, and leaves the views to the keeper.
    fn leave(&mut self) -> Outcome {
        // Whoever reads our standard error would wait for the view's end.
        if !self.keeps_log {
            self.relay.stop();
        }
        if let Some(orders) = self.to_keeper.take()
            && let Err(errno) = nix::unistd::write(&orders, &[order::DETACH])
        {
            tracing::warn!(%errno, "the keeper is gone");
        }
        Outcome {
            status: 0,
            failure: None,
        }
    }

    fn stop(&mut self) {
        service::stopping("ending");
        self.deadline = None;
        if let Some(orders) = self.to_keeper.take() {
            let _already_gone = nix::unistd::write(&orders, &[order::STOP]);
        }
    }

    /// Forwards; tells whether the keeper has ended.
    fn take_signals(&mut self) -> bool {
        let mut child = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let Ok(signal) = Signal::try_from(number) else {
                continue;
            };
            if signal == Signal::SIGCHLD {
                child = true;
                continue;
            }
            self.forward(signal, info.ssi_code == FROM_TERMINAL);
        }
        child && self.keeper_has_ended()
    }

    fn forward(&mut self, signal: Signal, had_it: bool) {
        let Some(client) = &self.client else {
            // Nobody to ask: a view without a client, or one that is still starting.
            self.stop();
            return;
        };
        if !had_it {
            let _may_be_gone = rustix::process::Signal::from_named_raw(signal as i32)
                .map(|signal| rustix::process::pidfd_send_signal(client, signal));
        }
        let ends = matches!(signal, Signal::SIGTERM | Signal::SIGHUP)
            || (signal == Signal::SIGINT && !had_it);
        if ends && self.deadline.is_none() {
            service::stopping("waiting for the client to end");
            self.deadline = Some(Instant::now() + GRACE);
        }
    }

    /// Only looks: [`Launcher::finished`] reaps it.
    fn keeper_has_ended(&self) -> bool {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let keeper = nix::sys::wait::Id::Pid(self.keeper);
        !matches!(
            nix::sys::wait::waitid(keeper, flags),
            Ok(WaitStatus::StillAlive) | Err(_)
        )
    }

    /// The keeper has ended: whatever it could not tidy up is ours to.
    fn finished(&mut self) -> Result<Outcome> {
        let ended = waitpid(self.keeper, None).ok();
        // They hold the log's pipe, whose relay ends after them.
        for relay in &self.audit_relays {
            relay.finish();
        }
        self.relay.finish();
        let run = rundir::open()?;
        for state in &self.states {
            rundir::remove_left_by(&state.keeper, &run, &state.view);
        }
        if let Some(pidfile) = &self.pidfile {
            pidfile.remove();
        }
        // A killed keeper says nothing. Its own status may be 128+N too: then it is the client's.
        if let Some(WaitStatus::Signaled(_, signal, _)) = ended {
            let what = format!("the keeper was killed ({signal}): view and client have ended");
            self.fail(Class::Mount.status(), what);
        }
        let status = ended.and_then(keep::init::ended).map(|(_, status)| status);
        Ok(match self.failure.take() {
            Some((status, what)) => Outcome {
                status,
                failure: Some(what),
            },
            None => Outcome {
                status: status.unwrap_or(Class::Mount.status()),
                failure: None,
            },
        })
    }

    /// A client that went to the background is another process than the one that was started: the
    /// oldest of those that are left.
    fn write_pidfile_of_those_left(&mut self) -> Result<()> {
        let (Some(pidfile), Some(state)) = (&mut self.pidfile, self.states.first()) else {
            return Ok(());
        };
        let left = commands::clients(state);
        match left
            .into_iter()
            .filter_map(Process::find)
            .min_by_key(|process| process.started)
        {
            Some(process) => pidfile.write(&process.pid.to_string()),
            // It ended meanwhile.
            None => Ok(()),
        }
    }

    fn write_pidfile(&mut self) -> Result<()> {
        let (Some(pidfile), Some(client)) = (&mut self.pidfile, &self.client) else {
            return Ok(());
        };
        let pid = kernel_view::fdinfo(client, "Pid").unwrap_or_default();
        pidfile.write(&pid)
    }
}
