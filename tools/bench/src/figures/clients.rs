//! Several clients at once.

use super::{Round, Section, microseconds, seat, task, without_cache};
use crate::contender::{Contender, View};
use crate::error::Result;
use crate::task::Work;

/// How many threads ask.
const CLIENTS: [usize; 4] = [1, 2, 4, 8];

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let view = without_cache(view);
    let of = Contender::View(view.clone()).to_string();
    let mut seat = seat(&view, round.place, &[])?;
    let (few, floor) = (round.extent.few, round.extent.floor_ms);
    seat.perform(&task(&seat, "few", Work::Stat { names: few }, 1, 0))?;
    for clients in CLIENTS {
        round.interrupt.check()?;
        let works = [
            ("stat", Work::Stat { names: few }),
            ("open+read+close", Work::Open { names: few }),
        ];
        for (what, work) in works {
            let samples = seat.perform(&task(&seat, "few", work, clients, floor))?;
            let title = format!("{what}, {clients} at once");
            if let Some(sample) = samples.last() {
                let value = (microseconds(sample), "us");
                round.figures.add(Section::Clients, &title, &of, value);
            }
        }
    }
    seat.leave()
}
