//! This program in another role: the product with walls switched off, or the core without a
//! sandbox and without a kernel. A wall is switched off for a whole process and for good, so each
//! needs a process of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, open};
use virtfs_mediator::attack::{Inside, Walls};
use virtfs_mediator_core::policy::{Policy, Users};
use virtfs_mediator_core::weak::{Wall, switch_off};
use virtfs_mediator_core::{
    AuditTo, Cache, DataMode, ServeError, Service, Submounts, ViewMode, serve,
};

use super::liar::{LIES, Liar, Lie};
use super::{OrTell as _, emulator};

/// The product without the walls that this names.
pub(crate) const WITHOUT: &str = "VIRTFS_ATTACK_WITHOUT";
/// The product without one wall that is not the mediator's own, by its name in [`OUTSIDE_WALLS`].
pub(crate) const OUTSIDE: &str = "VIRTFS_ATTACK_OUTSIDE";
/// The service without the look at libvirt's own record of who asks.
pub(crate) const RECORD: &str = "record";
/// The keeper ends a client before the mediator that has its request.
pub(crate) const END_ORDER: &str = "end-order";
/// The core alone, served over standard input, without the walls that this names.
pub(crate) const CORE: &str = "VIRTFS_ATTACK_CORE";

const WALLS: [(&str, Wall); 9] = [
    ("names", Wall::Names),
    ("floor", Wall::Floor),
    ("carry", Wall::Carry),
    ("kinds", Wall::Kinds),
    ("spelling", Wall::Spelling),
    ("arithmetic", Wall::Arithmetic),
    ("hold-limit", Wall::HoldLimit),
    ("invalidation", Wall::Invalidation),
    ("turns", Wall::Turns),
];

const OUTSIDE_WALLS: [(&str, Without); 2] = [
    (RECORD, Without(virtfs_mediator::attack::Wall::Record)),
    (END_ORDER, Without(virtfs_mediator::attack::Wall::EndOrder)),
];

/// How a wall is called in the variables above.
pub(crate) fn word(wall: Wall) -> &'static str {
    WALLS
        .iter()
        .find(|(_, other)| *other == wall)
        .map_or("", |(word, _)| word)
}

/// Does what another role asks of this process, if one does. Before anything else in `main`.
pub(crate) fn take() -> Option<ExitCode> {
    if let Ok(walls) = std::env::var(WITHOUT) {
        let _first = OFF.set(walls);
        return Some(virtfs_mediator::attack::main_as(&Weakened));
    }
    if let Ok(name) = std::env::var(LIES) {
        let Some(lie) = Lie::named(&name) else {
            tell(&format!("{LIES} is {name:?}, which is no lie"));
            return Some(ExitCode::FAILURE);
        };
        return Some(virtfs_mediator::attack::main_as(
            LIAR.get_or_init(|| Liar(lie)),
        ));
    }
    if let Ok(wall) = std::env::var(OUTSIDE) {
        let Some((_, without)) = OUTSIDE_WALLS.iter().find(|(word, _)| *word == wall) else {
            tell(&format!("{OUTSIDE} is {wall:?}, which is no wall"));
            return Some(ExitCode::FAILURE);
        };
        return Some(virtfs_mediator::attack::main_as(without));
    }
    if let Ok(what) = std::env::var(emulator::ROLE) {
        return Some(emulator::play(&what));
    }
    let walls = std::env::var(CORE).ok()?;
    off(&walls);
    Some(match core(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell(&why);
            ExitCode::FAILURE
        }
    })
}

#[allow(clippy::print_stderr, reason = "a role's log is its standard error")]
fn tell(why: &str) {
    eprintln!("{why}");
}

static OFF: OnceLock<String> = OnceLock::new();
static LIAR: OnceLock<Liar> = OnceLock::new();

fn off(walls: &str) {
    for (name, wall) in WALLS {
        if walls.split(',').any(|other| other == name) {
            switch_off(wall);
        }
    }
}

/// The product's loop, with walls of the core switched off first.
struct Weakened;

impl Inside for Weakened {
    fn serve(&self, service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
        off(OFF.get().map_or("", String::as_str));
        serve(service, ready)
    }
}

/// The product without a wall that is not the mediator's own.
struct Without(virtfs_mediator::attack::Wall);

impl Inside for Without {
    fn serve(&self, service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
        serve(service, ready)
    }

    fn walls(&self) -> Walls {
        Walls::ALL.without(self.0)
    }
}

/// The numbers of a policy are enough here.
struct NoUsers;

impl Users for NoUsers {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<u32> {
        None
    }
}

/// Serves the export that the first word names under the policy whose text is the second.
fn core(words: Vec<OsString>) -> Result<(), String> {
    let [export, policy] = words.as_slice() else {
        return Err("an export and a policy's text are wanted".to_owned());
    };
    rustix::process::umask(Mode::empty());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    let path = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).or_tell("open")
    };
    let text = policy.to_string_lossy();
    let policy = match text.as_ref() {
        "" => Policy::parity(),
        text => Policy::parse("policy", text, &NoUsers).or_tell("policy")?,
    };
    let device = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).or_tell("dup")?;
    let service = Service {
        device,
        root: path(Path::new(export))?,
        proc_fd: path(Path::new("/proc/self/fd"))?,
        control: None,
        policy,
        submounts: Submounts::Refuse,
        cache: Cache::Auto,
        mode: ViewMode::Client,
        debug: false,
        audit: AuditTo::Log,
        view: "core".to_owned(),
        max_descriptors: 64,
        threads: 1,
        data: DataMode::Mediated,
        registrar: None,
    };
    serve(service, || ()).map_err(|error| error.to_string())
}
