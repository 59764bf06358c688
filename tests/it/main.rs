//! The program as a whole, on the real kernel: everything here needs root and /dev/fuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod audit;
mod common;
mod doctor;
mod errors;
mod gate;
mod host_namespace;
mod language;
mod listings;
mod live;
mod metrics;
mod older_kernels;
mod passthrough;
mod policy_tools;
mod process;
mod properties;
mod qemu;
mod readme;
mod requests;
mod rules;
mod several;
mod teardown;
mod terminal;
mod walls;
mod workload;
