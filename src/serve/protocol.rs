//! What QEMU's wrapper and the service say to each other: one message each way, a packet each.

/// Where the wrapper finds the service.
pub(crate) const SOCKET: &str = "/run/virtfs-mediator-attach.sock";
/// The wrapper asks for its views.
pub(crate) const ATTACH: &[u8] = b"attach 1";
/// Before the emulator's path: the views are there.
pub(crate) const YES: &[u8] = b"ok ";
/// Before the reason.
pub(crate) const NO: &[u8] = b"no ";
/// The most bytes of an answer.
pub(crate) const ANSWER_MAX: usize = 4096;
