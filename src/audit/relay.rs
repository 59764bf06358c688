//! The process that keeps one view's records.
//!
//! Like the log's relay it is uid 0 without any capability, and its seccomp list leaves it reading
//! one pipe and writing to what it holds: the sinks, and the log's pipe for its own troubles. What
//! it reads was written by a process that may be broken into. While a sink makes it wait, the
//! mediator goes on: its pipe fills, and the records that do not fit are counted there.

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime};

use nix::errno::Errno;
use virtfs_mediator_core::mediate::AuditLine;

use crate::audit::entry::Entry;
use crate::audit::journal;
use crate::audit::lines::{Allowance, Lines};
use crate::audit::sinks::{Kind, Sink, Sinks};
use crate::error::{Class, Error, Result};
use crate::launch::child::Child;
use crate::launch::{calls, seccomp, walls};
use crate::pipes::{await_byte, pipe};
use crate::sys::{self, Forked};

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// As much as a pipe may hold unless the host says otherwise (`fs.pipe-max-size`): some 2,500
/// records.
const PIPE_SIZE: usize = 1 << 20;
/// How long it may take to keep what is left at the end.
const LAST_WORDS_MS: u16 = 2000;
/// Its name in a list of processes.
const NAME: &std::ffi::CStr = c"virtfs-audit";

/// The process that keeps a view's records. It ends by itself when its mediator has ended, so that
/// it outlives a launcher that leaves its view to the keeper.
#[derive(Debug)]
pub(crate) struct AuditRelay(Child);

impl AuditRelay {
    /// Starts one for `view`, if there is a sink; returns the writing end for its mediator. `log`
    /// is the writing end of the log.
    ///
    /// # Errors
    ///
    /// Confinement: fork(2) or pipe2(2) failed, or one of its walls could not be built.
    pub(crate) fn start(
        sinks: &Sinks,
        view: &str,
        log: BorrowedFd<'_>,
    ) -> Result<Option<(Self, OwnedFd)>> {
        if sinks.all().is_empty() {
            return Ok(None);
        }
        let (from, to) = pipe()?;
        // The mediator never waits: a burst has to fit. The kernel may allow us less.
        let _as_it_is = rustix::pipe::fcntl_setpipe_size(&to, PIPE_SIZE);
        let (ready, stands) = pipe()?;
        let failed = |error| Error::step(Class::Confinement, "fork(audit relay)", error);
        match sys::clone_process(0).map_err(failed)? {
            Forked::Child => {
                // Its own copy would keep it waiting for ever.
                drop(to);
                let raised = confine(&from, sinks, &stands, log).and_then(|()| {
                    nix::unistd::write(&stands, b"r")
                        .map_err(|errno| Error::step(Class::Confinement, "write(pipe)", errno))
                });
                match raised {
                    Ok(_) => keep(&from, sinks, view),
                    Err(error) => tracing::error!(view, "the audit relay: {error}"),
                }
                sys::exit_now(0)
            }
            Forked::Parent(relay) => {
                drop(stands);
                let relay = Self(Child::hold(relay)?);
                await_byte(&ready).map_err(|why| {
                    let what =
                        format!("view {view}: the process that keeps its audit records {why}");
                    Error::new(Class::Confinement, what, "")
                })?;
                Ok(Some((relay, to)))
            }
        }
    }

    /// Waits until it has kept everything, once its mediator is gone; not for ever, should a sink
    /// not take it.
    pub(crate) fn finish(&self) {
        self.0.await_end(LAST_WORDS_MS);
        let _status = self.0.end();
    }
}

fn confine(from: &OwnedFd, sinks: &Sinks, stands: &OwnedFd, log: BorrowedFd<'_>) -> Result<()> {
    // Not the caller's standard error: whoever waits for its end need not wait for the view's.
    rustix::stdio::dup2_stderr(log)
        .map_err(|errno| Error::step(Class::Confinement, "dup2(log)", errno))?;
    let mut open = vec![from.as_raw_fd(), stands.as_raw_fd()];
    open.extend(sinks.all().iter().map(|sink| sink.fd.as_raw_fd()));
    sys::close_all_but(&open)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // The terminal's keys are for the client.
    nix::unistd::setsid().map_err(|errno| Error::step(Class::Confinement, "setsid", errno))?;
    rustix::thread::set_name(NAME)
        .map_err(|errno| Error::step(Class::Confinement, "prctl(PR_SET_NAME)", errno))?;
    sys::forget_environment();
    walls::limit_resources()?;
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    walls::silence(walls::Silence::AllButErrors)?;
    seccomp::confine(&calls::AUDIT, from, seccomp::Verdict::Kill)
}

