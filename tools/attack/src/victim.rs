//! Processes that are attacked: one that holds a secret, and the mediator of another view.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::driver::process::children;
use crate::lab::{Lab, Place};
use crate::task;
use crate::trial;

/// How long a victim may take to be there.
const LIMIT: Duration = Duration::from_secs(20);

/// The mediator's uid, as the product chooses it.
pub(crate) fn mediator_uid() -> u32 {
    match User::from_name("virtfs-mediator") {
        Ok(Some(user)) => user.uid.as_raw(),
        Ok(None) | Err(_) => 2_000_000_990,
    }
}

/// A process with the canary's secret in its memory and the canary open as descriptor 0. Ended
/// when dropped.
pub(crate) struct Victim {
    child: Child,
    /// Where the secret is.
    pub(crate) address: u64,
}

impl Victim {
    pub(crate) fn start(place: &Place, uid: u32) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("starting a victim: {error}");
        let canary = File::open(place.outside().join("canary")).map_err(failed)?;
        // By the link, since the user may not be able to reach this program by its path.
        let mut child = Command::new("/proc/self/exe")
            .env(task::ROLE, task::VICTIM)
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .stdin(canary)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let address = line.trim().parse();
        let victim = Self {
            child,
            address: address.as_ref().copied().unwrap_or_default(),
        };
        address.map_err(|_| format!("a victim said {line:?}"))?;
        Ok(victim)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(-1)
    }

    /// Whether it was ended by a signal that has been sent.
    pub(crate) fn is_ended(&self) -> bool {
        trial::await_end(&self.child, Duration::from_secs(5)).unwrap_or(false)
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        matches!(trial::await_end(&self.child, Duration::ZERO), Ok(false))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The victim's whole life.
pub(crate) fn child() {
    let kill = Some(rustix::process::Signal::KILL);
    let _kept_by_drop = rustix::process::set_parent_process_death_signal(kill);
    let mut secret = Vec::new();
    if std::io::stdin().read_to_end(&mut secret).is_err() {
        return;
    }
    secret.resize(64, 0);
    let address = secret.as_ptr().expose_provenance();
    if writeln!(std::io::stdout(), "{address}").is_ok() {
        loop {
            nix::unistd::pause();
            std::hint::black_box(&secret);
        }
    }
}

/// Another view, served by the product's own program. Ended when dropped.
pub(crate) struct OtherView {
    launcher: Child,
    /// Its mediator, as the host numbers it.
    pub(crate) mediator: i32,
    _place: Place,
}

impl OtherView {
    pub(crate) fn start(lab: &Lab) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("starting another view: {error}");
        let place = Place::new().map_err(failed)?;
        let launcher = Command::new(&lab.mediator)
            .args(trial::mount_arguments(
                &trial::view_name(),
                &place.export(),
                None,
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", lab.mediator.display()))?;
        let mut view = Self {
            launcher,
            mediator: 0,
            _place: place,
        };
        let launcher = i32::try_from(view.launcher.id()).unwrap_or(-1);
        let end = Instant::now() + LIMIT;
        // Nothing tells that a view answers but `/run` and `/proc`.
        loop {
            if let Some(mediator) = serving(launcher) {
                view.mediator = mediator;
                return Ok(view);
            }
            if Instant::now() > end || !matches!(view.launcher.try_wait(), Ok(None)) {
                return Err(format!("{} did not serve a view", lab.mediator.display()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_ended(&self) -> bool {
        trial::await_end(&self.launcher, Duration::from_secs(5)).unwrap_or(false)
    }

    pub(crate) fn lives(&self) -> bool {
        matches!(trial::await_end(&self.launcher, Duration::ZERO), Ok(false))
    }
}

impl Drop for OtherView {
    fn drop(&mut self) {
        let launcher = nix::unistd::Pid::from_raw(i32::try_from(self.launcher.id()).unwrap_or(0));
        if launcher.as_raw() > 0 && matches!(self.launcher.try_wait(), Ok(None)) {
            let _already_gone = nix::sys::signal::kill(launcher, Signal::SIGTERM);
        }
        if !matches!(trial::await_end(&self.launcher, LIMIT), Ok(true)) {
            let _already_gone = self.launcher.kill();
        }
        let _reaped = self.launcher.wait();
    }
}

/// The mediator below a launcher, once seccomp confines it: three generations on (keeper, warden,
/// mediator).
fn serving(launcher: i32) -> Option<i32> {
    let mediators = children(launcher)
        .into_iter()
        .flat_map(children)
        .flat_map(children);
    mediators.into_iter().find(|pid| {
        let is = |line: &str| status(*pid).is_some_and(|text| text.lines().any(|l| l == line));
        is("Seccomp:\t2")
    })
}

fn status(pid: i32) -> Option<String> {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()
}
