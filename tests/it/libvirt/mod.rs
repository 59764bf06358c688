//! Real libvirtd, real virsh, stock QEMU: what `virtfs-mediator libvirt` makes of a domain, and what
//! a domain's life does to its views.

mod domain;
mod enable;
mod hook;
mod lab;
mod life;
