//! The crate `fsx`: one file, random operations of every kind that ext4 can do, each read compared.

use std::fs;
use std::thread;

use crate::error::{Error, Result, at, step};
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, last_words};

const SUITE: &str = "fsx";

/// Every operation that there is on Linux has a weight.
const CONFIGURATION: &str = "
flen = 262144
[opsize]
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

pub(crate) fn run(seat: &Seat<'_>, extent: Extent) -> Result<Vec<Case>> {
    let configuration = seat.beside("fsx.toml");
    let mut text = CONFIGURATION.to_owned();
    if seat.place().is_guests() {
        // 9p has no message for it, whoever serves: EOPNOTSUPP.
        text = text.replace("punch_hole = 3", "punch_hole = 0");
    }
    fs::write(&configuration, text).map_err(at("writing", &configuration))?;
    let operations = match extent {
        Extent::Short => "2000",
        Extent::Full => "100000",
    };
    // At once: they wait for the disk most of the time.
    thread::scope(|scope| {
        let running: Vec<_> = ["1", "2", "3"]
            .into_iter()
            .map(|seed| (seed, scope.spawn(|| one(seat, operations, seed))))
            .collect();
        let cases = running.into_iter().map(|(seed, run)| {
            let outcome = run.join().unwrap_or_else(|_| {
                Err(Error::Other {
                    who: format!("fsx {seed}"),
                    what: "its thread panicked".to_owned(),
                })
            });
            Ok(Case::new(SUITE, &format!("seed-{seed}"), outcome?))
        });
        cases.collect()
    })
}

fn one(seat: &Seat<'_>, operations: &str, seed: &str) -> Result<Outcome> {
    let output = seat
        .command(&seat.tools().at("bin/fsx"), 3600)
        .args(["-N", operations, "-S", seed, "-f"])
        .arg(seat.beside("fsx.toml"))
        .arg("-P")
        .arg(seat.shown())
        .arg(seat.shown().join(format!("fsx-{seed}")))
        .output()
        .map_err(step("running fsx"))?;
    Ok(Outcome::of(output.status.success(), || last_words(&output)))
}
