//! Audit records outside of the mediator that writes them: it may be broken into, and it can open
//! nothing but files of its export.
//!
//! A mediator writes each record as a line to a pipe of its own, before the client has its answer. A process of ours reads it, one for
//! each view: uid 0 without any capability, behind a seccomp list. It checks every line, puts the
//! time and the view's name before it (a mediator cannot speak for another view), and hands it to
//! the sinks that were opened before any of that.

mod entry;
mod journal;
mod lines;
mod relay;
mod sinks;

pub(crate) use relay::AuditRelay;
pub(crate) use sinks::Sinks;
