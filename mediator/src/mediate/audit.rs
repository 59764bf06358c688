//! What is told of requests: refusals, and on demand every request.
//!
//! For the log, workers hand records to one writer through a bounded channel and never wait for it;
//! what does not fit is counted and the count is logged. Only with [`Verbosity::EveryRequest`], a
//! debugging aid, do they wait, so that the log is complete.
//!
//! Lines that are kept as a record go another way, [`super::kept`]: a client never has an answer
//! that is not in them yet.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;

use super::kept::Kept;
use super::record::{self, AuditEvent, AuditLine};
use crate::ids::FileKind;
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

/// Where refusals, and what a rule with `log = "all"` allowed, are told.
#[derive(Debug)]
pub enum AuditTo {
    /// In the log, for people.
    Log,
    /// As lines of JSON ([`AuditLine`]) to this descriptor, and not in the log.
    Lines(OwnedFd),
    /// Both.
    Both(OwnedFd),
}

impl AuditTo {
    /// The descriptor that lines go to.
    #[must_use]
    pub fn lines(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Log => None,
            Self::Lines(fd) | Self::Both(fd) => Some(fd.as_fd()),
        }
    }
}

/// One line of the log.
#[derive(Debug)]
pub(super) enum Record {
    Refused {
        judged: Judged,
        why: &'static str,
        errno: Errno,
    },
    /// The rules refuse it, but are only observed.
    Observed {
        judged: Judged,
        why: &'static str,
        errno: Errno,
    },
    /// A rule with `log = "all"` allowed it.
    Allowed(Judged),
    /// Told as done without being so.
    Pretended(Judged),
    /// A person at the stepping console allowed it in the place of the rules.
    ByHand(Judged),
    Request {
        op: Op,
        requester: Requester,
        subject: Names,
        verdict: Result<(), Errno>,
        refused: bool,
        took: Duration,
    },
    /// Nobody reads the lines that are to be kept any more.
    Unkept,
}

/// A decision with all that an admin needs to find the rule.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) op: Op,
    pub(super) requester: Requester,
    pub(super) names: Names,
    pub(super) kind: Option<FileKind>,
    /// `None` if no rule decided.
    pub(super) rule: Option<RuleRef>,
}

/// The names that a request is about, each escaped.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) first: String,
    /// Further names of the same file.
    pub(super) others: Vec<String>,
    /// A rename's or link's new name.
    pub(super) second: Option<String>,
}

/// Which rule decided.
#[derive(Debug)]
pub(super) struct RuleRef {
    pub(super) name: Option<String>,
    /// From 1.
    pub(super) number: u64,
    /// From 1.
    pub(super) line: Option<u64>,
}

impl Names {
    /// As the log shows them: the second behind an arrow.
    fn shown(&self) -> String {
        let mut line = self.first.clone();
        if let Some(second) = &self.second {
            // Writing to a String cannot fail.
            let _infallible = write!(line, " -> {second}");
        }
        line
    }
}

impl Judged {
    /// By its name, else its number; `-` for none.
    fn rule_word(&self) -> String {
        match &self.rule {
            None => "-".to_owned(),
            Some(RuleRef {
                name: Some(name), ..
            }) => name.clone(),
            Some(RuleRef { number, .. }) => format!("#{number}"),
        }
    }

    fn line(&self, event: AuditEvent) -> AuditLine {
        let Requester { uid, gid, pid } = self.requester;
        let rule = self.rule.as_ref();
        AuditLine {
            operation: Some(self.op),
            path: Some(record::shown_path(&self.names.first)),
            second_path: self.names.second.as_deref().map(record::shown_path),
            other_paths: record::shown_others(&self.names.others),
            kind: self.kind,
            uid: Some(uid),
            gid: Some(gid),
            pid: Some(pid),
            rule: rule
                .and_then(|rule| rule.name.as_ref())
                .map(|name| record::shown_words(name.as_bytes())),
            rule_number: rule.map(|rule| rule.number),
            rule_line: rule.and_then(|rule| rule.line),
            ..AuditLine::of(event)
        }
    }
}

impl Record {
    /// As a line of JSON; what only debugging asks for has none.
    fn line(&self) -> Option<AuditLine> {
        let refused = |judged: &Judged, why: &str, errno: &Errno, event| {
            let errno = errno.raw_os_error();
            Some(AuditLine {
                why: Some(record::shown_words(why.as_bytes())),
                errno: Some(record::symbol(errno).to_owned()),
                errno_number: Some(errno),
                ..judged.line(event)
            })
        };
        match self {
            Self::Refused { judged, why, errno } => {
                refused(judged, why, errno, AuditEvent::Refused)
            }
            Self::Observed { judged, why, errno } => {
                refused(judged, why, errno, AuditEvent::Observed)
            }
            Self::Allowed(judged) => Some(judged.line(AuditEvent::Allowed)),
            Self::Pretended(judged) => Some(judged.line(AuditEvent::Pretended)),
            Self::ByHand(judged) => Some(judged.line(AuditEvent::ByHand)),
            Self::Request { .. } | Self::Unkept => None,
        }
    }
}

