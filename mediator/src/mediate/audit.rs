//! What leaves the hot path for the log: refusals, and on demand every request.
//!
//! Workers hand records to one writer through a bounded channel and never wait for it; what does
//! not fit is counted and the count is logged. Only with [`Verbosity::EveryRequest`], a debugging
//! aid, do they wait, so that the log is complete.
//!
//! The writer may wait for whoever reads: it serves nobody.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;

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
    /// A rule with `log = "all"` allowed it.
    Allowed(Judged),
    Request {
        op: Op,
        requester: Requester,
        subject: Names,
        verdict: Result<(), Errno>,
        refused: bool,
        took: Duration,
    },
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
        match self {
            Self::Refused { judged, why, errno } => {
                let errno = errno.raw_os_error();
                Some(AuditLine {
                    why: Some(record::shown_words(why.as_bytes())),
                    errno: Some(record::symbol(errno).to_owned()),
                    errno_number: Some(errno),
                    ..judged.line(AuditEvent::Refused)
                })
            }
            Self::Allowed(judged) => Some(judged.line(AuditEvent::Allowed)),
            Self::Request { .. } => None,
        }
    }
}

/// A name as it may stand in a log: it may hold newlines and terminal escapes.
pub(super) fn escape(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

#[derive(Debug, Default)]
struct Tally {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Tally {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The workers' end.
#[derive(Debug)]
pub(super) struct Audit {
    sender: Sender<Record>,
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
        let writer = Writer::new(to, Arc::clone(&tally));
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.write_all(&receiver))?;
        let audit = Self {
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
            self.tally.drop_one();
        }
    }

    /// Records that were written since the view started.
    pub(super) fn written(&self) -> u64 {
        self.tally.written.load(Ordering::Relaxed)
    }

    /// Records that did not fit since the view started.
    pub(super) fn dropped(&self) -> u64 {
        self.tally.dropped.load(Ordering::Relaxed)
    }
}

/// The writer's end.
struct Writer {
    in_log: bool,
    /// Gone once nobody reads.
    lines: Option<File>,
    tally: Arc<Tally>,
    /// How many of the dropped records have been told of.
    told: u64,
}

impl Writer {
    fn new(to: AuditTo, tally: Arc<Tally>) -> Self {
        let (in_log, lines) = match to {
            AuditTo::Log => (true, None),
            AuditTo::Lines(fd) => (false, Some(fd.into())),
            AuditTo::Both(fd) => (true, Some(fd.into())),
        };
        Self {
            in_log,
            lines,
            tally,
            told: 0,
        }
    }

    fn write_all(mut self, records: &Receiver<Record>) {
        let keeps_lines = self.lines.is_some();
        for record in records {
            if self.in_log || matches!(record, Record::Request { .. }) {
                tell(&record);
            }
            match record.line() {
                // It has lost its reader.
                Some(_) if keeps_lines && self.lines.is_none() => self.lose(),
                Some(line) => self.keep(&line),
                None => {}
            }
            self.tell_of_dropped();
        }
        self.tell_of_dropped();
    }

    fn keep(&mut self, line: &AuditLine) {
        if self.write(line) {
            self.tally.written.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lose();
        }
    }

    /// Told once, by [`Writer::write`]: not as a record that came too fast.
    fn lose(&mut self) {
        self.tally.drop_one();
        self.told += 1;
    }

    fn tell_of_dropped(&mut self) {
        let lost = self.tally.dropped.load(Ordering::Relaxed) - self.told;
        if lost == 0 {
            return;
        }
        self.told += lost;
        if self.in_log {
            tracing::warn!(
                records = lost,
                "refusals came faster than they could be logged; some are missing here"
            );
        }
        self.write(&AuditLine::dropped(lost));
    }

    /// Tells whether all who are to have it have it.
    fn write(&mut self, line: &AuditLine) -> bool {
        let Some(lines) = &mut self.lines else {
            return true;
        };
        let written = serde_json::to_vec(line)
            .map_err(io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                lines.write_all(&text)
            });
        let Err(error) = written else {
            return true;
        };
        self.lines = None;
        tracing::error!(%error, "nobody keeps audit records any more: they are only counted");
        false
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
        Record::Allowed(judged) => {
            let Requester { uid, gid, pid } = judged.requester;
            let (name, rule) = (judged.names.shown(), judged.rule_word());
            tracing::info!(
                op = judged.op.raw_name(),
                name,
                rule,
                uid,
                gid,
                pid,
                "allowed"
            );
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
            let name = subject.shown();
            tracing::info!(op, name, verdict, micros, uid, gid, pid, "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

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
    fn records_are_lines_that_can_be_read_back() {
        let (from, to) = io::pipe().unwrap();
        let (audit, writer) = Audit::start(Verbosity::Refusals, AuditTo::Lines(to.into())).unwrap();
        audit.put(refused(b"/a\n"));
        audit.put(refused(b"/b"));
        let mut lines = BufReader::new(from).split(b'\n').map(Result::unwrap);
        let first = AuditLine::parse(&lines.next().unwrap()).unwrap();
        assert_eq!(first.path.as_deref(), Some("/a\\n"));
        assert_eq!((first.rule, first.rule_number), (None, Some(2)));
        assert_eq!(
            (first.rule_line, first.errno.as_deref()),
            (Some(9), Some("EACCES"))
        );
        let second = AuditLine::parse(&lines.next().unwrap()).unwrap();
        assert_eq!(second.path.as_deref(), Some("/b"));
        assert_eq!(second.kind, Some(FileKind::Regular));
        let tally = Arc::clone(&audit.tally);
        drop(audit);
        writer.join();
        assert_eq!(lines.next(), None);
        assert_eq!(tally.written.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn reader_that_does_not_read_costs_records_and_their_number_is_told() {
        const MANY: u64 = 10_000;
        let (from, to) = io::pipe().unwrap();
        let (audit, writer) = Audit::start(Verbosity::Refusals, AuditTo::Lines(to.into())).unwrap();
        // More than pipe and queue hold together; none of these waits.
        for _ in 0..MANY {
            audit.put(refused(&[b'x'; 200]));
        }
        assert!(audit.dropped() > 0);
        let tally = Arc::clone(&audit.tally);
        drop(audit);
        let lines = BufReader::new(from).split(b'\n').map(Result::unwrap);
        let read: Vec<AuditLine> = lines.map(|line| AuditLine::parse(&line).unwrap()).collect();
        writer.join();
        let missing: u64 = read.iter().filter_map(|line| line.records).sum();
        let refusals = read
            .iter()
            .filter(|line| line.event == AuditEvent::Refused)
            .count();
        assert_eq!(missing + u64::try_from(refusals).unwrap(), MANY);
        assert_eq!(missing, tally.dropped.load(Ordering::Relaxed));
    }

    #[test]
    fn reader_that_is_gone_costs_every_record_and_stops_nothing() {
        let (from, to) = io::pipe().unwrap();
        drop(from);
        let (audit, writer) = Audit::start(Verbosity::Refusals, AuditTo::Lines(to.into())).unwrap();
        for _ in 0..3 {
            audit.put(refused(b"/x"));
        }
        let tally = Arc::clone(&audit.tally);
        drop(audit);
        writer.join();
        assert_eq!(tally.written.load(Ordering::Relaxed), 0);
        assert_eq!(tally.dropped.load(Ordering::Relaxed), 3);
    }
}
