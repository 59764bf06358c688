//! The threads that answer. A question is bounded in size and time: a caller that says nothing,
//! drips, or never reads is dropped. Connections that go on have a thread each, a few at a time.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::console;
use super::lines::{Lines, send};
use super::protocol::{Answer, Data, Names, OpCount, QUESTION_MAX, Question, Status};
use crate::backing::DataUse;
use crate::mediate::{KernelCaches, Mediator, ReloadError};
use crate::policy::Policy;

/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that go on at once.
const GOING_ON: usize = 4;

/// What is told of a view besides its counters.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The view's name.
    pub view: String,
    /// `auto`, `none` or `exclusive`.
    pub cache: &'static str,
    /// `client` or `shared`.
    pub mode: &'static str,
}

/// The view that is asked about.
pub struct View {
    /// What is told of it.
    pub facts: Facts,
    /// What serves it.
    pub mediator: Arc<Mediator>,
    /// What its client's kernel remembers.
    pub caches: Box<dyn KernelCaches>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts.fmt(f)
    }
}

/// The answering threads.
#[derive(Debug)]
pub struct ControlServer {
    listener: OwnedFd,
    thread: JoinHandle<()>,
}

impl ControlServer {
    /// Starts to answer on a listening UNIX stream socket.
    ///
    /// # Errors
    ///
    /// The descriptor could not be duplicated or the thread not be started.
    pub fn start(listener: OwnedFd, view: View) -> io::Result<Self> {
        let accepting = UnixListener::from(listener.try_clone()?);
        accepting.set_nonblocking(false)?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || answer_all(&accepting, &Arc::new(view)))?;
        Ok(Self { listener, thread })
    }

    /// Stops to listen and waits for the thread that does.
    pub fn stop(self) {
        // Wakes the accept with EINVAL (unix_shutdown, net/unix/af_unix.c). If it fails, the thread
        // is left to end with the process.
        if shutdown(&self.listener, Shutdown::Both).is_ok() {
            // A panic aborts the process, so there is nothing to learn from the result.
            let _panicked = self.thread.join();
        }
    }
}

fn answer_all(listener: &UnixListener, view: &Arc<View>) {
    let started = Instant::now();
    let going_on = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                if let Err(error) = answer_one(connection, view, started, &going_on) {
                    tracing::debug!(%error, "control connection dropped");
                }
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "control connection not accepted");
                // Out of descriptors or memory: the queue stays readable, so don't spin on it.
                std::thread::sleep(Duration::from_millis(100));
            }
            // EINVAL: told to stop.
            Err(_) => return,
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::ECONNABORTED
                | libc::EINTR
        )
    )
}

fn answer_one(
    connection: UnixStream,
    view: &Arc<View>,
    started: Instant,
    going_on: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let mut lines = Lines::new(connection, QUESTION_MAX);
    let question = match lines.next(Some(PATIENCE))? {
        None => Err(format!(
            "a question is one line of at most {QUESTION_MAX} bytes"
        )),
        Some(line) => {
            serde_json::from_slice(&line).map_err(|error| format!("not a question: {error}"))
        }
    };
    let answer = match question {
        Err(why) => Answer::Error(why),
        Ok(Question::Status {}) => {
            Answer::Status(status(&view.facts, started.elapsed(), &view.mediator))
        }
        Ok(other) => return go_on(lines, other, view, going_on),
    };
    send(lines.connection(), &answer, PATIENCE)
}

/// Answers on a thread of its own what takes long or never ends.
fn go_on(
    mut lines: Lines,
    question: Question,
    view: &Arc<View>,
    going_on: &Arc<AtomicUsize>,
) -> io::Result<()> {
    if going_on.fetch_add(1, Ordering::SeqCst) >= GOING_ON {
        going_on.fetch_sub(1, Ordering::SeqCst);
        let why = format!("{GOING_ON} traces, reloads and consoles are at work already");
        return send(lines.connection(), &Answer::Error(why), PATIENCE);
    }
    let (view, count) = (Arc::clone(view), Arc::clone(going_on));
    let spawned = std::thread::Builder::new()
        .name("control-long".to_owned())
        .spawn(move || {
            if let Err(error) = serve(&mut lines, question, &view) {
                tracing::debug!(%error, "control connection dropped");
            }
            count.fetch_sub(1, Ordering::SeqCst);
        });
    if spawned.is_err() {
        going_on.fetch_sub(1, Ordering::SeqCst);
    }
    spawned.map(drop)
}

