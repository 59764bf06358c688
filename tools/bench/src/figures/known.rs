//! Many files known: what a request costs then, and what they weigh.

use std::fs::{self, File};

use super::status::Status;
use super::{Extent, Round, Section, microseconds, seat, task, thousands, without_cache};
use crate::contender::View;
use crate::error::{Result, at};
use crate::place::Place;
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

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let view = without_cache(view);
    let program = &view.program;
    for &files in &round.extent.known {
        let mut seat = seat(&view, round.place, &[])?;
        let ground = directory(files);
        // Something is asked first, so that what is there from the start is there.
        seat.perform(&task(&seat, "few", Work::List, 1, 0))?;
        let name = seat.view().unwrap_or_default().to_owned();
        let before = Status::ask(program, &name)?;
        let mediator = before.mediator()?;
        let resident = mediator.resident()?;
        seat.perform(&task(&seat, &ground, Work::Walk, 1, 0))?;
        let after = Status::ask(program, &name)?;
        let known = after.known_nodes()? - before.known_nodes()?;
        let grown = mediator.resident()? - resident;
        let floor = round.extent.floor_ms;
        let work = Work::Spread { files };
        let samples = seat.perform(&task(&seat, &ground, work, 1, floor))?;
        let descriptors = Status::ask(program, &name)?.descriptors()?;
        seat.leave()?;

        let of = crate::contender::Contender::View(view.clone()).to_string();
        let files = thousands(files);
        let mut add = |what: &str, value| {
            let title = format!("{what}, {files} files known");
            round.figures.add(Section::Known, &title, &of, value);
        };
        for sample in &samples {
            add(&sample.part, (microseconds(sample), "us"));
        }
        add("inodes known", (known, ""));
        add("memory an inode", (grown / known.max(1.0), "octets"));
        add("descriptors held", (descriptors, ""));
    }
    Ok(())
}
