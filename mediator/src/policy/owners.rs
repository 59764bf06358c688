//! Ids of the guest to ids of the host and back: `map`, then `squash`.

use rustix::io::Errno;

use super::permit::Refusal;
use crate::ids::{GuestGid, GuestOwner, GuestUid, HostGid, HostOwner, HostUid};

/// What the view shows for a host id that no range maps (the kernel's overflow id).
const NOBODY: u32 = 65534;
/// `(uid_t)-1`: no id, "leave as it is" in chown(2).
pub(super) const NO_ID: u32 = u32::MAX;

/// Whose ids are squashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Who {
    #[default]
    None,
    Root,
    All,
}

/// One range of `map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) guest: u32,
    pub(super) host: u32,
    /// At least 1; neither end passes 4294967294.
    pub(super) count: u32,
}

/// Consecutive ids, `count` of them from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdSpan {
    /// The lowest.
    pub first: u32,
    /// How many; never so many that an id would pass 4294967294.
    pub count: u32,
}

impl IdSpan {
    /// One id.
    #[must_use]
    pub const fn one(id: u32) -> Self {
        Self {
            first: id,
            count: 1,
        }
    }

    /// Whether an id is among them.
    #[must_use]
    pub fn holds(self, id: u32) -> bool {
        id.checked_sub(self.first)
            .is_some_and(|offset| offset < self.count)
    }

    /// Whether all of another span's ids are among these.
    pub(super) fn covers(self, other: Self) -> bool {
        other.first.checked_sub(self.first).is_some_and(|offset| {
            u64::from(offset) + u64::from(other.count) <= u64::from(self.count)
        })
    }

    /// The same ids in order, each once, in as few spans as there can be: what a user namespace
    /// takes as a map.
    #[must_use]
    pub fn united(spans: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut sorted: Vec<Self> = spans.into_iter().collect();
        sorted.sort_unstable();
        let mut united: Vec<Self> = Vec::new();
        for span in sorted {
            match united.last_mut() {
                Some(last) if span.first - last.first <= last.count => {
                    let end = span.first - last.first + span.count;
                    last.count = last.count.max(end);
                }
                Some(_) | None => united.push(span),
            }
        }
        united
    }
}

/// The host ids that can be stored under a policy with a `map`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) uids: Vec<IdSpan>,
    pub(super) gids: Vec<IdSpan>,
}

/// The id rules of one view.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    pub(super) who: Who,
    /// Host ids that squashed ids become.
    pub(super) squash: HostOwner,
    /// Empty: ids are the same on both sides.
    pub(super) map: Vec<IdRange>,
    /// Ids outside every range are squashed rather than refused.
    pub(super) outside_squash: bool,
}

impl Default for Owners {
    fn default() -> Self {
        let (uid, gid) = (HostUid(NOBODY), HostGid(NOBODY));
        Self {
            who: Who::None,
            squash: HostOwner { uid, gid },
            map: Vec::new(),
            outside_squash: false,
        }
    }
}

fn translate(id: u32, ranges: impl Iterator<Item = (u32, u32, u32)>) -> Option<u32> {
    for (from, to, count) in ranges {
        match id.checked_sub(from) {
            Some(offset) if offset < count => return to.checked_add(offset),
            _ => {}
        }
    }
    None
}

impl Owners {
    fn mapped(&self, guest: u32) -> Option<u32> {
        if self.map.is_empty() {
            return Some(guest);
        }
        translate(
            guest,
            self.map
                .iter()
                .map(|range| (range.guest, range.host, range.count)),
        )
    }

    fn squashes(&self, guest: u32) -> bool {
        match self.who {
            Who::None => false,
            Who::Root => guest == 0,
            Who::All => true,
        }
    }

    /// A guest id as it is stored; `None` outside of every range.
    fn stored(&self, guest: u32, squash: u32) -> Option<u32> {
        if self.squashes(guest) {
            return Some(squash);
        }
        self.mapped(guest).or(self.outside_squash.then_some(squash))
    }

