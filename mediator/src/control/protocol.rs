//! The words of the control socket, shared with the root command, which must parse answers as
//! hostile: bound the size before parsing, never print a string unescaped.

use serde::{Deserialize, Serialize};

/// The longest question in bytes, with its newline.
pub const QUESTION_MAX: usize = 4096;

/// The longest answer in bytes, with its newline; a reader should stop there.
pub const ANSWER_MAX: usize = 64 * 1024;

/// What can be asked: `{"ask":"status"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How the view is doing.
    Status {},
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Status),
    /// The question was not understood: why.
    Error(String),
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
    /// Number of rules.
    pub rules: u64,
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
    /// Audit records written.
    #[serde(default)]
    pub audit_records_written: u64,
    /// Audit records dropped because refusals came faster than they could be written.
    #[serde(default)]
    pub audit_records_dropped: u64,
    /// Operations that were asked at least once.
    pub operations: Vec<OpCount>,
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
