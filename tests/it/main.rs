//! The program as a whole, on the real kernel: everything here needs root and /dev/fuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod acls;
mod append;
mod attach;
mod audit;
mod common;
mod completion;
mod doctor;
mod errors;
mod filesystems;
mod gate;
mod host_changes;
mod host_namespace;
mod language;
mod libvirt;
mod limited;
mod listings;
mod live;
mod manual;
mod metrics;
mod migration;
mod older_kernels;
mod passthrough;
mod policy_tools;
mod process;
mod properties;
mod qemu;
mod readme;
mod requests;
mod rules;
mod semantics;
mod service;
mod several;
mod submounts;
mod teardown;
mod terminal;
mod twin;
mod walls;
mod workload;
