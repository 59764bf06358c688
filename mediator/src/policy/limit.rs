//! How large a file may become.
//!
//! Judged by where a request would end, before anything is written: a write that ends within the
//! limit goes, one that ends beyond it is refused whole. What lies beyond the limit already (put
//! there by the host, or before the limit was set) may be read and cut down to it, not written.

use rustix::io::Errno;

use super::facts::Facts;
use super::grant::Asked;
use super::permit::Refusal;
use crate::op::{Op, Word, Words};

/// How large a file may become, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    bytes: u64,
    /// `None`: the view's own.
    rule: Option<u32>,
}

impl Limit {
    /// The smaller of a limit and a rule's, if there is any.
    pub(super) fn smaller(
        one: Option<Self>,
        bytes: Option<u64>,
        rule: Option<u32>,
    ) -> Option<Self> {
        match (one, bytes) {
            (Some(one), Some(bytes)) if one.bytes <= bytes => Some(one),
            (one, bytes) => bytes.map(|bytes| Self { bytes, rule }).or(one),
        }
    }

    pub(super) fn judge(self, facts: &Facts<'_>, asked: &Asked) -> Result<(), Refusal> {
        if end(facts, asked).is_none_or(|end| end <= self.bytes) {
            return Ok(());
        }
        Err(Refusal {
            errno: Errno::DQUOT,
            rule: self.rule,
            why: "the file would become larger than `file_size` allows",
        })
    }
}

/// Where the file would end, in bytes; `None` for what gives it no size.
fn end(facts: &Facts<'_>, asked: &Asked) -> Option<u64> {
    match facts.op {
        Op::Setattr => asked.size,
        Op::CopyFileRange if !facts.words.meets(Words::of(Word::Write)) => None,
        Op::Write | Op::Fallocate | Op::CopyFileRange => {
            // A size that is not known could be any.
            let from = if facts.adds {
                facts.size.unwrap_or(u64::MAX)
            } else {
                facts.offset?
            };
            Some(from.saturating_add(facts.length?))
        }
        Op::Lookup
        | Op::Getattr
        | Op::Readlink
        | Op::Access
        | Op::Statfs
        | Op::Create
        | Op::Mkdir
        | Op::Mknod
        | Op::Symlink
        | Op::Link
        | Op::Unlink
        | Op::Rmdir
        | Op::Rename
        | Op::Open
        | Op::Read
        | Op::Lseek
        | Op::Fsync
        | Op::Flush
        | Op::Opendir
        | Op::Readdir
        | Op::Setxattr
        | Op::Getxattr
        | Op::Listxattr
        | Op::Removexattr => None,
    }
}
