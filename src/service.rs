//! The service manager that started us, if one did: what it is told (sd_notify(3)), and what of its
//! words is nobody else's.
//!
//! There is no watchdog. The launcher could only say that it waits, which nobody doubts: that a
//! mediator or keeper ended it learns at once and fails. And a request that takes long waits for the
//! export's own disk; to end the view for that would lose what the wait would have kept.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

use sd_notify::NotifyState;

/// Variables that a service manager means for the process that it started: for the way to it
/// (sd_notify(3)), its watchdog (sd_watchdog_enabled(3)) and its descriptors (sd_listen_fds(3)).
pub(crate) const ITS_WORDS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// The start is over; `status` says in words what runs.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The end has begun.
pub(crate) fn stopping(status: &str) {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&one_line(status)),
    ]);
}

/// What is going on, or why it failed, in words.
pub(crate) fn status(words: &str) {
    tell(&[NotifyState::Status(&one_line(words))]);
}

/// Our environment without what a service manager meant for us alone, each `NAME=VALUE`: a client
/// must not speak for us.
pub(crate) fn environment_of_others() -> Vec<CString> {
    without_its_words(std::env::vars_os())
}

fn without_its_words(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<CString> {
    all.filter(|(name, _)| !ITS_WORDS.iter().any(|word| name == word))
        // The kernel gave it to us as strings that end with a NUL byte: none is inside.
        .filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        })
        .collect()
}

/// Without a service manager, nothing. One that does not listen is no reason to end a view.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Messages are lines: one that has several, as the mistakes in a policy, would be cut off.
fn one_line(words: &str) -> String {
    let lines: Vec<&str> = words.lines().map(str::trim).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_of_a_client_has_all_but_the_managers_words() {
        let ours = [
            ("PATH", "/usr/bin"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "1"),
            ("LISTEN_FDS", "1"),
            ("NOTIFY_SOCKETS", "a=b"),
            ("EMPTY", ""),
        ];
        let left = without_its_words(ours.iter().map(|(name, value)| (name.into(), value.into())));
        let expected: Vec<CString> = ["PATH=/usr/bin", "NOTIFY_SOCKETS=a=b", "EMPTY="]
            .iter()
            .map(|word| CString::new(*word).unwrap())
            .collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn status_of_several_lines_is_told_in_one() {
        assert_eq!(
            one_line("a.toml:1:2 bad\n  worse\n"),
            "a.toml:1:2 bad; worse"
        );
    }
}
