//! The attacks, by the attacker's seat.

pub(crate) mod g;
pub(crate) mod l;
pub(crate) mod q;
pub(crate) mod r;
