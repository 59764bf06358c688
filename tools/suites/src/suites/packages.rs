//! dpkg: a real package into a root directory of its own, installed, verified, installed over itself,
//! purged; each file is written, synced and renamed.

use crate::error::Result;
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, scripted};

const SUITE: &str = "dpkg";

pub(crate) fn run(seat: &Seat<'_>, _extent: Extent) -> Result<Vec<Case>> {
    if seat.place().is_users() {
        let why = "dpkg sets owners: it is root's";
        return Ok(["install", "reinstall", "purge"]
            .map(|case| Case::new(SUITE, case, Outcome::Skipped(why.to_owned())))
            .to_vec());
    }
    let package = seat.tools().at("src/hello.deb");
    // As to a system for another architecture: nothing of it is executed, nothing else is there.
    let dpkg =
        "dpkg() { command dpkg --root=\"$PWD/root\" --force-depends --no-triggers \"$@\"; }\n";
    let script = |case: &str, script: &str| {
        scripted(
            seat,
            SUITE,
            case,
            &format!("{dpkg}{script}"),
            &[&package],
            120,
        )
    };
    Ok(vec![
        script(
            "install",
            "mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates root/var/lib/dpkg/triggers\n\
             : >root/var/lib/dpkg/status\n: >root/var/lib/dpkg/available\n\
             dpkg -i \"$1\"\ntest -x root/usr/bin/hello\ntest -z \"$(dpkg --verify hello)\"",
        )?,
        script(
            "reinstall",
            "dpkg -i \"$1\"\ntest -z \"$(dpkg --verify hello)\"",
        )?,
        script(
            "purge",
            "dpkg -P hello\ntest ! -e root/usr/bin/hello\ndpkg -i \"$1\"",
        )?,
    ])
}
