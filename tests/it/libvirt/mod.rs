//! Real libvirtd, real virsh, stock QEMU: what `virtfs-mediator libvirt` makes of a domain, and what
//! a domain's life does to its views.

mod enable;
mod lab;
