//! The unprivileged half of virtfs-mediator: it serves one view of one export.
//!
//! Seen as floors, it is one staircase with no arrow back up:
//! `fuse -> control -> mediate -> export -> policy -> op, sys -> ids`.
//!
//! * [`ids`] and [`name`]: the newtypes; a guest id never passes for a host id.
//! * [`op`]: the table of operations, one row each.
//! * [`policy`]: decides; pure, no I/O, no clock, no FUSE.
//! * [`recording`]: requests and their answers in a file, to be judged again.
//! * [`backing`]: which open files the kernel reads and writes past this process.
//! * [`export`]: acts, by descriptor, and only with a [`policy::Permit`].
//! * [`mediate`]: the one way from a request to an act: facts, decision, act.
//! * [`control`]: what a running view answers to root's commands.
//! * [`fuse`]: the thin adapter to the protocol; the only place that knows fuser.
//!
//! Nothing in this crate is privileged: the process that runs it is handed its descriptors and
//! has already given up everything else.

pub mod backing;
pub mod control;
pub mod export;
pub mod fuse;
pub mod ids;
pub mod mediate;
pub mod name;
pub mod op;
pub mod policy;
pub mod recording;
mod sys;
#[cfg(feature = "attack")]
pub mod weak;
#[cfg(not(feature = "attack"))]
mod weak;

pub use backing::DataMode;
pub use export::{Covered, Submounts};
pub use mediate::AuditTo;

pub use fuse::{Cache, OLDEST_PROTOCOL, ServeError, Service, ViewMode, serve};
