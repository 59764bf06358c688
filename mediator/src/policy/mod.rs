//! Decides. Pure: no I/O, no clock, no FUSE.

mod facts;
mod permit;

pub use facts::{Facts, Needs, Requester};
pub use permit::{Permit, Refusal};
