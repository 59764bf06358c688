//! What runs once the walls stand, and which walls those are.
//!
//! The product has one answer to both: [`Mediator`], behind all of them. An attack build (feature
//! `attack`, `tools/attack`) puts its own in that place, and may leave walls out to show what each
//! holds by itself.

#![cfg_attr(
    not(feature = "attack"),
    expect(unreachable_pub, reason = "`crate::attack` is where they are public")
)]

use virtfs_mediator_core::{ServeError, Service};

/// One wall around a mediator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// The root directory is a private clone of the export; the host's is gone.
    Root,
    /// A user namespace of its own: capabilities count for the export's files alone.
    UserNamespace,
    /// In that user namespace no further namespace of any kind can be made.
    NamespaceLimits,
    /// A user and group of its own, without supplementary groups.
    Ids,
    /// Four capabilities at the most; no_new_privs, locked securebits.
    Capabilities,
    /// Limits on core files, locked memory, threads and descriptors.
    Limits,
    /// No core dump, no ptrace by the same user.
    NotDumpable,
    /// Every descriptor that is not wanted is closed.
    Descriptors,
    /// The start ends if a descriptor is open that has no name in the plan.
    DescriptorTest,
    /// Landlock.
    Landlock,
    /// seccomp.
    Seccomp,
    /// The registrar looks at what it is to register.
    Registrar,
    /// The service for libvirt gives a domain's views to the process that libvirt's own record names.
    Record,
    /// A view's mediator is ended before its client, which may wait for an answer.
    EndOrder,
}

/// A set of walls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walls(u16);

impl Walls {
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);
    /// None of them.
    #[cfg(feature = "attack")]
    pub const NONE: Self = Self(0);

    /// Whether a wall is to be built.
    #[must_use]
    pub const fn has(self, wall: Wall) -> bool {
        self.0 & Self::bit(wall) != 0
    }

    /// The set without a wall.
    #[cfg(feature = "attack")]
    #[must_use]
    pub const fn without(self, wall: Wall) -> Self {
        Self(self.0 & !Self::bit(wall))
    }

    /// The set with a wall.
    #[cfg(feature = "attack")]
    #[must_use]
    pub const fn with(self, wall: Wall) -> Self {
        Self(self.0 | Self::bit(wall))
    }

    const fn bit(wall: Wall) -> u16 {
        1 << wall as u16
    }
}

/// What runs in a mediator's process.
pub trait Inside: Sync {
    /// Runs behind the walls until the view ends. `ready` is called as soon as the view answers,
    /// or, by an attack, when the client may be started.
    ///
    /// # Errors
    ///
    /// Why the view could not be served.
    fn serve(&self, service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError>;

    /// Which walls to build.
    fn walls(&self) -> Walls {
        Walls::ALL
    }

    /// Called as root before the first wall: an attack plants here what a fault of ours would
    /// have left open.
    fn before_walls(&self) {}
}

/// The product.
pub(crate) struct Mediator;

impl Inside for Mediator {
    fn serve(&self, service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
        virtfs_mediator_core::serve(service, ready)
    }
}
