//! The one way from a request to an act: check the arguments, gather the facts that the policy asks
//! for from the descriptor that will be used, decide, act with the permit, account.
//!
//! Knows neither FUSE nor fuser: it takes plain types and answers with an errno, so that the whole
//! file system can be driven without a kernel.

mod attrs;
mod audit;
mod counters;
mod dirs;
mod funnel;
mod histogram;
mod io;
mod kept;
mod make;
mod names;
mod open;
mod record;
mod scratch;
mod xattrs;

pub use audit::{AuditTo, AuditWriter, Verbosity};
pub use counters::{Count, Counters, Latency};
pub use dirs::Plus;
pub use funnel::{Mediator, Shown, ShownEntry};
pub use histogram::{BUCKETS, bound_micros};
pub use record::{AUDIT_LINE_MAX, AuditEvent, AuditLine};
pub use xattrs::XattrReply;
