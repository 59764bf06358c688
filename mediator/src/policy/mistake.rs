//! What is wrong with a policy file, in words that an admin acts on.

use std::fmt;
use std::ops::Range;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// Every mistake of one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// The file's name, as given.
    pub file: String,
    /// The mistakes.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.list.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            let Mistake {
                line,
                column,
                what,
                hint,
            } = mistake;
            write!(f, "{}:{line}:{column}: {what}", self.file)?;
            if !hint.is_empty() {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// Collects mistakes while a file is read.
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    found: Vec<(usize, String, String)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let behind = newlines.map(|(at, _)| at + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(behind).collect(),
            found: Vec::new(),
        }
    }

    /// Notes a mistake at a span of bytes.
    pub(super) fn add(
        &mut self,
        at: &Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.found.push((at.start, what.into(), hint.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The line, from 1, on which a span of bytes begins.
    pub(super) fn line(&self, at: &Range<usize>) -> usize {
        self.place(at.start).0
    }

    /// Where a byte is: line and column, from 1.
    fn place(&self, byte: usize) -> (usize, usize) {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= byte);
        let start = line.checked_sub(1).and_then(|at| self.lines.get(at));
        let before = self.text.get(start.copied().unwrap_or(0)..byte);
        let column = before.unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    pub(super) fn into_mistakes(mut self, file: &str) -> Mistakes {
        self.found.sort_by_key(|(byte, ..)| *byte);
        let found = std::mem::take(&mut self.found);
        let list = found.into_iter().map(|(byte, what, hint)| {
            let (line, column) = self.place(byte);
            Mistake {
                line,
                column,
                what,
                hint,
            }
        });
        Mistakes {
            file: file.to_owned(),
            list: list.collect(),
        }
    }
}
