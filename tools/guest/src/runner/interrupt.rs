//! Ctrl-C and SIGTERM end a run in order: processes first, then the directory that they use.
//!
//! A thread waits for the signals, which are blocked everywhere else; loops ask [`asked`]. Children
//! do not inherit the block: std empties the mask of what it spawns.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

use super::Error;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants the run to end.
#[must_use]
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Starts to listen; call it before any other thread exists.
///
/// # Errors
/// A signal mask that cannot be set.
pub fn listen() -> Result<(), Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|e| Error::io("signal mask")(e.into()))?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            ASKED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}
