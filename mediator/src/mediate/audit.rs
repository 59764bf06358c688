//! What leaves the hot path for the log: refusals, and on demand every request.
//!
//! Workers hand records to one writer through a bounded channel and never wait for it; what does
//! not fit is counted and the count is logged. Only with [`Verbosity::EveryRequest`], a debugging
//! aid, do they wait, so that the log is complete.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;

use crate::op::Op;
use crate::policy::Requester;

/// Records that wait for the writer at most: a burst of refusals costs this much memory, no more.
const QUEUE: usize = 1024;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Refusals, and what a rule with `log = "all"` decided.
    Refusals,
    /// Every request with its verdict and latency.
    EveryRequest,
}

/// One line of the log.
#[derive(Debug)]
pub(super) enum Record {
    Refused(Refused),
    /// A rule with `log = "all"` allowed it.
    Allowed {
        op: Op,
        requester: Requester,
        subject: String,
        rule: String,
    },
    Request {
        op: Op,
        requester: Requester,
        subject: String,
        verdict: Result<(), Errno>,
        refused: bool,
        took: Duration,
    },
}

/// A refusal with all that an admin needs to find the rule.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) op: Op,
    pub(super) requester: Requester,
    /// The name, escaped; with ` -> ` and the second name where there are two.
    pub(super) subject: String,
    /// The rule's name or number, `-` for none.
    pub(super) rule: String,
    pub(super) why: &'static str,
    pub(super) errno: Errno,
}

/// File names as they may stand in a log: a name may hold newlines and terminal escapes.
pub(super) fn escape(first: &[u8], second: Option<&[u8]>) -> String {
    let mut line = first.escape_ascii().to_string();
    if let Some(second) = second {
        // Writing to a String cannot fail.
        let _infallible = write!(line, " -> {}", second.escape_ascii());
    }
    line
}

/// The workers' end.
#[derive(Debug)]
pub(super) struct Audit {
    sender: Sender<Record>,
    written: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    verbosity: Verbosity,
}

/// The writing thread; it ends when the last [`crate::mediate::Mediator`] that feeds it is gone.
#[must_use]
#[derive(Debug)]
pub struct AuditWriter {
    thread: JoinHandle<()>,
}

impl AuditWriter {
    /// Waits until all records are written. Drop the mediator first.
    pub fn join(self) {
        // A panic aborts the process, so there is nothing to learn from the result.
        let _panicked = self.thread.join();
    }
}

impl Audit {
    /// Starts the writer.
    pub(super) fn start(verbosity: Verbosity) -> io::Result<(Self, AuditWriter)> {
        let (sender, receiver) = bounded(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let written = Arc::default();
        let (seen, count) = (Arc::clone(&dropped), Arc::clone(&written));
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write_all(&receiver, &seen, &count))?;
        let audit = Self {
            sender,
            written,
            dropped,
            verbosity,
        };
        Ok((audit, AuditWriter { thread }))
    }

    /// Whether each request is to be recorded.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::EveryRequest
    }

    /// Hands a record over. Does not wait unless every request is asked for.
    pub(super) fn put(&self, record: Record) {
        let lost = match self.verbosity {
            Verbosity::EveryRequest => self.sender.send(record).is_err(),
            Verbosity::Refusals => match self.sender.try_send(record) {
                Ok(()) => false,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
            },
        };
        if lost {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that were written since the view started.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Records that did not fit since the view started.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_all(records: &Receiver<Record>, dropped: &AtomicU64, written: &AtomicU64) {
    let mut told = 0;
    for record in records {
        write(&record);
        written.fetch_add(1, Ordering::Relaxed);
        let lost = dropped.load(Ordering::Relaxed);
        if lost > told {
            tracing::warn!(
                records = lost - told,
                "refusals came faster than they could be logged; some are missing here"
            );
            told = lost;
        }
    }
}

fn write(record: &Record) {
    match record {
        Record::Refused(Refused {
            op,
            requester: Requester { uid, gid, pid },
            subject,
            rule,
            why,
            errno,
        }) => {
            let (op, errno) = (op.raw_name(), errno.raw_os_error());
            tracing::warn!(
                op,
                name = subject.as_str(),
                rule = rule.as_str(),
                why,
                errno,
                uid,
                gid,
                pid,
                "refused"
            );
        }
        Record::Allowed {
            op,
            requester: Requester { uid, gid, pid },
            subject,
            rule,
        } => {
            let (op, name, rule) = (op.raw_name(), subject.as_str(), rule.as_str());
            tracing::info!(op, name, rule, uid, gid, pid, "allowed");
        }
        Record::Request {
            op,
            requester: Requester { uid, gid, pid },
            subject,
            verdict,
            refused,
            took,
        } => {
            let (op, micros) = (op.raw_name(), took.as_micros());
            let verdict = match (verdict, refused) {
                (Ok(()), _) => "done".to_owned(),
                (Err(errno), true) => format!("refused {errno}"),
                (Err(errno), false) => format!("failed {errno}"),
            };
            tracing::info!(
                op,
                name = subject.as_str(),
                verdict,
                micros,
                uid,
                gid,
                pid,
                "request"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_escapes_is_one_harmless_line() {
        assert_eq!(
            escape(b"/a\n\x1b[2J", Some(b"/\xff")),
            "/a\\n\\x1b[2J -> /\\xff"
        );
    }

    #[test]
    fn record_that_does_not_fit_is_counted_and_never_waited_for() {
        let (sender, receiver) = bounded(1);
        let audit = Audit {
            sender,
            written: Arc::default(),
            dropped: Arc::default(),
            verbosity: Verbosity::Refusals,
        };
        let requester = Requester {
            uid: 1,
            gid: 2,
            pid: 3,
        };
        for _ in 0..3 {
            audit.put(Record::Refused(Refused {
                op: Op::Unlink,
                requester,
                subject: String::new(),
                rule: "-".to_owned(),
                why: "test",
                errno: Errno::ACCESS,
            }));
        }
        assert_eq!(audit.dropped(), 2);
        assert_eq!(receiver.len(), 1);
    }
}
