//! The one way from a request to an act: check the arguments, gather the facts that the policy asks
//! for from the descriptor that will be used, decide, act with the permit, account.
//!
//! Knows neither FUSE nor fuser: it takes plain types and answers with an errno, so that the whole
//! file system can be driven without a kernel.

mod acls;
mod asides;
mod attrs;
mod audit;
mod counters;
mod data;
mod dirs;
mod event;
mod funnel;
mod gate;
mod gather;
mod grow;
mod histogram;
mod in_force;
mod io;
mod kept;
mod ledger;
mod make;
mod names;
mod open;
mod record;
mod reload;
mod scratch;
mod select;
mod tell;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_standing;
#[cfg(test)]
mod tests_totals;
mod turns;
mod watch;
mod watched;
mod xattrs;

pub use acls::AskedMode;
pub use asides::{Aside, Asides};
pub use audit::{AuditTo, AuditWriter, Verbosity};
pub use counters::{Count, Counters, Latency, Verdicts};
pub use data::Opened;
pub use dirs::{DirectoryBy, Plus};
pub use event::{Decision, Ended, Event, Verdict};
pub use funnel::{Mediator, Shown, ShownEntry};
pub use gate::{Attached, Cause, Gate, HELD_MAX, Release, Stop, Told, holding};
pub use histogram::{BUCKETS, bound_micros};
pub use record::{AUDIT_LINE_MAX, AuditEvent, AuditLine};
pub use reload::{KernelCaches, ReloadError, Reloaded};
pub use select::{Selection, Selector};
pub use turns::Turn;
pub use watch::Watch;
pub use xattrs::XattrReply;
