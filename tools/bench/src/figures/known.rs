//! Many files known: what a request costs then, and what they weigh.

use std::fs::{self, File};

use super::status::{Process, Status};
use super::{Extent, Round, Section, TURNS, microseconds, seat, task, thousands, without_cache};
use crate::contender::{Contender, Program, View};
use crate::error::{Result, at};
use crate::place::Place;
use crate::seat::Seat;
use crate::task::{SPREAD, Work, file_name, spread_directory};

fn directory(files: usize) -> String {
    format!("known-{files}")
}

/// Empty files, so many a directory.
pub(super) fn prepare(place: &Place, extent: &Extent) -> Result<()> {
    for &files in &extent.known {
        let top = place.export().join(directory(files));
        crate::mounts::make_open(&top)?;
        for number in 0..files {
            let directory = top.join(spread_directory(number));
            if number.is_multiple_of(SPREAD) {
                fs::create_dir(&directory).map_err(at("making", &directory))?;
            }
            let path = directory.join(file_name(number));
            File::create(&path).map_err(at("making", &path))?;
        }
    }
    Ok(())
}

/// A view that knows so many files.
struct Knowing {
    seat: Seat,
    mediator: Process,
    files: usize,
}

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let view = without_cache(view);
    let of = Contender::View(view.clone()).to_string();
    let mut all = Vec::new();
    for &files in &round.extent.known {
        let mut knowing = Knowing::make(&view, round, files)?;
        knowing.weigh(&view.program, &of, round)?;
        all.push(knowing);
    }
    for _ in 0..TURNS {
        for knowing in &mut all {
            round.interrupt.check()?;
            knowing.ask(&of, round)?;
        }
    }
    all.into_iter().try_for_each(|knowing| knowing.seat.leave())
}

impl Knowing {
    fn make(view: &View, round: &Round<'_>, files: usize) -> Result<Self> {
        let mut seat = seat(view, round.place, &[])?;
        // Something is asked first, so that what is there from the start is there.
        seat.perform(&task(&seat, "few", Work::List, 1, 0))?;
        let name = seat.view().unwrap_or_default().to_owned();
        let mediator = Status::ask(&view.program, &name)?.mediator()?;
        Ok(Self {
            seat,
            mediator,
            files,
        })
    }

    /// Makes it know the files, and tells what they weigh.
    fn weigh(&mut self, program: &Program, of: &str, round: &mut Round<'_>) -> Result<()> {
        let name = self.seat.view().unwrap_or_default().to_owned();
        let before = Status::ask(program, &name)?.known_nodes()?;
        let resident = self.mediator.resident()?;
        let walk = task(&self.seat, &directory(self.files), Work::Walk, 1, 0);
        self.seat.perform(&walk)?;
        let after = Status::ask(program, &name)?;
        let known = after.known_nodes()? - before;
        let grown = self.mediator.resident()? - resident;
        self.add(of, round, "inodes known", (known, ""));
        let weight = grown / known.max(1.0);
        self.add(of, round, "memory an inode", (weight, "octets"));
        self.add(of, round, "descriptors held", (after.descriptors()?, ""));
        Ok(())
    }

    fn ask(&mut self, of: &str, round: &mut Round<'_>) -> Result<()> {
        let work = Work::Spread { files: self.files };
        let ground = directory(self.files);
        let task = task(&self.seat, &ground, work, 1, round.extent.floor_ms);
        let before = self.mediator.cpu()?;
        let samples = self.seat.perform(&task)?;
        let cpu = self.mediator.cpu()? - before;
        for sample in &samples {
            self.add(of, round, &sample.part, (microseconds(sample), "us"));
        }
        let amount: f64 = samples.iter().map(|sample| sample.amount).sum();
        let each = (cpu * 1e6 / amount, "us");
        self.add(of, round, "the mediator's CPU time for either", each);
        Ok(())
    }

    fn add(&self, of: &str, round: &mut Round<'_>, what: &str, value: (f64, &str)) {
        let title = format!("{what}, {} files known", thousands(self.files));
        round.figures.add(Section::Known, &title, of, value);
    }
}
