//! A system user for each domain: the wall between virtual machines.
//!
//! All QEMUs of a libvirt host run as one user unless told otherwise, and then one that is broken
//! into reaches the others' mount namespaces through `/proc/PID/root`, past the kernel's check of
//! a view's user and group. ptrace_may_access() and the check of a view both compare the uid, so a
//! uid of the domain's own is the wall. What else such a user needs decides how it is made:
//!
//! * A *named* user, by useradd(8), not a bare number. libvirt asks the host for the groups of a
//!   label's uid, and only a user that the host knows can have any; and a number that no account
//!   holds could be given to somebody else later.
//! * A *group of its own*. Disk images and the sockets of guest agents are given to the label's
//!   group too, and libvirt makes those sockets writable by it (mode 0775, in a directory 0750): with
//!   a shared primary group each machine could open the other's.
//! * In addition the group that may open `/dev/kvm` (`kvm` on Debian), and no other. Not the group
//!   of `/var/lib/libvirt/qemu` (0750 on Debian), which would get it through that directory, where
//!   QEMU reads its master key: as the group of all domains without a label it would get it into
//!   their agents' sockets as well. An ACL entry lets it search that one directory ([`search`]).
//! * A *high number*, from a range of our own in what systemd's UIDS-GIDS calls unused, chosen by the
//!   domain's uuid: what an earlier user of the domain left behind is not handed to another domain.
//!
//! [`search`]: crate::libvirt::search

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{Gid, Group, Uid, User};

use crate::doctor::ids::{holder, processes_of};
use crate::error::{Class, Error, Result};
use crate::identity;
use crate::libvirt::virsh::command;

/// The first uid and gid of domains' users.
const FIRST: u32 = 2_000_010_000;
/// How many there are.
const COUNT: u32 = 10_000;
/// useradd(8) takes no longer name.
const LONGEST_NAME: usize = 32;

/// A user that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewUser {
    pub(crate) name: String,
    /// Its uid, and the gid of its group.
    pub(crate) id: u32,
    /// The group that may use `/dev/kvm`, if it takes one.
    pub(crate) kvm: Option<(String, u32)>,
    domain: String,
}

/// Chooses a user for a domain: ids that nobody on this host has, nor any of `taken`.
///
/// # Errors
///
/// Configuration: none is left.
pub(crate) fn choose(domain: &str, uuid: &str, taken: &BTreeSet<u32>) -> Result<NewUser> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (subuid, subgid) = (read("/etc/subuid"), read("/etc/subgid"));
    let free = |id: &u32| {
        !taken.contains(id)
            && matches!(User::from_uid(Uid::from_raw(*id)), Ok(None))
            && matches!(Group::from_gid(Gid::from_raw(*id)), Ok(None))
            && holder(&subuid, *id).is_none()
            && holder(&subgid, *id).is_none()
            && processes_of(*id).is_empty()
    };
    let id = candidates(uuid).find(free).ok_or_else(|| {
        Error::new(
            Class::Configuration,
            format!("every id from {FIRST} to {} is in use", FIRST + COUNT - 1),
            "give the domain a static DAC label with a user of its own (`virsh edit`)",
        )
    })?;
    Ok(NewUser {
        name: free_name(domain, id),
        id,
        kvm: kvm_group(),
        domain: domain.to_owned(),
    })
}

/// The range, from where a domain's uuid points to.
fn candidates(uuid: &str) -> impl Iterator<Item = u32> {
    // FNV-1a: any spread will do, as long as it is the same tomorrow.
    let hash = uuid.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..COUNT).map(move |step| FIRST + (hash % COUNT + step) % COUNT)
}

