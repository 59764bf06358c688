//! From the start of `run` to the first answer, and what happens when nothing does.

use std::thread;
use std::time::{Duration, Instant};

use super::status::Process;
use super::{Round, Section, seat, task};
use crate::contender::{Contender, View};
use crate::error::Result;
use crate::seat::Seat;
use crate::task::Work;

/// How often it is started.
const STARTS: u32 = 5;

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let contender = Contender::View(view.clone());
    let of = contender.to_string();
    for _ in 0..STARTS {
        // The same without a view: the client's own start, and one question.
        for (contender, title) in [
            (&Contender::Native, "the client without a view"),
            (&contender, "start to the client's first answer"),
        ] {
            let start = Instant::now();
            let mut seat = Seat::take(contender, round.place)?;
            seat.perform(&task(&seat, ".", Work::Stat { names: 0 }, 1, 0))?;
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            seat.leave()?;
            round
                .figures
                .add(Section::Start, title, &of, (milliseconds, "ms"));
        }
    }
    idle(view, round, &of)
}

/// Context switches of all the view's processes but the client.
fn idle(view: &View, round: &mut Round<'_>, of: &str) -> Result<()> {
    let mut seat = seat(view, round.place, &[])?;
    seat.perform(&task(&seat, "few", Work::List, 1, 0))?;
    // What the start and the listing left to be done is done, what was remembered for a second too.
    thread::sleep(Duration::from_millis(round.extent.idle_ms.min(2000)));
    let worker = round.place.worker();
    let family = Process::family(seat.child(), |executable| *executable == worker)?;
    let switches = || -> Result<f64> { family.iter().map(|process| process.switches()).sum() };
    let before = switches()?;
    thread::sleep(Duration::from_millis(round.extent.idle_ms));
    let woken = switches()? - before;
    seat.leave()?;
    let title = format!(
        "context switches of {} idle processes in {} s",
        family.len(),
        Duration::from_millis(round.extent.idle_ms).as_secs_f64()
    );
    round.figures.add(Section::Start, &title, of, (woken, ""));
    Ok(())
}
