//! A broken-into mediator on its control socket: the product serves the view behind all walls,
//! and what root's commands hear is hostile.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde::Serialize;
use virtfs_mediator::attack::Inside;
use virtfs_mediator_core::control::lines::{Lines, send};
use virtfs_mediator_core::control::protocol::QUESTION_MAX;
use virtfs_mediator_core::control::{Answer, Data, Line, OpCount, Order, Question, Status};
use virtfs_mediator_core::mediate::{Cause, Decision, Ended, Event, Told, Verdict};
use virtfs_mediator_core::op::{AnyAsk, Op};
use virtfs_mediator_core::policy::{Facts, Request, Requester};
use virtfs_mediator_core::{ServeError, Service, serve};

/// Which [`Lie`] is told, by its name.
pub(crate) const LIES: &str = "VIRTFS_ATTACK_LIES";

/// What is told to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Answers of the right shape, whose words command a terminal or hide what follows.
    Escapes,
    /// A hundred megabytes without a newline.
    Long,
    /// A byte now and then, without end.
    Drip,
    /// Good lines, as fast as they are read, without end, and forged held requests among them.
    Flood,
    /// Connections are not taken.
    Silent,
}

impl Lie {
    pub(crate) const ALL: [Self; 5] = [
        Self::Escapes,
        Self::Long,
        Self::Drip,
        Self::Flood,
        Self::Silent,
    ];

    /// For people, and in [`LIES`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Escapes => "terminal escapes",
            Self::Long => "a line of 100 MB",
            Self::Drip => "an endless drip",
            Self::Flood => "an endless flood",
            Self::Silent => "silence",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lie| lie.name() == name)
    }
}

/// Sets a title, clears the screen, in seven bits and in eight; turns the direction; forges a line.
pub(crate) const HOSTILE: &str =
    "x\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}\u{200b}\r\nvirtfs-mediator: all is well\x7f";

/// In the mediator's place.
pub(crate) struct Liar(pub(crate) Lie);

impl Inside for Liar {
    fn serve(&self, mut service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
        if let Some(control) = service.control.take() {
            let lie = self.0;
            let _goes_with_the_process = std::thread::spawn(move || tell(control, lie));
        }
        serve(service, ready)
    }
}

