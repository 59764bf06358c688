//! One start: views for one peer, whom the service has found to be who it should be.

use std::os::fd::RawFd;

use clap::Args;

use crate::error::{Class, Error, Result};
use crate::launch::inside::Inside;

/// What the service hands over.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The peer's pidfd.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) peer: RawFd,
    /// The connection to the peer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) connection: RawFd,
    /// As for `serve`.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) mediator_user: Option<String>,
    /// The domain.
    #[arg(value_name = "DOMAIN")]
    pub(crate) domain: String,
}

/// Attaches.
pub(crate) fn attach(_options: &Options, _inside: &'static dyn Inside) -> Result<u8> {
    Err(Error::new(Class::Usage, "not yet", ""))
}
