//! What the guest's probe program and the host's runner share.
//!
//! A probe is a line of a script (`probes/*.probes`): a name and a few steps. [`script`] reads the
//! scripts, [`step`] does the steps, [`record`] is the line format in which outcomes travel over
//! the serial console. The runner's half (the feature `runner`) boots the guest once per column
//! and compares the columns.

pub mod errno;
pub mod probe;
pub mod record;
#[cfg(feature = "runner")]
pub mod runner;
pub mod script;
pub mod step;
mod sys;
