//! The console's state: what is held, where to stop, which policy is in force and which is drafted.

#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use virtfs_mediator_core::control::lines;
use virtfs_mediator_core::control::{By, Line, Order, Wanted};
use virtfs_mediator_core::mediate::{Cause, Decision, HELD_MAX, Release, Stop, Told};
use virtfs_mediator_core::op::Op;

use super::by_hand::{Done, edited};
use super::command::{Clause, Command, selector};
use super::show::{Colour, Screen};
use crate::control::rundir::{self, State};
use crate::error::{Class, Error, Result};
use crate::live::in_force::Text;
use crate::live::link::PATIENCE;
use crate::live::reload::put_in_force;
use crate::live::trace::Tracer;
use crate::live::words;
use crate::policies;

/// Answers to orders that wait to be heard; there is one order at a time.
pub(super) const ANSWERS_MAX: usize = 64;

/// Requests that are remembered as held. A mediator holds [`HELD_MAX`] at most; that one of them is
/// held no more may go untold when much happens.
const REMEMBERED_MAX: usize = 4 * HELD_MAX;

/// The longest path in bytes that is offered for completion, with each directory above it.
const COMPLETED_MAX: usize = 4096;

/// What follows from a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    Leave,
}

/// A request that waits for us.
struct Held {
    decision: Decision,
    until: Instant,
}

/// A policy that is not in force yet.
#[derive(Clone)]
struct Draft {
    text: Text,
    /// As an editor left it, not as a file has it.
    edited: bool,
}

struct Memory {
    held: BTreeMap<u64, Held>,
    /// Which one commands speak of.
    current: Option<u64>,
    breakpoints: BTreeMap<u32, String>,
    policy: Text,
    /// Its number, from 0.
    epoch: u64,
    draft: Option<Draft>,
    /// The policy in force was edited here: its file says something else.
    edited: bool,
    by_hand: Option<Done>,
    orders: u64,
    tracer: Option<Tracer>,
    /// The view has ended.
    over: bool,
}

/// The console between the keyboard and the mediator.
pub(super) struct Desk {
    view: String,
    state: Mutex<State>,
    memory: Mutex<Memory>,
    /// Something is held now, or the view is over.
    changed: Condvar,
    to: UnixStream,
    answers: Receiver<Line>,
    screen: Arc<Screen>,
}

