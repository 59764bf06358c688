//! The door for `tools/attack`: the same program, with an attack in the mediator's place.
//!
//! Only builds with the feature `attack` have it; the product's never do.

use std::process::ExitCode;

pub use crate::launch::inside::{Inside, Wall, Walls};

/// The program as [`crate::main`] runs it, up to the last wall; then `inside` instead of the loop
/// that serves.
#[must_use]
pub fn main_as(inside: &'static dyn Inside) -> ExitCode {
    crate::main_with(inside)
}
