//! Long policies: what a request costs then, by the clock and in the mediator's own time.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::status::Status;
use super::{FEW, Round, Section, microseconds, seat, task, thousands, without_cache};
use crate::contender::{Contender, View};
use crate::error::{Result, at};
use crate::place::Place;
use crate::task::Work;

/// How many rules.
const RULES: [usize; 3] = [0, 10, 1000];

fn policy_file(place: &Place, rules: usize) -> PathBuf {
    place.root().join(format!("rules-{rules}.toml"))
}

/// Rules of which each has to be ruled out, and one that allows.
fn policy(rules: usize) -> String {
    if rules == 0 {
        return "default = \"allow\"\n".to_owned();
    }
    let mut text = "default = \"deny\"\n".to_owned();
    for number in 1..rules {
        let top = ["home", "srv"][number % 2];
        let _ = write!(
            text,
            "[[rule]]\npath = \"/{top}{number}/**/*.conf\"\naction = \"deny\"\n"
        );
    }
    text + "[[rule]]\npath = \"/**\"\ndo = [\"any\"]\naction = \"allow\"\n"
}

pub(super) fn prepare(place: &Place) -> Result<()> {
    for rules in RULES {
        let path = policy_file(place, rules);
        fs::write(&path, policy(rules)).map_err(at("writing", &path))?;
    }
    Ok(())
}

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    for rules in RULES {
        let title = format!("{} rules", thousands(rules));
        one(view, round, rules, &[], &title)?;
    }
    let audit = format!("--audit={}", round.place.root().join("audit").display());
    let title = "1,000 rules, refusals on record";
    one(view, round, 1000, &[audit], title)
}

fn one(
    view: &View,
    round: &mut Round<'_>,
    rules: usize,
    options: &[String],
    title: &str,
) -> Result<()> {
    let view = without_cache(view);
    let mut options = options.to_vec();
    options.push(format!(
        "--policy={}",
        policy_file(round.place, rules).display()
    ));
    let mut seat = seat(&view, round.place, &options)?;
    let of = Contender::View(view.clone()).to_string();
    let stat = |floor| task(&seat, "few", Work::Stat { names: FEW }, 1, floor);
    let (warm, stat) = (stat(0), stat(round.extent.floor_ms));
    let open = task(
        &seat,
        "few",
        Work::Open { names: FEW },
        1,
        round.extent.floor_ms,
    );
    seat.perform(&warm)?;
    let name = seat.view().unwrap_or_default().to_owned();
    let mediator = Status::ask(&view.program, &name)?.mediator()?;
    for (what, task) in [("stat", stat), ("open+read+close", open)] {
        let before = mediator.cpu()?;
        let samples = seat.perform(&task)?;
        let cpu = mediator.cpu()? - before;
        let amount: f64 = samples.iter().map(|sample| sample.amount).sum();
        let mut add = |title: String, value| {
            round
                .figures
                .add(Section::Rules, &title, &of, (value, "us"));
        };
        if let Some(sample) = samples.last() {
            add(format!("{what}, {title}"), microseconds(sample));
        }
        add(
            format!("{what}, {title}: the mediator's CPU time"),
            cpu * 1e6 / amount,
        );
    }
    seat.leave()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_has_as_many_rules_as_it_says() {
        for rules in RULES {
            assert_eq!(policy(rules).matches("[[rule]]").count(), rules);
        }
    }
}
