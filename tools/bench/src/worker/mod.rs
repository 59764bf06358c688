//! The process that works on a mount: in the contender's namespace, as the contender's user. It
//! reads tasks from standard input and ends with it.

mod data;
mod map;
mod metadata;
mod passes;
mod programs;
mod spread;

mod threads;

pub(crate) use metadata::SMALL;

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::process::ExitCode;

use crate::task::{Answer, Sample, Task, Work};

/// The word that makes this program a worker.
pub(crate) const WORD: &str = "worker";

/// Serves tasks until standard input ends.
pub(crate) fn serve() -> ExitCode {
    // What is created has the mode that was asked for, whoever started us.
    rustix::process::umask(rustix::fs::Mode::empty());
    for line in stdin().lock().lines() {
        let answer = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()))
            .and_then(|task: Task| perform(&task).map_err(|error| error.to_string()))
            .map_or_else(Answer::Failed, Answer::Done);
        let mut out = stdout().lock();
        let told = serde_json::to_writer(&mut out, &answer)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        if told.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn perform(task: &Task) -> std::io::Result<Vec<Sample>> {
    match &task.work {
        Work::Stat { names } => metadata::stat(task, *names),
        Work::Missing { names } => metadata::missing(task, *names),
        Work::Open { names } => metadata::open_files(task, *names),
        Work::Create { names } => metadata::create(task, *names),
        Work::List => metadata::list(task),
        Work::Walk => spread::walk(task),
        Work::Spread { files } => spread::sample(task, *files),
        Work::Transfer(transfer) => data::transfer(task, transfer),
        Work::Map { file } => data::map(task, file),
        Work::Program { argv } => programs::repeatable(task, argv),
        Work::Change { argv, operations } => programs::once(task, argv, *operations),
    }
}