    /// Where a chown's new owner ends up.
    ///
    /// # Errors
    ///
    /// EPERM outside of every range, EINVAL for `(uid_t)-1`.
    pub(super) fn uid(&self, guest: GuestUid) -> Result<HostUid, Refusal> {
        self.asked(guest.0, self.squash.uid.0).map(HostUid)
    }

    /// As [`Owners::uid`], for the group.
    pub(super) fn gid(&self, guest: GuestGid) -> Result<HostGid, Refusal> {
        self.asked(guest.0, self.squash.gid.0).map(HostGid)
    }

    fn asked(&self, guest: u32, squash: u32) -> Result<u32, Refusal> {
        if guest == NO_ID {
            return Err(refusal(Errno::INVAL, "4294967295 is no id"));
        }
        let stored = self.stored(guest, squash);
        stored.ok_or(refusal(
            Errno::PERM,
            "the id is outside of every range of `map`",
        ))
    }

    /// Who a new inode belongs to. The requester's numbers are the host's: they are the ids that
    /// the client's kernel reports. Without a map they stay as they are. With one, a requester
    /// whom no guest range names is QEMU itself, which as root would create as root: it gets what
    /// guest 0 becomes. Squash comes after.
    ///
    /// # Errors
    ///
    /// EOVERFLOW if guest 0 itself is outside of every range, as the kernel says on an id-mapped
    /// mount.
    pub(super) fn newborn(&self, requester: GuestOwner) -> Result<HostOwner, Refusal> {
        let uid = self.born(requester.uid.0, self.squash.uid.0)?;
        let gid = self.born(requester.gid.0, self.squash.gid.0)?;
        Ok(HostOwner {
            uid: HostUid(uid),
            gid: HostGid(gid),
        })
    }

    fn born(&self, requester: u32, squash: u32) -> Result<u32, Refusal> {
        let guest = if self.mapped(requester).is_some() {
            requester
        } else {
            0
        };
        let stored = self.stored(guest, squash).filter(|id| *id != NO_ID);
        stored.ok_or(refusal(
            Errno::OVERFLOW,
            "guest id 0 is outside of every range of `map`",
        ))
    }

    /// The host ids that can be stored: the ranges', and those of squash where it can come to
    /// that. `None` without a map: all.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        if self.map.is_empty() {
            return None;
        }
        let spans = || {
            self.map.iter().map(|range| IdSpan {
                first: range.host,
                count: range.count,
            })
        };
        let squashes = self.who != Who::None || self.outside_squash;
        let with =
            |squash: u32| IdSpan::united(spans().chain(squashes.then_some(IdSpan::one(squash))));
        Some(Bounds {
            uids: with(self.squash.uid.0),
            gids: with(self.squash.gid.0),
        })
    }

    /// The guest's id of a stored one; `None` outside of every range.
    pub(super) fn guest(&self, host: u32) -> Option<u32> {
        if self.map.is_empty() {
            return Some(host);
        }
        let ranges = self
            .map
            .iter()
            .map(|range| (range.host, range.guest, range.count));
        translate(host, ranges)
    }

    /// What the view shows for a stored owner. Squash does not change it: it decides what is
    /// stored, not what is seen.
    pub(super) fn shown(&self, host: HostOwner) -> GuestOwner {
        let show = |id| self.guest(id).unwrap_or(NOBODY);
        GuestOwner {
            uid: GuestUid(show(host.uid.0)),
            gid: GuestGid(show(host.gid.0)),
        }
    }
}

