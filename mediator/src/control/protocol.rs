//! The words of the control socket, shared with the root command, which must parse answers as
//! hostile: bound the size before parsing, never print a string unescaped.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use crate::mediate::{Event, Selector, Stop, Told};
use crate::policy::Users;

/// The longest line in bytes, with its newline, that a caller may send: a policy is one.
pub const QUESTION_MAX: usize = 1 << 20;

/// The longest line in bytes, with its newline, that is sent; a reader should stop there.
pub const ANSWER_MAX: usize = 256 * 1024;

/// What can be asked: `{"ask":"status"}`. A connection has one question; behind
/// [`Question::Watch`] and [`Question::Step`] it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How the view is doing.
    Status {},
    /// Put another policy in force.
    Reload {
        /// The policy file's text.
        policy: String,
        /// The ids of the users and groups that it names: there is no user database in there.
        names: Names,
        /// The view is read-only whatever the policy says.
        readonly: bool,
        /// Only tell whether it could be.
        dry_run: bool,
    },
    /// Tell of decisions from now on: [`Line::Event`] and [`Line::Dropped`] follow.
    Watch {
        /// Of which.
        select: Selector,
    },
    /// Attach a stepping console: [`Order`]s one way, [`Line`]s the other.
    Step {
        /// Seconds that a request is held at most; then it is refused.
        limit_seconds: u64,
        /// Where to stop first.
        stop: Stop,
    },
}

/// Users and groups by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Host uids.
    pub users: BTreeMap<String, u32>,
    /// Host gids.
    pub groups: BTreeMap<String, u32>,
}

impl Users for Names {
    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Status),
    /// To [`Question::Reload`]: no answer comes from an older policy any more.
    Reloaded {
        /// The new policy's number; the first has 0. With `dry_run`: the running one's.
        epoch: u64,
        /// Nodes whose kernel caches were dropped.
        nodes: u64,
        /// Open files whose data goes past the mediator, and goes on to until they are closed.
        #[serde(default)]
        past: u64,
        /// Their names, as far as there is room.
        #[serde(default, with = "crate::policy::text::many")]
        past_files: Vec<Vec<u8>>,
        /// It is in force, but answers from the old one may still come: why.
        unfinished: Option<String>,
    },
    /// To [`Question::Watch`] and [`Question::Step`]: it begins.
    Begun {
        /// The running policy's number.
        epoch: u64,
    },
    /// The question was not understood, or cannot be answered: why.
    Error(String),
}

/// A line of a connection that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A decision.
    Event(Box<Event>),
    /// So many events did not fit since the last one that did.
    Dropped(u64),
    /// To the console.
    Told(Told),
    /// An order was carried out.
    Done(u64),
    /// An order was not.
    NotDone {
        /// Its number.
        order: u64,
        /// Why.
        why: String,
    },
}

/// What a console wants, numbered by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The number by which it is answered.
    pub number: u64,
    /// What.
    pub order: Wanted,
}

/// What a console can want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Wanted {
    /// Set or replace a breakpoint.
    Break {
        /// Its number.
        breakpoint: u32,
        /// Where it stops.
        select: Selector,
    },
    /// Remove a breakpoint.
    Delete {
        /// Its number.
        breakpoint: u32,
    },
    /// Where to stop besides breakpoints; over with the first stop.
    Stop(Stop),
    /// Answer for a held request.
    Answer {
        /// Its number.
        id: u64,
        /// What becomes of it.
        by: By,
    },
}

/// Who decides a held request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum By {
    /// The policy.
    Policy,
    /// The person: allowed. The floor stands.
    Allow,
    /// The person: refused with this errno, which must not be one that means a fault (EIO, ENOSYS,
    /// ENOTCONN) or none.
    Refuse(i32),
}

/// The state of a view. Fields that came later may be missing: a view outlives an upgrade of the
/// program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The view's name.
    pub view: String,
    /// How long the kernel may remember: `auto`, `none` or `exclusive`.
    pub cache: String,
    /// `client` or `shared`.
    pub mode: String,
    /// Whether every change is refused.
    pub readonly: bool,
    /// Whether rules are only told, not enforced (`mode = "observe"`).
    #[serde(default)]
    pub observes: bool,
    /// Number of rules.
    pub rules: u64,
    /// How often the policy was replaced.
    #[serde(default)]
    pub epoch: u64,
    /// Whether a stepping console is attached.
    #[serde(default)]
    pub stepping: bool,
    /// Requests that it holds.
    #[serde(default)]
    pub held: u64,
    /// Seconds since the view was ready.
    pub uptime_seconds: u64,
    /// Nodes that the kernel knows.
    pub known_nodes: u64,
    /// Open files and directories.
    pub open_handles: u64,
    /// Descriptors held for nodes and open handles.
    #[serde(default)]
    pub descriptors: u64,
    /// How many of them may be held.
    #[serde(default)]
    pub descriptor_budget: u64,
    /// How file data goes.
    #[serde(default)]
    pub data: Box<Data>,
    /// Decisions for which the rules were looked at.
    #[serde(default)]
    pub verdicts_judged: u64,
    /// Decisions by what was remembered with the file.
    #[serde(default)]
    pub verdicts_remembered: u64,
    /// Audit records written.
    #[serde(default)]
    pub audit_records_written: u64,
    /// Audit records dropped because refusals came faster than they could be written.
    #[serde(default)]
    pub audit_records_dropped: u64,
    /// Operations that were asked at least once.
    pub operations: Vec<OpCount>,
}

/// How file data goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// What was asked for: `auto`, `passthrough` or `mediated`.
    pub asked: String,
    /// Whether files are registered with the kernel to go past the mediator.
    pub passthrough: bool,
    /// Why not, if `auto` or `passthrough` was asked for.
    pub why_not: Option<String>,
    /// Files that are registered now.
    pub backing_ids: u64,
    /// Open files whose data goes past the mediator.
    pub open: u64,
    /// How many have been opened.
    pub opened: u64,
    /// How many registrations there have been.
    pub registrations: u64,
}

/// One operation's counts since the view started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCount {
    /// The operation's raw FUSE name.
    pub operation: String,
    /// Performed.
    pub done: u64,
    /// Refused by the policy or the floor.
    pub refused: u64,
    /// Failed for any other reason.
    pub failed: u64,
    /// Told as done, at least in part, without being so.
    #[serde(default)]
    pub pretended: u64,
    /// Let through although the rules refuse it (`mode = "observe"`).
    #[serde(default)]
    pub would_refuse: u64,
    /// How long all of them took together, in nanoseconds.
    #[serde(default)]
    pub nanoseconds: u64,
    /// How many took up to 1 microsecond, 2, 4, and so on: [`crate::mediate::bound_micros`]. Each
    /// is counted once, in the first that holds it.
    #[serde(default)]
    pub buckets: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_the_line_that_is_documented() {
        let asked: Question = serde_json::from_str(r#"{"ask":"status"}"#).unwrap();
        assert_eq!(asked, Question::Status {});
        for bad in [r#"{"ask":"quit"}"#, "{}", "[]", r#"{"ask":"status","x":1}"#] {
            assert!(serde_json::from_str::<Question>(bad).is_err(), "{bad}");
        }
    }
}