/// A name as it may stand in a log: it may hold newlines and terminal escapes.
pub(super) fn escape(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

/// How many records there were.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// The workers' end.
#[derive(Debug)]
pub(super) struct Audit {
    /// What decisions are told to besides the log, if anything.
    kept: Option<Kept>,
    /// Whether the log tells of decisions.
    in_log: bool,
    sender: Sender<Record>,
    /// Of the log.
    tally: Arc<Tally>,
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
    pub(super) fn start(verbosity: Verbosity, to: AuditTo) -> io::Result<(Self, AuditWriter)> {
        let (sender, receiver) = bounded(QUEUE);
        let tally = Arc::<Tally>::default();
        let seen = Arc::clone(&tally);
        let (in_log, kept) = match to {
            AuditTo::Log => (true, None),
            AuditTo::Lines(fd) => (false, Some(Kept::new(fd)?)),
            AuditTo::Both(fd) => (true, Some(Kept::new(fd)?)),
        };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || tell_all(&receiver, &seen))?;
        let audit = Self {
            kept,
            in_log,
            sender,
            tally,
            verbosity,
        };
        Ok((audit, AuditWriter { thread }))
    }

    /// Whether each request is to be recorded.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::EveryRequest
    }

    /// Keeps a record, and hands it over to the log. Does not wait unless every request is asked
    /// for.
    pub(super) fn put(&self, record: Record) {
        if let (Some(kept), Some(line)) = (&self.kept, record.line())
            && kept.put(&line).is_err()
        {
            self.hand_over(Record::Unkept);
        }
        if self.in_log || matches!(record, Record::Request { .. }) {
            self.hand_over(record);
        }
    }

    fn hand_over(&self, record: Record) {
        let lost = match self.verbosity {
            Verbosity::EveryRequest => self.sender.send(record).is_err(),
            Verbosity::Refusals => match self.sender.try_send(record) {
                Ok(()) => false,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => true,
            },
        };
        if lost {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that were written since the view started: those that are kept, else the log's.
    pub(super) fn written(&self) -> u64 {
        self.counted().written.load(Ordering::Relaxed)
    }

    /// Records that did not fit since the view started, likewise.
    pub(super) fn dropped(&self) -> u64 {
        self.counted().dropped.load(Ordering::Relaxed)
    }

    fn counted(&self) -> &Tally {
        self.kept.as_ref().map_or(&self.tally, Kept::tally)
    }
}

fn tell_all(records: &Receiver<Record>, tally: &Tally) {
    let mut told = 0;
    for record in records {
        tell(&record);
        tally.written.fetch_add(1, Ordering::Relaxed);
        let lost = tally.dropped.load(Ordering::Relaxed);
        if lost > told {
            tracing::warn!(
                records = lost - told,
                "refusals came faster than they could be logged; some are missing here"
            );
            told = lost;
        }
    }
}

/// For people.
fn tell(record: &Record) {
    match record {
        Record::Refused { judged, why, errno } => {
            let Requester { uid, gid, pid } = judged.requester;
            let (op, errno) = (judged.op.raw_name(), errno.raw_os_error());
            let (name, rule) = (judged.names.shown(), judged.rule_word());
            tracing::warn!(op, name, rule, why, errno, uid, gid, pid, "refused");
        }
        Record::Observed { judged, why, errno } => {
            let Requester { uid, gid, pid } = judged.requester;
            let (op, errno) = (judged.op.raw_name(), errno.raw_os_error());
            let (name, rule) = (judged.names.shown(), judged.rule_word());
            tracing::warn!(op, name, rule, why, errno, uid, gid, pid, "would refuse");
        }
        Record::Allowed(judged) => tell_of(judged, "allowed"),
        Record::Pretended(judged) => tell_of(judged, "pretended"),
        Record::ByHand(judged) => tell_of(judged, "allowed by hand"),
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
            let name = subject.shown();
            tracing::info!(op, name, verdict, micros, uid, gid, pid, "request");
        }
        Record::Unkept => {
            tracing::error!("nobody keeps audit records any more: they are only counted");
        }
    }
}