fn refusal(errno: Errno, why: &'static str) -> Refusal {
    Refusal {
        errno,
        rule: None,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(who: Who, map: &[(u32, u32, u32)], outside_squash: bool) -> Owners {
        let range = |&(guest, host, count)| IdRange { guest, host, count };
        Owners {
            who,
            squash: HostOwner {
                uid: HostUid(990),
                gid: HostGid(991),
            },
            map: map.iter().map(range).collect(),
            outside_squash,
        }
    }

    #[test]
    fn uid_is_squashed_and_mapped_as_documented() {
        let map = &[(0, 100_000, 1000), (5000, 5000, 1)][..];
        for (owners, guest, want) in [
            (owners(Who::None, &[], false), 7, Ok(7)),
            (owners(Who::None, &[], false), NO_ID, Err(Errno::INVAL)),
            (owners(Who::None, &[], false), NO_ID - 1, Ok(NO_ID - 1)),
            (owners(Who::Root, &[], false), 0, Ok(990)),
            (owners(Who::Root, &[], false), 1, Ok(1)),
            (owners(Who::All, &[], false), 1, Ok(990)),
            (owners(Who::None, map, false), 0, Ok(100_000)),
            (owners(Who::None, map, false), 999, Ok(100_999)),
            (owners(Who::None, map, false), 1000, Err(Errno::PERM)),
            (owners(Who::None, map, true), 1000, Ok(990)),
            (owners(Who::None, map, false), 5000, Ok(5000)),
            (owners(Who::Root, map, false), 0, Ok(990)),
            (owners(Who::All, map, false), 12345, Ok(990)),
        ] {
            let got = owners
                .uid(GuestUid(guest))
                .map(|id| id.0)
                .map_err(|no| no.errno);
            assert_eq!(got, want, "{guest} under {owners:?}");
        }
    }

    #[test]
    fn spans_are_united_where_they_meet() {
        let span = |first, count| IdSpan { first, count };
        for (spans, want) in [
            (vec![], vec![]),
            (vec![span(5, 2), span(1, 4)], vec![span(1, 6)]),
            (vec![span(1, 10), span(3, 2)], vec![span(1, 10)]),
            (vec![span(1, 1), span(3, 1)], vec![span(1, 1), span(3, 1)]),
            (
                vec![span(NO_ID - 1, 1), span(0, 2), span(1, 1)],
                vec![span(0, 2), span(NO_ID - 1, 1)],
            ),
        ] {
            assert_eq!(IdSpan::united(spans.clone()), want, "{spans:?}");
        }
        assert!(span(3, 2).holds(4) && !span(3, 2).holds(5) && !span(3, 2).holds(2));
    }

    #[test]
    fn newborn_belongs_to_the_requester_or_to_what_guest_root_becomes() {
        let qemu = GuestOwner {
            uid: GuestUid(64055),
            gid: GuestGid(64056),
        };
        let map = &[(0, 100_000, 1000)][..];
        for (owners, want) in [
            (owners(Who::None, &[], false), Ok((64055, 64056))),
            (owners(Who::Root, &[], false), Ok((64055, 64056))),
            (owners(Who::All, &[], false), Ok((990, 991))),
            (owners(Who::None, map, false), Ok((100_000, 100_000))),
            (owners(Who::Root, map, false), Ok((990, 991))),
            (owners(Who::None, &[(1, 1, 1)], false), Err(Errno::OVERFLOW)),
            (owners(Who::None, &[(1, 1, 1)], true), Ok((990, 991))),
        ] {
            let got = owners.newborn(qemu);
            let got = got
                .map(|owner| (owner.uid.0, owner.gid.0))
                .map_err(|no| no.errno);
            assert_eq!(got, want, "{owners:?}");
        }
    }

    #[test]
    fn owner_is_shown_as_the_guest_gave_it() {
        let owners = owners(Who::Root, &[(0, 100_000, 1000)], false);
        let show = |id| {
            owners.shown(HostOwner {
                uid: HostUid(id),
                gid: HostGid(id),
            })
        };
        assert_eq!(show(100_999).uid, GuestUid(999));
        assert_eq!(show(0).gid, GuestGid(65534));
        assert_eq!(show(101_000).uid, GuestUid(65534));
    }
}