fn serve(lines: &mut Lines, question: Question, view: &View) -> io::Result<()> {
    let answer = match question {
        Question::Status {} => Answer::Error("asked twice".to_owned()),
        Question::Watch { select } => {
            return console::watch(lines.connection(), &view.mediator, &select);
        }
        Question::Step {
            limit_seconds,
            stop,
        } => return console::step(lines, &view.mediator, limit_seconds, stop),
        Question::Reload {
            policy,
            names,
            readonly,
            dry_run,
        } => reload(view, &policy, &names, readonly, dry_run).unwrap_or_else(Answer::Error),
    };
    send(lines.connection(), &answer, PATIENCE)
}

/// Bytes of names in an answer: escaped they may be four times as long, and must fit into
/// [`super::protocol::ANSWER_MAX`].
const PAST_MAX: usize = 32 << 10;

fn reload(
    view: &View,
    text: &str,
    names: &Names,
    readonly: bool,
    dry_run: bool,
) -> Result<Answer, String> {
    let mediator = &view.mediator;
    let mut policy = Policy::parse("policy", text, names).map_err(|all| all.to_string())?;
    if readonly {
        policy.set_readonly();
    }
    if dry_run {
        mediator
            .fits(&policy)
            .map_err(|misfit| misfit.to_string())?;
        let epoch = mediator.epoch();
        return Ok(Answer::Reloaded {
            epoch,
            nodes: 0,
            past: 0,
            past_files: Vec::new(),
            unfinished: None,
        });
    }
    match mediator.reload(policy, view.caches.as_ref()) {
        Ok(done) => Ok(Answer::Reloaded {
            epoch: done.epoch,
            nodes: count(done.nodes),
            past: count(done.past),
            past_files: mediator.open_past(PAST_MAX),
            unfinished: None,
        }),
        Err(error @ (ReloadError::Unfinished(_) | ReloadError::Caches(_))) => {
            Ok(Answer::Reloaded {
                epoch: mediator.epoch(),
                nodes: 0,
                past: count(mediator.data_use().open),
                past_files: mediator.open_past(PAST_MAX),
                unfinished: Some(error.to_string()),
            })
        }
        Err(error @ (ReloadError::Misfit(_) | ReloadError::Spelling)) => Err(error.to_string()),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn data(told: DataUse) -> Data {
    Data {
        asked: told.asked.word().to_owned(),
        passthrough: told.in_force,
        why_not: told.why_not,
        backing_ids: count(told.ids),
        open: count(told.open),
        opened: told.opened,
        registrations: told.registrations,
    }
}

fn status(facts: &Facts, uptime: Duration, mediator: &Mediator) -> Status {
    let counters = mediator.counters();
    let asked = counters
        .read()
        .zip(counters.latencies())
        .zip(mediator.asides().read())
        .filter(|(((_, count), _), _)| *count != Default::default());
    let operations = asked.map(|(((op, count), latency), (_, aside))| OpCount {
        operation: op.raw_name().to_owned(),
        done: count.done,
        refused: count.refused,
        failed: count.failed,
        pretended: aside.pretended,
        would_refuse: aside.would_refuse,
        nanoseconds: latency.nanoseconds,
        buckets: latency.buckets.to_vec(),
    });
    let descriptors = mediator.descriptors();
    Status {
        view: facts.view.clone(),
        cache: facts.cache.to_owned(),
        mode: facts.mode.to_owned(),
        readonly: mediator.is_readonly(),
        observes: mediator.observes(),
        rules: count(mediator.rule_count()),
        epoch: mediator.epoch(),
        stepping: mediator.gate().is_armed(),
        held: count(mediator.gate().held()),
        uptime_seconds: uptime.as_secs(),
        known_nodes: count(mediator.known_nodes()),
        open_handles: count(mediator.open_handles()),
        descriptors: count(descriptors.held),
        descriptor_budget: count(descriptors.budget),
        data: Box::new(data(mediator.data_use())),
        verdicts_judged: mediator.verdicts().judged(),
        verdicts_remembered: mediator.verdicts().remembered(),
        audit_records_written: mediator.records_written(),
        audit_records_dropped: mediator.records_dropped(),
        operations: operations.collect(),
    }
}
