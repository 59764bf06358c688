//! The program as a whole, on the real kernel: everything here needs root and /dev/fuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;
mod process;
mod properties;
mod teardown;
