//! The service that QEMU's wrapper asks for its views, and what one start of it does.
//!
//! [`service`] takes connections and decides by who asks ([`asker`]) alone; [`attach`] is a process of
//! its own for each start that was let through, so that the service never waits for one.

mod asker;
pub(crate) mod attach;
pub(crate) mod protocol;
mod refusals;
mod service;
mod socket;

use std::path::PathBuf;

use clap::Args;

use crate::cli::LogFormat;
use crate::error::Result;
use crate::launch::inside::Walls;
use crate::plan;
use crate::serve::service::Service;
use crate::serve::socket::Listening;
use crate::service as manager;

/// Root (libvirt's hook) asks whether the service is there; the answer is [`protocol::YES`].
pub(crate) const PING: &[u8] = b"ping 1";

/// Options of the service.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen, unless systemd hands a socket over (LISTEN_FDS). QEMU's wrapper and libvirt's
    /// hook ask at the default place.
    #[arg(long, value_name = "PATH", default_value = protocol::SOCKET)]
    pub(crate) socket: PathBuf,
    /// The mediators' own user; default: `virtfs-mediator`, or a fixed high number.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) mediator_user: Option<String>,
}

/// How this process logs; its starts log the same way.
pub(crate) struct Logging {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// Serves until it is told to end (SIGTERM, SIGINT); views that run go on.
///
/// # Errors
///
/// Privilege, usage, configuration: it could not begin.
pub(crate) fn serve(options: &Options, logging: Logging, walls: Walls) -> Result<u8> {
    plan::require_root()?;
    // A mistake is told now, and not at the first start of a domain.
    crate::identity::mediator(options.mediator_user.as_deref())?;
    let listening = Listening::open(&options.socket)?;
    let user = options.mediator_user.clone();
    let mut service = Service::new(&listening.fd, user, logging, walls)?;
    manager::ready("waiting for virtual machines to start");
    let ended = service.run();
    manager::stopping("ending; views that run go on");
    ended.map(|()| 0)
}
