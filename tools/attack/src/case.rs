//! What an attack is, and when it proves something.

use serde::Serialize;

use crate::lab::Lab;

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Seat {
    /// Root in the guest: stock QEMU, driven through its 9p device.
    G,
    /// Owns QEMU: the client's user, no capability, in the client's namespaces.
    Q,
    /// Runs code in the mediator.
    M,
    /// Another local user of the host.
    L,
    /// Races on the export, from the host.
    R,
}

/// Where an attack is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Arrangement {
    /// A root helper, all capabilities, in a chroot.
    RootInChroot,
    /// An own uid with CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER and FSETID, in a chroot; no
    /// user namespace.
    UidWithCapabilities,
    /// What virtfs-proxy-helper keeps: uid 0 and seven capabilities, in a chroot.
    ProxyHelper,
    /// Any other weaker arrangement: which.
    Other(&'static str),
    /// The product with some of its walls left out: which are left.
    Walls(&'static str),
    /// The product.
    Product,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Verdict {
    /// The attacker got what they wanted: what that was.
    Succeeded(String),
    /// They did not: errno, signal, or what happened instead.
    Refused(String),
    /// The attack could not be tried: why. Never counts as a refusal.
    Untried(String),
}

/// One try of an attack.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attempt {
    pub(crate) arrangement: Arrangement,
    /// Empty, or which of several calls or ways this try was.
    pub(crate) way: String,
    pub(crate) verdict: Verdict,
    /// What the log, or the launcher, told of it: required of a refusal by the product.
    pub(crate) told: Option<String>,
}

/// A row of the table of attacks, or a part of one.
pub(crate) struct Case {
    /// Its number in the table of attacks.
    pub(crate) row: u8,
    /// One word; unique.
    pub(crate) id: &'static str,
    pub(crate) seat: Seat,
    /// What the attacker tries, for people.
    pub(crate) what: &'static str,
    /// What stops it.
    pub(crate) stopped_by: &'static str,
    /// Tries it everywhere. Every arrangement gets a fresh export and canary from the lab.
    pub(crate) run: fn(&Lab) -> Result<Vec<Attempt>, String>,
}
