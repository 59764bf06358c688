//! From a policy file to a [`Policy`], or to every mistake in it.

mod cases;
mod limit;
mod phrase;
mod reach;
mod read;
mod rule;
mod say;
mod top;
mod when;
mod words;

use toml::Spanned;
use toml::de::DeTable;

use super::mistake::{Mistakes, Report};
use super::model::Policy;

pub use cases::{Expectation, ExpectedCase, parse_cases};
pub use phrase::Circumstances;
pub use say::escaped;
pub use words::{
    BadPhrase, check_path, parse_ids, parse_kind, parse_mode, phrase_forms, unescaped,
};

/// Resolves names of users and groups; the caller's, so that the policy does no I/O.
pub trait Users {
    /// A user's host uid.
    fn user(&self, name: &str) -> Option<u32>;
    /// A group's host gid.
    fn group(&self, name: &str) -> Option<u32>;
}

/// What every reader of the file needs.
struct Reader<'t, 'u> {
    report: Report<'t>,
    users: &'u dyn Users,
}

impl Policy {
    /// Reads a policy file. `file` is its name, for messages only.
    ///
    /// # Errors
    ///
    /// Every mistake in it, with line, column and what to do.
    pub fn parse(file: &str, text: &str, users: &dyn Users) -> Result<Self, Mistakes> {
        let mut reader = Reader {
            report: Report::new(text),
            users,
        };
        let Some(document) = document(text, &mut reader.report) else {
            return Err(reader.report.into_mistakes(file));
        };
        let policy = reader.policy(document.get_ref());
        match policy {
            Some(policy) if reader.report.is_empty() => Ok(policy.compiled()),
            _ => Err(reader.report.into_mistakes(file)),
        }
    }
}

/// The file as TOML; `None` with every mistake noted if it is none.
fn document<'t>(text: &'t str, report: &mut Report<'_>) -> Option<Spanned<DeTable<'t>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document);
    }
    // The tree after a broken line is a guess; further mistakes would be guesses too.
    for error in errors {
        let hint = "this is not TOML; strings need quotes, lists brackets";
        report.add(&error.span().unwrap_or(0..0), error.message(), hint);
    }
    None
}

/// What the parser knows, for the test of the manual: keys of a file, of a rule and of `when`, and
/// errnos.
#[cfg(test)]
pub(super) fn known() -> [Vec<&'static str>; 4] {
    let errnos = rule::ERRNOS.iter().map(|(name, _)| *name);
    let keys = [top::KEYS, rule::KEYS, when::KEYS].map(<[&str]>::to_vec);
    let [top, rule, when] = keys;
    [top, rule, when, errnos.collect()]
}

#[cfg(test)]
mod tests;
