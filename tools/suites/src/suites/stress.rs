//! `stress-ng --class filesystem --verify`, a stressor a case, two at a time: how many CPUs a small
//! host has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result, step};
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, last_words};

const SUITE: &str = "stress-ng";

/// What it says of a stressor that cannot be run here, or not without `--pathological`.
const SKIPPED: [&str; 3] = ["skipping stress", "will be skipped", "disabled '"];

pub(crate) fn run(seat: &Seat<'_>, extent: Extent) -> Result<Vec<Case>> {
    let stressors = stressors(seat)?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let seconds = match extent {
        Extent::Short => "1s",
        Extent::Full => "3s",
    };
    let work = || {
        while let Some(stressor) = stressors.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = one(seat, stressor, seconds);
            found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((stressor, result));
        }
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        work();
        drop(other.join());
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(stressor, _)| *stressor);
    found
        .into_iter()
        .map(|(stressor, result)| Ok(Case::new(SUITE, stressor, result?)))
        .collect()
}

/// The class as this version has it: `class 'filesystem' stressors: a b c`.
fn stressors(seat: &Seat<'_>) -> Result<Vec<String>> {
    let output = seat
        .command("stress-ng", 20)
        .args(["--class", "filesystem?"])
        .output()
        .map_err(step("running stress-ng"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let list = text.split_once("stressors:").map(|(_, list)| list);
    let names: Vec<String> = list
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(Error::Other {
            who: "stress-ng --class filesystem?".to_owned(),
            what: last_words(&output),
        });
    }
    Ok(names)
}

fn one(seat: &Seat<'_>, stressor: &str, seconds: &str) -> Result<Outcome> {
    // Not below 60: some clean up for long behind their time.
    let output = seat
        .command("stress-ng", 120)
        .args([&format!("--{stressor}"), "1", "--timeout", seconds])
        .args(["--verify", "--temp-path"])
        .arg(seat.shown())
        .output()
        .map_err(step("running stress-ng"))?;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let skipped = said
        .lines()
        .find(|line| SKIPPED.iter().any(|word| line.contains(word)));
    Ok(match skipped {
        Some(why) => Outcome::Skipped(without_pid(why)),
        _ => Outcome::of(output.status.success(), || {
            let failures: Vec<_> = said.lines().filter(|line| line.contains("fail:")).collect();
            match failures.first() {
                Some(first) => without_pid(first),
                None => last_words(&output),
            }
        }),
    })
}

/// `stress-ng: info:  [123] text` without what differs each time.
fn without_pid(line: &str) -> String {
    line.split_once("] ")
        .map_or(line, |(_, text)| text)
        .to_owned()
}
