//! `virtfs-mediator libvirt ...`: the words of the command line.

use clap::Subcommand;

/// What can be done about a libvirt domain.
#[derive(Debug, Subcommand)]
pub(crate) enum LibvirtCommand {
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
