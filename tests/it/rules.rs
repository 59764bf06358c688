//! The lists of system calls, held against what the program calls: what it calls is listed, and
//! what is listed is called, or its row says why it stays.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use virtfs_p9::{Ids, Launch, Machine, Qemu, smoke};

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, Running, Start, assert_nothing_left, await_that, ours,
    program, shown, within,
};
use crate::process::{Family, Process};
use crate::workload;

// The data of the program itself: it knows nothing but libc.
#[allow(
    dead_code,
    reason = "how a refused call is told is in none of the lists"
)]
#[allow(unused_imports, reason = "what is refused besides is no list")]
#[path = "../../src/launch/calls/mod.rs"]
mod calls;
use calls::{List, Rule, Value};

/// One system call that was made.
#[derive(Debug)]
struct Made {
    number: libc::c_long,
    arguments: [u64; 6],
    line: String,
}

impl Made {
    /// A line of `strace -n -e raw=all`: `[ 257] openat(0xffffff9c, 0x7f34, 0x80000, 0) = 0x3`.
    /// Signals and ends are lines as well: `[ 231] +++ exited with 0 +++`.
    fn parse(line: &str) -> Option<Self> {
        if line.contains(" +++ ") || line.contains(" --- ") {
            return None;
        }
        // `[  33] ???()  = ?`: killed at a call's entry, before strace could read which one (the
        // number is left over from another process). Nothing was called.
        let (head, result) = line.split_once('(').unwrap_or((line, ""));
        if head.ends_with('?') && result.ends_with("= ?") {
            return None;
        }
        let call = Self::parse_call(line);
        assert!(call.is_some(), "not understood: {line}");
        call
    }

    fn parse_call(line: &str) -> Option<Self> {
        let (number, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let (_name, rest) = rest.split_once('(')?;
        let mut arguments = [0; 6];
        let shown = rest.split(')').next()?;
        for (place, text) in arguments.iter_mut().zip(shown.split(", ")) {
            *place = match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok()?,
                // None at all, or restart_syscall(<... resuming interrupted poll ...>).
                None if text.is_empty() || text.starts_with('<') => 0,
                None => text.parse().ok()?,
            };
        }
        Some(Self {
            number: number.trim().parse().ok()?,
            arguments,
            line: line.to_owned(),
        })
    }

    fn fits(&self, rule: &Rule) -> bool {
        self.number == rule.call
            && rule.checks.iter().all(|check| {
                let found = self.arguments[usize::from(check.argument)];
                match check.value {
                    Value::Is(value) => found & 0xffff_ffff == value,
                    Value::AllOf(value) => found == value,
                    Value::Masked(mask, value) => found & mask == value,
                    // Which number that is, is not seen from here: the filter itself knows.
                    Value::Given | Value::Also(_) => true,
                }
            })
    }
}

