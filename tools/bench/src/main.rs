//! `virtfs-bench`: how fast a view is, beside others and beside the directory itself.

mod cli;
mod contender;
mod driver;
mod error;
mod figures;
mod machine;
mod mounts;
mod p9;
mod place;
mod record;
mod report;
mod results;
mod seat;
mod server;
mod stats;
mod targets;
mod task;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::cli::Cli;
use crate::contender::{Contender, Program};
use crate::driver::{Interrupt, Plan};
use crate::error::{Error, Result, step};
use crate::machine::Machine;
use crate::place::Place;
use crate::record::Record;

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
    let record = match &cli.from {
        Some(path) => read(path)?,
        None => match measure(cli)? {
            Some(record) => record,
            None => return Ok(()),
        },
    };
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&record).map_err(step("writing JSON"))?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &cli.markdown {
        write(path, &report::markdown::page(&record))?;
    }
    if let Some(path) = &cli.readme {
        let document = std::fs::read_to_string(path).map_err(error::at("reading", path))?;
        let tables = report::markdown::page(&record);
        let document = report::markdown::replaced(&document, &tables).ok_or_else(|| {
            Error::Usage(format!(
                "--readme: {} has no marks of tools/bench",
                path.display()
            ))
        })?;
        write(path, &document)?;
    }
    if let Some(path) = &cli.svg {
        write(path, &report::plot::picture(&record))?;
    }
    print(&report::text::page(&record));
    Ok(())
}

/// None where nothing was to be measured.
fn measure(cli: &Cli) -> Result<Option<Record>> {
    let mut programs = vec![Program::look("view", mediator(cli)?)?];
    if let Some(path) = &cli.against {
        programs.push(Program::look("other", path.clone())?);
    }
    let plan = Plan::of(cli, &programs)?;
    if cli.list {
        print(&listed(&plan));
        return Ok(None);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Usage(
            "it mounts, and starts programs as other users: run it as root (sudo)".to_owned(),
        ));
    }
    own_mounts()?;
    let interrupt = Interrupt::catch()?;
    let place = Place::new(&cli.dir, cli.disk_in_memory)?;
    let mut machine = Machine::look(place.root(), &plan.on_mounts, &programs);
    let (results, figures) = driver::run(&plan, &place, &interrupt)?;
    machine.load_after = machine::load();
    Ok(Some(Record {
        machine,
        rounds: plan.rounds,
        contenders: plan.order(),
        default_view: default_view(&programs[0]),
        other_default_view: programs.get(1).map(default_view),
        results,
        figures,
    }))
}

fn default_view(program: &Arc<Program>) -> String {
    Contender::View(program.default_view()).to_string()
}

fn read(path: &Path) -> Result<Record> {
    let text = std::fs::read(path).map_err(error::at("reading", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(error::at("writing", path))
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
    lines.push("figures of views (--only WORD):".to_owned());
    let sections = plan.sections.iter();
    lines.extend(sections.map(|section| format!("  {}: {}", section.word(), section.heading())));
    lines.join("\n")
}