fn tell_of(judged: &Judged, what: &str) {
    let Requester { uid, gid, pid } = judged.requester;
    let (op, name, rule) = (
        judged.op.raw_name(),
        judged.names.shown(),
        judged.rule_word(),
    );
    tracing::info!(op, name, rule, uid, gid, pid, "{what}");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn refused(name: &[u8]) -> Record {
        Record::Refused {
            judged: Judged {
                op: Op::Unlink,
                requester: Requester {
                    uid: 1,
                    gid: 2,
                    pid: 3,
                },
                names: Names {
                    first: escape(name),
                    ..Names::default()
                },
                kind: Some(FileKind::Regular),
                rule: Some(RuleRef {
                    name: None,
                    number: 2,
                    line: Some(9),
                }),
            },
            why: "test",
            errno: Errno::ACCESS,
        }
    }

    #[test]
    fn name_with_escapes_is_one_harmless_line() {
        let names = Names {
            first: escape(b"/a\n\x1b[2J"),
            others: Vec::new(),
            second: Some(escape(b"/\xff")),
        };
        assert_eq!(names.shown(), "/a\\n\\x1b[2J -> /\\xff");
    }

    #[test]
    fn record_that_does_not_fit_is_counted_and_never_waited_for() {
        let (sender, receiver) = bounded(1);
        let audit = Audit {
            kept: None,
            in_log: true,
            sender,
            tally: Arc::default(),
            verbosity: Verbosity::Refusals,
        };
        for _ in 0..3 {
            audit.put(refused(b"/x"));
        }
        assert_eq!(audit.dropped(), 2);
        assert_eq!(receiver.len(), 1);
    }

    #[test]
    fn record_is_kept_before_it_is_put_and_logged_only_if_asked() {
        let record_of = |to: fn(OwnedFd) -> AuditTo| {
            let (mut from, to_fd) = io::pipe().unwrap();
            let (audit, writer) = Audit::start(Verbosity::Refusals, to(to_fd.into())).unwrap();
            audit.put(refused(b"/a\n"));
            let mut bytes = [0; record::AUDIT_LINE_MAX];
            // No thread but this one has run for certain.
            let length = io::Read::read(&mut from, &mut bytes).unwrap();
            assert_eq!((audit.written(), audit.dropped()), (1, 0));
            let tally = Arc::clone(&audit.tally);
            drop(audit);
            writer.join();
            let line = bytes[..length].strip_suffix(b"\n").unwrap();
            let logged = tally.written.load(Ordering::Relaxed);
            (AuditLine::parse(line).unwrap(), logged)
        };
        let (line, logged) = record_of(AuditTo::Lines);
        assert_eq!(line.path.as_deref(), Some("/a\\n"));
        assert_eq!(
            (line.rule, line.rule_number, line.rule_line),
            (None, Some(2), Some(9))
        );
        assert_eq!(
            (line.errno.as_deref(), line.kind),
            (Some("EACCES"), Some(FileKind::Regular))
        );
        assert_eq!(logged, 0);
        assert_eq!(record_of(AuditTo::Both).1, 1);
    }

    proptest! {
        /// Whatever a guest calls its files and an administrator the rules, the line is one that its
        /// reader takes.
        #[test]
        fn record_of_any_names_is_a_line_that_can_be_read_back(
            first in vec(any::<u8>(), 0..5_000),
            second in option::of(vec(any::<u8>(), 0..5_000)),
            others in vec(vec(any::<u8>(), 0..2_000), 0..8),
            rule in option::of((option::of(".{0,300}"), any::<u32>(), option::of(any::<u64>()))),
            errno in 1..133,
        ) {
            let names = Names {
                first: escape(&first),
                second: second.as_deref().map(escape),
                others: others.iter().map(|name| escape(name)).collect(),
            };
            let rule = rule.map(|(name, number, line)| RuleRef {
                name,
                number: number.into(),
                line,
            });
            let requester = Requester { uid: 0, gid: u32::MAX, pid: 7 };
            let judged = Judged { op: Op::Rename, requester, names, kind: None, rule };
            let errno = Errno::from_raw_os_error(errno);
            let line = Record::Refused { judged, why: "test", errno }.line().unwrap();
            let bytes = line.bytes();
            prop_assert!(bytes.len() <= record::AUDIT_LINE_MAX, "{}", bytes.len());
            let read = AuditLine::parse(bytes.strip_suffix(b"\n").unwrap());
            prop_assert!(read.is_ok(), "{read:?}: {}", bytes.escape_ascii());
            let read = read.unwrap();
            prop_assert_eq!((read.rule, read.pid), (line.rule, Some(7)));
        }
    }
}
