//! What is agreed with the kernel when the connection starts, and how long it may remember.

use std::io;
use std::time::Duration;

use fuser::{InitFlags, KernelConfig, Version};

use super::serve::{Cache, ViewMode};

/// The oldest protocol that is served, major and minor: Linux 5.10.
pub const OLDEST_PROTOCOL: (u32, u32) = (7, 32);
const OLDEST: Version = Version(OLDEST_PROTOCOL.0, OLDEST_PROTOCOL.1);

/// The largest WRITE in bytes; larger ones gained nothing when measured.
const MAX_WRITE: u32 = 1 << 20;

/// Requests that the kernel may have in flight for read-ahead and asynchronous I/O.
const MAX_BACKGROUND: u16 = 64;

/// The kernel enforces ACLs as it does modes, and leaves the umask to us, who know whether the
/// directory has a default ACL. Without the first a group's members would be judged by an ACL's mask.
const ENFORCED: InitFlags = InitFlags::FUSE_POSIX_ACL.union(InitFlags::FUSE_DONT_MASK);

/// How long the kernel may answer by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetimes {
    /// A name and its attributes.
    pub(super) positive: Duration,
    /// That a name is not there.
    pub(super) negative: Duration,
    /// Whether file data outlives a close.
    pub(super) keeps_data: bool,
}

impl Lifetimes {
    pub(super) fn of(cache: Cache) -> Self {
        let (positive, negative) = match cache {
            Cache::Auto => (Duration::from_secs(1), Duration::ZERO),
            Cache::None => (Duration::ZERO, Duration::ZERO),
            Cache::Exclusive => (Duration::from_secs(3600), Duration::from_secs(3600)),
        };
        Self {
            positive,
            negative,
            keeps_data: cache == Cache::Exclusive,
        }
    }
}

/// What of the kernel's offer is taken.
///
/// Not taken, and why: `WRITEBACK_CACHE` (the kernel would own size and times, and a policy's
/// refusal come after the write), `POSIX_LOCKS`/`FLOCK_LOCKS` (locks stay in the kernel),
/// `EXPORT_SUPPORT` (no handles), `SETXATTR_EXT`, `CREATE_SUPP_GROUP` (fuser does not parse them),
/// `ABORT_ERROR` (an abort is to look like an unmount). A client view does not take `POSIX_ACL`,
/// which switches `default_permissions` on, nor `DONT_MASK`: there the kernel applies the umask.
fn wanted(cache: Cache, mode: ViewMode) -> InitFlags {
    let mut flags = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_PARALLEL_DIROPS
        // Spares a GETXATTR security.capability before each write. fuser does not hand on the
        // flags that say when to clear set-id bits, and need not: the mediator holds FSETID only
        // in its own user namespace, so the host's kernel clears them on its writes.
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        // name_to_handle_at on the view is refused.
        | InitFlags::FUSE_NO_EXPORT_SUPPORT
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO;
    if cache != Cache::Exclusive {
        // Data cached in the view is dropped when the host changed the file.
        flags |= InitFlags::FUSE_AUTO_INVAL_DATA;
    }
    if mode == ViewMode::Client {
        // O_TRUNC comes with OPEN, judged once, instead of as a SETATTR behind it. The kernel then
        // looks only behind the OPEN whether the file is being executed (`do_open`, fs/namei.c), when
        // `O_RDONLY | O_TRUNC` has emptied it: no matter to QEMU, but to users who run programs.
        flags |= InitFlags::FUSE_ATOMIC_O_TRUNC;
        // A link's target never changes, and with one client a verdict does not depend on who
        // asks.
        flags |= InitFlags::FUSE_CACHE_SYMLINKS;
    }
    if mode == ViewMode::Shared {
        flags |= ENFORCED;
    }
    flags
}

/// Answers INIT.
pub(super) fn negotiate(config: &mut KernelConfig, cache: Cache, mode: ViewMode) -> io::Result<()> {
    let version = config.kernel_abi();
    if version < OLDEST {
        tracing::error!(%version, oldest = %OLDEST, "the kernel's FUSE is too old");
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    }
    if mode == ViewMode::Shared && !config.capabilities().contains(ENFORCED) {
        tracing::error!("the kernel's FUSE enforces no POSIX ACLs, which --shared needs");
        return Err(io::Error::from_raw_os_error(libc::EPROTO));
    }
    let offered = config.capabilities() & wanted(cache, mode);
    let refused = |what: &str| io::Error::other(format!("fuser does not accept our {what}"));
    config
        .add_capabilities(offered)
        .map_err(|_not_offered| refused("flags"))?;
    config
        .set_max_write(MAX_WRITE)
        .map_err(|_bound| refused("max_write"))?;
    config
        .set_max_background(MAX_BACKGROUND)
        .map_err(|_bound| refused("max_background"))?;
    Ok(())
}

/// How deep file systems may be stacked below the view (`FILESYSTEM_MAX_STACK_DEPTH`): an export
/// on overlayfs can be passed through. Nothing can be stacked on the view in exchange.
const STACK_DEPTH: u32 = 2;

/// Asks the kernel to read and write files by itself; tells whether it agreed.
pub(super) fn offer_passthrough(config: &mut KernelConfig) -> bool {
    config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(STACK_DEPTH).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_would_move_judgement_into_the_kernel_are_never_wanted() {
        let never = InitFlags::FUSE_WRITEBACK_CACHE
            | InitFlags::FUSE_EXPORT_SUPPORT
            | InitFlags::FUSE_SETXATTR_EXT
            | InitFlags::FUSE_NO_OPEN_SUPPORT;
        for cache in [Cache::Auto, Cache::None, Cache::Exclusive] {
            // O_TRUNC must not reach a program that runs before ETXTBSY does.
            assert!(!wanted(cache, ViewMode::Shared).contains(InitFlags::FUSE_ATOMIC_O_TRUNC));
            for mode in [ViewMode::Client, ViewMode::Shared] {
                assert!(!wanted(cache, mode).intersects(never));
                let enforced = wanted(cache, mode) & ENFORCED;
                assert_eq!(enforced.is_empty(), mode == ViewMode::Client);
            }
        }
    }
}
