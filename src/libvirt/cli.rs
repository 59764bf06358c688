//! `virtfs-mediator libvirt ...`: the words of the command line.

use clap::Subcommand;

use crate::libvirt::{disable, enable, status};

/// What can be done about a libvirt domain.
#[derive(Debug, Subcommand)]
pub(crate) enum LibvirtCommand {
    /// Give a domain's passthrough filesystems views, and its QEMU a user of its own.
    ///
    /// Edits the domain through virsh and writes /etc/virtfs-mediator/libvirt/DOMAIN.toml. Shows all
    /// changes first and asks. A domain that runs has its views from its next start on.
    Enable(enable::Options),
    /// Put back what `enable` changed: definition, file, user.
    Disable(disable::Options),
    /// Tell which domains are enabled, and what is not as it should be.
    Status(status::Options),
    /// What libvirt calls: checks a domain that is about to start and lets it attach, once.
    ///
    /// /etc/libvirt/hooks/qemu.d/virtfs-mediator calls it with libvirt's own four words, behind `--`, and
    /// the domain's XML on standard input. Domains that are not ours pass untouched. A refusal ends the
    /// start; virsh shows why.
    Hook {
        /// The domain.
        name: std::ffi::OsString,
        /// What libvirt is about to do: `prepare` and `release` count, all else passes.
        operation: std::ffi::OsString,
        /// `begin` or `end`.
        suboperation: std::ffi::OsString,
        /// A `-` of libvirt's, or more.
        extra: Option<std::ffi::OsString>,
    },
}
