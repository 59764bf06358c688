//! The one way from a request to an act: check the arguments, gather the facts that the policy asks
//! for from the descriptor that will be used, decide, act with the permit, account.
//!
//! Knows neither FUSE nor fuser: it takes plain types and answers with an errno, so that the whole
//! file system can be driven without a kernel.

mod asides;
mod attrs;
mod audit;
mod counters;
mod dirs;
mod funnel;
mod grow;
mod io;
mod ledger;
mod make;
mod names;
mod open;
mod scratch;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_totals;
mod xattrs;

pub use asides::{Aside, Asides};
pub use audit::{AuditWriter, Verbosity};
pub use counters::{Count, Counters};
pub use dirs::Plus;
pub use funnel::{Mediator, Shown, ShownEntry};
pub use xattrs::XattrReply;