fn keep(from: &OwnedFd, sinks: &Sinks, view: &str) {
    let mut keeper = Keeper::new(view, sinks.all(), Instant::now());
    let mut lines = Lines::default();
    let mut piece = vec![0; PIECE];
    loop {
        match nix::unistd::read(from, &mut piece) {
            Ok(0) => break,
            Ok(count) => {
                let now = Instant::now();
                let read = piece.get(..count).unwrap_or_default();
                lines.take(read, |line| keeper.keep(line.as_ref(), now));
                keeper.tell_of_dropped();
            }
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    keeper.end();
}

/// What is kept of what was read.
struct Keeper<'a> {
    view: &'a str,
    outputs: Vec<Output<'a>>,
    allowance: Allowance,
    /// Records beyond the allowance that no record tells of yet.
    dropped: u64,
    /// Whether the mediator was seen to write what is no record; told once.
    forged: bool,
}

impl<'a> Keeper<'a> {
    fn new(view: &'a str, sinks: &'a [Sink], now: Instant) -> Self {
        Self {
            view,
            outputs: sinks.iter().map(Output::new).collect(),
            allowance: Allowance::new(now),
            dropped: 0,
            forged: false,
        }
    }

    /// Takes a record; `None` is a line that is none.
    fn keep(&mut self, line: Option<&AuditLine>, now: Instant) {
        let Some(line) = line else {
            if !std::mem::replace(&mut self.forged, true) {
                tracing::error!(
                    view = self.view,
                    "the mediator writes audit records that are none: it may be broken into"
                );
            }
            self.dropped += 1;
            return;
        };
        if !self.allowance.takes(now) {
            self.dropped += 1;
            return;
        }
        self.tell_of_dropped();
        self.put(line);
    }

    /// In their place: before the first record that is kept again, or while it is quiet.
    fn tell_of_dropped(&mut self) {
        // Not with each piece of a flood: once for all that it costs.
        if self.dropped > 0 && self.allowance.takes(Instant::now()) {
            let dropped = std::mem::take(&mut self.dropped);
            self.put(&AuditLine::dropped(dropped));
        }
    }

    fn put(&mut self, line: &AuditLine) {
        let entry = Entry::new(self.view, line, SystemTime::now());
        for output in &mut self.outputs {
            output.put(&entry);
        }
    }

    fn end(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.put(&AuditLine::dropped(dropped));
        }
        for output in &self.outputs {
            if output.lost > 0 {
                let (view, sink) = (self.view, output.sink.name.as_str());
                tracing::error!(view, sink, records = output.lost, "audit records are lost");
            }
        }
    }
}

/// A sink and what became of it.
struct Output<'a> {
    sink: &'a Sink,
    /// Records that it did not take and that no record in it tells of yet.
    lost: u64,
    /// It holds the start of a line that did not fit.
    torn: bool,
}

impl<'a> Output<'a> {
    const fn new(sink: &'a Sink) -> Self {
        Self {
            sink,
            lost: 0,
            torn: false,
        }
    }

