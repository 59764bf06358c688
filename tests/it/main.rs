//! The program as a whole, on the real kernel: everything here needs root and /dev/fuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod acls;
mod audit;
mod common;
mod doctor;
mod errors;
mod gate;
mod host_namespace;
mod language;
mod limited;
mod listings;
mod live;
mod metrics;
mod passthrough;
mod policy_tools;
mod process;
mod properties;
mod qemu;
mod readme;
mod requests;
mod rules;
mod semantics;
mod several;
mod submounts;
mod teardown;
mod terminal;
mod twin;
mod walls;
mod workload;
