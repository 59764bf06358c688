//! For programs.

use serde::Serialize;

use super::counts;
use crate::case::{Attempt, Seat, Verdict};
use crate::judge::{Judged, Outcome, is_logged, name};

#[derive(Serialize)]
struct Whole<'a> {
    kernel: String,
    machine: String,
    passed: usize,
    failed: usize,
    not_on_this_kernel: usize,
    /// What the packaged virtfs-proxy-helper was found to hold.
    proxy_helper: &'a str,
    cases: Vec<One<'a>>,
}

#[derive(Serialize)]
struct One<'a> {
    row: u8,
    id: &'a str,
    seat: Seat,
    what: &'a str,
    stopped_by: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    seconds: f64,
    attempts: Vec<Try<'a>>,
}

#[derive(Serialize)]
struct Try<'a> {
    arrangement: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    way: &'a str,
    verdict: &'a str,
    detail: &'a str,
    told: Option<&'a str>,
    /// Whether `told` stands in our log. If not, the kernel refused a call that a mediator may
    /// make: no process of ours sees that.
    logged: bool,
}

/// One JSON object.
///
/// # Errors
///
/// None that serde_json has for these types.
pub(crate) fn object(all: &[Judged], proxy_helper: &str) -> serde_json::Result<String> {
    let (passed, failed, not_on_this_kernel) = counts(all);
    let system = rustix::system::uname();
    let whole = Whole {
        kernel: system.release().to_string_lossy().into_owned(),
        machine: system.machine().to_string_lossy().into_owned(),
        passed,
        failed,
        not_on_this_kernel,
        proxy_helper,
        cases: all.iter().map(one).collect(),
    };
    serde_json::to_string_pretty(&whole)
}

fn one(judged: &Judged) -> One<'_> {
    let (outcome, why) = match &judged.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(why) => ("failed", Some(why.as_str())),
        Outcome::NotHere => ("not on this kernel", None),
    };
    One {
        row: judged.case.row,
        id: judged.case.id,
        seat: judged.case.seat,
        what: judged.case.what,
        stopped_by: judged.case.stopped_by,
        outcome,
        why,
        seconds: judged.took.as_secs_f64(),
        attempts: judged.attempts.iter().map(attempt).collect(),
    }
}

fn attempt(attempt: &Attempt) -> Try<'_> {
    let (verdict, detail) = match &attempt.verdict {
        Verdict::Succeeded(how) => ("succeeded", how),
        Verdict::Refused(how) => ("refused", how),
        Verdict::Untried(why) => ("untried", why),
    };
    Try {
        arrangement: name(attempt),
        way: &attempt.way,
        verdict,
        detail,
        told: attempt.told.as_deref(),
        logged: is_logged(attempt),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{HOSTILE, attempt, judged, refused, succeeded};
    use super::*;
    use crate::case::Arrangement;
    use crate::trial::KERNELS_OWN;

    #[test]
    fn object_tells_all_and_that_an_errno_is_no_log() {
        let mut by_kernel = attempt(Arrangement::Product, HOSTILE, refused("EPERM"));
        by_kernel.told = Some(KERNELS_OWN.to_owned());
        let all = [judged(vec![
            attempt(Arrangement::Walls("w"), "", succeeded("x")),
            by_kernel,
            attempt(Arrangement::Product, "", refused("killed (SIGSYS)")),
        ])];
        let text = object(&all, "found").unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["passed"], 1);
        let tries = &parsed["cases"][0]["attempts"];
        assert_eq!(tries[0]["verdict"], "succeeded");
        assert_eq!(tries[1]["way"], HOSTILE);
        assert_eq!(tries[1]["told"], KERNELS_OWN);
        assert_eq!(tries[1]["logged"], false);
        assert_eq!(tries[2]["logged"], true);
        assert!(!text.contains('\x1b'));
    }
}
