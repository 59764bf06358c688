//! The crate `fsx`: one file, random operations of every kind that ext4 can do, each read compared.

use std::fs;

use crate::error::{Result, at, step};
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
    let program = seat.tools().at("bin/fsx");
    let mut cases = Vec::new();
    for seed in ["1", "2", "3"] {
        let file = seat.shown().join(format!("fsx-{seed}"));
        let output = seat
            .command(&program, 3600)
            .args(["-N", operations, "-S", seed, "-f"])
            .arg(&configuration)
            .arg("-P")
            .arg(seat.shown())
            .arg(&file)
            .output()
            .map_err(step("running fsx"))?;
        let passed = output.status.success();
        let outcome = Outcome::of(passed, || last_words(&output));
        cases.push(Case::new(SUITE, &format!("seed-{seed}"), outcome));
    }
    Ok(cases)
}
