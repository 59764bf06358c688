//! dbench, postmark and bonnie++: benchmarks that end with an error if an answer is wrong.

use std::io::Write as _;
use std::process::Stdio;

use crate::error::{Result, step};
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, last_words, scripted};

const SUITE: &str = "programs";

pub(crate) fn run(seat: &Seat<'_>, extent: Extent) -> Result<Vec<Case>> {
    let (seconds, transactions, small, pace) = match extent {
        Extent::Short => ("2", 1000, "1", "fast"),
        Extent::Full => ("10", 20_000, "4", "all"),
    };
    Ok(vec![
        // It tells of a wrong answer, and goes on, unless told to end.
        scripted(
            seat,
            SUITE,
            "dbench",
            "mkdir dbench\n\
             dbench -t \"$1\" -D dbench 2 >dbench.log 2>&1 || { tail -n 5 dbench.log; exit 1; }\n\
             grep -q '^Throughput' dbench.log\n\
             ! grep -iE 'failed|error' dbench.log",
            &[seconds],
            300,
        )?,
        postmark(seat, transactions)?,
        // putc and getc are a system call each, a million to the least size.
        scripted(
            seat,
            SUITE,
            "bonnie",
            "mkdir bonnie
             bonnie++ -q -f -D -d bonnie -s 64M -r 32M -n \"$1\" -u \"$(id -u):$(id -g)\" >bonnie.log
             grep -q ',64M,' bonnie.log
             [ \"$2\" = fast ] ||
             bonnie++ -q -d bonnie -s 1M:1k -r 0 -n 0 -u \"$(id -u):$(id -g)\" >bonnie.log",
            &[small, pace],
            900,
        )?,
    ])
}

fn postmark(seat: &Seat<'_>, transactions: u32) -> Result<Case> {
    let commands = format!(
        "set location {}\nset number 500\nset transactions {transactions}\nrun\nquit\n",
        seat.shown().display()
    );
    let mut child = seat
        .command("postmark", 300)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(step("running postmark"))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(commands.as_bytes())
            .map_err(step("writing to postmark"))?;
    }
    let output = child.wait_with_output().map_err(step("running postmark"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success()
        && output.stderr.is_empty()
        && said.contains("megabytes written")
        && !said.contains("Error");
    let outcome = Outcome::of(passed, || last_words(&output));
    Ok(Case::new(SUITE, "postmark", outcome))
}
