//! Real libvirtd, real virsh, stock QEMU: what `virtfs-mediator libvirt` makes of a domain, and what
//! a domain's life does to its views.

mod changes;
pub(crate) mod domain;
mod enable;
mod guest;
mod hook;
pub(crate) mod lab;
mod life;
mod neighbours;
mod refusals;
