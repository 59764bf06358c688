//! Decides. Pure: no I/O, no clock, no FUSE.
//!
//! [`Policy`] is plain data; [`Policy::decide`] reads [`Facts`] and hands out a [`Permit`] or a
//! [`Refusal`]. A rule holds for a request when one of its path globs, one of its words or raw
//! names, and all of its conditions do; the first that holds decides, word by word and name by
//! name, and the strictest verdict stands.

mod acl;
mod areas;
mod carry;
mod condition;
mod data;
mod engine;
mod explain;
mod facts;
mod fit;
mod grant;
mod index;
mod limit;
mod mistake;
mod model;
mod owners;
mod parse;
mod paths;
mod permit;
mod request;
pub mod shipped;
mod standing;
mod symbol;
pub(crate) mod text;
mod witness;
mod xattrs;

pub use acl::{ACCESS_ACL, DEFAULT_ACL, is_acl, mode_of_acl};
pub use areas::{Area, Areas, Totals};
pub use data::DataJudgement;
pub use explain::{
    Answer, Effect, Explanation, Fit, Outcome, Role, RuleRef, Step, Tried, WouldBe, word_names,
};
pub use facts::{Facts, Needs, Requester};
pub use fit::Misfit;
pub use grant::Judged;
pub use mistake::{Mistake, Mistakes};
pub use model::{CacheWord, Policy, Settings, SubmountsWord};
pub use owners::IdSpan;
pub use parse::{
    BadPhrase, Circumstances, Expectation, ExpectedCase, Users, check_path, escaped, parse_cases,
    parse_ids, parse_kind, parse_mode, phrase_forms, unescaped,
};
pub use paths::glob_of;
pub use permit::{Permit, Refusal};
pub use request::{Granted, Request};
pub use standing::Standing;
pub use symbol::{errno_name, errno_named, errno_symbol};
pub use witness::witnesses;

#[cfg(test)]
mod props;
#[cfg(test)]
mod props_language;
#[cfg(test)]
mod props_standing;
#[cfg(test)]
pub(crate) mod tests;