    fn put(&mut self, entry: &Entry<'_>) {
        let lost = self.lost;
        if lost > 0 {
            let missing = AuditLine::dropped(lost);
            let told = Entry::new(entry.view, &missing, SystemTime::now());
            if self.write(&told).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if let Err(errno) = self.write(entry) {
            self.lost += 1;
            // Once, and again only after it worked meanwhile.
            if lost == 0 {
                let (view, sink) = (entry.view, self.sink.name.as_str());
                tracing::error!(view, sink, %errno, "an audit record is lost");
            }
        }
    }

    /// One call a record: lines of several views do not mix in one file (write(2), `O_APPEND`), and
    /// a datagram is one record.
    fn write(&mut self, entry: &Entry<'_>) -> nix::Result<()> {
        let mut bytes = match self.sink.kind {
            Kind::File => entry.json(),
            Kind::Journal => journal::datagram(entry),
        };
        if self.torn {
            bytes.insert(0, b'\n');
        }
        let written = loop {
            match nix::unistd::write(self.sink.fd.as_fd(), &bytes) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        self.torn = self.sink.kind == Kind::File && written < bytes.len();
        if self.torn {
            Err(Errno::ENOSPC)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    const GOOD: &[u8] = br#"{"event":"refused","operation":"unlink","path":"/a","uid":1,"gid":2,"pid":3,"why":"no","errno":"EACCES","errno_number":13}
"#;

    fn file(path: &Path) -> Sink {
        Sink {
            name: "file".to_owned(),
            fd: fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .unwrap()
                .into(),
            kind: Kind::File,
        }
    }

    fn entries(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<std::result::Result<_, _>>().unwrap()
    }

    fn feed(keeper: &mut Keeper<'_>, bytes: &[u8], now: Instant) {
        Lines::default().take(bytes, |line| keeper.keep(line.as_ref(), now));
        keeper.tell_of_dropped();
    }

    #[test]
    fn record_gets_our_view_and_garbage_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let sinks = [file(&path)];
        let now = Instant::now();
        let mut keeper = Keeper::new("mine", &sinks, now);
        feed(&mut keeper, GOOD, now);
        let forged = GOOD.strip_prefix(b"{").unwrap();
        let forged = [&b"{\"view\":\"theirs\","[..], forged].concat();
        feed(&mut keeper, &forged, now);
        feed(&mut keeper, b"\x1b]0;x\x07\n", now);
        keeper.end();
        let found = entries(&path);
        let events: Vec<&str> = found
            .iter()
            .map(|one| one["event"].as_str().unwrap())
            .collect();
        assert_eq!(events, ["refused", "dropped", "dropped"]);
        assert!(found.iter().all(|one| one["view"] == "mine"), "{found:?}");
        assert_eq!(found[0]["path"], "/a");
        assert!(!fs::read_to_string(&path).unwrap().contains("theirs"));
    }

    #[test]
    fn flood_costs_the_allowance_and_what_is_missing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let sinks = [file(&path)];
        let now = Instant::now() + Duration::from_secs(3600);
        let mut keeper = Keeper::new("v", &sinks, now);
        let flood = usize::try_from(Allowance::BURST).unwrap() + 500;
        feed(&mut keeper, &GOOD.repeat(flood), now);
        keeper.end();
        let found = entries(&path);
        let missing: u64 = found.iter().filter_map(|one| one["records"].as_u64()).sum();
        let kept = found.iter().filter(|one| one["event"] == "refused").count();
        assert_eq!((kept, missing), (flood - 500, 500));
    }

    #[test]
    fn records_that_a_sink_did_not_take_are_told_in_it_once_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let sinks = [Sink {
            name: "journald".to_owned(),
            fd: journal::connect(&path).unwrap(),
            kind: Kind::Journal,
        }];
        let now = Instant::now();
        let mut keeper = Keeper::new("v", &sinks, now);
        // As one that is full: nobody reads, and nobody waits in this test.
        rustix::io::ioctl_fionbio(&sinks[0].fd, true).unwrap();
        let mut sent = 0_u64;
        while keeper.outputs[0].lost < 3 {
            feed(&mut keeper, GOOD, now);
            sent += 1;
        }
        let mut buffer = [0; 8192];
        listening.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| listening.recv(&mut buffer).ok()).count();
        assert_eq!(u64::try_from(received).unwrap(), sent - 3);
        feed(&mut keeper, GOOD, now);
        let length = listening.recv(&mut buffer).unwrap();
        let told = journal::tests::fields(&buffer[..length]);
        assert!(
            told.contains(&("VIRTFS_RECORDS".to_owned(), "3".to_owned())),
            "{told:?}"
        );
        let length = listening.recv(&mut buffer).unwrap();
        let told = journal::tests::fields(&buffer[..length]);
        assert!(
            told.contains(&("VIRTFS_EVENT".to_owned(), "refused".to_owned())),
            "{told:?}"
        );
    }

    #[test]
    fn line_that_was_torn_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "{\"torn").unwrap();
        let sinks = [file(&path)];
        let now = Instant::now();
        let mut keeper = Keeper::new("v", &sinks, now);
        (keeper.outputs[0].torn, keeper.outputs[0].lost) = (true, 1);
        feed(&mut keeper, GOOD, now);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "{\"torn");
        assert!(lines[1].contains("\"records\":1"), "{text}");
        assert!(lines[2].contains("\"refused\""), "{text}");
        assert_eq!(lines.len(), 3);
    }
}
