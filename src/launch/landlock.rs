//! Landlock: whatever descriptor is in reach, a mediator opens files below the export only, and
//! keeper, warden and init none.
//!
//! The mediator's root directory is the export already, and theirs is empty. This wall holds where
//! those do not: a directory outside that leaked in as a descriptor leads nowhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Class, Error, Result};
use crate::report::Landlock;
use crate::sys;

/// The oldest ABI that is used: the first one (Linux 5.13 to 5.18) refuses every rename and link
/// between two directories, whatever the rules say (kernel documentation, userspace-api/landlock).
const OLDEST: i32 = 2;

/// The newest ABI whose rights were looked at, one by one: what a newer one adds is not asked for.
const NEWEST: ABI = ABI::V7;

/// Never needed by a mediator, not even below the export: programs, devices, and the calls of
/// drivers behind devices.
const NEVER: [AccessFs; 4] = [
    AccessFs::Execute,
    AccessFs::MakeChar,
    AccessFs::MakeBlock,
    AccessFs::IoctlDev,
];

/// What is left of the file system.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room<'a> {
    /// A mediator's: what is below the directory, but for [`NEVER`].
    Export(&'a OwnedFd),
    /// A registrar's: the kernel opens files below the directory in its name, those that a user of
    /// the view executes too; it opens none, and has no `execve`.
    Backing(BorrowedFd<'a>),
    /// Removing what is below the directory; for the keeper, which has processes to kill.
    Removal(&'a OwnedFd),
    /// Nothing.
    Nothing,
}

impl Room<'_> {
    fn rule(&self) -> Option<(BorrowedFd<'_>, BitFlags<AccessFs>)> {
        match self {
            Self::Export(root) => Some((root.as_fd(), allowed(AccessFs::from_all(NEWEST)))),
            Self::Backing(root) => Some((
                *root,
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Execute,
            )),
            Self::Removal(root) => Some((
                root.as_fd(),
                AccessFs::ReadDir | AccessFs::RemoveDir | AccessFs::RemoveFile,
            )),
            Self::Nothing => None,
        }
    }

    /// A signal out of the scope is refused whoever's parent sends it.
    fn scope(&self) -> BitFlags<Scope> {
        match self {
            Self::Removal(_) => Scope::AbstractUnixSocket.into(),
            Self::Export(_) | Self::Backing(_) | Self::Nothing => Scope::from_all(NEWEST),
        }
    }
}

/// Leaves this process, and the threads that it starts later, this room; no TCP port, no abstract
/// UNIX socket and, but for the keeper, no signal leads out, as far as the kernel's Landlock knows
/// them. Tells which ABI that is.
///
/// `outside` is a directory that is not in the room: that it cannot be opened any more is how the
/// wall is read back, since the kernel tells it nowhere.
///
/// # Errors
///
/// Confinement: the kernel has Landlock and refused it, or it does not hold.
pub(crate) fn restrict_to(room: Room<'_>, outside: &OwnedFd) -> Result<Landlock> {
    match sys::landlock_abi() {
        Ok(abi) if abi < OLDEST => return Ok(Landlock::Old(abi)),
        Ok(_) => {}
        Err(error) => return Ok(Landlock::Absent(error.to_string())),
    }
    let failed = |error: &dyn std::fmt::Display| Error::step(Class::Confinement, "Landlock", error);
    let handled = AccessFs::from_all(NEWEST);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(room.scope()))
        .and_then(landlock::Ruleset::create)
        .and_then(|rules| match room.rule() {
            Some((root, access)) => rules.add_rule(PathBeneath::new(root, access)),
            None => Ok(rules),
        })
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| failed(&error))?;
    match status.landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => {
            tracing::debug!(abi = ?effective_abi, newer = ?kernel_abi, "Landlock is enforced");
            verify(outside)?;
            Ok(Landlock::Enforced(effective_abi as i32))
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            Ok(Landlock::Absent("not enabled".to_owned()))
        }
    }
}

fn allowed(handled: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    NEVER
        .iter()
        .fold(handled, |allowed, never| allowed & !BitFlags::from(*never))
}

fn verify(outside: &OwnedFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(outside.as_fd(), ".", flags, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(()),
        Err(errno) => Err(Error::step(
            Class::Confinement,
            "Landlock, reading it back",
            errno,
        )),
        Ok(_) => Err(Error::new(
            Class::Confinement,
            "Landlock is enforced, but a directory outside opens",
            "",
        )),
    }
}
