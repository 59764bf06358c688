//! Long policies: what a request costs then, by the clock and in the mediator's own time.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::status::{Instructions, Process, Status};
use super::{Round, Section, TURNS, microseconds, seat, task, thousands, without_cache};
use crate::contender::{Contender, View};
use crate::error::{Result, at};
use crate::place::Place;
use crate::seat::Seat;
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

/// A view with a policy.
struct Ruled {
    title: String,
    seat: Seat,
    mediator: Process,
    instructions: Option<Instructions>,
}

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let view = without_cache(view);
    let of = Contender::View(view.clone()).to_string();
    let mut all = Vec::new();
    for rules in RULES {
        let title = format!("{} rules", thousands(rules));
        all.push(Ruled::take(&view, round, rules, &[], title)?);
    }
    let audit = format!("--audit={}", round.place.root().join("audit").display());
    let title = "1,000 rules, refusals on record".to_owned();
    all.push(Ruled::take(&view, round, 1000, &[audit], title)?);
    for _ in 0..TURNS {
        for ruled in &mut all {
            round.interrupt.check()?;
            ruled.ask(&of, round)?;
        }
    }
    all.into_iter().try_for_each(|ruled| ruled.seat.leave())
}

impl Ruled {
    fn take(
        view: &View,
        round: &Round<'_>,
        rules: usize,
        options: &[String],
        title: String,
    ) -> Result<Self> {
        let mut options = options.to_vec();
        options.push(format!(
            "--policy={}",
            policy_file(round.place, rules).display()
        ));
        let mut seat = seat(view, round.place, &options)?;
        // Known before anything is counted.
        seat.perform(&task(
            &seat,
            "few",
            Work::Stat {
                names: round.extent.few,
            },
            1,
            0,
        ))?;
        let name = seat.view().unwrap_or_default().to_owned();
        let mediator = Status::ask(&view.program, &name)?.mediator()?;
        Ok(Self {
            title,
            seat,
            mediator,
            instructions: mediator.instructions(),
        })
    }

    fn counted(&mut self) -> Option<f64> {
        self.instructions.as_mut()?.so_far()
    }

    fn ask(&mut self, of: &str, round: &mut Round<'_>) -> Result<()> {
        let works = [
            (
                "stat",
                Work::Stat {
                    names: round.extent.few,
                },
            ),
            (
                "open+read+close",
                Work::Open {
                    names: round.extent.few,
                },
            ),
        ];
        for (what, work) in works {
            let task = task(&self.seat, "few", work, 1, round.extent.floor_ms);
            let before = (self.mediator.cpu()?, self.counted());
            let samples = self.seat.perform(&task)?;
            let cpu = self.mediator.cpu()? - before.0;
            let instructions = self.counted().zip(before.1);
            let amount: f64 = samples.iter().map(|sample| sample.amount).sum();
            let title = format!("{what}, {}", self.title);
            let mut add = |title: &str, value| {
                round.figures.add(Section::Rules, title, of, (value, "us"));
            };
            if let Some(sample) = samples.last() {
                add(&title, microseconds(sample));
            }
            let own = format!("{title}: the mediator's CPU time");
            add(&own, cpu * 1e6 / amount);
            // A virtual machine may have the event and never count it.
            if let Some((after, before)) = instructions.filter(|(after, before)| after > before) {
                let title = format!("{title}: the mediator's instructions");
                let value = ((after - before) / amount, "");
                round.figures.add(Section::Rules, &title, of, value);
            }
        }
        Ok(())
    }
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
