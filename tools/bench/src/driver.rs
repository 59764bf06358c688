//! Rounds: who is measured when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::Cli;
use crate::contender::{Choice, Contender, Program, View, present};
use crate::error::{Error, Result};
use crate::figures::{self, Extent, Figures, Section};
use crate::place::Place;
use crate::results::{Results, Unit};
use crate::{mounts, p9, tell};

/// Set by SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on those signals only set this.
    pub(crate) fn catch() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(crate::error::step("catching signals"))?;
        }
        Ok(interrupt)
    }

    /// Fails once one has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// What is measured, and who.
pub(crate) struct Plan {
    pub(crate) size: mounts::Size,
    pub(crate) rounds: u32,
    pub(crate) mounts: Vec<mounts::Workload>,
    pub(crate) on_mounts: Vec<Contender>,
    pub(crate) p9: Vec<p9::Workload>,
    pub(crate) through_qemu: Vec<Contender>,
    pub(crate) sections: Vec<Section>,
    pub(crate) extent: Extent,
    /// Whose figures are measured: each program's default mode.
    pub(crate) views: Vec<View>,
}

impl Plan {
    /// What the command line asks for.
    pub(crate) fn of(cli: &Cli, programs: &[Arc<Program>]) -> Result<Self> {
        let choice = Choice::new(&cli.contenders);
        let mut on_mounts = crate::contender::on_mounts(programs);
        let mut through_qemu = crate::contender::through_qemu(programs);
        choice.check(&[&on_mounts[..], &through_qemu[..]].concat())?;
        if (cli.quick || cli.tiny) && choice.is_empty() {
            on_mounts.retain(Contender::is_telling);
            through_qemu.retain(Contender::is_telling);
        }
        let size = if cli.tiny {
            mounts::Size::TINY
        } else if cli.quick {
            mounts::Size::QUICK
        } else {
            mounts::Size::FULL
        };
        let mounts = mounts::all(size)
            .into_iter()
            .filter(|workload| !cli.tiny || workload.is_simple())
            .filter(|workload| cli.wants(workload.titles().chain(workload.names).chain(["mount"])))
            .collect();
        let p9 = p9::all()
            .into_iter()
            .filter(|workload| !cli.tiny || workload.depth <= 8)
            .filter(|workload| {
                let titles = workload.titles();
                cli.wants(titles.iter().map(String::as_str).chain(["9p"]))
            })
            .collect();
        let sections = Section::ALL
            .into_iter()
            .filter(|section| cli.wants([section.word(), "figures"]))
            .collect();
        let views = programs.iter().map(Program::default_view);
        let views = views
            .filter(|view| !choice.of(vec![Contender::View(view.clone())]).is_empty())
            .collect();
        Ok(Self {
            sections,
            extent: cli.extent(),
            views,
            size,
            rounds: cli.rounds(),
            mounts,
            on_mounts: present(choice.of(on_mounts), &choice, tell)?,
            p9,
            through_qemu: present(choice.of(through_qemu), &choice, tell)?,
        })
    }

    /// Contenders in the order of the table.
    pub(crate) fn order(&self) -> Vec<String> {
        let all = self.on_mounts.iter().chain(&self.through_qemu);
        let mut names: Vec<String> = Vec::new();
        for name in all.map(ToString::to_string) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Measures all of it, in rounds.
pub(crate) fn run(plan: &Plan, place: &Place, interrupt: &Interrupt) -> Result<(Results, Figures)> {
    let mut results = Results::default();
    let mut figures = Figures::default();
    if !plan.mounts.is_empty() {
        mounts::prepare(&plan.mounts, place, plan.size)?;
    }
    if !plan.p9.is_empty() {
        p9::prepare(place, &plan.through_qemu, plan.size)?;
    }
    figures::prepare(&plan.sections, place, &plan.extent)?;
    for round in 0..plan.rounds as usize {
        tell(&format!("round {} of {}", round + 1, plan.rounds));
        mount_round(plan, place, interrupt, round, &mut results)?;
        p9_round(plan, place, interrupt, round, &mut results)?;
        let mut own = figures::Round {
            place,
            size: plan.size,
            extent: &plan.extent,
            interrupt,
            figures: &mut figures,
        };
        figures::round(&plan.sections, &plan.views, &mut own)?;
    }
    results.settle();
    Ok((results, figures))
}

/// Each workload by every contender in turn, on a fresh mount each.
fn mount_round(
    plan: &Plan,
    place: &Place,
    interrupt: &Interrupt,
    round: usize,
    results: &mut Results,
) -> Result<()> {
    for (number, workload) in plan.mounts.iter().enumerate() {
        for contender in rotated(&plan.on_mounts, round + number) {
            interrupt.check()?;
            let rates = match mounts::turn(workload, contender, place, plan.size) {
                Err(Error::Refused { why, .. }) if contender.may_refuse() => {
                    for title in workload.titles() {
                        let row = (mounts::GROUP, title, workload.unit());
                        results.fail(row, &contender.to_string(), &why);
                    }
                    continue;
                }
                other => other.map_err(|error| interrupted(error, interrupt))?,
            };
            for (title, unit, rate) in rates {
                results.add((mounts::GROUP, &title, unit), &contender.to_string(), rate);
            }
        }
    }
    Ok(())
}

/// A QEMU for each contender; they take turns at each workload.
fn p9_round(
    plan: &Plan,
    place: &Place,
    interrupt: &Interrupt,
    round: usize,
    results: &mut Results,
) -> Result<()> {
    if plan.p9.is_empty() {
        return Ok(());
    }
    let mut seats = Vec::new();
    for contender in &plan.through_qemu {
        interrupt.check()?;
        seats.push((contender, p9::Seat::take(contender, place)?));
    }
    for (number, &workload) in plan.p9.iter().enumerate() {
        for index in rotated(&(0..seats.len()).collect::<Vec<_>>(), round + number) {
            interrupt.check()?;
            let (contender, seat) = &mut seats[*index];
            let rates = match seat.perform(workload, plan.size) {
                Err(Error::P9 { source, .. }) if contender.may_refuse() => {
                    for title in workload.titles() {
                        let row = (p9::GROUP, title.as_str(), Unit::Operations);
                        results.fail(row, &contender.to_string(), &source.to_string());
                    }
                    continue;
                }
                other => other.map_err(|error| interrupted(error, interrupt))?,
            };
            for (title, unit, rate) in rates {
                results.add((p9::GROUP, &title, unit), &contender.to_string(), rate);
            }
        }
    }
    seats.into_iter().try_for_each(|(_, seat)| seat.leave())
}

/// Ctrl-C reaches servers and workers too; what they then say is only its echo.
fn interrupted(error: Error, interrupt: &Interrupt) -> Error {
    interrupt.check().err().unwrap_or(error)
}

/// All of them, another one first each time.
fn rotated<T>(all: &[T], by: usize) -> impl Iterator<Item = &T> {
    let by = by % all.len().max(1);
    all[by..].iter().chain(&all[..by])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_begins_with_another_and_keeps_all() {
        let turn = |by| rotated(&[1, 2, 3], by).copied().collect::<Vec<_>>();
        assert_eq!(turn(0), [1, 2, 3]);
        assert_eq!(turn(4), [2, 3, 1]);
        assert_eq!(rotated::<u8>(&[], 3).count(), 0);
    }
}
