//! Records that are kept: lines of JSON, in a pipe before the request is answered.
//!
//! So whoever ends the view, the mediator included, cannot undo what a client has seen refused: the
//! line is the kernel's by then, and the reader's. Workers write by themselves and at once: a line
//! is never longer than a pipe takes whole, and into a pipe that is full nothing goes and nobody
//! waits. What did not fit is counted, and a line tells of it as soon as one fits again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use super::audit::Tally;
use super::record::AuditLine;

/// The writing end.
#[derive(Debug)]
pub(super) struct Kept {
    pipe: OwnedFd,
    tally: Tally,
    /// Dropped, and no line tells of it yet.
    untold: AtomicU64,
    /// Nobody reads.
    gone: AtomicBool,
}

/// Nobody reads any more: told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Kept {
    /// Takes a pipe's writing end, and makes it one that is never waited for.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe,
            tally: Tally::default(),
            untold: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        })
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Writes a line, or counts it.
    pub(super) fn put(&self, line: &AuditLine) -> Result<(), Gone> {
        // What is missing comes before what follows it; if that does not fit, this does not.
        let written = self.tell_of_missing().and_then(|()| self.write(line));
        let Err(errno) = written else {
            self.tally.written.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        self.untold.fetch_add(1, Ordering::Relaxed);
        let first = errno != Errno::AGAIN && !self.gone.swap(true, Ordering::Relaxed);
        if first { Err(Gone) } else { Ok(()) }
    }

    fn tell_of_missing(&self) -> Result<(), Errno> {
        let missing = self.untold.swap(0, Ordering::Relaxed);
        if missing == 0 {
            return Ok(());
        }
        let told = self.write(&AuditLine::dropped(missing));
        if told.is_err() {
            self.untold.fetch_add(missing, Ordering::Relaxed);
        }
        told
    }

    /// All of it or nothing: `PIPE_BUF` in pipe(7).
    fn write(&self, line: &AuditLine) -> Result<(), Errno> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Errno::PIPE);
        }
        rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, &line.bytes())).map(drop)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // The last chance; the counters have it if this fails.
        let _told = self.tell_of_missing();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, PipeReader};
    use std::sync::Arc;

    use super::*;
    use crate::mediate::record::AuditEvent;

    fn kept() -> (BufReader<PipeReader>, Kept) {
        let (from, to) = io::pipe().unwrap();
        (BufReader::new(from), Kept::new(to.into()).unwrap())
    }

    fn counts(kept: &Kept) -> (u64, u64) {
        let Tally { written, dropped } = kept.tally();
        (
            written.load(Ordering::Relaxed),
            dropped.load(Ordering::Relaxed),
        )
    }

    /// Lines are told from one another by their length.
    fn line(length: usize) -> AuditLine {
        AuditLine {
            path: Some("x".repeat(length)),
            ..AuditLine::of(AuditEvent::Allowed)
        }
    }

    fn read(from: BufReader<PipeReader>) -> Vec<AuditLine> {
        let lines = from.split(b'\n').map(Result::unwrap);
        lines
            .map(|line| serde_json::from_slice(&line).unwrap())
            .collect()
    }

    fn missing(lines: &[AuditLine]) -> u64 {
        lines.iter().filter_map(|line| line.records).sum()
    }

    #[test]
    fn pipe_that_is_full_costs_records_and_a_line_tells_how_many() {
        const MANY: u64 = 1_000;
        let (mut from, kept) = kept();
        for _ in 0..MANY {
            kept.put(&line(1_000)).unwrap();
        }
        let (written, dropped) = counts(&kept);
        assert!(
            dropped > 0 && written + dropped == MANY,
            "{written} and {dropped}"
        );
        // Room for some, while others are still coming.
        for _ in 0..10 {
            from.read_until(b'\n', &mut Vec::new()).unwrap();
        }
        kept.put(&line(1)).unwrap();
        assert_eq!(counts(&kept), (written + 1, dropped));
        drop(kept);
        let rest = read(from);
        // A short line may fit where a record did not, so it may be told in parts.
        assert_eq!(missing(&rest), dropped);
        assert_eq!(rest.last(), Some(&line(1)));
    }

    #[test]
    fn records_that_are_missing_at_the_end_are_told_at_the_end() {
        let (mut from, kept) = kept();
        while counts(&kept).1 < 3 {
            kept.put(&line(3_000)).unwrap();
        }
        let (written, _) = counts(&kept);
        for _ in 0..5 {
            from.read_until(b'\n', &mut Vec::new()).unwrap();
        }
        assert!(written > 5);
        drop(kept);
        assert_eq!(missing(&read(from)), 3);
    }

    #[test]
    fn lines_of_several_writers_never_mix() {
        let (from, kept) = kept();
        let kept = Arc::new(kept);
        let writers: Vec<_> = (1..4_usize)
            .map(|writer| {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    for _ in 0..500 {
                        kept.put(&line(writer * 1_000)).unwrap();
                    }
                })
            })
            .collect();
        let reading = std::thread::spawn(move || read(from));
        for writer in writers {
            writer.join().unwrap();
        }
        // One that fits tells of all that did not.
        let before = counts(&kept).0;
        while counts(&kept).0 == before {
            kept.put(&line(1)).unwrap();
        }
        let (written, dropped) = counts(&kept);
        drop(kept);
        // Each could be parsed.
        let found = reading.join().unwrap();
        let whole = found.iter().filter(|line| line.path.is_some()).count();
        let expected = (u64::try_from(whole).unwrap(), missing(&found));
        assert_eq!(expected, (written, dropped));
    }

    #[test]
    fn reader_that_is_gone_is_told_once_and_costs_every_record() {
        let (from, kept) = kept();
        drop(from);
        assert_eq!(kept.put(&line(1)), Err(Gone));
        assert_eq!(kept.put(&line(1)), Ok(()));
        assert_eq!(counts(&kept), (0, 2));
    }
}
