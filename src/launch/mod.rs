//! Starting: every privileged act, in an order that the types enforce.
//!
//! [`stage`] makes the views' namespace and mounts (isolate, mount, spawn); [`mediator`] and
//! [`client`] are what the two kinds of child do from their first instruction to the point where
//! they serve, or execute; [`walls`] is what they give up on the way.

pub(crate) mod client;
pub(crate) mod fusemount;
pub(crate) mod isolate;
pub(crate) mod mediator;
pub(crate) mod namespace;
pub(crate) mod stage;
pub(crate) mod walls;
