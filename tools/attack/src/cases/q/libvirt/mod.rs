//! Row 32 under libvirt: a domain's QEMU that is broken into, and the views of another domain. Real
//! libvirtd and virsh, in a lab that is thrown away.

mod asks;
mod export;
mod files;
mod look;
mod memory;
mod names;
mod pair;
mod signals;

use crate::case::{Case, Seat};

pub(crate) const CASES: &[Case] = &[
    Case {
        row: 32,
        id: "domain-view",
        seat: Seat::Q,
        what: "under libvirt: another domain's view through its QEMU's root, cwd, descriptors, threads, \
               mapped files, namespace",
        stopped_by: "a user of its own for each domain",
        run: look::view,
    },
    Case {
        row: 32,
        id: "domain-memory",
        seat: Seat::Q,
        what: "under libvirt: another domain's QEMU by ptrace, its memory, its descriptors",
        stopped_by: "a user of its own for each domain",
        run: memory::memory,
    },
    Case {
        row: 32,
        id: "domain-asks",
        seat: Seat::Q,
        what: "under libvirt: the service asked for another domain's views, before, while and after it \
               attaches",
        stopped_by: "who asks, by the kernel's word, against root's own records; once a start",
        run: asks::asks,
    },
    Case {
        row: 32,
        id: "domain-export",
        seat: Seat::Q,
        what: "under libvirt: another domain's export by its path, another mount, /proc of root's",
        stopped_by: "a user of its own for each domain, who owns nothing in an export",
        run: export::export,
    },
    Case {
        row: 32,
        id: "domain-files",
        seat: Seat::Q,
        what: "under libvirt: another domain's monitor, guest agent, keys and records; libvirt's sockets",
        stopped_by: "a user of its own for each domain; directories of root's",
        run: files::files,
    },
    Case {
        row: 32,
        id: "domain-signals",
        seat: Seat::Q,
        what: "under libvirt: signals to another domain's QEMU, what is behind its view, and the service",
        stopped_by: "a user of its own for each domain",
        run: signals::signals,
    },
    Case {
        row: 32,
        id: "domain-names",
        seat: Seat::Q,
        what: "under libvirt: hostile domain names through the hook",
        stopped_by: "names are letters, digits, '_', '-' and '.', checked before all else",
        run: names::names,
    },
];