/// `virtfs-DOMAIN` as far as useradd(8) takes it, or `virtfs-ID`.
fn free_name(domain: &str, id: u32) -> String {
    let plain = domain.to_ascii_lowercase().replace('.', "-");
    let name = format!("virtfs-{plain}");
    let known = |name: &str| {
        // A host without that user takes a fixed number for the mediators until somebody has the name.
        name == identity::MEDIATOR_USER
            || !matches!(User::from_name(name), Ok(None))
            || !matches!(Group::from_name(name), Ok(None))
    };
    if name.len() <= LONGEST_NAME && !known(&name) {
        name
    } else {
        format!("virtfs-{id}")
    }
}

/// The group whose members may use `/dev/kvm`, where others may not.
fn kvm_group() -> Option<(String, u32)> {
    let meta = std::fs::metadata("/dev/kvm").ok()?;
    if meta.gid() == 0 || meta.mode() & 0o006 == 0o006 || meta.mode() & 0o060 != 0o060 {
        return None;
    }
    let group = Group::from_gid(Gid::from_raw(meta.gid())).ok()??;
    Some((group.name, meta.gid()))
}

impl NewUser {
    /// Makes the group and the user.
    ///
    /// # Errors
    ///
    /// Configuration: groupadd(8) or useradd(8) refuses; nothing is left then.
    pub(crate) fn make(&self) -> Result<()> {
        let id = self.id.to_string();
        run("groupadd", &["--gid", &id, &self.name])?;
        let comment = format!("QEMU of libvirt domain {}", self.domain);
        let mut words = vec![
            "--system",
            // Sparse files of gigabytes, at such a number (lastlog(8)).
            "--no-log-init",
            "--uid",
            &id,
            "--gid",
            &id,
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            "--comment",
            &comment,
        ];
        if let Some((group, _)) = &self.kvm {
            words.extend(["--groups", group]);
        }
        words.push(&self.name);
        run("useradd", &words).inspect_err(|_| {
            let _told_already = run("groupdel", &[&self.name]);
        })
    }
}

/// Removes a user that [`NewUser::make`] made, and its group; one that is gone is none of our
/// business.
///
/// # Errors
///
/// Configuration: another user by now, or processes still run as it.
pub(crate) fn remove(name: &str, id: u32) -> Result<()> {
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.as_raw() == id => run("userdel", &[name])?,
        Ok(Some(user)) => {
            return Err(Error::new(
                Class::Configuration,
                format!("user {name} is uid {} by now, not {id}", user.uid),
                "it was left alone: remove it if it is not wanted (`userdel`)",
            ));
        }
        Ok(None) | Err(_) => {}
    }
    // userdel(8) takes it along where login.defs says so.
    match Group::from_name(name) {
        Ok(Some(group)) if group.gid.as_raw() == id => run("groupdel", &[name]),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(
            Class::Configuration,
            format!("{program} {}: {why}", words.join(" ")),
            "",
        )
    };
    let told = command(program)
        .args(words)
        .output()
        .map_err(|error| failed(&error).cure("install it (`passwd` on Debian, `shadow-utils`)"))?;
    if told.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&told.stderr);
    Err(failed(&said.trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

    #[test]
    fn ids_of_a_domain_are_the_same_each_time_and_never_those_of_others() {
        let first = choose("web", UUID, &BTreeSet::new()).unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&first.id), "{first:?}");
        assert_eq!(choose("web", UUID, &BTreeSet::new()).unwrap().id, first.id);
        let taken = BTreeSet::from([first.id, first.id + 1]);
        assert!(!taken.contains(&choose("web", UUID, &taken).unwrap().id));
        let all = candidates(UUID).collect::<BTreeSet<_>>();
        assert_eq!(all.len(), COUNT as usize);
        assert!(choose("web", UUID, &all).is_err());
    }

    #[test]
    fn name_is_one_that_useradd_takes() {
        assert_eq!(free_name("Web.1", 7), "virtfs-web-1");
        assert_eq!(free_name(&"x".repeat(60), 7), "virtfs-7");
        // Of the mediators', whether it exists or not.
        assert_eq!(free_name("mediator", 7), "virtfs-7");
    }
}
