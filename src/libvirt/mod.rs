//! At home under stock libvirt: whose views a domain gets ([`domain_file`]), and whether it may come for
//! them now ([`armed`]).

pub(crate) mod armed;
pub(crate) mod cli;
pub(crate) mod domain_file;

use crate::error::{Class, Error, Result};
use crate::libvirt::cli::LibvirtCommand;

/// Does what the command line says.
pub(crate) fn run(command: LibvirtCommand) -> Result<u8> {
    match command {
        LibvirtCommand::Hook { .. } => Err(Error::new(Class::Usage, "not yet", "")),
    }
}
