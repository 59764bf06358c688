//! At home under stock libvirt: which views a domain gets ([`domain_file`]), whether its XML agrees
//! ([`domain_xml`], judged by [`hook`] as it starts), and whether it may come for them now ([`armed`]).

pub(crate) mod armed;
pub(crate) mod cli;
pub(crate) mod domain_file;
pub(crate) mod domain_xml;
mod hook;

use crate::error::Result;
use crate::libvirt::cli::LibvirtCommand;

/// Does what the command line says.
///
/// # Errors
///
/// Each command's own.
pub(crate) fn run(command: LibvirtCommand) -> Result<u8> {
    match command {
        LibvirtCommand::Hook {
            name,
            operation,
            suboperation,
            extra: _,
        } => hook::hook(&name, &operation, &suboperation).map(|()| 0),
    }
}
