//! `virtfs-bench`: how fast a view is, beside others and beside the directory itself.

mod cli;
mod contender;
mod driver;
mod error;
mod mounts;
mod p9;
mod place;
mod report;
mod results;
mod seat;
mod stats;
mod task;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::cli::Cli;
use crate::contender::Program;
use crate::driver::{Interrupt, Plan};
use crate::error::{Error, Result, step};
use crate::place::Place;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == worker::WORD)
    {
        return worker::serve();
    }
    match benchmark(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// On stderr: progress, and why nothing was measured.
#[allow(clippy::print_stderr, reason = "the one place where progress is told")]
pub(crate) fn tell(line: &str) {
    eprintln!("virtfs-bench: {line}");
}

#[allow(clippy::print_stdout, reason = "the one place where results are told")]
fn print(text: &str) {
    println!("{text}");
}

fn benchmark(cli: &Cli) -> Result<()> {
    let mut programs = vec![Program::look("view", mediator(cli)?)?];
    if let Some(path) = &cli.against {
        programs.push(Program::look("other", path.clone())?);
    }
    let plan = Plan::of(cli, &programs)?;
    if cli.list {
        print(&listed(&plan));
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Usage(
            "it mounts, and starts programs as other users: run it as root (sudo)".to_owned(),
        ));
    }
    own_mounts()?;
    let interrupt = Interrupt::catch()?;
    let place = Place::new(&cli.dir)?;
    let results = driver::run(&plan, &place, &interrupt)?;
    print(&report::text::table(&results, &plan.order()));
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&results).map_err(step("writing JSON"))?;
        std::fs::write(path, text).map_err(error::at("writing", path))?;
    }
    Ok(())
}

/// What is mounted here is seen by nobody else, and goes with the last of our processes.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("making a mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(step("making mounts private"))
}

fn mediator(cli: &Cli) -> Result<PathBuf> {
    if let Some(path) = &cli.mediator {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().map_err(step("finding this program"))?;
    Ok(own.with_file_name("virtfs-mediator"))
}

fn listed(plan: &Plan) -> String {
    let mut lines = vec!["contenders:".to_owned()];
    lines.extend(plan.order().into_iter().map(|name| format!("  {name}")));
    lines.push("on mounts:".to_owned());
    let titles = plan.mounts.iter().flat_map(mounts::Workload::titles);
    lines.extend(titles.map(|title| format!("  {title}")));
    lines.push("through QEMU (9p):".to_owned());
    let titles = plan.p9.iter().flat_map(|workload| workload.titles());
    lines.extend(titles.map(|title| format!("  {title}")));
    lines.join("\n")
}
