//! The stepping console's hold on requests.
//!
//! A request is held only on a thread that the workers do without (see [`holding`]), a few at a
//! time, and not for ever. When the console goes, however it goes, what it held is decided by the
//! policy as if it had never been there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::event::Decision;
use super::select::Selection;
use crate::weak;

/// Requests that are held at once at most; a further one is decided by the policy and told of.
pub const HELD_MAX: usize = 8;

/// Words for the console that may wait: what is held, let go, and not held.
const TOLD_MAX: usize = 1024;

thread_local! {
    static MAY_HOLD: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may be held: on a thread that no other request waits for.
pub fn holding<T>(body: impl FnOnce() -> T) -> T {
    MAY_HOLD.set(true);
    let result = body();
    MAY_HOLD.set(false);
    result
}

/// Where the console stops besides its breakpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stop {
    /// Nowhere.
    #[default]
    Nowhere,
    /// At the next decision.
    Next,
    /// At the next decision about this path or one below it.
    Below(#[serde(with = "crate::policy::text::one")] Vec<u8>),
    /// At the next refusal.
    Refusal,
}

/// Why a request is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cause {
    /// A breakpoint, by its number.
    Breakpoint(u32),
    /// The console's [`Stop`], which is over with it.
    Stop,
}

/// What becomes of a held request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The policy decides, by the facts as they are then.
    Policy,
    /// Allowed in the place of the rules.
    Allow,
    /// Refused.
    Refuse(Errno),
    /// The policy has changed meanwhile: everything anew.
    Anew,
    /// Nobody answered.
    TooLate,
}

/// How the hold on a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// As the console said.
    Answered,
    /// Refused, since the time was over.
    TooLate,
    /// The policy changed: decided anew.
    Reloaded,
}

/// What the console is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// A request is held.
    Held {
        /// Its number.
        id: u64,
        /// Why.
        cause: Cause,
        /// What was asked, and what the policy says.
        decision: Box<Decision>,
        /// Seconds until it is refused.
        limit_seconds: u64,
    },
    /// It is held no more.
    Released {
        /// Its number.
        id: u64,
        /// Why.
        how: Release,
    },
    /// It would have been held, but as many as may be are; the policy decided.
    NotHeld {
        /// What was asked, and what the policy says.
        decision: Box<Decision>,
    },
}

struct Console {
    id: u64,
    tell: Sender<Told>,
    breakpoints: BTreeMap<u32, Selection>,
    stop: Stop,
    limit: Duration,
}

#[derive(Default)]
struct State {
    console: Option<Console>,
    held: BTreeMap<u64, Sender<Answer>>,
    counter: u64,
    /// A reload is under way: its notifications to the kernel must not wait for what is held.
    reloading: bool,
    /// The view has ended: no console comes any more.
    closed: bool,
}

/// The gate that every decision passes; open unless a console is attached.
#[derive(Default)]
pub struct Gate {
    armed: AtomicBool,
    state: Mutex<State>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("armed", &self.armed).finish()
    }
}

/// A console's own number, and what it is told.
#[derive(Debug)]
pub struct Attached {
    /// To be given with every call.
    pub console: u64,
    /// Ends when the console is detached.
    pub told: Receiver<Told>,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a console is attached. Relaxed: a request that just misses it is not held.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Attaches a console; `None` if there is one, or the view has ended.
    pub fn attach(&self, limit: Duration, stop: Stop) -> Option<Attached> {
        let mut state = self.state();
        if state.console.is_some() || state.closed {
            return None;
        }
        let (tell, told) = bounded(TOLD_MAX);
        state.counter += 1;
        let console = state.counter;
        state.console = Some(Console {
            id: console,
            tell,
            breakpoints: BTreeMap::new(),
            stop,
            limit,
        });
        self.armed.store(true, Ordering::Relaxed);
        Some(Attached { console, told })
    }

    /// Detaches it: what it held is the policy's to decide, at once.
    pub fn detach(&self, console: u64) {
        let mut state = self.state();
        if state.console.as_ref().is_some_and(|is| is.id == console) {
            state.console = None;
            self.armed.store(false, Ordering::Relaxed);
            if weak::stands(weak::Wall::HoldLimit) {
                answer_all(&mut state, Answer::Policy);
            }
        }
    }

    /// Changes the console's breakpoints and where it stops.
    pub fn set_breakpoint(&self, console: u64, number: u32, selection: Option<Selection>) {
        self.change(console, |console| {
            match selection {
                Some(selection) => console.breakpoints.insert(number, selection),
                None => console.breakpoints.remove(&number),
            };
        });
    }

