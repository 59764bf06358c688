//! From a policy file to a [`Policy`], or to every mistake in it.

mod limit;
mod reach;
mod read;
mod rule;
mod top;
mod when;

use toml::de::DeTable;

use super::mistake::{Mistakes, Report};
use super::model::Policy;

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
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // The tree after a broken line is a guess; further mistakes would be guesses too.
            for error in errors {
                let hint = "this is not TOML; strings need quotes, lists brackets";
                reader
                    .report
                    .add(&error.span().unwrap_or(0..0), error.message(), hint);
            }
            return Err(reader.report.into_mistakes(file));
        }
        let policy = reader.policy(document.get_ref());
        match policy {
            Some(policy) if reader.report.is_empty() => Ok(policy.compiled()),
            _ => Err(reader.report.into_mistakes(file)),
        }
    }
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
