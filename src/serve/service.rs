//! The service's one loop: connections, what they say, and the starts that run.
//!
//! It waits for nobody: a connection is closed at once unless its user is that of a domain which is
//! about to start, few of one user are kept, and none longer than it takes to say one word.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv, send};

use crate::cli::LogFormat;
use crate::error::{Class, Error, Result};
use crate::kernel_view;
use crate::launch::inside::Walls;
use crate::libvirt::armed;
use crate::serve::asker::Asker;
use crate::serve::protocol::{ATTACH, NO, YES};
use crate::serve::refusals::Refusals;
use crate::serve::{Logging, PING};
use crate::service::ITS_WORDS;
use crate::sys;

/// How long a connection may take to say its word.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many connections may be silent at once.
const SILENT: usize = 128;
/// And how many of one domain's user; root's are libvirt's hooks, of which many may run as a host boots.
const SILENT_OF_ONE: usize = 4;
const SILENT_OF_ROOT: usize = 64;
/// How many starts may be under way at once.
const STARTS: usize = 64;
/// How long one may take.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How many connections are taken before the others have their turn.
const BURST: usize = 64;
/// How long none is taken when there is no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that has said nothing yet.
struct Silent {
    connection: OwnedFd,
    who: Asker,
    until: Instant,
}

/// A start that runs.
struct Start {
    child: Child,
    domain: String,
    until: Instant,
}

pub(super) struct Service<'a> {
    listening: &'a OwnedFd,
    signals: SignalFd,
    silent: Vec<Silent>,
    starts: Vec<Start>,
    refusals: Refusals,
    /// No connection is taken before.
    paused: Option<Instant>,
    mediator_user: Option<String>,
    logging: Logging,
    walls: Walls,
}

impl<'a> Service<'a> {
    pub(super) fn new(
        listening: &'a OwnedFd,
        mediator_user: Option<String>,
        logging: Logging,
        walls: Walls,
    ) -> Result<Self> {
        let signals = kernel_view::signals([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT])?;
        Ok(Self {
            listening,
            signals,
            silent: Vec::new(),
            starts: Vec::new(),
            refusals: Refusals::default(),
            paused: None,
            mediator_user,
            logging,
            walls,
        })
    }

    /// Runs until it is told to end.
    pub(super) fn run(&mut self) -> Result<()> {
        tracing::info!("waiting for virtual machines that start");
        loop {
            let (signalled, connected, spoken) = self.wait()?;
            if signalled && self.take_signals() {
                return Ok(());
            }
            // Those that were let in come before those that knock.
            for at in spoken.into_iter().rev() {
                let silent = self.silent.swap_remove(at);
                self.hear(silent);
            }
            self.expire();
            if connected {
                self.take_connections();
            }
        }
    }

