//! `virtfs-suites`: what public suites say of a view, beside the file system below it and other mirrors.

mod cli;
mod error;
mod expected;
mod ground;
mod judge;
mod outcome;
mod place;
mod report;
mod seat;
mod suites;
mod tree;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser as _;

use crate::cli::{Cli, Tools};
use crate::error::{Error, Result, at, step};
use crate::ground::Ground;
use crate::judge::{Outcomes, Verdict};
use crate::outcome::{Case, Outcome};
use crate::place::Place;
use crate::seat::Seat;
use crate::suites::{Extent, Suite};

/// How many places are at work at once.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == tree::WORD) {
        return walk(arguments.next().unwrap_or_default().as_ref());
    }
    match check(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// On stderr: progress, and why nothing was found.
#[allow(clippy::print_stderr, reason = "the one place where progress is told")]
fn tell(line: &str) {
    eprintln!("virtfs-suites: {line}");
}

#[allow(clippy::print_stdout, reason = "the one place where results are told")]
fn print(text: &str) {
    println!("{text}");
}

fn walk(root: &std::path::Path) -> ExitCode {
    let walked = tree::walk(root)
        .and_then(|walked| serde_json::to_string(&walked).map_err(step("writing JSON")));
    match walked {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Whether there is no difference that is not listed.
fn check(cli: &Cli) -> Result<bool> {
    let (tools, places) = (cli.tools()?, cli.places()?);
    let expected = expected::read(&cli.expected)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Usage(
            "it mounts, and runs suites as other users: run it as root (sudo)".to_owned(),
        ));
    }
    let ground = Ground::new(&cli.dir)?;
    let outcomes = run(cli, &places, &ground, &tools)?;
    let complete = cli.full && cli.only.is_empty() && cli.places.is_empty();
    let verdict = judge::judge(&outcomes, &expected, complete);
    tell_all(&outcomes, &verdict);
    if let Some(path) = &cli.json {
        let text = report::json(&outcomes, &verdict).map_err(step("writing JSON"))?;
        std::fs::write(path, text + "\n").map_err(at("writing", path))?;
    }
    Ok(verdict.failures.is_empty())
}

fn tell_all(outcomes: &Outcomes, verdict: &Verdict) {
    print(&report::table(outcomes));
    print("");
    for failure in &verdict.failures {
        print(failure);
    }
    print(&format!(
        "suites: {} passed ({} of them other than on ext4, as listed), {} failed",
        verdict.passed,
        verdict.known,
        verdict.failures.len()
    ));
}

/// Every place with its suites, as many at once as may be.
fn run(cli: &Cli, places: &[Place], ground: &Ground, tools: &Tools) -> Result<Outcomes> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let extent = if cli.full {
        Extent::Full
    } else {
        Extent::Short
    };
    let work = || {
        while let Some(&place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let cases = all_in(place, places, cli, extent, ground, tools);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.push((place, cases));
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(place, _)| places.iter().position(|other| other == place));
    found
        .into_iter()
        .map(|(place, cases)| Ok((place, cases?)))
        .collect()
}

fn all_in(
    place: Place,
    places: &[Place],
    cli: &Cli,
    extent: Extent,
    ground: &Ground,
    tools: &Tools,
) -> Result<Vec<Case>> {
    let seat = Seat::take(place, ground, tools)?;
    let wanted = |suite: &&Suite| cli.wants(suite.name) && suite.goes_to(place, extent, places);
    let mut cases = Vec::new();
    for suite in suites::ALL.iter().filter(wanted) {
        let start = Instant::now();
        let found = (suite.run)(&seat, extent)?;
        let failed = found
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Failed(_)))
            .count();
        tell(&format!(
            "{place}: {}: {} cases, {failed} failed, {} s",
            suite.name,
            found.len(),
            start.elapsed().as_secs()
        ));
        cases.extend(found);
    }
    seat.leave()?;
    Ok(cases)
}
