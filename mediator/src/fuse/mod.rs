//! The thin adapter to the FUSE protocol: the only place that knows fuser. It converts, borrows
//! and answers; what a request means is [`crate::mediate`]'s.

mod adapter;
mod backing;
mod caches;
mod convert;
mod init;
mod listings;
mod pool;
mod serve;

pub use init::OLDEST_PROTOCOL;
#[doc(hidden)]
pub use serve::serve_mediator;
pub use serve::{Cache, ServeError, Service, ViewMode, serve};
