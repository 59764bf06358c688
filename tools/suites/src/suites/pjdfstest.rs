//! The crate `pjdfstest`: what system calls answer. With remounts and a second file system, so that
//! no group is left out; what a plain user may not do is skipped by the suite itself.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result, at, step};
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, last_words};

const SUITE: &str = "pjdfstest";

/// Users that Debian's base has; `flags` and NFSv4 ACLs are BSD's.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = REMOUNTS
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// The one case that a guest leaves out.
const LINK_COUNT: &str = "link/link_count_max";

/// What the names of all others contain.
const ALL_BUT_LINK_COUNT: [&str; 19] = [
    "chmod::",
    "chown::",
    "ftruncate::",
    "link::changed",
    "link::e",
    "link::remove",
    "link::share",
    "link::unchanged",
    "mkdir::",
    "mkfifo::",
    "mknod::",
    "open::",
    "posix_fallocate::",
    "rename::",
    "rmdir::",
    "symlink::",
    "truncate::",
    "unlink::",
    "utimensat::",
];

pub(crate) fn run(seat: &Seat<'_>, _extent: Extent) -> Result<Vec<Case>> {
    // First, by themselves: others leave files open for writing, with which nothing can be remounted.
    let remounting = cases(seat, true, &["erofs"])?;
    let patterns = if seat.place().is_guests() {
        ALL_BUT_LINK_COUNT.as_slice()
    } else {
        &[]
    };
    let mut cases = cases(seat, false, patterns)?;
    if seat.place().is_guests() {
        let why =
            Outcome::Skipped("as many links as ext4 takes: minutes of 9p, of no view".to_owned());
        cases.push(Case::new(SUITE, LINK_COUNT, why));
    }
    for case in &mut cases {
        if let Some(tried) = remounting.iter().find(|tried| tried.name == case.name) {
            case.outcome.clone_from(&tried.outcome);
        }
    }
    Ok(cases)
}

fn cases(seat: &Seat<'_>, remounts: bool, patterns: &[&str]) -> Result<Vec<Case>> {
    let configuration = configuration(seat, remounts)?;
    let second = second(seat)?;
    let program = seat.tools().at("bin/pjdfstest");
    let output = seat
        .command(&program, 900)
        .arg("--configuration-file")
        .arg(configuration)
        .arg("--secondary-fs")
        .arg(second)
        .arg("--path")
        .arg(seat.shown())
        .args(patterns)
        .env("RUST_BACKTRACE", "0")
        .output()
        .map_err(step("running pjdfstest"))?;
    let cases = parse(&String::from_utf8_lossy(&output.stdout));
    if cases.is_empty() {
        return Err(Error::Other {
            who: format!("pjdfstest on {}", seat.place()),
            what: last_words(&output),
        });
    }
    Ok(cases)
}

/// Beside the export: on the same disk, outside of the view.
fn configuration(seat: &Seat<'_>, remounts: bool) -> Result<PathBuf> {
    let path = seat.beside("pjdfstest.toml");
    let text = CONFIGURATION.replace("REMOUNTS", &remounts.to_string());
    fs::write(&path, text).map_err(at("writing", &path))?;
    Ok(path)
}

/// Any directory on another file system: that of the disk's mount point.
fn second(seat: &Seat<'_>) -> Result<PathBuf> {
    let path = seat.elsewhere().join("second");
    fs::create_dir_all(&path).map_err(at("making", &path))?;
    crate::ground::set_mode(&path, 0o1777)?;
    Ok(path)
}

/// `NAME ok`, `NAME FAILED` or `NAME skipped`, each of the last two with a line that says why.
fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(why) = line.strip_prefix('\t') {
            if let Some(Case {
                outcome: Outcome::Failed(said) | Outcome::Skipped(said),
                ..
            }) = cases.last_mut()
                && said.is_empty()
            {
                said.push_str(why.trim());
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(word), None) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let outcome = match word {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed(String::new()),
            "skipped" => Outcome::Skipped(String::new()),
            _ => continue,
        };
        cases.push(Case::new(SUITE, &name.replace("::", "/"), outcome));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_with_their_reasons() {
        let text = "\
chmod::enoent   ok
open::etxtbsy   FAILED
\tcalled `Result::unwrap()`: EIO
Backtrace:
   0: <unknown>
link::exdev_target   skipped
\tNo secondary file-system has been configured.

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";
        let outcomes: Vec<_> = parse(text)
            .into_iter()
            .map(|case| (case.name, case.outcome.word(), case.outcome.why().len()))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("pjdfstest/chmod/enoent".to_owned(), "passed", 0),
                ("pjdfstest/open/etxtbsy".to_owned(), "failed", 30),
                ("pjdfstest/link/exdev_target".to_owned(), "skipped", 45),
            ]
        );
    }
}
