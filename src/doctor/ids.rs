//! Who the client and the mediator are, and who else is.

use std::os::unix::ffi::OsStrExt as _;

use nix::unistd::{Gid, Group, User};

use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;
use crate::error::{Class, Error};
use crate::identity::{self, Ids, MEDIATOR_FALLBACK, MEDIATOR_USER};

/// Groups whose members can read or change what is root's: disks, memory, passwords, or a service
/// that starts containers as root.
const POWERFUL: [&str; 8] = [
    "root", "disk", "kmem", "shadow", "docker", "lxd", "incus", "libvirt",
];

/// The mediator's ids; the fallback's if those that were asked for cannot be used.
pub(super) fn mediator(findings: &mut Findings, asked: Option<&str>) -> Ids {
    match identity::mediator(asked) {
        Ok(ids) if asked.is_none() && ids.uid == MEDIATOR_FALLBACK => {
            findings.tell(
                Problem::NoMediatorUser,
                format!("no user {MEDIATOR_USER}: the fixed number {MEDIATOR_FALLBACK} is used"),
                format!(
                    "to see a name in process lists: `adduser --system --group {MEDIATOR_USER}`"
                ),
            );
            ids
        }
        Ok(ids) => {
            findings.ok(
                Problem::NoMediatorUser,
                format!("user {}, group {}", ids.uid, ids.gid),
            );
            ids
        }
        Err(error) => {
            findings.tell(Problem::BadMediator, error.what(), error.advice());
            Ids {
                uid: MEDIATOR_FALLBACK,
                gid: MEDIATOR_FALLBACK,
                groups: Vec::new(),
            }
        }
    }
}

/// The client's ids, if somebody named a usable one.
pub(super) fn client(findings: &mut Findings, asked: Option<&str>) -> Option<Ids> {
    match identity::client(asked) {
        Ok(ids) => {
            let groups: Vec<String> = ids.groups.iter().copied().map(group_name).collect();
            let groups = if groups.is_empty() {
                "no other groups".to_owned()
            } else {
                format!("groups {}", groups.join(", "))
            };
            findings.ok(
                Problem::NoClient,
                format!("user {}, group {}, {groups}", ids.uid, ids.gid),
            );
            Some(ids)
        }
        Err(error) if error.class() == Class::Usage => {
            findings.tell(
                Problem::NoClient,
                "nobody said who the client is: what depends on it is not checked",
                "name it with --client USER[:GROUP], or call through sudo",
            );
            None
        }
        Err(error) => {
            findings.tell(Problem::BadClient, error.what(), advice(&error));
            None
        }
    }
}

/// What concerns both, and the other processes of the host.
pub(super) fn check(findings: &mut Findings, mediator: &Ids, client: Option<&Ids>) {
    match client {
        None => findings.untried(Problem::SameIds, "no client is named"),
        Some(client) if client.uid == mediator.uid => findings.tell(
            Problem::SameIds,
            format!("client and mediator would both be uid {}", client.uid),
            "they must not be able to signal each other: choose another --mediator-user",
        ),
        Some(_) => findings.ok(Problem::SameIds, "client and mediator are different users"),
    }
    let others = processes_of(mediator.uid);
    if others.is_empty() {
        findings.ok(
            Problem::MediatorNotAlone,
            "nobody else runs as the mediator's user",
        );
    } else {
        findings.tell(
            Problem::MediatorNotAlone,
            format!("uid {} also runs {}", mediator.uid, listed(&others)),
            "the mediator's user must be its own: end these, or choose another --mediator-user",
        );
    }
    delegated(findings, mediator);
    let Some(client) = client else {
        findings.untried(Problem::ClientNotAlone, "no client is named");
        findings.untried(Problem::ClientGroups, "no client is named");
        return;
    };
    let others = processes_of(client.uid);
    if others.is_empty() {
        findings.ok(
            Problem::ClientNotAlone,
            "nobody else runs as the client's user",
        );
    } else {
        findings.tell(
            Problem::ClientNotAlone,
            format!(
                "uid {} also runs {}: outside the client's namespaces, they see the export itself \
                 if its mode bits let them",
                client.uid,
                listed(&others)
            ),
            "give each VM a user of its own",
        );
    }
    groups(findings, mediator, client);
}

