//! POSIX ACLs as extended attributes hold them (acl(5), linux/posix_acl_xattr.h): entries name users
//! and groups by number, so `map` and `squash` concern them as they do owners.
//!
//! An entry of the export's that names an id outside of `map` speaks of nobody whom the view could
//! show: it is left out where the ACL is read, and such an ACL cannot be changed, since what is left
//! out would be lost.

use rustix::io::Errno;

use super::engine::refuse;
use super::model::Policy;
use super::owners::{Owners, Who};
use super::permit::Refusal;
use crate::ids::{GuestGid, GuestUid};

/// The ACL that decides who gets at a file.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The ACL that a directory hands down to what is made in it.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Whether an extended attribute is a POSIX ACL.
#[must_use]
pub fn is_acl(name: &[u8]) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

/// One entry; `id` means something for [`USER`] and [`GROUP`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// `None` if it is none: the kernel answers EINVAL or EOPNOTSUPP to that.
fn parse(value: &[u8]) -> Option<Vec<Entry>> {
    let (version, rest) = value.split_first_chunk::<HEADER>()?;
    if u32::from_le_bytes(*version) != VERSION || rest.len() % ENTRY != 0 {
        return None;
    }
    let entries = rest.chunks_exact(ENTRY).map(|raw| {
        let (tag, raw) = raw.split_first_chunk::<2>()?;
        let (perm, raw) = raw.split_first_chunk::<2>()?;
        let (id, _none) = raw.split_first_chunk::<4>()?;
        Some(Entry {
            tag: u16::from_le_bytes(*tag),
            perm: u16::from_le_bytes(*perm),
            id: u32::from_le_bytes(*id),
        })
    });
    entries.collect()
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + entries.len() * ENTRY);
    value.extend(VERSION.to_le_bytes());
    for entry in entries {
        value.extend(entry.tag.to_le_bytes());
        value.extend(entry.perm.to_le_bytes());
        value.extend(entry.id.to_le_bytes());
    }
    value
}

/// The permission bits that an ACL gives a file: the owner's, the mask's (without one, the group's),
/// the others' (acl(5), CORRESPONDENCE). `None` if it is none, or has no entries: then it is removed,
/// and the bits stay.
#[must_use]
pub fn mode_of_acl(value: &[u8]) -> Option<u32> {
    let entries = parse(value)?;
    let perm = |wanted: u16| {
        let entry = entries.iter().find(|entry| entry.tag == wanted);
        entry.map(|entry| u32::from(entry.perm) & 7)
    };
    let group = perm(MASK).or_else(|| perm(GROUP_OBJ));
    let none = |bits: Option<u32>| bits.unwrap_or_default();
    (!entries.is_empty()).then(|| none(perm(USER_OBJ)) << 6 | none(group) << 3 | none(perm(OTHER)))
}

impl Owners {
    /// Ids are the same on both sides.
    fn is_identity(&self) -> bool {
        self.map.is_empty() && self.who == Who::None
    }
}

impl Policy {
    /// An ACL that a client sets, as it is stored: each id becomes what it would as an owner.
    ///
    /// # Errors
    ///
    /// EINVAL for what is no ACL; EPERM for an id outside of `map`, and where two users or two groups
    /// would become one.
    pub fn acl_stored(&self, value: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut entries = parse(value).ok_or(refuse(Errno::INVAL, "it is no POSIX ACL"))?;
        if self.owners.is_identity() {
            return Ok(value.to_vec());
        }
        let mut named = Vec::new();
        for entry in &mut entries {
            entry.id = match entry.tag {
                USER => self.owners.uid(GuestUid(entry.id))?.0,
                GROUP => self.owners.gid(GuestGid(entry.id))?.0,
                _ => continue,
            };
            if named.contains(&(entry.tag, entry.id)) {
                return Err(refuse(
                    Errno::PERM,
                    "two entries of the ACL would be stored for one id (`squash`, `outside`)",
                ));
            }
            named.push((entry.tag, entry.id));
        }
        Ok(write(&entries))
    }

