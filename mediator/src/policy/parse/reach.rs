//! Rules that can never decide, since earlier ones always do.

use super::super::engine::possible_words;
use super::super::mistake::Report;
use super::super::model::Rule;
use super::super::paths::Glob;
use super::read::Span;
use crate::op::{Op, Word, Words};

/// Notes every rule that is out of reach. Sound, not complete: a rule that it names is out of
/// reach for certain.
pub(super) fn check(rules: &[(Option<Rule>, Span)], readonly: bool, report: &mut Report<'_>) {
    for (at, (rule, span)) in rules.iter().enumerate() {
        let Some(rule) = rule else { continue };
        let demands = demands(rule);
        if readonly && demands.iter().all(|demand| demand.changes()) {
            let hint = "drop the rule, or `readonly`";
            report.add(
                span,
                "this rule never decides: `readonly` refuses all of its `do`",
                hint,
            );
            continue;
        }
        let earlier = rules.get(..at).unwrap_or_default();
        let mut last = None;
        let covered = demands.iter().all(|demand| {
            let paths: Vec<Option<&Glob>> = match &rule.paths[..] {
                [] => vec![None],
                paths => paths.iter().map(Some).collect(),
            };
            paths.into_iter().all(|path| {
                let by = earlier.iter().position(|(before, _)| {
                    before
                        .as_ref()
                        .is_some_and(|before| takes(before, *demand, path))
                });
                last = last.max(by);
                by.is_some()
            })
        });
        if let Some(by) = last.filter(|_| covered) {
            let which = rules
                .get(by)
                .and_then(|(rule, _)| rule.as_ref()?.name.as_deref());
            let which = which.map_or(format!("rule {}", by + 1), |name| format!("rule `{name}`"));
            let what = format!("this rule never decides: {which}, before it, takes all of it");
            report.add(span, what, format!("move it before {which}, or drop it"));
        }
    }
}

/// What a rule speaks of, one by one.
#[derive(Clone, Copy)]
enum Demand {
    Word(Words),
    Raw(Op),
}

impl Demand {
    fn changes(self) -> bool {
        match self {
            // `any` holds more than changes, and locks are asked of nobody.
            Self::Word(word) => Words::CHANGE.meets(word),
            Self::Raw(op) => {
                let words = op.words();
                let only_changes = !words.is_empty() && words.0 & !Words::CHANGE.0 == 0;
                only_changes || super::super::engine::changes(op, Words::NONE)
            }
        }
    }
}

fn demands(rule: &Rule) -> Vec<Demand> {
    let words = (0..16)
        .map(|bit| Words(1 << bit))
        .filter(|word| rule.words.meets(*word));
    let words = words
        .filter(|word| *word != Words::of(Word::Lock))
        .map(Demand::Word);
    let ops = Op::ALL
        .iter()
        .filter(|op| rule.ops.contains(**op))
        .map(|op| Demand::Raw(*op));
    words.chain(ops).collect()
}

/// Whether an earlier rule always decides this demand at this path.
fn takes(before: &Rule, demand: Demand, path: Option<&Glob>) -> bool {
    let speaks = match demand {
        Demand::Word(word) => before.words.meets(word),
        Demand::Raw(op) => {
            let words = possible_words(op);
            let all = !words.is_empty() && words.0 & !before.words.0 == 0;
            before.ops.contains(op) || all
        }
    };
    let there = match path {
        _ if before.paths.is_empty() => true,
        Some(path) => before.paths.iter().any(|glob| glob.covers(path)),
        None => {
            Glob::path("/**").is_ok_and(|all| before.paths.iter().any(|glob| glob.covers(&all)))
        }
    };
    before.when.is_empty() && speaks && there
}
