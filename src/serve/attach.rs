//! One start: views for the peer that the service has let through, then the answer that its wrapper
//! waits for. The service has decided who; what follows looks again at all that it rests on.

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::kernel_view;
use crate::launch::inside::Inside;
use crate::launch::peer::Peer;
use crate::launcher;
use crate::libvirt::armed::{self, Armed};
use crate::plan;
use crate::serve::protocol::{ANSWER_MAX, NO, YES};
use crate::serve::service::answer;
use crate::sys;

/// How long the views of the domain's last start may take to end, all together: the wrapper waits for
/// all views of this one no longer than twenty seconds.
const LAST_START: Duration = Duration::from_secs(5);

/// The most characters of a reason: libvirt shows them.
const TOLD_MAX: usize = 512;

const NAME: &std::ffi::CStr = c"virtfs-mediator";

/// What the service hands over.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The peer's pidfd.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) peer: RawFd,
    /// The connection to the peer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) connection: RawFd,
    /// As for `serve`.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) mediator_user: Option<String>,
    /// The domain.
    #[arg(value_name = "DOMAIN")]
    pub(crate) domain: String,
}

/// Attaches, and answers; the exit status tells the service nothing that the log does not.
///
/// # Errors
///
/// What the peer was told as well.
pub(crate) fn attach(options: &Options, inside: &'static dyn Inside) -> Result<u8> {
    plan::require_root()?;
    // In a list of processes, for us and our children: we were executed as /proc/self/exe.
    let _only_for_people = nix::sys::prctl::set_name(NAME);
    for fd in [options.peer, options.connection] {
        plan::client::refuse_closed_descriptor(fd)?;
    }
    let (peer, connection) = (sys::own(options.peer), sys::own(options.connection));
    for fd in [&peer, &connection] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(|errno| Error::step(Class::Confinement, "fcntl(F_SETFD)", errno))?;
    }
    let domain = &options.domain;
    match views(domain, peer, options.mediator_user.as_deref(), inside) {
        Ok(yes) => {
            answer(connection.as_fd(), YES, &yes);
            Ok(0)
        }
        Err(error) => {
            // A policy's mistakes have lines of their own.
            let text = error.to_string();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let told: String = lines.join("; ").chars().take(TOLD_MAX).collect();
            answer(connection.as_fd(), NO, told.as_bytes());
            Err(Error::new(
                error.class(),
                format!("domain '{domain}': {error}"),
                "",
            ))
        }
    }
}

/// Lays all views of the domain; they are there, and answer, when this returns what the wrapper is told.
fn views(
    domain: &str,
    pidfd: OwnedFd,
    mediator_user: Option<&str>,
    inside: &'static dyn Inside,
) -> Result<Vec<u8>> {
    let armed = armed::claimed(domain)?;
    let pid = pid_of(&pidfd)?;
    let client = armed.ids();
    let peer = Peer::look(pid, pidfd, &client)?;
    let until = Instant::now() + LAST_START;
    for view in &armed.file.views {
        await_last(&view.name, until)?;
    }
    let plan = plan::for_peer(&armed.file, client, peer, mediator_user, inside)?;
    let shown: Vec<String> = plan.views.iter().map(|view| view.name.clone()).collect();
    let outcome = launcher::start(plan, true)?;
    if let Some(what) = outcome.failure {
        return Err(Error::new(Class::Mount, what, ""));
    }
    if outcome.status != 0 {
        return Err(Error::new(Class::Mount, "the client has ended", ""));
    }
    tracing::info!(
        "domain '{domain}': {} laid into the mount namespace of process {pid}",
        Views(&shown)
    );
    yes(&armed)
}

/// The emulator, and by which mounts the wrapper knows the views.
fn yes(armed: &Armed) -> Result<Vec<u8>> {
    let mut text = armed.file.emulator.as_os_str().as_bytes().to_vec();
    for view in &armed.file.views {
        let mount = rundir::load(&view.name)?.mount;
        let mount = mount.ok_or_else(|| {
            let what = format!("view '{}' has ended", view.name);
            Error::new(Class::Mount, what, "its log says why")
        })?;
        text.extend(format!("\0{mount} ").bytes());
        text.extend(view.export.as_os_str().as_bytes());
    }
    if YES.len() + text.len() > ANSWER_MAX {
        return Err(Error::new(
            Class::Configuration,
            format!("the paths of its views have more than {ANSWER_MAX} bytes"),
            "share fewer directories, or such with shorter paths",
        ));
    }
    Ok(text)
}

/// The peer's number, by its pidfd: -1 once it has been reaped.
fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    kernel_view::fdinfo(pidfd, "Pid")
        .and_then(|pid| pid.parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| Error::new(Class::Configuration, "the client has ended", ""))
}

/// The last start's QEMU has ended: its view is about to, and then its name is free.
fn await_last(view: &str, until: Instant) -> Result<()> {
    let Ok(state) = rundir::load(view) else {
        return Ok(());
    };
    if state.peer.is_none_or(|peer| peer.lives()) {
        // `rundir::claim` tells that the name is taken.
        return Ok(());
    }
    let left = until.saturating_duration_since(Instant::now());
    let limit = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
    match rundir::watch(&state.keeper) {
        Some(keeper) if !rundir::await_end(&keeper, limit) => Err(Error::new(
            Class::Mount,
            format!(
                "view '{view}' of the last start has not ended: its keeper is process {}",
                state.keeper.pid
            ),
            format!("virtfs-mediator unmount --force {view}, then start the domain again"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Names of views in a sentence.
struct Views<'a>(&'a [String]);

impl fmt::Display for Views<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "view '{one}'"),
            more => write!(f, "views '{}'", more.join("', '")),
        }
    }
}
