//! Standard output, for every command that prints: nothing else writes there with `print!`, whose
//! failure is a panic.
//!
//! A reader that has seen enough (`| head -1`) is no failure: the command goes on to its end. What
//! cannot be written otherwise, to a full disk say, is told when the command has done its work.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

use crate::error::{Class, Error, Result};

/// The first failure.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// As `print!`.
macro_rules! out {
    ($($words:tt)*) => { $crate::output::put(format_args!($($words)*)) };
}

/// As `println!`.
macro_rules! outln {
    ($($words:tt)*) => { $crate::output::put(format_args!("{}\n", format_args!($($words)*))) };
}

pub(crate) use {out, outln};

/// Only for the macros.
pub(crate) fn put(text: fmt::Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

/// What has been printed is out.
pub(crate) fn flush() {
    note(io::stdout().lock().flush());
}

/// At a command's end: all that was printed is out, or had no reader.
///
/// # Errors
///
/// Mount: it could not be written.
pub(crate) fn finish() -> Result<()> {
    flush();
    match FAILED.get() {
        Some(error) => Err(Error::step(Class::Mount, "write(standard output)", error)),
        None => Ok(()),
    }
}

fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _only_the_first = FAILED.set(error);
    }
}