    /// Which of signals, listening socket and silent connections there is something to read from.
    fn wait(&self) -> Result<(bool, bool, Vec<usize>)> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.silent
                .iter()
                .map(|silent| PollFd::new(silent.connection.as_fd(), PollFlags::POLLIN)),
        );
        let takes = self.paused.is_none();
        if takes {
            fds.push(PollFd::new(self.listening.as_fd(), PollFlags::POLLIN));
        }
        let next = [self.paused, self.refusals.next()].into_iter().flatten();
        let next = next
            .chain(self.silent.iter().map(|silent| silent.until))
            .chain(self.starts.iter().map(|start| start.until))
            .min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let left = next.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match nix::poll::poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::step(Class::Confinement, "poll", errno)),
        }
        let any = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let signalled = fds.first().is_some_and(any);
        let connected = takes && fds.last().is_some_and(any);
        let spoken = fds.iter().skip(1).take(self.silent.len()).enumerate();
        let spoken = spoken.filter(|(_, fd)| any(fd)).map(|(at, _)| at).collect();
        Ok((signalled, connected, spoken))
    }

    /// Reaps; tells whether it is time to end.
    fn take_signals(&mut self) -> bool {
        let mut end = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            end |= info.ssi_signo != u32::try_from(libc::SIGCHLD).unwrap_or_default();
        }
        self.starts
            .retain_mut(|start| match start.child.try_wait() {
                Ok(None) => true,
                // It has told what went wrong.
                Ok(Some(status)) => {
                    tracing::debug!(domain = start.domain, %status, "a start has ended");
                    false
                }
                Err(error) => {
                    tracing::warn!(domain = start.domain, "waiting for a start: {error}");
                    false
                }
            });
        end
    }

    /// Whoever has had its time.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        let mut at = 0;
        while let Some(silent) = self.silent.get(at) {
            if silent.until <= now {
                let silent = self.silent.swap_remove(at);
                self.refuse(
                    &silent.connection,
                    silent.who,
                    "it said nothing",
                    "too slow",
                );
            } else {
                at += 1;
            }
        }
        for start in &mut self.starts {
            if start.until <= now {
                tracing::error!(
                    domain = start.domain,
                    "the start takes too long: it is ended"
                );
                // Everything that it began ends with it. It is reaped as it ends.
                let _may_be_gone = start.child.kill();
                start.until = now + START_LIMIT;
            }
        }
        self.refusals.sum_up(now);
    }

    fn take_connections(&mut self) {
        for _ in 0..BURST {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let connection = match accept4(self.listening.as_raw_fd(), flags) {
                Ok(fd) => sys::own(fd),
                Err(Errno::EAGAIN) => return,
                Err(Errno::ECONNABORTED | Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!("accept: {errno}");
                    self.paused = Some(Instant::now() + PAUSE);
                    return;
                }
            };
            match Asker::of(&connection) {
                Ok(who) => self.let_in(connection, who),
                Err(error) => tracing::warn!("refused: {error}"),
            }
        }
    }

    /// Keeps a connection of a user that there is something for, until it has spoken.
    fn let_in(&mut self, connection: OwnedFd, who: Asker) {
        if who.uid != 0 {
            match armed::all() {
                Ok(armed) if armed.iter().any(|domain| domain.uid == who.uid) => {}
                Ok(_) => {
                    let why = "no domain with its user is about to start";
                    return self.refuse(&connection, who, why, why);
                }
                Err(error) => {
                    let why = error.to_string();
                    return self.refuse(&connection, who, &why, "the service is in trouble");
                }
            }
        }
        let own = self
            .silent
            .iter()
            .filter(|silent| silent.who.uid == who.uid);
        let most = if who.uid == 0 {
            SILENT_OF_ROOT
        } else {
            SILENT_OF_ONE
        };
        if own.count() >= most || self.silent.len() >= SILENT {
            let why = "too many connections at once";
            return self.refuse(&connection, who, why, why);
        }
        self.silent.push(Silent {
            connection,
            who,
            until: Instant::now() + PATIENCE,
        });
    }

    /// The one word of a connection.
    fn hear(&mut self, silent: Silent) {
        let Silent {
            connection, who, ..
        } = silent;
        let mut word = [0; 32];
        let heard = match recv(connection.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
            Ok(count) => word.get(..count).unwrap_or_default(),
            Err(_) => &[],
        };
        if heard == PING && who.uid == 0 {
            answer(connection.as_fd(), YES, b"");
            return;
        }
        if heard.is_empty() {
            return self.refuse(&connection, who, "it said nothing", "nothing was said");
        }
        if heard != ATTACH {
            let why = "it said what is no word of the protocol";
            return self.refuse(&connection, who, why, "another version of virtfs-mediator?");
        }
        if let Err(error) = self.attach(connection.as_fd(), &connection, who) {
            let why = error.to_string();
            self.refuse(&connection, who, &why, &format!("{who}: {why}"));
        }
    }

    /// Decides whether an asker gets views, and of which domain; starts what gives them.
    fn attach(
        &mut self,
        answering: BorrowedFd<'_>,
        connection: &OwnedFd,
        who: Asker,
    ) -> Result<()> {
        // Held before anything is looked up by its number.
        let pidfd = who.pidfd(connection)?;
        let armed = armed::all()?;
        let domain = who.domain(&armed, self.walls)?.file.domain.clone();
        if self.starts.len() >= STARTS {
            return Err(Error::new(
                Class::Mount,
                format!("{STARTS} starts are under way"),
                "start the domain again",
            ));
        }
        // From here on nobody else is let through, whatever becomes of this one.
        armed::claim(&domain)?;
        tracing::info!("domain '{domain}': {who} asks for its views");
        let child = self.spawn(&domain, pidfd.as_fd(), answering)?;
        self.starts.push(Start {
            child,
            domain,
            until: Instant::now() + START_LIMIT,
        });
        Ok(())
    }

    /// Our own program again: what it does needs a process of one thread, and outlives us.
    fn spawn(
        &self,
        domain: &str,
        peer: BorrowedFd<'_>,
        connection: BorrowedFd<'_>,
    ) -> Result<Child> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::step(Class::Confinement, "starting `attach`", error)
        };
        // These stay open over exec. There is one thread, so nothing else is executed meanwhile.
        let peer = rustix::io::dup(peer).map_err(|errno| failed(&errno))?;
        let connection = rustix::io::dup(connection).map_err(|errno| failed(&errno))?;
        // Whatever an upgrade has put in the program's place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("virtfs-mediator")
            .args(["--log-level", &self.logging.level])
            .args(["--log-format", word(self.logging.format)])
            .arg("attach")
            .args(["--peer", &peer.as_raw_fd().to_string()])
            .args(["--connection", &connection.as_raw_fd().to_string()]);
        for name in ITS_WORDS {
            command.env_remove(name);
        }
        if let Some(user) = &self.mediator_user {
            command.args(["--mediator-user", user]);
        }
        command
            .args(["--", domain])
            .stdin(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(|error| failed(&error))
    }

    /// Closes a connection; the log has `why`, the asker is told `told`.
    fn refuse(&mut self, connection: &OwnedFd, who: Asker, why: &str, told: &str) {
        self.refusals.tell(who, why);
        answer(connection.as_fd(), NO, told.as_bytes());
    }
}

/// Answers a connection, which may be gone or not read: nobody waits for it.
pub(super) fn answer(connection: BorrowedFd<'_>, word: &[u8], rest: &[u8]) {
    let message = [word, rest].concat();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    if let Err(errno) = send(connection.as_raw_fd(), &message, flags) {
        tracing::debug!("an asker did not wait for its answer: {errno}");
    }
}

fn word(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}
