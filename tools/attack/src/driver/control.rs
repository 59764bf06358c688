//! Root's side of a view's control socket, without root's commands: what they say, said at the
//! moment that a case wants.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use virtfs_mediator_core::control::lines::{Lines, send};
use virtfs_mediator_core::control::protocol::ANSWER_MAX;
use virtfs_mediator_core::control::{Answer, Line, Names, Order, Question, Status, Wanted};
use virtfs_mediator_core::mediate::{Selector, Stop, Told};

use super::OrTell as _;
use super::start::{LIMIT, View};

fn connect(view: &View) -> Result<Lines, String> {
    let path = Path::new("/run/virtfs-mediator")
        .join(&view.name)
        .join("control");
    let stream = UnixStream::connect(path).or_tell("the control socket")?;
    Ok(Lines::new(stream, ANSWER_MAX))
}

fn ask(lines: &mut Lines, question: &Question) -> Result<Answer, String> {
    send(lines.connection(), question, LIMIT).or_tell("a question")?;
    let line = lines.next(Some(LIMIT)).or_tell("an answer")?;
    serde_json::from_slice(&line.ok_or("no answer")?).or_tell("an answer")
}

fn is_too_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;

    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// How a view is doing.
pub(crate) fn status(view: &View) -> Result<Status, String> {
    match ask(&mut connect(view)?, &Question::Status {})? {
        Answer::Status(status) => Ok(status),
        other @ (Answer::Reloaded { .. } | Answer::Begun { .. } | Answer::Error(_)) => {
            Err(format!("no status: {other:?}"))
        }
    }
}

/// Puts a policy in force, as `virtfs-mediator reload` does.
pub(crate) fn reload(view: &View, policy: &str) -> Result<(), String> {
    let question = Question::Reload {
        policy: policy.to_owned(),
        names: Names::default(),
        readonly: false,
        dry_run: false,
    };
    match ask(&mut connect(view)?, &question)? {
        Answer::Reloaded { .. } => Ok(()),
        other @ (Answer::Status(_) | Answer::Begun { .. } | Answer::Error(_)) => {
            Err(format!("not reloaded: {other:?}"))
        }
    }
}

/// A stepping console that answers for nothing by itself.
pub(crate) struct Console(Lines);

impl Console {
    /// Attaches one that stops at `rule`, in the words of a policy's rule.
    pub(crate) fn attach(view: &View, limit: Duration, rule: &str) -> Result<Self, String> {
        let mut lines = connect(view)?;
        let question = Question::Step {
            limit_seconds: limit.as_secs(),
            stop: Stop::Nowhere,
        };
        match ask(&mut lines, &question)? {
            Answer::Begun { .. } => {}
            other @ (Answer::Status(_) | Answer::Reloaded { .. } | Answer::Error(_)) => {
                return Err(format!("not attached: {other:?}"));
            }
        }
        let mut console = Self(lines);
        let order = Order {
            number: 1,
            order: Wanted::Break {
                breakpoint: 1,
                select: Selector {
                    rule: Some(rule.to_owned()),
                    ..Selector::default()
                },
            },
        };
        send(console.0.connection(), &order, LIMIT).or_tell("an order")?;
        match console.line(LIMIT)? {
            Some(Line::Done(1)) => Ok(console),
            other => Err(format!("no breakpoint: {other:?}")),
        }
    }

    /// The next line; `None` if there is none in that time.
    fn line(&mut self, patience: Duration) -> Result<Option<Line>, String> {
        match self.0.next(Some(patience)) {
            Ok(Some(line)) => serde_json::from_slice(&line).map(Some).or_tell("a line"),
            Ok(None) => Err("the console was detached".to_owned()),
            Err(error) if is_too_late(&error) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Goes, for processes that were forked with it as well: they have its socket.
    pub(crate) fn hang_up(self) -> Result<(), String> {
        rustix::net::shutdown(self.0.connection(), rustix::net::Shutdown::Both).or_tell("shutdown")
    }

    /// Waits until the mediator tells that a request is held.
    pub(crate) fn wait_for_held(&mut self) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(Line::Told(Told::Held { .. })) = self.line(Duration::from_millis(100))? {
                return Ok(());
            }
        }
        Err(format!("nothing was held in {LIMIT:?}"))
    }
}