/// What was found so far.
#[derive(Default)]
struct Coverage {
    /// List and place of each row that was needed.
    needed: BTreeSet<(&'static str, usize)>,
    unlisted: BTreeSet<String>,
}

const LISTS: [&List; 7] = [
    &calls::MEDIATOR,
    &calls::REGISTRAR,
    &calls::KEEPER,
    &calls::WARDEN,
    &calls::INIT,
    &calls::RELAY,
    &calls::AUDIT,
];

fn rows(list: &'static List) -> impl Iterator<Item = &'static Rule> {
    list.allowed.iter().copied().flatten().chain(list.absent)
}

impl Coverage {
    fn count(&mut self, list: &'static List, made: &[Made]) {
        for call in made {
            let needed = rows(list).enumerate().filter(|(_, rule)| call.fits(rule));
            let mut listed = false;
            for (place, _) in needed {
                self.needed.insert((list.name, place));
                listed = true;
            }
            if !listed {
                self.unlisted
                    .insert(format!("{}: {}", list.name, call.line));
            }
        }
    }

    /// Rows that nothing needed and that do not say why they stay.
    fn idle(&self) -> Vec<String> {
        LISTS
            .into_iter()
            .flat_map(|list| rows(list).enumerate().map(move |row| (list, row)))
            .filter(|(list, (place, rule))| {
                rule.rare.is_none() && !self.needed.contains(&(list.name, *place))
            })
            .map(|(list, (_, rule))| format!("{}: call {}: {}", list.name, rule.call, rule.why))
            .collect()
    }
}

/// The one that starts the others, the log's, the listings', the control socket's, and two workers.
const MEDIATOR_THREADS: usize = 6;

/// What a test says that needs it.
pub(crate) const STRACE_MISSING: &str =
    "strace is missing: install it (Debian: apt-get install strace)";

/// strace, around one start.
struct Trace {
    directory: TempDir,
    /// Each process of ours: its list, its number, and those of its threads.
    roles: Vec<(&'static List, i32, Vec<i32>)>,
    strace: Option<Process>,
}

impl Trace {
    fn new() -> Self {
        let found = Command::new("strace").arg("-V").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "{STRACE_MISSING}"
        );
        Self {
            directory: TempDir::new().unwrap(),
            roles: Vec::new(),
            strace: None,
        }
    }

    /// The words before a command that is to be traced; one file for each thread. With -D the
    /// command is the child, and strace its child.
    fn words(&self) -> Vec<String> {
        let file = shown(&self.directory.path().join("calls"));
        let options = "strace -D -ff -n -e raw=all -e signal=SIGSYS -q -o";
        let mut words: Vec<String> = options.split(' ').map(str::to_owned).collect();
        words.extend([file, "--".to_owned()]);
        words
    }

    /// Who is who; to be called while all of them run.
    fn look(&mut self, family: &Family) {
        let tracer = family.keeper.field("TracerPid").unwrap();
        self.strace = Some(Process::find(tracer.parse().unwrap()).unwrap());
        let (audit, relays) = relays_beside(family.keeper)
            .into_iter()
            .partition(|relay| relay.field("Name").as_deref() == Some("virtfs-audit"));
        let lists = [
            (&calls::KEEPER, vec![family.keeper]),
            (&calls::WARDEN, family.wardens.clone()),
            (&calls::MEDIATOR, family.mediators.clone()),
            (&calls::INIT, vec![family.init]),
            (&calls::REGISTRAR, family.registrars.clone()),
            (&calls::RELAY, relays),
            (&calls::AUDIT, audit),
        ];
        for mediator in &family.mediators {
            await_that(LIMIT, "the mediator's threads run", || {
                threads(*mediator).len() == MEDIATOR_THREADS
            });
        }
        for (list, processes) in lists {
            for process in processes {
                self.roles.push((list, process.pid, threads(process)));
            }
        }
    }

    /// What a thread called.
    fn calls_of(&self, thread: i32) -> Vec<Made> {
        let path = self.directory.path().join(format!("calls.{thread}"));
        let text = fs::read_to_string(&path).unwrap();
        text.lines().filter_map(Made::parse).collect()
    }

    /// The last call of each thread that a filter killed.
    fn refused(&self) -> Vec<String> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .filter(|text| text.contains(" +++ killed by SIGSYS"))
            .filter_map(|text| text.lines().rev().find_map(Made::parse))
            .map(|call| call.line)
            .collect()
    }

    /// To be called when all have ended.
    fn count(self, coverage: &mut Coverage) {
        let strace = self.strace.unwrap();
        await_that(LIMIT, "strace has written all", || !strace.alive());
        for (list, pid, threads) in &self.roles {
            let mut made = self.calls_of(*pid);
            let wall = made
                .iter()
                .rposition(|call| call.number == libc::SYS_seccomp && call.line.ends_with("= 0"));
            let wall = wall.unwrap_or_else(|| panic!("{} has no filter", list.name));
            made.drain(..=wall);
            let started = made
                .iter()
                .filter(|call| call.number == libc::SYS_clone)
                .count();
            let others: Vec<i32> = threads.iter().copied().filter(|one| one != pid).collect();
            assert_eq!(
                started,
                others.len(),
                "a thread of {} was missed",
                list.name
            );
            coverage.count(list, &made);
            for thread in others {
                coverage.count(list, &self.calls_of(thread));
            }
        }
    }
}

fn threads(process: Process) -> Vec<i32> {
    fs::read_dir(format!("/proc/{}/task", process.pid))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

/// `run` with a client, traced, up to the client's `ready`.
fn run(start: &Start, argv: &[String]) -> (Trace, Running) {
    let mut trace = Trace::new();
    let mut words = trace.words();
    words.extend(start.run_words());
    words.extend_from_slice(argv);
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .current_dir("/")
        .stdin(Stdio::null());
    let mut running = Running::spawn(command, start.name().to_owned());
    if let Err(seen) = running.stdout.until_or_end("ready") {
        let ended = running.end();
        panic!("{seen:?}, {ended:?}; refused: {:?}", trace.refused());
    }
    running.look();
    trace.look(running.family());
    (trace, running)
}

/// The whole workload, a look at the view, and a client that is told to end.
fn with_a_client(coverage: &mut Coverage, options: &[&str], all: bool) {
    let export = Export::new();
    let mut start = Start::new(&export);
    for option in options {
        start = start.option(*option);
    }
    let (trace, mut running) = run(&start, &workload::words(&export, all));
    await_that(LIMIT, "the launcher has recorded the view", || {
        ours(["status", start.name()]).status.success()
    });
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code(), 143, "{options:?}: {ended:?}");
    assert_nothing_left(start.name());
    trace.count(coverage);
}

/// A client whose refusals are kept.
fn with_audit_records(coverage: &mut Coverage) {
    let export = Export::new();
    let file = export.beside("audit.log");
    with_a_client(coverage, &["--audit", &shown(&file)], true);
    // The floor refuses a device.
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("\"mknod\""), "{kept}");
}

