//! What all suites left in the place, byte by byte and stat by stat, against the export itself.

use crate::error::{Result, step};
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, last_words};
use crate::tree::{self, Walked};

const SUITE: &str = "tree";

pub(crate) fn run(seat: &Seat<'_>, _extent: Extent) -> Result<Vec<Case>> {
    // By a plain user in a client's view as well: it is as root there.
    let output = seat
        .command(&seat.walker().to_string_lossy(), 600)
        .arg(tree::WORD)
        .arg(seat.shown())
        .output()
        .map_err(step("walking"))?;
    if !output.status.success() {
        let outcome = Outcome::Failed(last_words(&output));
        return Ok(vec![Case::new(SUITE, "walk", outcome)]);
    }
    let shown: Walked = serde_json::from_slice(&output.stdout).map_err(step("reading a walk"))?;
    let own = tree::walk(seat.export())?;
    if own.len() < 2 {
        let why = Outcome::Skipped("the suites left nothing to compare".to_owned());
        return Ok(vec![Case::new(SUITE, "compare", why)]);
    }
    let different = tree::differences(&shown, &own);
    let outcome = Outcome::of(different.is_empty(), || {
        let few: Vec<_> = different.iter().take(5).cloned().collect();
        format!("{} differ: {}", different.len(), few.join("; "))
    });
    Ok(vec![
        Case::new(SUITE, "walk", Outcome::Passed),
        Case::new(SUITE, "compare", outcome),
    ])
}
