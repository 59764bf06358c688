//! Fuzz targets for the mediator: what is asked of it, and what must hold whatever is asked.
//!
//! Each target is a function of bytes that panics with what it found. `fuzz_targets/` gives them to
//! libFuzzer; `tests/replay.rs` runs the committed corpus through them as an ordinary test.
#![allow(
    clippy::expect_used,
    reason = "a target tells what it finds by a panic"
)]

pub mod audit_lines;
pub mod control_messages;
#[cfg(fuzzing)]
pub mod coverage;
pub mod directory_cookies;
pub mod export;
pub mod fuse_messages;
pub mod input;
pub mod names;
pub mod policy_text;
pub mod recording;
pub mod scratch;
pub mod users;
pub mod view;
pub mod wire;

/// A function that one input is given to.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 6] = [
    ("audit_lines", audit_lines::run),
    ("control_messages", control_messages::run),
    ("directory_cookies", directory_cookies::run),
    ("fuse_messages", fuse_messages::run),
    ("policy_text", policy_text::run),
    ("recording", recording::run),
];

/// Runs a target on the files that the command line names, and says which.
///
/// # Panics
///
/// With what the target finds.
#[must_use]
#[allow(clippy::print_stderr, reason = "a program's output")]
pub fn replay(target: Target) -> std::process::ExitCode {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    for file in &files {
        let path = std::path::Path::new(file);
        match std::fs::read(path) {
            Ok(data) => {
                eprintln!("{}", path.display());
                target(&data);
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    if files.is_empty() {
        eprintln!("name the inputs to run, for example a crash that tools/fuzz/run has kept");
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}
