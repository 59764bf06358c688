//! Connections that go on: a trace, and a stepping console.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::lines::{Lines, send};
use super::protocol::{Answer, By, Line, Names, Order, Wanted};
use crate::mediate::{Attached, Event, Mediator, Selector, Stop, Told};

/// How long whoever watches may take to read a line.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether they are still there.
const PULSE: Duration = Duration::from_millis(200);
/// Seconds that a request may be held at most, whatever the console says.
const LIMIT_MAX: u64 = 600;

/// Tells of decisions until the caller goes or the view ends.
pub(super) fn watch(
    connection: &UnixStream,
    mediator: &Mediator,
    select: &Selector,
) -> io::Result<()> {
    let selection = match select.compile(&Names::default()) {
        Ok(selection) => selection,
        Err(mistakes) => return send(connection, &Answer::Error(mistakes.to_string()), PATIENCE),
    };
    let watch = mediator.watch(selection);
    let epoch = mediator.epoch();
    send(connection, &Answer::Begun { epoch }, PATIENCE)?;
    let mut told = 0;
    let mut say = |event: Option<Event>| {
        let dropped = watch.dropped();
        if dropped > told {
            send(connection, &Line::Dropped(dropped - told), PATIENCE)?;
            told = dropped;
        }
        match event {
            Some(event) => send(connection, &Line::Event(Box::new(event)), PATIENCE),
            None => Ok(()),
        }
    };
    let mut looked = Instant::now();
    let mut there = is_there(connection);
    while there {
        match watch.events.recv_timeout(PULSE) {
            Ok(event) => say(Some(event))?,
            Err(RecvTimeoutError::Timeout) => say(None)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if looked.elapsed() >= PULSE {
            looked = Instant::now();
            there = is_there(connection);
        }
    }
    // Whoever says no more still hears what was decided before.
    watch
        .events
        .try_iter()
        .take(watch.events.len())
        .try_for_each(|event| say(Some(event)))
}

/// Whether the other end still may say something.
fn is_there(connection: &UnixStream) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    match rustix::net::recv(connection, &mut [0; 1], flags) {
        Ok((count, _)) => count > 0,
        Err(errno) => matches!(errno, Errno::AGAIN | Errno::INTR),
    }
}

/// Serves a stepping console until it goes. Whatever ends it, what it held is the policy's again.
pub(super) fn step(
    lines: &mut Lines,
    mediator: &Mediator,
    limit_seconds: u64,
    stop: Stop,
) -> io::Result<()> {
    let gate = mediator.gate();
    let limit = Duration::from_secs(limit_seconds.clamp(1, LIMIT_MAX));
    let Some(Attached { console, told }) = gate.attach(limit, stop) else {
        let why = "another stepping console is attached to this view".to_owned();
        return send(lines.connection(), &Answer::Error(why), PATIENCE);
    };
    let result = attended(lines, mediator, console, told);
    gate.detach(console);
    result
}

fn attended(
    lines: &mut Lines,
    mediator: &Mediator,
    console: u64,
    told: Receiver<Told>,
) -> io::Result<()> {
    let to = lines.connection().try_clone()?;
    let writing = Mutex::new(());
    let say = |line: &Line| {
        let _one = writing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        send(&to, line, PATIENCE)
    };
    let epoch = mediator.epoch();
    send(&to, &Answer::Begun { epoch }, PATIENCE)?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn_scoped(scope, || {
                for told in told {
                    if say(&Line::Told(told)).is_err() {
                        break;
                    }
                }
                // Wakes whoever reads its orders: it does not listen, or was detached.
                let _gone = to.shutdown(Shutdown::Both);
            })?;
        let result = obey(lines, mediator, console, &say);
        // Ends the other thread.
        mediator.gate().detach(console);
        result
    })
}

fn obey(
    lines: &mut Lines,
    mediator: &Mediator,
    console: u64,
    say: &dyn Fn(&Line) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(line) = lines.next(None)? {
        let answer = match serde_json::from_slice::<Order>(&line) {
            Err(error) => Line::NotDone {
                order: 0,
                why: format!("not an order: {error}"),
            },
            Ok(Order { number, order }) => match carry_out(mediator, console, order) {
                Ok(()) => Line::Done(number),
                Err(why) => Line::NotDone { order: number, why },
            },
        };
        say(&answer)?;
    }
    Ok(())
}

fn carry_out(mediator: &Mediator, console: u64, order: Wanted) -> Result<(), String> {
    let gate = mediator.gate();
    match order {
        Wanted::Break { breakpoint, select } => {
            let selection = select.compile(&Names::default());
            let selection = selection.map_err(|mistakes| mistakes.to_string())?;
            gate.set_breakpoint(console, breakpoint, Some(selection));
        }
        Wanted::Delete { breakpoint } => gate.set_breakpoint(console, breakpoint, None),
        Wanted::Stop(stop) => gate.set_stop(console, stop),
        Wanted::Answer { id, by } => {
            let verdict = match by {
                By::Policy => None,
                By::Allow => Some(Ok(())),
                By::Refuse(errno) => Some(Err(refusal(errno)?)),
            };
            if !gate.answer(id, verdict) {
                return Err(format!("no request {id} is held (any more)"));
            }
        }
    }
    Ok(())
}

/// An errno that may pass for a refusal.
fn refusal(errno: i32) -> Result<Errno, String> {
    match errno {
        libc::EIO | libc::ENOSYS | libc::ENOTCONN => {
            Err("EIO, ENOSYS and ENOTCONN mean faults, and the kernel remembers some".to_owned())
        }
        1..=133 => Ok(Errno::from_raw_os_error(errno)),
        _ => Err(format!("{errno} is no errno")),
    }
}
