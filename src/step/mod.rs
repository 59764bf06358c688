//! `step`: a console that stops at decisions of a running view, like a debugger.
//!
//! Nothing that it does reaches the mount: it reads no file of the view and waits for nothing but
//! the mediator's lines, so that it cannot wait for what it holds. If it goes, however it goes, the
//! mediator decides everything by the policy again.

mod by_hand;
mod command;
mod desk;
mod input;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use crossbeam_channel::bounded;
use virtfs_mediator_core::control::{Answer, Line, Question};
use virtfs_mediator_core::mediate::{HELD_MAX, Stop};

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::live::link::{self, Link, PATIENCE};
use crate::plan;
use desk::{Desk, Flow};
use input::Input;
use show::Screen;

/// How the console is started.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds that a request is held at most: then it is refused.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    hold_limit: u64,
    /// Do what FILE says, a command a line (`-`: standard input), and end at the first mistake.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

/// Attaches a console to a view and obeys whoever types, or a script.
///
/// # Errors
///
/// Privilege; configuration: no such view, another console is attached; mount: the mediator does
/// not answer. In a script, the first command's mistake.
pub(crate) fn step(view: &str, options: &Options) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    // Before anything can be held: a script that cannot be read holds nothing.
    let mut input = Input::open(options.script.as_deref())?;
    let mut link = Link::to(view)?;
    let question = Question::Step {
        limit_seconds: options.hold_limit,
        stop: Stop::Nowhere,
    };
    let Answer::Begun { epoch } = link.ask(&question, PATIENCE)? else {
        return Err(link::failed(view, &"no console"));
    };
    let (answers, answered) = bounded(desk::ANSWERS_MAX);
    let screen = Arc::new(Screen::new(input.printer()));
    let desk = Arc::new(Desk::new(
        state,
        epoch,
        link.connection()?,
        answered,
        Arc::clone(&screen),
    )?);
    screen.say(&format!(
        "attached to '{view}' (policy {epoch}: {}). What is held more than {} seconds is refused; \
         {HELD_MAX} at once at most. `help` tells the commands.",
        desk.policy_file(),
        options.hold_limit
    ));
    input.complete_from(&desk);
    let listener = {
        let desk = Arc::clone(&desk);
        std::thread::spawn(move || {
            while let Ok(Some(line)) = link.next() {
                match line {
                    Line::Told(told) => desk.hear(told),
                    answer @ (Line::Done(_) | Line::NotDone { .. }) => {
                        // One order at a time is given: what does not fit answers none.
                        let _nobody_waits = answers.try_send(answer);
                    }
                    Line::Event(_) | Line::Dropped(_) => {}
                }
            }
            desk.over();
        })
    };
    let result = obey(&mut input, &desk);
    desk.leave();
    // A panic aborts the process, so there is nothing to learn from the result.
    let _panicked = listener.join();
    result
}

fn obey(input: &mut Input, desk: &Desk) -> Result<()> {
    while let Some(line) = input.next(&desk.prompt())? {
        let done = command::parse(&line)
            .map_err(|what| Error::new(Class::Usage, what, "`help` tells the commands"))
            .and_then(|command| match command {
                Some(command) => desk.obey(command),
                None => Ok(Flow::GoOn),
            });
        match done {
            Ok(Flow::GoOn) => {}
            Ok(Flow::Leave) => return Ok(()),
            Err(error) if input.is_script() => return Err(error),
            Err(error) => desk.complain(&error),
        }
    }
    Ok(())
}

/// A path as it was typed, against our working directory.
fn absolute(file: &str) -> PathBuf {
    std::path::absolute(Path::new(file)).unwrap_or_else(|_| file.into())
}
