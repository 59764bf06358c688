//! One subscriber for all processes of a start: they inherit it.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::error::{Class, Error, Result};

/// Logs to stderr.
///
/// # Errors
///
/// Usage: an unknown level.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<()> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    if !LEVELS.contains(&level) {
        return Err(Error::new(
            Class::Usage,
            format!("unknown --log-level '{level}'"),
            format!("use one of {}", LEVELS.join(", ")),
        ));
    }
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(level))
        .with_target(false)
        // It would tell of a closed stderr on stderr, and abort the process for it.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.without_time().init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
