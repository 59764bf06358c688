//! Processes as `/proc` shows them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{END_LIMIT, LIMIT, RUN, await_that, holds_within};

/// A process that is not mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

impl Process {
    /// The process with this number, unless it is a zombie.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let (state, process) = Self::any(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(process)
    }

    /// A child that nobody has waited for: there, though it may have ended by now.
    pub(crate) fn of_child(child: &Child) -> Self {
        let (_state, process) = Self::any(child.id().try_into().unwrap()).unwrap();
        process
    }

    fn any(pid: i32) -> Option<(char, Self)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some((state, Self { pid, started }))
    }

    pub(crate) fn alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// `R`, `S`, `D`, `T` (stopped), as proc_pid_stat(5) has it.
    pub(crate) fn state(self) -> Option<char> {
        self.field("State")?.chars().next()
    }

    /// A line of `/proc/PID/status`, its words one space apart.
    pub(crate) fn field(self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The number of a namespace, as `mnt:[4026531841]`.
    pub(crate) fn namespace(self, kind: &str) -> String {
        shown(&fs::read_link(format!("/proc/{}/ns/{kind}", self.pid)).unwrap())
    }

    /// The open descriptors: number and what they are.
    pub(crate) fn descriptors(self) -> Vec<(u32, String)> {
        let mut found: Vec<(u32, String)> = fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .filter_map(|entry| {
                let entry = entry.unwrap();
                let number = entry.file_name().to_str().unwrap().parse().unwrap();
                match fs::read_link(entry.path()) {
                    Ok(what) => Some((number, shown(&what))),
                    // Closed since it was listed: a program that starts opens and closes its libraries.
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => panic!("{}: {error}", entry.path().display()),
                }
            })
            .collect();
        found.sort();
        found
    }

    pub(crate) fn children(self) -> Vec<Self> {
        let mut found = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                text.split_whitespace()
                    .filter_map(|pid| Self::find(pid.parse().ok()?)),
            );
        }
        found
    }

    /// Itself and all below it.
    pub(crate) fn descendants(self) -> Vec<Self> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(process) = found.get(next) {
            let children = process.children();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// Never hits a later process with the same number.
    pub(crate) fn kill(self, signal: Signal) {
        if self.alive() {
            let _may_be_gone = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// All processes of a start, by their place in the tree alone: nothing here trusts what the
/// program says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) keeper: Process,
    pub(crate) wardens: Vec<Process>,
    pub(crate) mediators: Vec<Process>,
    pub(crate) init: Process,
    /// Of views whose file data may go past their mediators.
    pub(crate) registrars: Vec<Process>,
    /// The init's children, and theirs.
    pub(crate) clients: Vec<Process>,
    /// The pid namespaces that the start made: who is in one is one of ours, however young.
    namespaces: Vec<String>,
    /// Them, held: the number of one that is gone is given to the next, which may be another test's.
    _held: Arc<Vec<fs::File>>,
}

impl Family {
    /// The family of a launcher's keeper.
    #[track_caller]
    pub(crate) fn of_keeper(launcher: Process) -> Self {
        // The other child, which copies the log, stays in the host's namespaces.
        let mut keepers = launcher.children();
        keepers.retain(|child| child.namespace("mnt") != launcher.namespace("mnt"));
        let [keeper] = keepers.as_slice() else {
            panic!("the launcher's children: {keepers:?}");
        };
        Self::of(*keeper)
    }

    /// The family of a view, by the documented link `/run/virtfs-mediator/VIEW/ns`.
    #[track_caller]
    pub(crate) fn of_view(view: &str) -> Self {
        let link = Path::new(RUN).join(view).join("ns");
        let mut keeper = None;
        await_that(LIMIT, "the view's ns link leads to its keeper", || {
            keeper = fs::read_link(&link).ok().and_then(|target| {
                let pid = target.iter().nth(2)?.to_str()?.parse().ok()?;
                Process::find(pid)
            });
            keeper.is_some()
        });
        Self::of(keeper.unwrap())
    }

    #[track_caller]
    fn of(keeper: Process) -> Self {
        let host = Process::find(std::process::id().try_into().unwrap()).unwrap();
        let children = keeper.children();
        let (wardens, inits): (Vec<_>, Vec<_>) = children
            .into_iter()
            .partition(|child| child.namespace("net") != host.namespace("net"));
        // They stay in the keeper's own namespaces.
        let (registrars, inits): (Vec<_>, Vec<_>) = inits
            .into_iter()
            .partition(|child| child.namespace("pid") == keeper.namespace("pid"));
        let [init] = inits.as_slice() else {
            panic!("not one init below the keeper: {inits:?}");
        };
        let mediators = wardens
            .iter()
            .flat_map(|warden| warden.children())
            .collect();
        let clients = init.descendants()[1..].to_vec();
        let (held, namespaces) = wardens
            .iter()
            .chain([init])
            .map(|one| {
                let namespace = fs::File::open(format!("/proc/{}/ns/pid", one.pid)).unwrap();
                (namespace, one.namespace("pid"))
            })
            .unzip();
        Self {
            namespaces,
            _held: Arc::new(held),
            keeper,
            wardens,
            mediators,
            init: *init,
            registrars,
            clients,
        }
    }

    /// Whatever there is below a launcher that is still starting: only to be killed.
    pub(crate) fn below(launcher: Process) -> Self {
        let all = launcher.descendants();
        Self {
            keeper: all.get(1).copied().unwrap_or(launcher),
            wardens: Vec::new(),
            mediators: Vec::new(),
            init: launcher,
            registrars: Vec::new(),
            clients: all,
            namespaces: Vec::new(),
            _held: Arc::default(),
        }
    }

    pub(crate) fn warden(&self) -> Process {
        self.wardens[0]
    }

    pub(crate) fn mediator(&self) -> Process {
        self.mediators[0]
    }

    /// What makes files known to the kernel.
    pub(crate) fn registrar(&self) -> Process {
        self.registrars[0]
    }

    /// The client's first process.
    pub(crate) fn client(&self) -> Process {
        self.clients[0]
    }

    /// All of it.
    pub(crate) fn all(&self) -> Vec<Process> {
        let mut all = vec![self.keeper, self.init];
        all.extend(&self.wardens);
        all.extend(&self.mediators);
        all.extend(&self.registrars);
        all.extend(&self.clients);
        all
    }

    /// Those that still run, and whoever else is in their pid namespaces.
    pub(crate) fn left(&self) -> Vec<Process> {
        let mut left: Vec<Process> = self.all().into_iter().filter(|one| one.alive()).collect();
        left.extend(everyone().filter(|one| {
            fs::read_link(format!("/proc/{}/ns/pid", one.pid))
                .is_ok_and(|link| self.namespaces.contains(&shown(&link)))
        }));
        left.sort_by_key(|one| one.pid);
        left.dedup();
        left
    }

    /// Nobody is left a moment later.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        if holds_within(END_LIMIT, || self.left().is_empty()) {
            return;
        }
        let left: Vec<String> = self
            .left()
            .into_iter()
            .map(|one| {
                let name = one.field("Name").unwrap_or_default();
                format!("{} {name} {:?}", one.pid, one.state())
            })
            .collect();
        panic!(
            "still there after {END_LIMIT:?}: {}; of {self:?}",
            left.join(", ")
        );
    }

    /// For a test that failed: mediators first, so that clients can be killed.
    pub(crate) fn kill_rest(&self) {
        if holds_within(END_LIMIT, || self.left().is_empty()) {
            return;
        }
        let holders = self.mediators.iter().chain(&self.wardens);
        for process in holders.chain(&self.registrars) {
            process.kill(Signal::SIGKILL);
        }
        for process in self.left() {
            process.kill(Signal::SIGKILL);
        }
    }
}

/// Every process of the host.
fn everyone() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Process::find(entry.ok()?.file_name().to_str()?.parse().ok()?))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
