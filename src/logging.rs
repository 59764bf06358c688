//! One subscriber for all processes of a start: they inherit it.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines};

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
    let builder = lines::Subscriber::builder()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(level))
        .with_target(false)
        // It would tell of a closed stderr on stderr, and abort the process for it.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.without_time().finish().with(LateReplies).init(),
        LogFormat::Json => builder.json().finish().with(LateReplies).init(),
    }
    Ok(())
}

/// Leaves out what fuser says of a reply that nobody waits for any more: the request was
/// interrupted or the connection aborted (ENOENT from fuse_dev_do_write, fs/fuse/dev.c), as happens
/// in every view that ends with a request in flight. Other errors of a reply are faults and told.
struct LateReplies;

impl<S: Subscriber> Layer<S> for LateReplies {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut reply = Reply::default();
        if *event.metadata().level() == tracing::Level::ERROR {
            event.record(&mut reply);
        }
        !reply.is_late()
    }
}

/// What an event says, as far as a late reply is known by it.
#[derive(Default)]
struct Reply {
    from_fuser: bool,
    message: String,
}

impl Reply {
    fn is_late(&self) -> bool {
        self.from_fuser
            && self.message.starts_with("Failed to send FUSE reply")
            && self.message.ends_with("(os error 2)")
    }
}

impl Visit for Reply {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.from_fuser |= field.name() == "log.target" && value.starts_with("fuser");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _infallible = write!(self.message, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_that_nobody_waits_for_is_known_from_other_faults() {
        let late = |from_fuser, errno: i32| {
            let error = std::io::Error::from_raw_os_error(errno);
            let message = format!("Failed to send FUSE reply: {error}");
            let reply = Reply {
                from_fuser,
                message,
            };
            reply.is_late()
        };
        assert!(late(true, libc::ENOENT));
        assert!(!late(true, libc::EINVAL));
        assert!(!late(false, libc::ENOENT));
    }
}
