//! What a worker is told to do, a line of JSON each, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One measurement. Paths are the worker's: below its contender's mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// What is timed.
    pub(crate) work: Work,
    /// The directory that it is done in.
    pub(crate) directory: PathBuf,
    /// So many threads share the names.
    pub(crate) threads: usize,
    /// At least so long is measured, by repetition where the work allows it.
    pub(crate) floor_ms: u64,
    /// Nothing is new to this contender: passes that are "first" for others may be repeated.
    pub(crate) no_cache_of_its_own: bool,
}

/// The kinds of work. Numbers are of files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// fstatat of names that exist, once and again.
    Stat { names: usize },
    /// fstatat of names that do not, once and again.
    Missing { names: usize },
    /// open, read of 4 KiB, close.
    Open { names: usize },
    /// create, chown, chmod, write, close; then rename; then unlink.
    Create { names: usize },
    /// readdir and lstat of each entry, once and again.
    List,
    /// readdir and lstat of everything below.
    Walk,
    /// fstatat, then open and close, of files all over a tree of so many, in a mixed order.
    Spread { files: usize },
    /// Reads or writes of a file in the directory.
    Transfer(Transfer),
    /// A page at a time of a file that is mapped.
    Map { file: String },
    /// A program that may be started again and again, once and again.
    Program { argv: Vec<String> },
    /// A program that changes what it works on: once, for so many operations.
    Change {
        argv: Vec<String>,
        operations: usize,
    },
}

/// Reads or writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// The file's name; the file is there and long enough.
    pub(crate) file: String,
    /// Octets in one pass.
    pub(crate) octets: usize,
    /// Octets in one call.
    pub(crate) block: usize,
    /// Blocks in a mixed order.
    pub(crate) random: bool,
    /// Writes, else reads.
    pub(crate) write: bool,
    /// With `O_DIRECT`.
    pub(crate) direct: bool,
}

/// What one part of the work came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Which part.
    pub(crate) part: String,
    /// Operations, or octets.
    pub(crate) amount: f64,
    /// Time by the wall clock.
    pub(crate) seconds: f64,
}

impl Sample {
    /// Amount a second.
    pub(crate) fn rate(&self) -> f64 {
        self.amount / self.seconds
    }
}

/// A worker's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A sample for each part.
    Done(Vec<Sample>),
    /// Why not.
    Failed(String),
}

/// How the files of a directory are named, here and there.
pub(crate) fn file_name(number: usize) -> String {
    format!("file-{number:06}")
}

/// Files of one directory of a tree of very many.
pub(crate) const SPREAD: usize = 1000;

/// The directory that a file of such a tree is in.
pub(crate) fn spread_directory(number: usize) -> String {
    format!("directory-{:04}", number / SPREAD)
}