/// A client that goes to the background and ends there.
fn with_a_client_in_the_background(coverage: &mut Coverage) {
    let export = Export::new();
    let start = Start::new(&export);
    // Each of the two is told to go on by a pipe of its own.
    let [first, background] = ["first", "background"].map(|name| {
        let fifo = export.beside(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        std::os::unix::fs::chown(&fifo, Some(CLIENT_UID), Some(CLIENT_GID)).unwrap();
        shown(&fifo)
    });
    let script = format!(
        "exec 3<>{first} 4<>{background}; (read l <&4) >/dev/null 2>&1 & echo ready; read l <&3"
    );
    let argv = ["sh", "-c", &script].map(str::to_owned);
    let (trace, mut running) = run(&start, &argv);
    let family = running.family().clone();
    fs::write(&first, "\n").unwrap();
    await_that(
        LIMIT,
        "the launcher leaves the background to itself",
        || !running.launcher.alive(),
    );
    fs::write(&background, "\n").unwrap();
    family.assert_gone();
    assert_eq!(running.end().code(), 0);
    trace.count(coverage);
}

/// `mount`, traced.
fn mount(start: &Start, export: &Export) -> (Trace, Family) {
    let mut trace = Trace::new();
    let words = trace.words();
    let status = Command::new(&words[0])
        .args(&words[1..])
        .args([program(), "mount", "--name", start.name()])
        .args(["--client", &format!("{CLIENT_UID}:{CLIENT_GID}")])
        .arg(export.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let family = Family::of_view(start.name());
    trace.look(&family);
    await_that(LIMIT, "the keeper lets go of standard error", || {
        fs::read_link(format!("/proc/{}/fd/2", family.keeper.pid))
            .is_ok_and(|what| shown(&what).starts_with("pipe:["))
    });
    (trace, family)
}

/// The process that copies the log, which a launcher that leaves takes along, and those that keep
/// audit records.
fn relays_beside(keeper: Process) -> Vec<Process> {
    let launcher = keeper.field("PPid").and_then(|pid| pid.parse().ok());
    let mut children = launcher
        .and_then(Process::find)
        .map_or_else(Vec::new, Process::children);
    // Of the same start: a keeper whose launcher is gone has anyone's children beside it.
    children
        .retain(|child| *child != keeper && child.field("TracerPid") == keeper.field("TracerPid"));
    children
}

/// A view that is unmounted: the mediator ends by itself, since its keeper is stopped meanwhile.
fn with_an_unmount(coverage: &mut Coverage) {
    let export = Export::new();
    let start = Start::new(&export);
    let (trace, family) = mount(&start, &export);
    assert!(ours(["status", start.name()]).status.success());
    family.keeper.kill(Signal::SIGSTOP);
    let at = shown(export.path());
    let output = within(start.name(), ["fusermount3", "-u", &at]);
    assert!(output.status.success(), "{output:?}");
    await_that(LIMIT, "mediator and warden end", || {
        !family.mediator().alive() && !family.warden().alive()
    });
    family.keeper.kill(Signal::SIGCONT);
    family.assert_gone();
    assert_nothing_left(start.name());
    trace.count(coverage);
}

/// A keeper that is killed: the init tidies up.
fn with_a_killed_keeper(coverage: &mut Coverage) {
    let export = Export::new();
    let start = Start::new(&export);
    let (trace, family) = mount(&start, &export);
    family.keeper.kill(Signal::SIGKILL);
    family.assert_gone();
    assert_nothing_left(start.name());
    trace.count(coverage);
}

/// Stock QEMU, driven through 9p.
fn with_qemu(coverage: &mut Coverage) {
    let export = Export::new();
    let start = Start::new(&export);
    let mut trace = Trace::new();
    let qemu = Qemu::new().export(virtfs_p9::Export::local("share", export.path()));
    let mut words = trace.words();
    words.extend(start.run_words());
    let client = Ids {
        uid: CLIENT_UID,
        gid: CLIENT_GID,
    };
    let machine = Machine::boot(&qemu, &Launch::new().wrapper(words, client)).unwrap();
    let family = Family::of_view(start.name());
    trace.look(&family);
    let mut session = machine.session("share").unwrap();
    let mut told = Vec::new();
    let expected = smoke::run(&mut session, |outcome| told.push(outcome.to_string())).unwrap();
    assert!(expected, "{}", told.join("\n"));
    drop(session);
    machine.stop().unwrap();
    family.assert_gone();
    assert_nothing_left(start.name());
    trace.count(coverage);
}

#[test]
fn every_call_that_is_made_is_listed_and_every_row_is_needed() {
    // At once, since most of the time is spent waiting for strace.
    let starts: [fn(&mut Coverage); 9] = [
        |found| with_a_client(found, &[], true),
        |found| with_a_client(found, &["--debug", "--log-format=json"], true),
        |found| with_a_client(found, &["--readonly"], false),
        |found| with_a_client(found, &["--shared"], false),
        with_audit_records,
        with_a_client_in_the_background,
        with_an_unmount,
        with_a_killed_keeper,
        with_qemu,
    ];
    let running = starts.map(|start| {
        std::thread::spawn(move || {
            let mut found = Coverage::default();
            start(&mut found);
            found
        })
    });
    let mut coverage = Coverage::default();
    for one in running {
        let found = one.join().expect("a start that failed has told why");
        coverage.needed.extend(found.needed);
        coverage.unlisted.extend(found.unlisted);
    }
    let unlisted = Vec::from_iter(&coverage.unlisted);
    assert!(unlisted.is_empty(), "not listed: {unlisted:#?}");
    let idle = coverage.idle();
    assert!(
        idle.is_empty(),
        "listed, but nothing needs it: remove the row, or say with `rare` when it is needed: \
         {idle:#?}"
    );
}