    /// Where to stop next, besides breakpoints.
    pub fn set_stop(&self, console: u64, stop: Stop) {
        self.change(console, |console| console.stop = stop);
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Console)) {
        if let Some(console) = self.state().console.as_mut().filter(|is| is.id == id) {
            change(console);
        }
    }

    /// Answers for a held request: `None` leaves it to the policy. Tells whether it was held.
    pub fn answer(&self, id: u64, verdict: Option<Result<(), Errno>>) -> bool {
        let answer = match verdict {
            None => Answer::Policy,
            Some(Ok(())) => Answer::Allow,
            Some(Err(errno)) => Answer::Refuse(errno),
        };
        let held = self.state().held.remove(&id);
        held.is_some_and(|held| held.send(answer).is_ok())
    }

    /// The view has ended: nothing is held any more.
    pub(super) fn close(&self) {
        let console = {
            let mut state = self.state();
            state.closed = true;
            state.console.as_ref().map(|console| console.id)
        };
        if let Some(console) = console {
            self.detach(console);
        }
    }

    /// How many requests are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// Lets everything that is held be decided anew, and holds nothing, until the guard is dropped.
    pub(super) fn reloading(&self) -> Reloading<'_> {
        let mut state = self.state();
        state.reloading = true;
        answer_all(&mut state, Answer::Anew);
        Reloading(self)
    }

    /// Holds a request if the console wants it.
    pub(super) fn pass(&self, decision: &Decision) -> Option<Answer> {
        if !self.is_armed() || !MAY_HOLD.get() {
            return None;
        }
        let (id, limit, answer) = self.hold(decision)?;
        let answer = match answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // An answer may have come at the last moment.
                let late = self.state().held.remove(&id).is_none();
                match answer.try_recv() {
                    Ok(answer) if late => answer,
                    Ok(_) | Err(_) => Answer::TooLate,
                }
            }
        };
        let how = match answer {
            Answer::Policy | Answer::Allow | Answer::Refuse(_) => Release::Answered,
            Answer::Anew => Release::Reloaded,
            Answer::TooLate => Release::TooLate,
        };
        if let Some(console) = &self.state().console {
            // What the console misses here it learns from the silence.
            let _full = console.tell.try_send(Told::Released { id, how });
        }
        Some(answer)
    }

    fn hold(&self, decision: &Decision) -> Option<(u64, Duration, Receiver<Answer>)> {
        let mut state = self.state();
        let has_bounds = weak::stands(weak::Wall::HoldLimit);
        let (full, id) = (
            has_bounds && state.held.len() >= HELD_MAX,
            state.counter + 1,
        );
        if state.reloading {
            return None;
        }
        let console = state.console.as_mut()?;
        let cause = console.cause(decision)?;
        let decision = Box::new(decision.clone());
        if full {
            let _full = console.tell.try_send(Told::NotHeld { decision });
            return None;
        }
        let limit = if has_bounds {
            console.limit
        } else {
            Duration::MAX
        };
        let held = Told::Held {
            id,
            cause,
            decision,
            limit_seconds: limit.as_secs(),
        };
        // Nobody would answer for what nobody was told of.
        console.tell.try_send(held).ok()?;
        let (sender, receiver) = bounded(1);
        state.counter = id;
        state.held.insert(id, sender);
        Some((id, limit, receiver))
    }
}

/// While a reload is under way.
pub(super) struct Reloading<'a>(&'a Gate);

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.state().reloading = false;
    }
}

fn answer_all(state: &mut State, answer: Answer) {
    for held in std::mem::take(&mut state.held).into_values() {
        // One that has just gone for itself needs no answer.
        let _gone = held.send(answer);
    }
}

impl Console {
    fn cause(&mut self, decision: &Decision) -> Option<Cause> {
        let stops = match &self.stop {
            Stop::Nowhere => false,
            Stop::Next => true,
            Stop::Refusal => decision.verdict.is_refused(),
            Stop::Below(top) => {
                let request = &decision.request;
                let mut paths = request.names.iter().chain(&request.second);
                paths.any(|path| is_below(path, top))
            }
        };
        if stops {
            self.stop = Stop::Nowhere;
            return Some(Cause::Stop);
        }
        let mut hits = self.breakpoints.iter();
        let hit = hits.find(|(_, selection)| selection.takes(decision));
        hit.map(|(number, _)| Cause::Breakpoint(*number))
    }
}

/// Whether a path is `top` or below it; both start with `/`.
fn is_below(path: &[u8], top: &[u8]) -> bool {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
