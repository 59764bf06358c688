//! File names that would forge lines of a log, or take a terminal over.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::case::{Arrangement, Attempt};
use crate::driver::actor::{Where, act};
use crate::driver::start::{LIMIT, Start};
use crate::driver::weaker::Server;
use crate::driver::{CLIENT, OrTell as _, Outcome, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

/// What a forged line says.
const FORGED: &str = " WARN refused op=\"forged\"";
const DENIES: &str =
    "default = \"allow\"\n[[rule]]\nname = \"no-files\"\ndo = [\"make\"]\naction = \"deny\"\n";

fn names() -> [Vec<u8>; 3] {
    [
        [b"a\n".as_slice(), FORGED.as_bytes()].concat(),
        b"b\x1b[2J\x1b]0;owned\x07".to_vec(),
        b"c\r\xff\",\"level\":\"ERROR".to_vec(),
    ]
}

fn make_all(root: &Path) -> usize {
    names()
        .iter()
        .filter(|name| fs::write(root.join(OsStr::from_bytes(name)), "").is_ok())
        .count()
}

/// Whether a log has a forged line or a control character besides its own newlines.
fn is_forged(log: &str) -> bool {
    log.lines().any(|line| line.starts_with(FORGED))
        || log.chars().any(|one| one.is_control() && one != '\n')
}

/// Row 31.
pub(super) fn logs(lab: &Lab) -> Outcome {
    let bindfs = Arrangement::Other("bindfs with its log of requests (-d)");
    let weak = || -> Result<Attempt, String> {
        let place = Place::new().or_tell("a place")?;
        let server = Server::bindfs(&place.export(), &["-d"])?;
        let made = act(Where::Host, CLIENT, LIMIT, || make_all(server.path()))?;
        let forged = is_forged(&server.log());
        let what = format!("{made} names made, the log is forged: {forged}");
        Ok(weaker(
            bindfs.clone(),
            "names with newlines and escapes",
            verdict(forged, what),
        ))
    };
    let mut attempts = vec![or_untried(bindfs.clone(), "names", weak())];
    for format in ["text", "json"] {
        let place = Place::new().or_tell("a place")?;
        let view = Start::product(lab, place.export())
            .policy(DENIES)
            .option(format!("--log-format={format}"))
            .option("--debug")
            .open()?;
        let made = act(Where::Client(&view), CLIENT, LIMIT, || {
            make_all(&view.export)
        })?;
        let told = view.told(&["refused", "no-files", "forged"]);
        // What is logged last is written at the end.
        let log = view.end();
        let parses = format == "text"
            || log
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        let refusals = log.lines().filter(|line| line.contains("no-files")).count();
        let fine = made == 0 && parses && refusals >= names().len() && !is_forged(&log);
        let what = format!(
            "{refusals} refusals in {} lines, none forged",
            log.lines().count()
        );
        attempts.push(product(
            format!("--log-format={format}"),
            verdict(!fine, what),
            told,
        ));
    }
    Ok(attempts)
}
