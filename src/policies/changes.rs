//! Requests whose answer differs between two policies, grouped for people.

use std::collections::BTreeMap;

use serde::Serialize;
use virtfs_mediator_core::policy::{Answer, Policy, Request};

use super::show;

/// Examples that are kept of a group: a recording may hold any number...
const EXAMPLES: usize = 10;
/// ...of any length: of a request's words, so many bytes are kept.
const EXAMPLE_MAX: usize = 1024;
/// Groups that are kept: a hostile recording could make one for each errno there is.
const GROUPS_MAX: usize = 4096;

/// Answers that differ.
#[derive(Debug, Default)]
pub(super) struct Changes {
    groups: BTreeMap<(&'static str, String, String), Group>,
    /// Requests that were judged.
    pub(super) requests: u64,
    /// Requests among them whose answer differs.
    pub(super) changed: u64,
    /// Requests that the new policy refuses, whatever was answered.
    pub(super) refused: u64,
    /// Requests that could not be judged: what the policy asks about is not known of them.
    pub(super) unknown: u64,
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    /// The first different ones, with their numbers.
    examples: Vec<Example>,
}

/// A request as an example of many.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Example {
    /// In words, escaped.
    request: String,
    /// How many there are like it.
    count: u64,
}

/// Changes of one operation from one answer to another.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// The raw FUSE name.
    op: &'static str,
    /// How it was answered: `allow`, `deny EACCES`.
    was: String,
    /// How it is answered now, and why.
    now: String,
    /// How many requests.
    count: u64,
    /// Some of them.
    examples: Vec<Example>,
}

impl Changes {
    /// Notes `count` requests that are alike; `was` is the answer that `now` is compared with.
    pub(super) fn add(&mut self, request: &Request, count: u64, was: &str, now: &Answer) {
        self.requests = self.requests.saturating_add(count);
        if !now.allowed {
            self.refused = self.refused.saturating_add(count);
        }
        if was == show::verdict(now) {
            return;
        }
        self.changed = self.changed.saturating_add(count);
        let mut key = (request.op.raw_name(), was.to_owned(), show::answer(now));
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            key = ("others", "any".to_owned(), "any".to_owned());
        }
        let group = self.groups.entry(key).or_default();
        group.count = group.count.saturating_add(count);
        let mut phrase = request.phrase();
        if phrase.len() > EXAMPLE_MAX {
            // Escaped, hence ASCII: any place is one to cut at.
            phrase.truncate(EXAMPLE_MAX);
            phrase.push_str("...");
        }
        let mut known = group.examples.iter_mut();
        if let Some(known) = known.find(|known| known.request == phrase) {
            known.count = known.count.saturating_add(count);
        } else if group.examples.len() < EXAMPLES {
            group.examples.push(Example {
                request: phrase,
                count,
            });
        }
    }

    /// Notes requests that cannot be judged.
    pub(super) fn add_unknown(&mut self, count: u64) {
        self.requests = self.requests.saturating_add(count);
        self.unknown = self.unknown.saturating_add(count);
    }

    /// The groups, the largest first.
    pub(super) fn told(self) -> Vec<Told> {
        let groups = self.groups.into_iter();
        let told = groups.map(|((op, was, now), Group { count, examples })| Told {
            op,
            was,
            now,
            count,
            examples,
        });
        let mut told: Vec<Told> = told.collect();
        told.sort_by_key(|group| std::cmp::Reverse(group.count));
        told
    }
}

impl Told {
    /// The group in lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self {
            op,
            was,
            now,
            count,
            examples,
        } = self;
        let mut lines = vec![format!("{op}: {was} -> {now}: {}", grouped(*count))];
        let shown: u64 = examples.iter().map(|example| example.count).sum();
        lines.extend(
            examples
                .iter()
                .map(|example| format!("  {:>7} {}", grouped(example.count), example.request)),
        );
        if shown < *count {
            lines.push(format!("  {:>7} more", grouped(count - shown)));
        }
        lines
    }
}

/// Whether all that a policy asks about is known of a request.
pub(super) fn is_judgeable(policy: &Policy, request: &Request) -> bool {
    use virtfs_mediator_core::op::{AnyAsk, Op};
    let needs = policy.needs(request.op);
    // What is to be made has no attributes; handles that need no attributes are not looked at.
    let is_new = matches!(request.ask, AnyAsk::Birth(_));
    let is_known = request.kind.is_some() || is_new;
    let needs_attr = needs.attr && !matches!(request.op, Op::Flush | Op::Fsync);
    !(needs.path && request.names.is_empty() || needs_attr && !is_known)
}

/// `150,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn number_is_grouped_by_threes() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (150_000, "150,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), want);
        }
    }
}
