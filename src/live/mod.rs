//! Commands on a view while it is in use: reload, trace, record. They speak to the mediator, which
//! may be broken into: what it says is bounded, parsed as hostile, shown escaped, and never decides
//! what root's own commands do to the host.

pub(crate) mod in_force;
pub(crate) mod link;
pub(crate) mod origin;
pub(crate) mod record;
pub(crate) mod reload;
pub(crate) mod trace;
pub(crate) mod words;
