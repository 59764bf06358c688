//! Walls of this crate that an attack build (feature `attack`, `tools/attack`) can switch off, to
//! show that an attack works without them. In every other build they are constants.

#![cfg_attr(
    not(feature = "attack"),
    allow(unreachable_pub, reason = "attack builds make the module public")
)]

/// A wall that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "attack"),
    expect(
        unreachable_pub,
        reason = "the module is public in attack builds alone"
    )
)]
pub enum Wall {
    /// Names are single components, checked once.
    Names,
    /// The policy's floor.
    Floor,
    /// Renames and links carry nothing out of the rules that hold for it.
    Carry,
    /// Only regular files and directories are opened.
    Kinds,
    /// Under rules that go by name, a name is good only as its directory spells it.
    Spelling,
    /// Counts and offsets that a client sends are checked before they are used.
    Arithmetic,
    /// What a stepping console holds is bounded: in time, in number, by the console's own life.
    HoldLimit,
    /// A reload makes the client's kernel forget.
    Invalidation,
    /// A reload waits for the requests of the older policy.
    Turns,
}

#[cfg(feature = "attack")]
mod switch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Wall;

    static OFF: AtomicU32 = AtomicU32::new(0);

    /// Switches a wall off, for the whole process and for good.
    pub fn switch_off(wall: Wall) {
        OFF.fetch_or(1 << wall as u32, Ordering::Relaxed);
    }

    pub(crate) fn stands(wall: Wall) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << wall as u32) == 0
    }
}

#[cfg(feature = "attack")]
pub(crate) use switch::stands;
#[cfg(feature = "attack")]
pub use switch::switch_off;

/// Whether a wall stands.
#[cfg(not(feature = "attack"))]
pub(crate) const fn stands(_wall: Wall) -> bool {
    true
}
