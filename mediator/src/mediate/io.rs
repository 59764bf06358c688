//! Data through handles: read, write, fallocate, lseek, copy_file_range.

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator};
use super::ledger::Used;
use super::scratch::with_data;
use crate::export::Attr;
use crate::ids::HandleId;
use crate::op::{Op, Operation, Word, Words, WriteAs, rows};
use crate::policy::{Permit, Requester};

/// The most that one READ may ask for in bytes: what INIT negotiates (`max_pages`).
pub(crate) const READ_MAX: u32 = 1 << 20;

/// The most that one COPY_FILE_RANGE does in bytes: its reply counts in 32 bits, and a shorter
/// copy is a valid answer.
const COPY_MAX: u64 = 1 << 30;

impl Mediator {
    /// Reads at most `size` bytes at `offset` and hands them to `deliver` in a reused buffer.
    ///
    /// # Errors
    ///
    /// EINVAL beyond 1 MiB or 2^63 - 1; EBADF, a refusal's errno, or what the export answers.
    pub fn read<T>(
        &self,
        who: Requester,
        handle: HandleId,
        offset: u64,
        size: u32,
        deliver: impl FnOnce(Result<&[u8], Errno>) -> T,
    ) -> T {
        let len = usize::try_from(size.min(READ_MAX)).unwrap_or_default();
        with_data(len, |data| {
            let read = self.run(Op::Read, who, |trail| {
                check_span(offset, u64::from(size), Errno::INVAL)?;
                if size > READ_MAX {
                    return Err(Errno::INVAL.into());
                }
                let case = Case {
                    span: Some((offset, u64::from(size))),
                    ..Case::handle(handle)
                };
                let permit = self.decide::<rows::Read>(trail, &case, ())?;
                Ok(self.export.read(permit, handle, offset, data)?)
            });
            deliver(read.map(|count| data.get(..count).unwrap_or_default()))
        })
    }

    /// Writes at `offset`, or at the end, and returns how many bytes went.
    ///
    /// # Errors
    ///
    /// EFBIG beyond 2^63 - 1; EBADF, a refusal's errno, or what the export answers.
    pub fn write(
        &self,
        who: Requester,
        handle: HandleId,
        (offset, how): (u64, WriteAs),
        data: &[u8],
    ) -> Result<usize, Errno> {
        self.run(Op::Write, who, |trail| {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            check_span(offset, length, Errno::FBIG)?;
            let limited = trail.policy.borrow().limits_file_size();
            let end = if limited && self.appends(handle, how)? {
                Some(self.end(handle)?)
            } else {
                None
            };
            let case = Case {
                span: Some((offset, length)),
                attr: end.as_ref(),
                adds: end.is_some(),
                ..Case::handle(handle)
            };
            let permit = self.decide::<rows::Write>(trail, &case, ())?;
            let used = if !permit.areas().is_empty() && self.appends(handle, how)? {
                Used::bytes(length)
            } else {
                self.added(&permit, handle, (offset, length))?
            };
            self.grow((trail, &case), permit, used, |permit| {
                let place = (offset, how);
                Ok(self.export.write(permit, handle, place, data)?)
            })
        })
    }

    /// Allocates, punches, zeroes, collapses or inserts, as `mode` says (fallocate(2)).
    ///
    /// # Errors
    ///
    /// EFBIG beyond 2^63 - 1; EBADF, EOPNOTSUPP, a refusal's errno, or what the export answers.
    pub fn fallocate(
        &self,
        who: Requester,
        handle: HandleId,
        mode: i32,
        (offset, length): (u64, u64),
    ) -> Result<(), Errno> {
        self.run(Op::Fallocate, who, |trail| {
            check_span(offset, length, Errno::FBIG)?;
            let inserts = mode & libc::FALLOC_FL_INSERT_RANGE != 0;
            let end = if trail.policy.borrow().limits_file_size() && inserts {
                Some(self.end(handle)?)
            } else {
                None
            };
            let case = Case {
                span: Some((offset, length)),
                attr: end.as_ref(),
                adds: end.is_some(),
                ..Case::handle(handle)
            };
            let permit = self.decide::<rows::Fallocate>(trail, &case, ())?;
            let used = if inserts && !permit.areas().is_empty() {
                Used::bytes(length)
            } else {
                self.added(&permit, handle, (offset, length))?
            };
            // It would take room that no size tells.
            let behind_the_end = mode & libc::FALLOC_FL_KEEP_SIZE != 0
                && mode & libc::FALLOC_FL_PUNCH_HOLE == 0
                && used != Used::default();
            if behind_the_end {
                return Err(Errno::OPNOTSUPP.into());
            }
            self.grow((trail, &case), permit, used, |permit| {
                Ok(self
                    .export
                    .fallocate(permit, handle, mode, offset, length)?)
            })
        })
    }