    /// An ACL of the export as the view shows it; what is no ACL is shown as it is.
    #[must_use]
    pub fn acl_shown(&self, value: Vec<u8>) -> Vec<u8> {
        if self.owners.map.is_empty() {
            return value;
        }
        let Some(entries) = parse(&value) else {
            return value;
        };
        let shown: Vec<Entry> = entries
            .into_iter()
            .filter_map(|it| self.shown(it))
            .collect();
        write(&shown)
    }

    /// Whether an ACL of the export can be replaced: it names nobody outside of `map`.
    ///
    /// # Errors
    ///
    /// EPERM.
    pub fn acl_may_go(&self, stored: &[u8]) -> Result<(), Refusal> {
        let entries = parse(stored).unwrap_or_default();
        let all_shown = entries.iter().all(|entry| self.shown(*entry).is_some());
        if self.owners.map.is_empty() || all_shown {
            return Ok(());
        }
        Err(refuse(
            Errno::PERM,
            "its ACL names an id outside of every range of `map`, which would be lost",
        ))
    }

    fn shown(&self, entry: Entry) -> Option<Entry> {
        match entry.tag {
            USER | GROUP => {
                let id = self.owners.guest(entry.id)?;
                Some(Entry { id, ..entry })
            }
            _ => Some(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Mode;
    use crate::op::{Op, XattrChange, XattrName, rows};
    use crate::policy::Facts;
    use crate::policy::tests::{CLIENT, Nobody, decide};

    /// `u::rw-`, users, `g::r--`, groups, mask, `o::---`.
    fn acl(users: &[u32], groups: &[u32]) -> Vec<u8> {
        let entry = |tag, perm, id| Entry { tag, perm, id };
        let none = u32::MAX;
        let mut all = vec![entry(USER_OBJ, 6, none)];
        all.extend(users.iter().map(|id| entry(USER, 7, *id)));
        all.push(entry(GROUP_OBJ, 4, none));
        all.extend(groups.iter().map(|id| entry(GROUP, 5, *id)));
        all.extend([entry(MASK, 7, none), entry(OTHER, 0, none)]);
        write(&all)
    }

    fn policy(text: &str) -> Policy {
        Policy::parse("t", &format!("default = \"allow\"\n{text}"), &Nobody).unwrap()
    }

    #[test]
    fn ids_are_mapped_both_ways_and_all_else_is_kept() {
        let mapped = policy("map = [{ guest = 0, host = 100000, count = 1000 }]");
        let (guest, host) = (acl(&[0, 999], &[5]), acl(&[100_000, 100_999], &[100_005]));
        assert_eq!(mapped.acl_stored(&guest), Ok(host.clone()));
        assert_eq!(mapped.acl_shown(host.clone()), guest);
        assert_eq!(mapped.acl_may_go(&host), Ok(()));
        let plain = policy("");
        assert_eq!(plain.acl_stored(&guest), Ok(guest.clone()));
        assert_eq!(plain.acl_shown(guest.clone()), guest);
    }

    #[test]
    fn id_outside_of_the_map_is_not_stored_not_shown_and_not_lost() {
        let mapped = policy("map = [{ guest = 0, host = 100000, count = 1000 }]");
        let refused = mapped.acl_stored(&acl(&[1000], &[])).unwrap_err();
        assert_eq!(refused.errno, Errno::PERM);
        let host = acl(&[100_007, 7], &[u32::MAX]);
        assert_eq!(mapped.acl_shown(host.clone()), acl(&[7], &[]));
        assert_eq!(mapped.acl_may_go(&host).unwrap_err().errno, Errno::PERM);
    }

    #[test]
    fn squashed_entries_do_not_become_one() {
        let squash = policy("squash = { who = \"all\", uid = 65534, gid = 65534 }");
        assert_eq!(
            squash.acl_stored(&acl(&[5], &[6])),
            Ok(acl(&[65534], &[65534]))
        );
        let refused = squash.acl_stored(&acl(&[5, 6], &[])).unwrap_err();
        assert_eq!(refused.errno, Errno::PERM);
        let root = policy("squash = { who = \"root\", uid = 65534, gid = 65534 }");
        assert_eq!(
            root.acl_stored(&acl(&[0, 6], &[0])),
            Ok(acl(&[65534, 6], &[65534]))
        );
    }

    #[test]
    fn acl_needs_the_right_to_set_modes_and_no_rule_that_changes_them() {
        let rule = |text: &str| policy(&format!("[[rule]]\n{text}"));
        let set = |policy: &Policy, name: &[u8]| {
            let ask = XattrName::new(name).unwrap();
            let set = decide::<rows::Setxattr>(policy, &["/a"], ask).map(|_done| ());
            let removed = decide::<rows::Removexattr>(policy, &["/a"], ask).map(|_done| ());
            assert_eq!(set, removed);
            set
        };
        let no_modes = rule("do = \"mode\"\naction = \"deny\"");
        let cut = rule("do = \"mode\"\naction = \"allow\"\nmode = { strip = \"0022\" }");
        let pretended = rule("do = \"mode\"\naction = \"pretend\"");
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            assert!(set(&policy(""), name).is_ok());
            assert_eq!(set(&no_modes, name), Err(Errno::PERM));
            assert_eq!(set(&cut, name), Err(Errno::PERM));
            let ask = XattrName::new(name).unwrap();
            let done = decide::<rows::Setxattr>(&pretended, &["/a"], ask);
            assert_eq!(done, Ok(XattrChange::Pretend));
            let got = decide::<rows::Getxattr>(&no_modes, &["/a"], ask);
            assert_eq!(got, Ok(ask), "to read one is none");
        }
        assert!(set(&no_modes, b"user.a").is_ok() && set(&cut, b"user.a").is_ok());
    }

    #[test]
    fn permission_bits_of_an_acl_are_its_owner_s_mask_and_others() {
        assert_eq!(mode_of_acl(&acl(&[5], &[6])), Some(0o670));
        let entry = |tag, perm| Entry {
            tag,
            perm,
            id: u32::MAX,
        };
        let plain = [entry(USER_OBJ, 6), entry(GROUP_OBJ, 4), entry(OTHER, 2)];
        assert_eq!(mode_of_acl(&write(&plain)), Some(0o642));
        assert_eq!(mode_of_acl(&write(&[])), None, "none: it is removed");
        assert_eq!(mode_of_acl(b"x"), None);
    }

    #[test]
    fn rule_on_a_new_mode_holds_for_the_one_that_an_acl_gives() {
        let when = "when = { new_mode = { any = \"0002\" } }";
        let refused = policy(&format!(
            "[[rule]]\ndo = \"mode\"\naction = \"deny\"\n{when}"
        ));
        let allowed = Policy::parse(
            "t",
            &format!("default = \"deny\"\n[[rule]]\ndo = \"xattr\"\naction = \"allow\"\n[[rule]]\ndo = \"mode\"\naction = \"allow\"\n{when}"),
            &Nobody,
        )
        .unwrap();
        let ask = |name| XattrName::new(name).unwrap();
        let set = |policy: &Policy, name, bits: Option<u32>| {
            let facts = Facts {
                xattr: Some((name, 28)),
                acl_mode: bits.map(Mode::new),
                names: &[b"/a"],
                ..Facts::of(Op::Setxattr, CLIENT)
            };
            let set = policy.decide::<rows::Setxattr>(&facts, ask(name));
            set.map(|_permit| ()).map_err(|refusal| refusal.errno)
        };
        for name in [ACCESS_ACL, DEFAULT_ACL] {
            for (bits, open) in [(Some(0o666), true), (Some(0o664), false)] {
                assert_eq!(set(&refused, name, bits).is_err(), open, "{bits:?}");
                assert_eq!(set(&allowed, name, bits).is_ok(), open, "{bits:?}");
            }
            // Not known: closed.
            assert_eq!(set(&refused, name, None), Err(Errno::PERM));
            assert_eq!(set(&allowed, name, None), Err(Errno::PERM));
        }
        assert_eq!(set(&refused, b"user.a", None), Ok(()));
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        let plain = policy("");
        let good = acl(&[5], &[]);
        for bad in [&good[..good.len() - 1], &good[1..], b"", b"\x02\0\0\0\x01"] {
            assert_eq!(plain.acl_stored(bad).unwrap_err().errno, Errno::INVAL);
        }
        assert!(
            plain.acl_stored(&good[..HEADER]).is_ok(),
            "none: it is removed"
        );
    }
}
