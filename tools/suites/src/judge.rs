//! What of all outcomes is a difference from the reference, and which of them are known.

use std::collections::BTreeMap;

use crate::expected::{Difference, is_of_device_nodes};
use crate::outcome::{Case, Outcome};
use crate::place::Place;

/// Every place's cases, in the order in which they ran.
pub(crate) type Outcomes = Vec<(Place, Vec<Case>)>;

/// What it all comes to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Cases of views that passed as on the reference, or differ as listed.
    pub(crate) passed: usize,
    /// Of those, how many differ as listed.
    pub(crate) known: usize,
    /// A line for each case of a view that is neither.
    pub(crate) failures: Vec<String>,
}

/// Compares views with their references. `complete` says that every place and suite was run: only
/// then is evidence asked for, and an entry that speaks of nothing is one too many.
pub(crate) fn judge(outcomes: &Outcomes, expected: &[Difference], complete: bool) -> Verdict {
    let found: BTreeMap<String, BTreeMap<&str, &Outcome>> = outcomes
        .iter()
        .map(|(place, cases)| {
            let cases = cases.iter().map(|case| (case.name.as_str(), &case.outcome));
            (place.to_string(), cases.collect())
        })
        .collect();
    let at = |place: Place, case: &str| {
        let there = found.get(&place.to_string())?;
        there.get(case).copied()
    };
    let mut verdict = Verdict::default();
    let mut used = vec![false; expected.len()];
    for (place, cases) in outcomes.iter().filter(|(place, _)| place.is_view()) {
        for Case { name, outcome } in cases {
            let Some(reference) = at(place.reference(), name) else {
                verdict
                    .failures
                    .push(format!("{place} {name}: not run on {}", place.reference()));
                continue;
            };
            let entry = expected.iter().position(|entry| entry.covers(name, *place));
            if let Some(entry) = entry {
                used[entry] = true;
            }
            let same = outcome.word() == reference.word();
            let fault = match entry.and_then(|entry| expected.get(entry)) {
                Some(entry) if same && !entry.varies() => Some(format!(
                    "{}, as on the reference, though listed",
                    outcome.word()
                )),
                Some(entry) if !entry.is_met_by(outcome) => Some(format!(
                    "{} otherwise than listed: {}",
                    outcome.word(),
                    outcome.why()
                )),
                Some(entry) => entry
                    .shown_on
                    .and_then(|place| evidence(place, at(place, name), entry, complete)),
                None if same && *outcome == Outcome::Passed => None,
                // What neither can or tries says nothing about the view.
                None if same => continue,
                // Better than the reference: told in the table, no fault of the view.
                None if *outcome == Outcome::Passed => None,
                None => Some(format!(
                    "{}, on {} {}: {}",
                    outcome.word(),
                    place.reference(),
                    reference.word(),
                    outcome.why()
                )),
            };
            match fault {
                Some(fault) => verdict.failures.push(format!("{place} {name}: {fault}")),
                None => {
                    verdict.passed += 1;
                    verdict.known += usize::from(entry.is_some());
                }
            }
        }
    }
    verdict
        .failures
        .extend(passed_by_mirrors_alone(outcomes, expected));
    if complete {
        let unused = expected.iter().zip(used).filter(|(_, used)| !used);
        let lines = unused
            .map(|(entry, _)| format!("expected.toml: {}: there is no such case", entry.title));
        verdict.failures.extend(lines);
    }
    verdict
}

/// A line for each case that another mirror passes and a shared view does not, listed or not; device
/// nodes are none of a view's.
fn passed_by_mirrors_alone(outcomes: &Outcomes, expected: &[Difference]) -> Vec<String> {
    let passed = |place: &Place| -> BTreeMap<&str, Place> {
        outcomes
            .iter()
            .filter(|(mirror, _)| mirror.is_matched_by(*place))
            .flat_map(|(mirror, cases)| cases.iter().map(move |case| (case, *mirror)))
            .filter(|(case, _)| case.outcome == Outcome::Passed)
            .map(|(case, mirror)| (case.name.as_str(), mirror))
            .collect()
    };
    let mut alone = Vec::new();
    for (place, cases) in outcomes {
        let by_mirrors = passed(place);
        for Case { name, outcome } in cases {
            if let Some(mirror) = by_mirrors.get(name.as_str())
                && *outcome != Outcome::Passed
                && !is_of_device_nodes(expected, name)
            {
                alone.push(format!(
                    "{place} {name}: {}, and {mirror} passes it: {}",
                    outcome.word(),
                    outcome.why()
                ));
            }
        }
    }
    alone
}

