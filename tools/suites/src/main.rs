//! `virtfs-suites`: what public suites say of a view, beside the file system below it and other mirrors.

mod cli;
mod error;
mod expected;
mod ground;
mod guest;
mod judge;
mod outcome;
mod place;
mod report;
mod seat;
mod suites;
mod tree;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser as _;

use crate::cli::{Cli, Tools};
use crate::error::{Error, Result, at, step};
use crate::expected::Difference;
use crate::ground::Ground;
use crate::judge::{Outcomes, Verdict};
use crate::outcome::{Case, Outcome};
use crate::place::Place;
use crate::seat::Seat;
use crate::suites::{Extent, Suite};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first() {
        Some(word) if word == tree::WORD => {
            return walk(arguments.get(1).map_or("".as_ref(), AsRef::as_ref));
        }
        Some(word) if word == guest::WORD => {
            return guest::errand(&arguments[1..]).unwrap_or_else(|error| {
                tell(&error.to_string());
                ExitCode::FAILURE
            });
        }
        _ => {}
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
    let expected = expected::read(&cli.expected)?;
    let complete = cli.full && cli.only.is_empty() && cli.places.is_empty();
    if let Some(path) = &cli.judge {
        let text = std::fs::read_to_string(path).map_err(at("reading", path))?;
        let outcomes = report::outcomes(&text).map_err(step("reading outcomes"))?;
        let verdict = judge::judge(&outcomes, &expected, complete);
        tell_all(&outcomes, &expected, &verdict);
        return Ok(verdict.failures.is_empty());
    }
    let places = cli.places()?;
    let tools = cli.tools(&places)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Usage(
            "it mounts, and runs suites as other users: run it as root (sudo)".to_owned(),
        ));
    }
    let interrupted = interruption()?;
    let ground = Ground::new(&cli.dir)?;
    let outcomes = run(cli, &places, &ground, &tools, &interrupted)?;
    let stopped = interrupted.load(Ordering::Relaxed);
    let verdict = judge::judge(&outcomes, &expected, complete && !stopped);
    if let Some(path) = &cli.json {
        let text = report::json(&outcomes, &verdict).map_err(step("writing JSON"))?;
        std::fs::write(path, text + "\n").map_err(at("writing", path))?;
    }
    if stopped {
        return Err(Error::Interrupted);
    }
    tell_all(&outcomes, &expected, &verdict);
    Ok(verdict.failures.is_empty())
}

/// Set by SIGINT, SIGTERM or SIGHUP, which only set it from now on: what is mounted is unmounted.
fn interruption() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(step("catching signals"))?;
    }
    Ok(interrupted)
}

fn tell_all(outcomes: &Outcomes, expected: &[Difference], verdict: &Verdict) {
    print(&report::table(outcomes, expected));
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

/// Every place with its suites, as many at once as may be; those that are done when it is interrupted.
fn run(
    cli: &Cli,
    places: &[Place],
    ground: &Ground,
    tools: &Tools,
    interrupted: &AtomicBool,
) -> Result<Outcomes> {
    // A guest takes longest: not at the end, by itself.
    let mut order = places.to_vec();
    order.sort_by_key(|place| !place.is_guests());
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let extent = if cli.full {
        Extent::Full
    } else {
        Extent::Short
    };
    let work = || {
        while let Some(&place) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if interrupted.load(Ordering::Relaxed) {
                return;
            }
            let seat = Seat::take(place, ground, tools);
            let wanted =
                |suite: &&Suite| cli.wants(suite.name) && suite.goes_to(place, extent, places);
            let wanted: Vec<_> = suites::ALL.iter().filter(wanted).collect();
            let cases = seat.and_then(|seat| all_in(seat, &wanted, extent, interrupted));
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.push((place, cases));
        }
    };
    thread::scope(|scope| {
        for _ in 0..cli.at_once.get() {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(place, _)| places.iter().position(|other| other == place));
    // Of an interrupted run, what was done.
    found.retain(|(_, cases)| !matches!(cases, Err(Error::Interrupted)));
    found
        .into_iter()
        .map(|(place, cases)| Ok((place, cases?)))
        .collect()
}

fn all_in(
    seat: Seat<'_>,
    wanted: &[&Suite],
    extent: Extent,
    interrupted: &AtomicBool,
) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let extent = extent.at(seat.place());
    for suite in wanted {
        let start = Instant::now();
        let found = (suite.run)(&seat, extent);
        // Before what it found, which is that its programs were interrupted too.
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let found = found?;
        let failed = found
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Failed(_)))
            .count();
        tell(&format!(
            "{}: {}: {} cases, {failed} failed, {} s",
            seat.place(),
            suite.name,
            found.len(),
            start.elapsed().as_secs()
        ));
        cases.extend(found);
    }
    seat.leave()?;
    Ok(cases)
}
