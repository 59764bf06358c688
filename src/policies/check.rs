//! `policy check`: every mistake of policy files, and what is worth a look in those without.

use std::collections::BTreeSet;
use std::path::Path;

use virtfs_mediator_core::policy::{Policy, witnesses};

use super::{show, usual_requester};
use crate::error::Result;
use crate::live::in_force::Text;

/// Every mistake of every file on stderr; what is well on stdout, with the ids that names of users
/// and groups stand for and rules that seem to decide nothing. The status tells whether there was a
/// mistake.
#[allow(clippy::print_stderr, reason = "the command's output")]
pub(super) fn check(files: &[impl AsRef<Path>]) -> u8 {
    let mut status = 0;
    for file in files {
        match checked(file.as_ref()) {
            Ok(lines) => show::print(&lines),
            Err(error) => {
                eprintln!("{error}");
                status = error.class().status();
            }
        }
    }
    status
}

fn checked(file: &Path) -> Result<Vec<String>> {
    let Text {
        file: shown,
        names,
        policy,
        ..
    } = Text::read(file)?;
    let mut lines = vec![format!("{shown}: ok")];
    for (kind, named) in [("group", &names.groups), ("user", &names.users)] {
        for (name, id) in named {
            lines.push(format!("  {kind} {} is {id}", name.escape_debug()));
        }
    }
    for rule in idle_rules(&policy) {
        lines.push(format!(
            "  note: {}: no request was found that it decides; earlier rules may take all of its own",
            show::rule(&policy.rule_ref(rule))
        ));
    }
    Ok(lines)
}

/// Rules that decide none of the requests made up from the policy's own globs and conditions. What
/// surely never decides is a mistake already; this sees what several rules take together.
fn idle_rules(policy: &Policy) -> Vec<u32> {
    /// Requests times rules: a few seconds' work.
    const WORK_MAX: usize = 20_000_000;
    let requests = witnesses(&[policy], usual_requester(policy));
    if requests.len().saturating_mul(policy.rule_count()) > WORK_MAX {
        return Vec::new();
    }
    let decided: BTreeSet<u32> = requests
        .iter()
        .flat_map(|request| policy.deciding_rules(request))
        .collect();
    let all = (0..).take(policy.rule_count());
    all.filter(|rule| !decided.contains(rule)).collect()
}
