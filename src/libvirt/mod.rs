//! At home under stock libvirt: whose views a domain gets ([`domain_file`]), and the commands that
//! see to it.
//!
//! * [`enable`], [`disable`], [`status`]: an administrator's, through [`virsh`].
//! * [`definition`], [`qemu_conf`] ([`settings`]): what libvirt's own files say.
//! * [`user`], [`search`]: the user that a domain's QEMU runs as, and what that may reach.
//! * [`undo`]: what was changed, to be put back.
//! * [`hook`]: libvirt's own call, as a domain starts: whether its XML ([`domain_xml`]) agrees with its file.
//! * [`armed`]: whether a domain may come for its views now.
//! * [`drift`]: where file and definition differ.

pub(crate) mod armed;
pub(crate) mod cli;
pub(crate) mod definition;
mod disable;
pub(crate) mod domain_file;
pub(crate) mod domain_xml;
pub(crate) mod drift;
mod enable;
pub(crate) mod hook;
pub(crate) mod qemu_conf;
pub(crate) mod search;
mod settings;
pub(crate) mod show;
mod status;
mod undo;
mod user;
pub(crate) mod virsh;

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};

use crate::error::{Class, Error, Result};
use crate::libvirt::cli::LibvirtCommand;

/// Does what the command line says.
///
/// # Errors
///
/// Each command's own.
pub(crate) fn run(command: LibvirtCommand) -> Result<u8> {
    match command {
        LibvirtCommand::Enable(options) => enable::enable(&options),
        LibvirtCommand::Disable(options) => disable::disable(&options),
        LibvirtCommand::Status(options) => status::status(&options),
        LibvirtCommand::Hook {
            name,
            operation,
            suboperation,
            extra: _,
        } => hook::hook(&name, &operation, &suboperation).map(|()| 0),
    }
}

/// One `enable` or `disable` at a time: two would choose one uid. Held until it is dropped, over the
/// question too: what is shown is what is done.
#[allow(clippy::print_stderr, reason = "why the command waits")]
fn lock() -> Result<OwnedFd> {
    const PLACE: &str = "/etc/libvirt";
    let failed = |errno: rustix::io::Errno| {
        Error::new(
            Class::Configuration,
            format!("{PLACE}: {errno}"),
            "install libvirt (libvirt-daemon-system on Debian)",
        )
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, PLACE, flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            eprintln!(
                "virtfs-mediator: another `libvirt enable` or `libvirt disable` runs, or asks its question: \
                 waiting for its end"
            );
            rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    Ok(fd)
}