/// None if the place that is to show the rule does so.
fn evidence(
    place: Place,
    shown: Option<&Outcome>,
    entry: &Difference,
    complete: bool,
) -> Option<String> {
    match shown {
        Some(outcome) if entry.is_met_by(outcome) => None,
        Some(outcome) => Some(format!(
            "{place} does not show the reason: {} there",
            outcome.word()
        )),
        None if complete => Some(format!("not run on {place}, which is to show the reason")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Mode;

    const VIEW: Place = Place::Shared(Mode::DEFAULT);

    fn expected() -> Vec<Difference> {
        crate::expected::parse(
            "[[difference]]
case = ['s/known']
outcome = 'failed'
shown_on = 'plain'
reason = 'r'
",
        )
        .unwrap()
    }

    fn failed() -> Outcome {
        Outcome::Failed("why".to_owned())
    }

    fn found(case: &str, on: &[(Place, Outcome)]) -> Outcomes {
        let cases = |outcome: &Outcome| vec![Case::new("s", case, outcome.clone())];
        on.iter()
            .map(|(place, outcome)| (*place, cases(outcome)))
            .collect()
    }

    #[test]
    fn unlisted_difference_and_listed_agreement_fail() {
        for (case, view, failures) in [
            ("new", Outcome::Passed, 0),
            ("new", failed(), 1),
            ("new", Outcome::Skipped(String::new()), 1),
            ("known", failed(), 0),
            ("known", Outcome::Passed, 1),
            ("known", Outcome::Skipped(String::new()), 1),
        ] {
            let all = found(
                case,
                &[(Place::Ext4, Outcome::Passed), (VIEW, view.clone())],
            );
            let verdict = judge(&all, &expected(), false);
            assert_eq!(
                verdict.failures.len(),
                failures,
                "{case} {view:?}: {verdict:?}"
            );
            assert_eq!(verdict.passed, 1 - failures);
        }
    }

    #[test]
    fn reason_must_show_where_the_entry_says() {
        let all = |plain| {
            found(
                "known",
                &[
                    (Place::Ext4, Outcome::Passed),
                    (VIEW, failed()),
                    (Place::Plain, plain),
                ],
            )
        };
        assert!(judge(&all(failed()), &expected(), true).failures.is_empty());
        let verdict = judge(&all(Outcome::Passed), &expected(), false);
        assert!(verdict.failures[0].contains("does not show"), "{verdict:?}");
        let all = found("known", &[(Place::Ext4, Outcome::Passed), (VIEW, failed())]);
        assert_eq!(judge(&all, &expected(), true).failures.len(), 1);
    }

    #[test]
    fn what_another_mirror_passes_a_shared_view_must_pass_but_for_device_nodes() {
        let text = |devices: bool| {
            format!(
                "[[difference]]\ncase = ['s/known']\noutcome = 'failed'\ndevice_nodes = {devices}\n\
                 shown_on = 'plain'\nreason = 'r'\n"
            )
        };
        for (mirror, devices, failures) in [
            (Outcome::Passed, false, 1),
            (Outcome::Passed, true, 0),
            (failed(), false, 0),
        ] {
            let all = found(
                "known",
                &[
                    (Place::Ext4, Outcome::Passed),
                    (VIEW, failed()),
                    (Place::Bindfs, mirror),
                ],
            );
            let expected = crate::expected::parse(&text(devices)).unwrap();
            let verdict = judge(&all, &expected, false);
            assert_eq!(verdict.failures.len(), failures, "{verdict:?}");
        }
    }

    #[test]
    fn case_without_reference_and_entry_without_case_fail() {
        let verdict = judge(&found("new", &[(VIEW, Outcome::Passed)]), &expected(), true);
        assert_eq!(verdict.failures.len(), 2, "{verdict:?}");
    }

    #[test]
    fn what_the_reference_fails_or_skips_is_not_counted_as_passed() {
        for outcome in [failed(), Outcome::Skipped(String::new())] {
            let all = found("new", &[(Place::Ext4, outcome.clone()), (VIEW, outcome)]);
            let verdict = judge(&all, &expected(), false);
            assert_eq!((verdict.passed, verdict.failures.len()), (0, 0));
        }
    }
}
