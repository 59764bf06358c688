//! `virtfs-attack`: attacks that anyone can run, on the product and on weaker arrangements.
//!
//! One program in several parts. The tool starts itself again as the product with an attack in
//! the mediator's place ([`inside`]), as an attack in a weaker arrangement ([`arrangement`]), and
//! as a victim ([`victim`]); what they do is in [`acts`], the same functions everywhere.

mod acts;
mod arrangement;
mod case;
mod cases;
mod cli;
mod driver;
mod inside;
mod judge;
mod lab;
mod raw;
mod report;
mod task;
mod trial;
mod victim;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use crate::case::{Case, Seat};
use crate::cli::Cli;
use crate::judge::Judged;
use crate::lab::Lab;

fn main() -> ExitCode {
    if let Some(code) = driver::role::take() {
        return code;
    }
    match std::env::var(task::ROLE).as_deref() {
        Err(_) => tool(),
        Ok(task::PRODUCT) => inside::product(),
        Ok(task::WEAKER) => {
            arrangement::child();
            ExitCode::SUCCESS
        }
        Ok(task::VICTIM) => {
            victim::child();
            ExitCode::SUCCESS
        }
        Ok(other) => {
            tell(&format!("{} is {other:?}, which is no part", task::ROLE));
            ExitCode::FAILURE
        }
    }
}

/// On stderr: progress, and why nothing was done.
#[allow(clippy::print_stderr, reason = "the one place where progress is told")]
fn tell(line: &str) {
    eprintln!("virtfs-attack: {line}");
}

/// On stdout: what was asked for.
#[allow(
    clippy::print_stdout,
    reason = "the one place where the table is printed"
)]
fn print(text: &str) {
    print!("{text}");
}

fn tool() -> ExitCode {
    let cli = Cli::parse();
    match attack(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            tell(&why);
            ExitCode::from(2)
        }
    }
}

fn attack(cli: &Cli) -> Result<bool, String> {
    let chosen = cli.chosen(cases::all())?;
    if cli.list {
        for case in chosen {
            let Case {
                row,
                id,
                seat,
                what,
                ..
            } = case;
            print(&format!("{row:>3} {seat:?} {id:22} {what}\n"));
        }
        return Ok(true);
    }
    if !nix::unistd::geteuid().is_root() {
        let sudo = "call it as `sudo virtfs-attack ...`, or use tools/attack/run";
        return Err(format!(
            "attacks are tried as root, to show what root could do: {sudo}"
        ));
    }
    let lab = Lab {
        mediator: product(cli.mediator.as_deref())?,
        short: cli.short,
        pairs: RefCell::default(),
    };
    let proxy_helper = if chosen.iter().any(|case| case.seat == Seat::M) {
        proxy_helper()?
    } else {
        "not asked for".to_owned()
    };
    raw::note_signals().map_err(|errno| format!("sigaction: {errno}"))?;
    let mut judged = Vec::new();
    for case in chosen {
        let one = run(case, &lab);
        if raw::is_interrupted() {
            return Err("interrupted".to_owned());
        }
        tell(&report::text::progress(&one));
        judged.push(one);
    }
    print(&report::text::table(&judged));
    if let Some(file) = &cli.json {
        let text =
            report::json::object(&judged, &proxy_helper).map_err(|error| error.to_string())?;
        write(file, &format!("{text}\n"))?;
    }
    if let Some(file) = &cli.markdown {
        write(file, &report::markdown::table(&judged))?;
    }
    if let Some(file) = &cli.summary {
        write(file, &report::summary::table(&judged))?;
    }
    Ok(report::all_passed(&judged))
}

/// The column of the proxy helper is only worth something if it is the packaged one's. QEMU has
/// none since 9.2: then the column stands for that of QEMU 7.2, and the report says so.
fn proxy_helper() -> Result<String, String> {
    let found = match arrangement::check_proxy_helper()? {
        Some(held) => held.to_string(),
        None => {
            "not installed (qemu-system-common up to QEMU 9.1): the set is QEMU 7.2's".to_owned()
        }
    };
    tell(&format!("virtfs-proxy-helper: {found}"));
    Ok(found)
}

fn run(case: &'static Case, lab: &Lab) -> Judged {
    let start = Instant::now();
    let attempts = (case.run)(lab);
    let outcome = judge::judge(&attempts);
    Judged {
        case,
        attempts: attempts.unwrap_or_default(),
        outcome,
        took: start.elapsed(),
    }
}

fn product(named: Option<&Path>) -> Result<PathBuf, String> {
    let beside = || -> Result<PathBuf, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        Ok(own.with_file_name("virtfs-mediator"))
    };
    let product = named.map_or_else(beside, |named| Ok(named.to_owned()))?;
    product.canonicalize().map_err(|error| {
        let shown = product.display();
        format!("{shown}: {error} (build it: cargo build -p virtfs-mediator, or name one with --mediator)")
    })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
