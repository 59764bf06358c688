//! `virtfs-attack`: attacks that anyone can run, on the product and on weaker arrangements.
#![allow(dead_code, reason = "seat M is not here yet")]

mod case;
mod cases;
mod driver;
mod lab;

use std::process::ExitCode;
use std::time::Instant;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]
fn main() -> ExitCode {
    if let Some(code) = driver::role::take() {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let lab = lab::Lab {
        mediator: std::env::var_os("MEDIATOR").unwrap_or_default().into(),
        short: std::env::var_os("FULL").is_none(),
    };
    for case in [
        cases::q::CASES,
        cases::g::CASES,
        cases::r::CASES,
        cases::l::CASES,
    ]
    .concat_refs()
    {
        if !words.is_empty() && !words.iter().any(|word| word == case.id) {
            continue;
        }
        let started = Instant::now();
        println!(
            "{} {} ({:?}): {}; stopped by: {}",
            case.row, case.id, case.seat, case.what, case.stopped_by
        );
        match (case.run)(&lab) {
            Ok(attempts) => {
                for attempt in &attempts {
                    println!(
                        "    {:?} [{}] {:?}\n        told: {:?}",
                        attempt.arrangement, attempt.way, attempt.verdict, attempt.told
                    );
                }
            }
            Err(why) => println!("    ERROR {why}"),
        }
        println!("    {:.1?}", started.elapsed());
    }
    for (row, why) in cases::q::NOT_YET {
        println!("{row} not tried: {why}");
    }
    ExitCode::SUCCESS
}

trait ConcatRefs {
    fn concat_refs(self) -> Vec<&'static case::Case>;
}

impl<const N: usize> ConcatRefs for [&'static [case::Case]; N] {
    fn concat_refs(self) -> Vec<&'static case::Case> {
        self.into_iter().flatten().collect()
    }
}
