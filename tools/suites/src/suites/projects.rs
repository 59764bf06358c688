//! Real projects, unpacked and built: GNU hello with configure, make and its tests, and a crate with
//! cargo and its tests. What was built is executed from the place.

use crate::error::Result;
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, scripted};

const SUITE: &str = "build";

pub(crate) fn run(seat: &Seat<'_>, extent: Extent) -> Result<Vec<Case>> {
    let tools = seat.tools();
    let hello = tools.at("src/hello.tar.gz");
    let krate = tools.at("src/crate.tar");
    // configure alone makes some thousand files and executes each.
    let make = match extent {
        Extent::Short => "make -s >/dev/null",
        Extent::Full => "make -s >/dev/null\nmake -s check >check.log 2>&1",
    };
    let c = format!(
        "mkdir hello\ntar -xf \"$1\" -C hello --strip-components=1 --no-same-owner\ncd hello\n\
         ./configure -q\n{make}\ntest \"$(./hello)\" = 'Hello, world!'\nmake -s install DESTDIR=\"$PWD/../installed\" >/dev/null\n\
         test \"$(../installed/usr/local/bin/hello)\" = 'Hello, world!'"
    );
    let rust = "mkdir crate\ntar -xf \"$1\" -C crate --strip-components=1 --no-same-owner\ncd crate\n\
                export CARGO_HOME=\"$PWD/home\" CARGO_TARGET_DIR=\"$PWD/target\"\nPATH=$2/bin:$PATH\n\
                cargo test -q --offline --no-fail-fast\ncargo build -q --offline --release --examples\n\
                test -n \"$(ls target/release/examples)\"";
    let hello = scripted(seat, SUITE, "hello", &c, &[&hello], 900)?;
    // rustup's home may be root's alone.
    let sysroot = std::env::var("VIRTFS_SUITES_SYSROOT").unwrap_or_default();
    let reached = seat.shell("test -x \"$1/bin/cargo\"", &[&sysroot], 20)?;
    let krate = if reached.status.success() {
        scripted(seat, SUITE, "crate", rust, &[&krate, &sysroot], 900)?
    } else {
        let why = format!("no cargo in {sysroot} for who works here");
        Case::new(SUITE, "crate", Outcome::Skipped(why))
    };
    Ok(vec![hello, krate])
}