    /// Finds data or a hole (SEEK_DATA, SEEK_HOLE).
    ///
    /// # Errors
    ///
    /// EINVAL for another `whence`; ENXIO, EBADF, a refusal's errno.
    pub fn lseek(
        &self,
        who: Requester,
        handle: HandleId,
        offset: i64,
        whence: i32,
    ) -> Result<i64, Errno> {
        self.run(Op::Lseek, who, |trail| {
            let permit = self.decide::<rows::Lseek>(trail, &Case::handle(handle), ())?;
            Ok(self.export.lseek(permit, handle, offset, whence)?)
        })
    }

    /// Copies inside the kernel: judged as a read of the one file and a write of the other.
    ///
    /// # Errors
    ///
    /// EINVAL for a source range, EFBIG for a destination range beyond 2^63 - 1; EBADF, a
    /// refusal's errno, or what the export answers.
    pub fn copy_file_range(
        &self,
        who: Requester,
        from: (HandleId, u64),
        to: (HandleId, u64),
        length: u64,
    ) -> Result<usize, Errno> {
        self.run(Op::CopyFileRange, who, |trail| {
            check_span(from.1, length, Errno::INVAL)?;
            check_span(to.1, length, Errno::FBIG)?;
            let length = length.min(COPY_MAX);
            let case = |(handle, offset), word| Case {
                words: Some(Words::of(word)),
                span: Some((offset, length)),
                ..Case::handle(handle)
            };
            let source = self.decide::<rows::CopyFileRange>(trail, &case(from, Word::Read), ())?;
            let case = case(to, Word::Write);
            let target = self.decide::<rows::CopyFileRange>(trail, &case, ())?;
            let used = self.added(&target, to.0, (to.1, length))?;
            self.grow((trail, &case), target, used, |target| {
                Ok(self
                    .export
                    .copy_file_range(source, target, from, to, length)?)
            })
        })
    }
}

impl Mediator {
    /// An open file's attributes, for its size now.
    fn end(&self, handle: HandleId) -> Act<Attr> {
        Ok(self.export.stat(&self.export.pin_handle(handle)?)?)
    }

    /// Whether a write goes to the file's end.
    fn appends(&self, handle: HandleId, how: WriteAs) -> Act<bool> {
        match how {
            WriteAs::Appended => Ok(true),
            WriteAs::Placed => Ok(self.export.is_append_only(handle)?),
            WriteAs::Mapped => Ok(false),
        }
    }

    /// By how much writing a span could make a file larger; looked at only where it counts.
    fn added<O: Operation>(
        &self,
        permit: &Permit<O>,
        handle: HandleId,
        (offset, length): (u64, u64),
    ) -> Act<Used> {
        if permit.areas().is_empty() {
            return Ok(Used::default());
        }
        let end = offset.saturating_add(length);
        Ok(Used::bytes(end.saturating_sub(self.end(handle)?.size)))
    }
}

/// File offsets are signed 64-bit: a range may neither start nor end beyond them, nor wrap.
fn check_span(offset: u64, length: u64, beyond: Errno) -> Result<(), Errno> {
    let end = offset.checked_add(length).ok_or(beyond)?;
    i64::try_from(end).map(|_end| ()).map_err(|_beyond| beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_beyond_the_signed_range_is_refused_and_never_wraps() {
        let last = u64::try_from(i64::MAX).unwrap();
        assert_eq!(check_span(last, 0, Errno::FBIG), Ok(()));
        assert_eq!(check_span(last, 1, Errno::FBIG), Err(Errno::FBIG));
        assert_eq!(check_span(1, u64::MAX, Errno::FBIG), Err(Errno::FBIG));
    }
}
