//! What a recording asks of a policy: words at paths, and moves.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::entry::{Entry, Outcome};
use super::SuggestError;
use crate::ids::FileKind;
use crate::op::{AnyAsk, Op, RenameHow, Word, Words};
use crate::policy::Request;

/// The most bytes of different requests, each of which is kept until the end: some million short
/// ones. A guest's boot has a tenth of it.
const BYTES_MAX: usize = 64 << 20;

/// A file or directory that gets another name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Move {
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
    pub(super) what: Moved,
}

/// What is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moved {
    File,
    /// Or something of which it is not known.
    Tree,
}

/// One word at one path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    pub(super) count: u64,
    /// Something else than a directory is looked at there.
    pub(super) other_than_directory: bool,
}

/// What is kept of the offset and length of a read or write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spans {
    /// Nothing: they cannot matter to what is suggested.
    #[default]
    Folded,
    /// All: rules that are kept from another policy may ask for them.
    Kept,
}

/// A recording's requests, like ones folded, in an order of their own.
#[derive(Debug, Default)]
pub struct Observed {
    spans: Spans,
    /// Bytes of what is kept.
    bytes: usize,
    allowed: BTreeMap<Vec<u8>, Seen>,
    refused: BTreeMap<Vec<u8>, Seen>,
    /// Names at which something is, as far as was told.
    there: HashSet<Vec<u8>>,
}

/// A request and how often it came.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) request: Request,
    pub(super) count: u64,
    /// A rename to a name at which something was.
    replaces: bool,
}

/// The same, as the policy's words have it.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) by_word: BTreeMap<u16, BTreeMap<Vec<u8>, Need>>,
    pub(super) moves: BTreeSet<Move>,
    /// Renames that may replace something that was seen before.
    pub(super) replacing: u64,
}

impl Observed {
    /// Nothing yet.
    #[must_use]
    pub fn new(spans: Spans) -> Self {
        Self {
            spans,
            ..Self::default()
        }
    }

    /// Takes in an entry; the recording's order tells which renames replace something.
    ///
    /// # Errors
    ///
    /// There are too many different requests.
    pub fn add(&mut self, entry: Entry) -> Result<(), SuggestError> {
        let Entry {
            request,
            outcome,
            count,
            ..
        } = entry;
        let replaces = self.replaces(&request, count);
        if outcome == Outcome::Done {
            self.follow(&request);
        }
        let (offset, length) = match self.spans {
            Spans::Folded => (None, None),
            Spans::Kept => (request.offset, request.length),
        };
        let request = Request {
            offset,
            length,
            ..request
        };
        let key = postcard::to_stdvec(&request).map_err(|_unwritable| SuggestError::Request)?;
        let side = if outcome.is_allowed() {
            &mut self.allowed
        } else {
            &mut self.refused
        };
        let bytes = key.len();
        let seen = side.entry(key).or_insert_with(|| {
            self.bytes += bytes;
            Seen {
                request,
                count: 0,
                replaces,
            }
        });
        seen.count = seen.count.saturating_add(count);
        seen.replaces |= replaces;
        if self.bytes > BYTES_MAX {
            return Err(SuggestError::TooMany);
        }
        Ok(())
    }

    fn replaces(&self, request: &Request, count: u64) -> bool {
        let there = |new| count > 1 || self.there.contains(new);
        request.ask == AnyAsk::Rename(RenameHow::Replace)
            && request.second.as_ref().is_some_and(there)
    }

    fn follow(&mut self, request: &Request) {
        let gone = matches!(request.op, Op::Unlink | Op::Rmdir)
            || matches!(
                request.ask,
                AnyAsk::Rename(RenameHow::Replace | RenameHow::NoReplace)
            );
        for name in &request.names {
            if gone {
                self.there.remove(name);
            } else {
                self.there.insert(name.clone());
            }
        }
        self.there.extend(request.second.iter().cloned());
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = &Seen> {
        self.allowed.values()
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = &Seen> {
        self.refused.values()
    }
}

impl Needs {
    /// What some requests need.
    pub(super) fn of<'s>(all: impl Iterator<Item = &'s Seen>) -> Self {
        let mut needs = Self::default();
        for seen in all {
            // Whoever made or opened a file has it in a cache, and the next one looks for it first.
            let words = seen.request.needed_words().with(Words::of(Word::Look));
            for name in seen.request.names.iter().chain(&seen.request.second) {
                needs.add(name, words, seen);
            }
            needs.add_move(seen);
        }
        needs
    }

    fn add(&mut self, name: &[u8], words: Words, seen: &Seen) {
        let is_directory = seen.request.kind == Some(FileKind::Directory);
        for bit in (0..16).map(|bit| 1u16 << bit) {
            if words.0 & bit == 0 {
                continue;
            }
            let at = self.by_word.entry(bit).or_default();
            let need = at.entry(name.to_vec()).or_default();
            need.count = need.count.saturating_add(seen.count);
            need.other_than_directory |= !is_directory;
        }
    }

    fn add_move(&mut self, seen: &Seen) {
        let request = &seen.request;
        let Some(new) = &request.second else { return };
        if seen.replaces {
            self.replacing = self.replacing.saturating_add(seen.count);
            self.add(new, Words::of(Word::Remove), seen);
        }
        // As the engine sees it: a link is never to a directory, and unknown counts as one.
        let is_rename = request.op == Op::Rename;
        let is_tree = is_rename && request.kind.is_none_or(|kind| kind == FileKind::Directory);
        let mut add = |old: &Vec<u8>, new: &Vec<u8>, what| {
            let (old, new) = (old.clone(), new.clone());
            self.moves.insert(Move { old, new, what });
        };
        for old in &request.names {
            add(old, new, if is_tree { Moved::Tree } else { Moved::File });
            if request.ask == AnyAsk::Rename(RenameHow::Exchange) {
                add(new, old, Moved::Tree);
                add(new, old, Moved::File);
            }
        }
    }
}