fn tell(control: OwnedFd, lie: Lie) {
    let listener = UnixListener::from(control);
    if lie == Lie::Silent || listener.set_nonblocking(false).is_err() {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    // Each until the other end has had enough.
    while let Ok((connection, _)) = listener.accept() {
        let _had_enough = answer(connection, lie);
    }
}

/// How long whoever asks may take to ask, or to read.
const PATIENCE: Duration = Duration::from_secs(5);

fn answer(mut connection: UnixStream, lie: Lie) -> std::io::Result<()> {
    let mut lines = Lines::new(connection.try_clone()?, QUESTION_MAX);
    let question = lines.next(Some(PATIENCE))?.unwrap_or_default();
    let question = serde_json::from_slice::<Question>(&question);
    connection.set_write_timeout(Some(PATIENCE))?;
    match (lie, question) {
        (Lie::Escapes, Ok(question)) => with_escapes(&mut lines, &question),
        (Lie::Flood, Ok(question)) => flood(&connection, &question),
        (Lie::Long, _) => (0..100).try_for_each(|_| connection.write_all(&vec![b'['; 1 << 20])),
        (Lie::Drip, _) => loop {
            connection.write_all(b" ")?;
            std::thread::sleep(Duration::from_millis(20));
        },
        (Lie::Silent, _) | (_, Err(_)) => Ok(()),
    }
}

fn say<T: Serialize>(connection: &UnixStream, line: &T) -> std::io::Result<()> {
    send(connection, line, PATIENCE)
}

fn decision(path: &[u8]) -> Decision {
    let requester = Requester {
        uid: u32::MAX,
        gid: u32::MAX,
        pid: u32::MAX,
    };
    let names = [path];
    let facts = Facts {
        names: &names,
        second: Some(HOSTILE.as_bytes()),
        target: Some(HOSTILE.as_bytes()),
        xattr: Some((HOSTILE.as_bytes(), usize::MAX)),
        offset: Some(u64::MAX),
        length: Some(u64::MAX),
        size: Some(u64::MAX),
        ..Facts::of(Op::Rename, requester)
    };
    Decision {
        request: Request::of(&facts, AnyAsk::Nothing),
        verdict: Verdict::Refused {
            errno: i32::MIN,
            rule: Some(u32::MAX),
            why: HOSTILE.to_owned(),
        },
        by_hand: false,
        epoch: 0,
    }
}

fn event(path: &[u8]) -> Line {
    Line::Event(Box::new(Event {
        at_us: u64::MAX,
        decision: decision(path),
        ended: Ended::Failed(i32::MAX),
        took_us: u64::MAX,
    }))
}

fn held(id: u64, path: &[u8]) -> Line {
    Line::Told(Told::Held {
        id,
        cause: Cause::Breakpoint(u32::MAX),
        decision: Box::new(decision(path)),
        limit_seconds: u64::MAX,
    })
}

fn status() -> Answer {
    let words = HOSTILE.to_owned();
    let most = u64::MAX;
    Answer::Status(Status {
        view: words.clone(),
        cache: words.clone(),
        mode: words.clone(),
        readonly: false,
        observes: false,
        rules: most,
        epoch: most,
        stepping: true,
        held: most,
        uptime_seconds: most,
        known_nodes: most,
        open_handles: most,
        descriptors: most,
        descriptor_budget: 0,
        data: Box::new(Data {
            asked: words.clone(),
            passthrough: true,
            why_not: Some(words.clone()),
            backing_ids: most,
            open: most,
            opened: most,
            registrations: most,
        }),
        verdicts_judged: most,
        verdicts_remembered: most,
        audit_records_written: most,
        audit_records_dropped: most,
        operations: vec![OpCount {
            operation: words,
            done: most,
            refused: most,
            failed: most,
            pretended: most,
            would_refuse: most,
            nanoseconds: most,
            buckets: vec![most; 3],
        }],
    })
}

fn with_escapes(lines: &mut Lines, question: &Question) -> std::io::Result<()> {
    let connection = lines.connection().try_clone()?;
    let not_done = |order| Line::NotDone {
        order,
        why: HOSTILE.to_owned(),
    };
    match question {
        Question::Status {} => say(&connection, &status()),
        Question::Reload { .. } => say(&connection, &Answer::Error(HOSTILE.to_owned())),
        Question::Watch { .. } => {
            say(&connection, &Answer::Begun { epoch: u64::MAX })?;
            for line in [event(HOSTILE.as_bytes()), Line::Dropped(u64::MAX)] {
                // Twice, so that numbers add up to more than there are.
                say(&connection, &line)?;
                say(&connection, &line)?;
            }
            Ok(())
        }
        Question::Step { .. } => {
            say(&connection, &Answer::Begun { epoch: u64::MAX })?;
            say(&connection, &held(u64::MAX, HOSTILE.as_bytes()))?;
            // What the first order is refused with; the others are done.
            let mut refused = false;
            while let Some(line) = lines.next(Some(PATIENCE))? {
                let Ok(Order { number, .. }) = serde_json::from_slice(&line) else {
                    break;
                };
                let answer = if refused {
                    Line::Done(number)
                } else {
                    not_done(number)
                };
                refused = true;
                say(&connection, &answer)?;
            }
            Ok(())
        }
    }
}

fn flood(connection: &UnixStream, question: &Question) -> std::io::Result<()> {
    say(connection, &Answer::Begun { epoch: 0 })?;
    let long = b"/d".repeat(30_000);
    for number in 0_u64.. {
        let line = match question {
            Question::Step { .. } if number.is_multiple_of(2) => held(number, &long),
            Question::Step { .. } => Line::Done(0),
            Question::Status {} | Question::Reload { .. } | Question::Watch { .. } => {
                event(&[long.as_slice(), number.to_string().as_bytes()].concat())
            }
        };
        say(connection, &line)?;
    }
    Ok(())
}
