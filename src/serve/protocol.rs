//! What QEMU's wrapper and the service say to each other: one message each way, a packet each.
//!
//! A yes is [`YES`], the emulator's path, and for each view a NUL, its mount's id in decimal
//! (proc_pid_mountinfo(5)), a space and the path that it lies over.

/// Where the wrapper looks for an emulator by the name that it is called by, in this order.
pub(crate) const EMULATOR_HOMES: [&str; 3] = ["/usr/bin", "/usr/libexec", "/usr/local/bin"];
/// Where the wrapper finds the service.
pub(crate) const SOCKET: &str = "/run/virtfs-mediator-attach.sock";
/// The wrapper asks for its views.
pub(crate) const ATTACH: &[u8] = b"attach 1";
/// The views are there.
pub(crate) const YES: &[u8] = b"ok ";
/// Before the reason.
pub(crate) const NO: &[u8] = b"no ";
/// The most bytes of an answer: as many views as a domain may have, each with a long path.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;
