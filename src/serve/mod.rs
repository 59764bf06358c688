//! The service that QEMU's wrapper asks for its views ([`serve`]), and one start of it ([`attach`]).

pub(crate) mod attach;

use std::path::PathBuf;

use clap::Args;

use crate::error::{Class, Error, Result};

/// Where the wrapper finds the service.
pub(crate) const SOCKET: &str = "/run/virtfs-mediator-attach.sock";

/// Options of the service.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen, unless systemd hands a socket over (LISTEN_FDS).
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
    /// The mediators' own user; default: `virtfs-mediator`, or a fixed high number.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) mediator_user: Option<String>,
}

/// Serves until it is told to end.
pub(crate) fn serve(_options: &Options) -> Result<u8> {
    Err(Error::new(Class::Usage, "not yet", ""))
}
