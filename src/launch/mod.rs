//! Starting: every privileged act, in an order that the types enforce.
//!
//! [`stage`] makes the views' namespace and mounts (isolate, mount, spawn); [`mediator`] and
//! [`client`] are what the two kinds of child do from their first instruction to the point where
//! they serve, or execute ([`inside`] says what is served); [`peer`] is a client that others have
//! started; [`walls`], [`landlock`] and [`seccomp`]
//! (whose lists are in [`calls`]) are what they, and the keeper, give up on the way.

pub(crate) mod calls;
pub(crate) mod child;
pub(crate) mod client;
mod covers;
mod descriptors;
pub(crate) mod fusemount;
pub(crate) mod inside;
pub(crate) mod isolate;
pub(crate) mod landlock;
pub(crate) mod mediator;
pub(crate) mod namespace;
pub(crate) mod peer;
mod readahead;
pub(crate) mod sandbox;
pub(crate) mod seccomp;
pub(crate) mod stage;
#[cfg(test)]
mod wall_tests;
pub(crate) mod walls;
