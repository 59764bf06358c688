//! Decides. Pure: no I/O, no clock, no FUSE.
//!
//! [`Policy`] is plain data; [`Policy::decide`] reads [`Facts`] and hands out a [`Permit`] or a
//! [`Refusal`]. A rule holds for a request when one of its path globs, one of its words or raw
//! names, and all of its conditions do; the first that holds decides, word by word and name by
//! name, and the strictest verdict stands.

mod areas;
mod carry;
mod condition;
mod engine;
mod facts;
mod grant;
mod limit;
mod mistake;
mod model;
mod owners;
mod parse;
mod paths;
mod permit;
mod request;
pub mod shipped;
mod xattrs;

pub use areas::{Area, Areas, Totals};
pub use facts::{Facts, Needs, Requester};
pub use grant::Judged;
pub use mistake::{Mistake, Mistakes};
pub use model::{CacheWord, Policy, Settings};
pub use owners::IdSpan;
pub use parse::Users;
pub use permit::{Permit, Refusal};
pub use request::{Granted, Request};

#[cfg(test)]
mod props;
#[cfg(test)]
mod props_language;
#[cfg(test)]
mod tests;