fn groups(findings: &mut Findings, mediator: &Ids, client: &Ids) {
    let all = std::iter::once(client.gid).chain(client.groups.iter().copied());
    let mut held: Vec<String> = all
        .filter(|gid| {
            *gid == mediator.gid || *gid == 0 || POWERFUL.contains(&group_name(*gid).as_str())
        })
        .map(group_name)
        .collect();
    held.sort();
    held.dedup();
    if held.is_empty() {
        findings.ok(Problem::ClientGroups, "none that amounts to root");
    } else {
        findings.tell(
            Problem::ClientGroups,
            format!(
                "the client is in {}: a broken-into QEMU is too",
                held.join(", ")
            ),
            "name a user without these groups; QEMU needs none but, perhaps, kvm",
        );
    }
}

/// subuid(5): `name:first:count`, the ids that a user's containers run as.
fn delegated(findings: &mut Findings, mediator: &Ids) {
    let mut found = Vec::new();
    for (file, id) in [("/etc/subuid", mediator.uid), ("/etc/subgid", mediator.gid)] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(name) = holder(&text, id) {
            found.push(format!("{file} gives {id} to {name}"));
        }
    }
    if found.is_empty() {
        findings.ok(
            Problem::MediatorDelegated,
            "the mediator's ids are no container's",
        );
    } else {
        findings.tell(
            Problem::MediatorDelegated,
            format!(
                "{}: their containers can signal the mediator",
                found.join(", ")
            ),
            "choose another --mediator-user, or shorten that range",
        );
    }
}

/// Whose range an id lies in.
pub(crate) fn holder(subids: &str, id: u32) -> Option<&str> {
    subids.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        id.checked_sub(first)
            .is_some_and(|at| at < count)
            .then_some(name)
    })
}

/// Processes with this user id in any of their four, mediators aside: pid and name.
pub(crate) fn processes_of(uid: u32) -> Vec<(i32, String)> {
    let mut found: Vec<(i32, String)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| pid.unsigned_abs() != std::process::id())
        .filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let (name, uids) = parse_status(&status)?;
            (uids.contains(&uid) && !is_ours(pid, &name)).then_some((pid, name))
        })
        .collect();
    found.sort_unstable();
    found
}

/// By its program; by its name where that cannot be read.
fn is_ours(pid: i32, name: &str) -> bool {
    const OURS: &str = "virtfs-mediator";
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        // "virtfs-mediator (deleted)" after an upgrade.
        Ok(program) => program
            .file_name()
            .is_some_and(|file| file.as_bytes().starts_with(OURS.as_bytes())),
        Err(_) => OURS.starts_with(name) && !name.is_empty(),
    }
}

/// Name and the four user ids of proc_pid_status(5).
fn parse_status(status: &str) -> Option<(String, Vec<u32>)> {
    let field = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
    };
    let uids = field("Uid")?
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect();
    Some((field("Name")?.trim().to_owned(), uids))
}

pub(crate) fn listed(processes: &[(i32, String)]) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = processes
        .iter()
        .take(SHOWN)
        .map(|(pid, name)| format!("{name} (process {pid})"))
        .collect();
    if processes.len() > SHOWN {
        names.push(format!("{} others", processes.len() - SHOWN));
    }
    names.join(", ")
}

fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        Ok(None) | Err(_) => gid.to_string(),
    }
}

fn advice(error: &Error) -> String {
    if error.advice().is_empty() {
        "name a user that `getent passwd` knows with --client USER[:GROUP]".to_owned()
    } else {
        error.advice().to_owned()
    }
}

/// A user's name for a message, or the number.
pub(super) fn user_name(uid: u32) -> String {
    match User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subids_are_searched_by_range() {
        let text = "alice:100000:65536\n# bob\nbob:2000000000:1000000\nbad:x:1\n";
        assert_eq!(holder(text, 100_000), Some("alice"));
        assert_eq!(holder(text, 165_535), Some("alice"));
        assert_eq!(holder(text, 165_536), None);
        assert_eq!(holder(text, MEDIATOR_FALLBACK), Some("bob"));
        assert_eq!(holder("", 0), None);
    }

    #[test]
    fn status_tells_name_and_all_four_ids() {
        let text = "Name:\tsleep\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(
            parse_status(text),
            Some(("sleep".to_owned(), vec![1, 2, 3, 4]))
        );
        assert_eq!(parse_status("Name:\tx\n"), None);
    }
}
