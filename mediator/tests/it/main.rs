//! The mediator from the outside: raw FUSE messages in, its control socket, and its own structure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "tests"
)]

mod control;
mod floors;
mod kernel;
mod passthrough;
mod protocol;
