//! `virtfs-mediator`: every privileged act, and no file-system logic.
//!
//! A start is one line of processes: the `launcher` forks the keeper (`keep`), which goes
//! through the stages of `launch` and ends with mediators that serve and a client that runs.
//!
//! The program is [`main`]; there is no other way in. With the feature `attack`, which only
//! `tools/attack` asks for, an attack can take the mediator's place behind the same walls, or
//! behind some of them.

#[cfg(feature = "attack")]
pub mod attack;
mod audit;
mod cli;
mod completion;
mod control;
mod doctor;
mod error;
mod files;
#[cfg(test)]
mod generated;
mod hints;
mod identity;
mod keep;
mod kernel_view;
mod launch;
mod launcher;
mod libvirt;
mod live;
mod logging;
mod mounts;
mod output;
mod pidfile;
mod pipes;
mod plan;
mod policies;
mod relay;
mod report;
mod serve;
mod service;
mod step;
mod submounts;
mod sys;
mod view_name;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::control::{commands, metrics, show};
use crate::error::{Class, Result};
use crate::launch::inside::{Inside, Mediator};
use crate::launcher::Outcome;
use crate::live::{record, reload, trace};
use crate::pidfile::Pidfile;
use crate::plan::{ClientCommand, ClientProcess};
use crate::serve::Logging;

/// The program: does what the command line says; errors are told on stderr.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&Mediator)
}

/// [`main`] with `inside` in the mediator's place.
fn main_with(inside: &'static dyn Inside) -> ExitCode {
    abort_on_panic();
    match completion::answered() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return told(&error),
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    let done = logging::start(&cli.log_level, cli.log_format)
        .and_then(|()| run(cli, inside))
        .and_then(|status| output::finish().map(|()| status));
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tell(&error);
            service::status(&error.to_string());
            ExitCode::from(&error)
        }
    }
}

/// A fault of ours ends the process, and no thread goes on without the one that fell: also in a
/// build for tests, which unwinds.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort()
    }));
}

/// What clap has to say: help on stdout, a mistake on stderr.
#[allow(clippy::print_stderr, reason = "the command line's mistakes")]
fn told(error: &clap::Error) -> ExitCode {
    let _nowhere_to_tell = error.print();
    if error.use_stderr() {
        let mut words = std::env::args_os().skip(1);
        let takes_command = words.any(|word| word == "run" || word == "enter");
        if takes_command && !words.any(|word| word == "--") {
            eprintln!(
                "A command stands behind `--`: virtfs-mediator run /srv/share -- qemu-system-x86_64 ..."
            );
        }
        ExitCode::from(Class::Usage.status())
    } else {
        ExitCode::SUCCESS
    }
}

/// On stderr, whatever the log level: an error is never silent.
#[allow(
    clippy::print_stderr,
    reason = "the one place where a command's failure is told"
)]
fn tell(error: &error::Error) {
    eprintln!("virtfs-mediator: {error}");
}

fn run(cli: Cli, inside: &'static dyn Inside) -> Result<u8> {
    match cli.command {
        Command::Run {
            options,
            pidfile,
            pass_fd,
            exports,
            command,
        } => {
            hints::tell_of_unseen_files(&options, &exports, &command);
            let client = ClientCommand {
                argv: command,
                directory: plan::working_directory(),
                umask: plan::current_umask(),
                pidfile: pidfile.as_deref().map(Pidfile::new).transpose()?,
                descriptors: pass_fd,
            };
            let plan = plan::plan(&options, &exports, ClientProcess::Command(client), inside)?;
            launcher::start(plan, false).map(Outcome::tell)
        }
        Command::Mount {
            options,
            foreground,
            export,
        } => {
            let plan = plan::plan(&options, export.as_slice(), ClientProcess::Nobody, inside)?;
            launcher::start(plan, !foreground).map(Outcome::tell)
        }
        Command::Enter { view, command } => commands::enter(&view, &command),
        Command::Unmount { view, force } => commands::unmount(&view, force).map(|()| 0),
        Command::List { json } => show::list(json).map(|()| 0),
        Command::Reload {
            view,
            policy,
            dry_run,
        } => reload::reload(&view, policy, dry_run).map(|()| 0),
        Command::Record {
            view,
            output,
            which,
        } => record::record(&view, &output, &which).map(|()| 0),
        Command::Step { view, options } => step::step(&view, &options).map(|()| 0),
        Command::Trace { view, which, json } => trace::trace(&view, &which, json).map(|()| 0),
        Command::Status { view, json } => show::status(&view, json).map(|()| 0),
        Command::Metrics { view, output } => metrics::metrics(&view, output.as_deref()).map(|()| 0),
        Command::Doctor(options) => doctor::run(&options),
        Command::Replay {
            recording,
            policy,
            json,
        } => policies::replay(&recording, &policy, json),
        Command::Suggest { recording, from } => {
            policies::suggest(&recording, from.as_deref()).map(|()| 0)
        }
        Command::Libvirt { command } => libvirt::run(command),
        Command::Serve(options) => {
            let logging = Logging {
                level: cli.log_level,
                format: cli.log_format,
            };
            serve::serve(&options, logging, inside.walls())
        }
        Command::Attach(options) => serve::attach::attach(&options, inside),
        Command::Policy { command } => policies::run(command),
    }
}
