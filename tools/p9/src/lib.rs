//! A 9P2000.L client without a guest: it starts a stock QEMU whose processor never runs, and drives its 9p devices
//! through the qtest server, as a guest's driver would. So a test reaches QEMU's real 9p server in half a second.
//!
//! ```no_run
//! use virtfs_p9::{Export, Ids, Launch, Machine, Qemu, SetAttr};
//! # fn main() -> virtfs_p9::Result<()> {
//! let qemu = Qemu::new().export(Export::local("share", "/srv/share"));
//! let machine = Machine::boot(&qemu, &Launch::new())?;
//! let mut session = machine.session("share")?;
//! let mut alice = session.user(Ids { uid: 1000, gid: 100 })?;
//! alice.write_all("letter", 0o640, b"hello")?;
//! alice.setattr("letter", &SetAttr::mode(0o600))?;
//! # Ok(()) }
//! ```
//!
//! [`Machine`] and [`Launch`]: start and end. [`Session`]: messages, one at a time or up to 128 in flight. [`User`]:
//! paths. [`message`]: every message, for [`Session::submit`].

mod error;
mod machine;
pub mod message;
mod ops;
mod paths;
mod pci;
mod process;
mod proxy;
mod qemu;
mod qtest;
mod scratch;
mod session;
pub mod smoke;
mod sys;
mod virtio;
mod wire;

pub use error::{Error, Output, Result};
pub use machine::{Launch, Machine, Peer};
pub use nix::errno::Errno;
pub use ops::{AT_REMOVEDIR, DirEntry, GETATTR_BASIC, IO_HEADER, LockRange, SetAttr, Time};
pub use paths::User;
pub use proxy::ProxyHelper;
pub use qemu::{DEFAULT_MSIZE, Export, Qemu, SecurityModel};
pub use scratch::{Ids, Scratch};
pub use session::{Session, Ticket};
pub use virtio::RING_SIZE;
pub use wire::{Data, Fid, NO_FID, Payload, Qid};
