//! `policy test`: a table of requests and what is expected of a policy.

use std::path::Path;

use virtfs_mediator_core::policy::{
    Answer, Expectation, ExpectedCase, Policy, errno_symbol, parse_cases,
};

use super::{load, read, show, usual_requester, wrong};
use crate::error::Result;

/// Judges every case; the status is 1 if an answer differs.
///
/// # Errors
///
/// Configuration: the policy or the file of cases.
pub(super) fn test(file: &Path, cases: &Path) -> Result<u8> {
    let policy = load(file)?;
    let text = read(cases, "cases", "name a TOML file of `[[case]]` tables")?;
    let shown = cases.display().to_string();
    let table = parse_cases(&shown, &text, usual_requester(&policy))
        .map_err(|mistakes| wrong(mistakes.to_string().trim_end()))?;
    let mut lines = Vec::new();
    let mut differ = 0;
    for case in &table {
        if let Some(difference) = difference(&policy, case) {
            differ += 1;
            lines.push(format!("{shown}:{}: {}", case.line, case.request.phrase()));
            lines.extend(difference.into_iter().map(|line| format!("  {line}")));
        }
    }
    let all = table.len();
    lines.push(match differ {
        0 => format!("{shown}: {all} of {all} as expected"),
        differ => format!("{shown}: {differ} of {all} differ"),
    });
    show::print(&lines);
    Ok(u8::from(differ > 0))
}

/// What is told of a case whose answer differs.
fn difference(policy: &Policy, case: &ExpectedCase) -> Option<Vec<String>> {
    let answer = policy.answer(&case.request);
    if as_expected(&answer, case) {
        return None;
    }
    let expect = match case.expect {
        Expectation::Allow => "allow".to_owned(),
        Expectation::Deny => "deny".to_owned(),
        Expectation::Errno(errno) => format!("deny {}", errno_symbol(errno)),
    };
    let by = case.rule.as_ref().map(|rule| match rule.as_str() {
        DEFAULT => " (default)".to_owned(),
        rule => format!(" (rule \"{}\")", rule.escape_debug()),
    });
    let mut lines = vec![
        format!("- {expect}{}", by.unwrap_or_default()),
        format!("+ {}", show::answer(&answer)),
    ];
    let note = case.note.as_ref();
    lines.extend(note.map(|note| format!("  note: {}", note.escape_debug())));
    Some(lines)
}

/// How a case says that no rule decides.
const DEFAULT: &str = "default";

fn as_expected(answer: &Answer, case: &ExpectedCase) -> bool {
    let verdict = match case.expect {
        Expectation::Allow => answer.allowed,
        Expectation::Deny => !answer.allowed,
        Expectation::Errno(errno) => answer.errno == Some(errno_symbol(errno)),
    };
    let by = answer.rule.as_ref();
    let rule = case.rule.as_ref().is_none_or(|wanted| match by {
        None => wanted == DEFAULT,
        Some(rule) => rule.name.as_ref() == Some(&wanted.escape_debug().to_string()),
    });
    verdict && rule
}
