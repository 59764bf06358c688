//! The client against Debian's QEMU on a plain directory, each family of messages checked against the host's view.

mod common;
mod messages;
mod pipeline;
mod processes;