/// Operations, as `do` and breakpoints name them.
pub(super) fn operations() -> Vec<String> {
    const WORDS: &[&str] = &[
        "look", "list", "read", "write", "make", "link", "remove", "rename", "owner", "mode",
        "time", "xattr", "change", "any",
    ];
    let raw = Op::ALL.iter().map(|op| op.raw_name());
    let mut all: Vec<String> = WORDS
        .iter()
        .copied()
        .chain(raw)
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

impl Desk {
    pub(super) fn new(
        state: State,
        epoch: u64,
        to: UnixStream,
        answers: Receiver<Line>,
        screen: Arc<Screen>,
    ) -> Result<Self> {
        let memory = Memory {
            held: BTreeMap::new(),
            current: None,
            breakpoints: BTreeMap::new(),
            policy: Text::of_view(&state)?,
            epoch,
            draft: None,
            edited: false,
            by_hand: None,
            orders: 0,
            tracer: None,
            over: false,
        };
        Ok(Self {
            view: state.view.clone(),
            state: Mutex::new(state),
            memory: Mutex::new(memory),
            changed: Condvar::new(),
            to,
            answers,
            screen,
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn policy_file(&self) -> String {
        self.memory().policy.file.clone()
    }

    pub(super) fn prompt(&self) -> String {
        match self.memory().current {
            Some(id) => format!("(step {id}) "),
            None => "(step) ".to_owned(),
        }
    }

    /// Paths for completion: of what is held, and the directories above.
    pub(super) fn paths(&self) -> Vec<String> {
        let memory = self.memory();
        let requests = memory.held.values().map(|held| &held.decision.request);
        let names = requests
            .flat_map(|request| request.names.iter().chain(&request.second))
            .filter(|name| name.len() <= COMPLETED_MAX);
        let mut found: Vec<String> = names.map(|name| name.escape_ascii().to_string()).collect();
        for at in 0..found.len() {
            let above: Vec<String> = found.get(at).map_or_else(Vec::new, |path| {
                let ends = path.match_indices('/').skip(1).map(|(end, _)| end);
                ends.filter_map(|end| Some(format!("{}/**", path.get(..end)?)))
                    .collect()
            });
            found.extend(above);
        }
        found.sort();
        found.dedup();
        found
    }

    /// Names of rules, for completion.
    pub(super) fn rules(&self) -> Vec<String> {
        let memory = self.memory();
        let policy = &memory.policy.policy;
        let count = u32::try_from(policy.rule_count()).unwrap_or(0);
        let name = |index| policy.rule_name(index).map(str::to_owned);
        (0..count)
            .map(|index| name(index).unwrap_or_else(|| (u64::from(index) + 1).to_string()))
            .collect()
    }

    pub(super) fn complain(&self, error: &Error) {
        self.screen
            .say(&self.screen.paint(Colour::Bad, &error.to_string()));
    }

    /// What the mediator tells by itself.
    pub(super) fn hear(&self, told: Told) {
        let mut memory = self.memory();
        match told {
            Told::Held {
                id,
                cause,
                decision,
                limit_seconds,
            } => {
                self.follow(&mut memory, decision.epoch);
                if !memory.has_room() {
                    // It is not what we built. The connection's end ends the console.
                    self.screen
                        .say("the mediator tells of more held requests than it may hold");
                    let _closed_already = self.to.shutdown(std::net::Shutdown::Both);
                    return;
                }
                let limit = Duration::from_secs(limit_seconds.min(3600));
                let cause = match cause {
                    Cause::Breakpoint(number) => format!("breakpoint {number}"),
                    Cause::Stop => "stopped".to_owned(),
                };
                let head = self
                    .screen
                    .paint(Colour::Head, &format!("request {id}, {cause}:"));
                let shown = self.shown(&memory, &decision);
                self.screen.say(&format!("{head} {shown}"));
                memory.held.insert(
                    id,
                    Held {
                        decision: *decision,
                        until: Instant::now() + limit,
                    },
                );
                memory.current.get_or_insert(id);
                self.changed.notify_all();
            }
            Told::Released { id, how } => {
                let gone = memory.held.remove(&id);
                memory.turn_to_next();
                match how {
                    Release::TooLate if gone.is_some() => self
                        .screen
                        .say(&format!("request {id}: nobody answered in time, refused")),
                    Release::Reloaded if gone.is_some() => self.screen.say(&reloaded(id)),
                    Release::Answered | Release::TooLate | Release::Reloaded => {}
                }
            }
            Told::NotHeld { decision } => {
                self.follow(&mut memory, decision.epoch);
                let shown = self.shown(&memory, &decision);
                self.screen.say(&format!("not held, too many are: {shown}"));
            }
        }
    }

    /// Another terminal may have reloaded the policy: then root's record tells by which text it
    /// is decided now. If that cannot be read, the next decision tries again.
    fn follow(&self, memory: &mut Memory, epoch: u64) {
        if epoch == memory.epoch {
            return;
        }
        let policy = rundir::load(&self.view).and_then(|state| Text::of_view(&state));
        match policy {
            Ok(policy) => {
                memory.policy = policy;
                memory.epoch = epoch;
                memory.edited = false;
                self.screen
                    .say(&format!("the policy has changed (reload {epoch})"));
            }
            Err(error) => self.complain(&error),
        }
    }

    /// The mediator has closed the connection.
    pub(super) fn over(&self) {
        let mut memory = self.memory();
        memory.over = true;
        memory.held.clear();
        memory.current = None;
        self.changed.notify_all();
        drop(memory);
        self.screen
            .say("detached: everything is the policy's again");
    }

    /// Closes the connection; what is held is the policy's at once.
    pub(super) fn leave(&self) {
        let tracer = self.memory().tracer.take();
        drop(tracer);
        // Until the mediator has let go of everything, so that the next console finds it free.
        let _closed_already = self.to.shutdown(Shutdown::Write);
        let until = Instant::now() + PATIENCE;
        let mut memory = self.memory();
        while !memory.over && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout(memory, left);
            memory = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(memory);
        let _closed_already = self.to.shutdown(Shutdown::Both);
    }

    fn shown(&self, memory: &Memory, decision: &Decision) -> String {
        let verdict = words::verdict(&decision.verdict, decision.by_hand, Some(&memory.policy));
        format!(
            "{}: {}",
            decision.request.phrase(),
            self.screen.verdict(&verdict)
        )
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// What it says; nothing is changed then.
    pub(super) fn obey(&self, command: Command) -> Result<Flow> {
        match command {
            Command::Break(clauses) => self.set_breakpoint(&clauses)?,
            Command::Delete(number) => self.delete(number)?,
            Command::Info => self.info(),
            Command::Facts => self.facts()?,
            Command::Why => self.why()?,
            Command::List => self.list(),
            Command::Step => self.go(Stop::Next)?,
            Command::Next => {
                let top = self.current()?.1.request.names.first().cloned();
                self.go(top.map_or(Stop::Next, Stop::Below))?;
            }
            Command::Continue { all } => self.go_on(all)?,
            Command::UntilDeny => self.go(Stop::Refusal)?,
            Command::Allow => self.by_hand(None)?,
            Command::Deny(errno) => self.by_hand(Some(errno.unwrap_or(libc::EACCES)))?,
            Command::Request(id) => {
                let mut memory = self.memory();
                if !memory.held.contains_key(&id) {
                    return Err(usage(
                        format!("no request {id} is held"),
                        "`info` tells which are",
                    ));
                }
                memory.current = Some(id);
            }
            Command::Trace(on) => self.trace(on)?,
            Command::Edit(file) => self.edit(file.as_deref())?,
            Command::Keep => self.keep()?,
            Command::Drop => {
                self.memory().draft = None;
            }
            Command::PrintRule => self.print_rule()?,
            Command::Wait(seconds) => self.wait(Duration::from_secs(seconds))?,
            Command::Help => self.help(),
            Command::Detach => return Ok(Flow::Leave),
        }
        Ok(Flow::GoOn)
    }

    fn current(&self) -> Result<(u64, Decision)> {
        let memory = self.memory();
        let held = memory
            .current
            .and_then(|id| Some((id, memory.held.get(&id)?)));
        held.map(|(id, held)| (id, held.decision.clone()))
            .ok_or_else(|| usage("no request is held", "set a breakpoint, or `step`"))
    }

    /// Gives an order and waits until it is carried out.
    fn order(&self, wanted: Wanted) -> Result<()> {
        let number = {
            let mut memory = self.memory();
            if memory.over {
                return Err(usage("the view has ended", "leave with `detach`"));
            }
            memory.orders += 1;
            memory.orders
        };
        let order = Order {
            number,
            order: wanted,
        };
        let silent = |why: &dyn std::fmt::Display| {
            Error::new(
                Class::Mount,
                format!("the mediator does not answer: {why}"),
                "",
            )
        };
        // Those that came too late for the order before.
        let _late = self.answers.try_iter().take(ANSWERS_MAX).count();
        lines::send(&self.to, &order, PATIENCE).map_err(|error| silent(&error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.answers.recv_deadline(deadline) {
                Ok(Line::Done(done)) if done == number => return Ok(()),
                Ok(Line::NotDone { order, why }) if order == number || order == 0 => {
                    return Err(usage(crate::live::link::printable(&why), ""));
                }
                // Of an order that was given up, or forged, and without end.
                Ok(_) if Instant::now() < deadline => {}
                Ok(_) => return Err(silent(&"other orders alone are answered")),
                Err(error) => return Err(silent(&error)),
            }
        }
    }

    fn set_breakpoint(&self, clauses: &[Clause]) -> Result<()> {
        let (select, number, shown) = {
            let memory = self.memory();
            let select = selector(clauses, |name| memory.policy.find_rule(name));
            let select = select.map_err(|what| usage(what, ""))?;
            // Told here, with the host's users; there it could only be refused.
            select.compile(&policies::Host).map_err(|mistakes| {
                let told = mistakes
                    .list
                    .iter()
                    .map(|one| format!("{}; {}", one.what, one.hint));
                usage(told.collect::<Vec<_>>().join("\n"), "")
            })?;
            let number = memory
                .breakpoints
                .keys()
                .next_back()
                .map_or(1, |last| last + 1);
            (select, number, shown(clauses))
        };
        self.order(Wanted::Break {
            breakpoint: number,
            select,
        })?;
        self.screen.say(&format!("breakpoint {number}: {shown}"));
        self.memory().breakpoints.insert(number, shown);
        Ok(())
    }

    fn delete(&self, number: u32) -> Result<()> {
        if !self.memory().breakpoints.contains_key(&number) {
            return Err(usage(
                format!("no breakpoint {number}"),
                "`info` tells which there are",
            ));
        }
        self.order(Wanted::Delete { breakpoint: number })?;
        self.memory().breakpoints.remove(&number);
        Ok(())
    }

    /// Lets the held request go by the policy and stops where `stop` says.
    fn go(&self, stop: Stop) -> Result<()> {
        self.order(Wanted::Stop(stop))?;
        match self.current() {
            Ok((id, _)) => self.release(id, By::Policy),
            // Nothing is held: what comes is.
            Err(_) => Ok(()),
        }
    }

    fn go_on(&self, all: bool) -> Result<()> {
        self.order(Wanted::Stop(Stop::Nowhere))?;
        let ids: Vec<u64> = {
            let memory = self.memory();
            let current = memory.current.into_iter();
            if all {
                memory.held.keys().copied().collect()
            } else {
                current.collect()
            }
        };
        ids.into_iter()
            .try_for_each(|id| self.release(id, By::Policy))
    }

    fn release(&self, id: u64, by: By) -> Result<()> {
        self.order(Wanted::Answer { id, by })?;
        let mut memory = self.memory();
        memory.held.remove(&id);
        memory.turn_to_next();
        Ok(())
    }

    fn by_hand(&self, errno: Option<i32>) -> Result<()> {
        let (id, decision) = self.current()?;
        self.release(id, errno.map_or(By::Allow, By::Refuse))?;
        self.memory().by_hand = Some(Done {
            request: decision.request,
            errno,
        });
        Ok(())
    }

    fn trace(&self, on: bool) -> Result<()> {
        let tracer = if on {
            let view = self.view();
            let screen = Arc::clone(&self.screen);
            let policy = self.memory().policy.clone();
            Some(Tracer::start(policy, &view, move |line| screen.say(line))?)
        } else {
            None
        };
        // The old one is dropped without the lock: it waits for a line that may be on its way.
        let before = std::mem::replace(&mut self.memory().tracer, tracer);
        drop(before);
        Ok(())
    }

    fn view(&self) -> String {
        self.view.clone()
    }

    fn edit(&self, file: Option<&str>) -> Result<()> {
        let (name, text) = {
            let memory = self.memory();
            let draft = memory.draft.as_ref().map(|draft| &draft.text);
            let begun = draft.unwrap_or(&memory.policy);
            (memory.policy.file.clone(), begun.text.clone())
        };
        let draft = match file {
            Some(file) => Text::read(&super::absolute(file))?,
            None => Text::of(&name, edited(&text)?)?,
        };
        let mut memory = self.memory();
        let mut told = Vec::new();
        for (id, held) in &memory.held {
            let request = &held.decision.request;
            let (old, new) = (
                memory.policy.policy.answer(request),
                draft.policy.answer(request),
            );
            let (old, new) = (policies::short(&old), policies::short(&new));
            told.push(if old == new {
                format!("request {id}: {old}, as before")
            } else {
                format!("request {id}: {old} -> {}", self.screen.verdict(&new))
            });
        }
        told.push("`keep` puts it in force, `drop` forgets it".to_owned());
        memory.draft = Some(Draft {
            text: draft,
            edited: file.is_none(),
        });
        self.screen.say(&told.join("\n"));
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        let none = || usage("nothing was edited", "`edit` first");
        let Draft { text, edited } = self.memory().draft.clone().ok_or_else(none)?;
        let file = Path::new(&text.file)
            .is_absolute()
            .then(|| text.file.clone());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have reloaded it meanwhile.
        *state = rundir::load(&state.view)?;
        let held: Vec<u64> = self.memory().held.keys().copied().collect();
        let loaded = put_in_force(&mut state, &text, file.as_deref().map(Path::new), false)?;
        let mut memory = self.memory();
        for id in held {
            // The mediator tells it too, a little later.
            if memory.held.remove(&id).is_some() {
                self.screen.say(&reloaded(id));
            }
        }
        memory.turn_to_next();
        memory.draft = None;
        self.screen.say(&format!(
            "in force (reload {}); no file was changed, and `virtfs-mediator reload` brings the \
             file's policy back",
            loaded.epoch
        ));
        if let Some(why) = loaded.unfinished {
            self.screen.say(&self.screen.paint(Colour::Bad, &why));
        }
        memory.policy = text;
        memory.epoch = loaded.epoch;
        memory.edited = edited;
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let mut memory = self.memory();
        while memory.current.is_none() && !memory.over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(usage("nothing was held in that time", ""));
            }
            let waited = self.changed.wait_timeout(memory, left);
            memory = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if memory.over {
            return Err(usage("the view has ended", ""));
        }
        Ok(())
    }
}

impl Memory {
    /// Whether one more may be remembered as held; what must be over by now is forgotten.
    fn has_room(&mut self) -> bool {
        if self.held.len() >= REMEMBERED_MAX {
            let now = Instant::now();
            self.held.retain(|_, held| held.until > now);
            self.turn_to_next();
        }
        self.held.len() < REMEMBERED_MAX
    }

    /// What is spoken of is held, if anything is.
    fn turn_to_next(&mut self) {
        let still = self.current.filter(|id| self.held.contains_key(id));
        self.current = still.or_else(|| self.held.keys().next().copied());
    }
}

fn reloaded(id: u64) -> String {
    format!("request {id}: the policy has changed, decided anew")
}

fn usage(what: impl Into<String>, cure: &str) -> Error {
    Error::new(Class::Usage, what, cure)
}

fn shown(clauses: &[Clause]) -> String {
    let said = clauses.iter().map(|clause| match clause {
        Clause::Op(words) => format!("op {}", words.join("|")),
        Clause::Path(glob) => format!("path {glob}"),
        Clause::Rule(rule) => format!("rule {rule}"),
        Clause::Deny => "deny".to_owned(),
        Clause::When(conditions) => format!("when {conditions}"),
    });
    said.collect::<Vec<_>>().join(" ")
}
