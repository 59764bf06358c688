//! Policy files on disk: reading them, resolving their users, printing the shipped ones.

use std::path::Path;

use nix::unistd::{Group, User};
use virtfs_mediator_core::policy::{Policy, Users, shipped};

use crate::error::{Class, Error, Result};

/// The host's user database.
pub(crate) struct Host;

impl Users for Host {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }
}

/// Reads and compiles a policy file.
///
/// # Errors
///
/// Configuration: it cannot be read, or every mistake in it with line and column.
pub(crate) fn load(file: &Path) -> Result<Policy> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::new(
            Class::Configuration,
            format!("policy {shown}: {error}"),
            "name a TOML file (see `virtfs-mediator policy init --help`)",
        )
    })?;
    Policy::parse(&shown, &text, &Host)
        .map_err(|mistakes| Error::new(Class::Configuration, mistakes.to_string().trim_end(), ""))
}

/// `policy check`: every mistake of every file on stderr; the status tells whether there was one.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command's output"
)]
pub(crate) fn check(files: &[impl AsRef<Path>]) -> u8 {
    let mut status = 0;
    for file in files {
        match load(file.as_ref()) {
            Ok(_) => println!("{}: ok", file.as_ref().display()),
            Err(error) => {
                eprintln!("{error}");
                status = error.class().status();
            }
        }
    }
    status
}

/// `policy init`: a policy to start from, on stdout.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(crate) fn init(name: &str) {
    for (_, text) in shipped::ALL.iter().filter(|(shipped, _)| *shipped == name) {
        print!("{text}");
    }
}
