//! The walls around a view's processes, each as the kernel tells it now: from `/proc/PID`, from
//! inside the mediator's user namespace, and, for those that the kernel shows to nobody else, from
//! what the mediator read back before it served its first request.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use serde::Serialize;

use crate::control::rundir::State;
use crate::mounts::Table;
use crate::pipes::pipe;
use crate::report::{Found, Landlock};
use crate::sys::{self, Forked};

/// What a wall looks like right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Wall {
    pub(crate) wall: &'static str,
    /// Whether it is as it should be.
    pub(crate) stands: bool,
    /// What the kernel said.
    pub(crate) found: String,
}

impl Wall {
    fn new(wall: &'static str, stands: bool, found: impl Into<String>) -> Self {
        let found = found.into();
        Self {
            wall,
            stands,
            found,
        }
    }
}

/// Which of the processes of a start one is: their walls differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Mediator,
    /// Keeper, warden and init: uid 0 without a capability.
    Helper(Helper),
    /// Holds SYS_ADMIN alone.
    Registrar,
    /// The client, and whatever it started.
    Client,
    /// A client that somebody else has started.
    Peer,
}

/// The processes that only end things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    Keeper,
    Warden,
    Init,
}

/// Every wall around one process; one that cannot be read does not stand.
pub(crate) fn around(pid: i32, role: Role, state: &State) -> Vec<Wall> {
    let status = Status::of(pid);
    let mut walls = vec![ids(&status, role, state), capabilities(&status, role)];
    walls.push(status.is("no_new_privs", "NoNewPrivs", "1"));
    walls.push(namespaces(pid, role, state.isolated));
    match role {
        Role::Mediator => {
            walls.push(user_namespace(pid));
            walls.push(no_more_namespaces(pid));
            walls.push(root_mounts(pid, &state.submounts));
            walls.push(not_dumpable(pid));
            walls.push(limits(
                pid,
                &["core file size", "locked memory", "processes", "open files"],
            ));
            walls.push(descriptors(pid));
            walls.extend(read_back(state.walls.as_ref()));
            walls.push(seccomp(&status));
        }
        Role::Helper(helper) => {
            if helper == Helper::Keeper {
                walls.push(empty_root(pid));
            }
            walls.push(seccomp(&status));
        }
        Role::Registrar => {
            walls.push(empty_root(pid));
            walls.push(not_dumpable(pid));
            walls.push(limits(
                pid,
                &["core file size", "locked memory", "open files"],
            ));
            walls.push(descriptors(pid));
            walls.push(seccomp(&status));
        }
        Role::Client => {}
        Role::Peer => walls.push(seccomp(&status)),
    }
    walls
}

/// `/proc/PID/status`, field by field.
struct Status(String);

impl Status {
    fn of(pid: i32) -> Self {
        Self(fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
    }

    /// A field, its words one space apart; empty if there is none.
    fn field(&self, name: &str) -> String {
        let value = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let words: Vec<&str> = value.unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    }

    fn is(&self, wall: &'static str, field: &str, wanted: &str) -> Wall {
        let found = self.field(field);
        Wall::new(wall, found == wanted, format!("{field} {found}"))
    }
}

fn ids(status: &Status, role: Role, state: &State) -> Wall {
    let (uid, gid) = (status.field("Uid"), status.field("Gid"));
    let groups = status.field("Groups");
    let all = |ids: &str, wanted: u32| {
        let wanted = wanted.to_string();
        !ids.is_empty() && ids.split(' ').all(|id| id == wanted)
    };
    let (wall, stands) = match role {
        Role::Mediator => {
            let first = |ids: &str| ids.split(' ').next().and_then(|id| id.parse::<u32>().ok());
            let own = first(&uid).zip(first(&gid)).is_some_and(|(uid, gid)| {
                uid != 0 && gid != 0 && uid != state.client_uid && gid != state.client_gid
            });
            ("own user and group", own && groups.is_empty())
        }
        Role::Helper(_) => ("uid 0 without power", all(&uid, 0)),
        Role::Registrar => {
            // Backing I/O has the second and the last; the keeper may kill it for the others' sake.
            let ids: Vec<&str> = uid.split(' ').collect();
            let apart = matches!(ids.as_slice(), ["0", effective, "0", file_system]
                if *effective != "0" && effective == file_system);
            let no_root = !gid.is_empty() && gid.split(' ').all(|gid| gid != "0");
            (
                "the mediator's ids for files",
                apart && no_root && groups.is_empty(),
            )
        }
        Role::Client | Role::Peer => {
            let own = all(&uid, state.client_uid) && all(&gid, state.client_gid);
            ("the client's ids", own)
        }
    };
    let groups = if groups.is_empty() {
        "none".to_owned()
    } else {
        groups
    };
    // Real, effective, saved and that of the file system: one number if they agree.
    let shown = |ids: &str| {
        let mut ids: Vec<&str> = ids.split(' ').collect();
        ids.dedup();
        ids.join(" ")
    };
    let (uid, gid) = (shown(&uid), shown(&gid));
    Wall::new(
        wall,
        stands,
        format!("uid {uid}, gid {gid}, groups {groups}"),
    )
}

fn capabilities(status: &Status, role: Role) -> Wall {
    // CHOWN (0), DAC_OVERRIDE (1), FOWNER (3), FSETID (4): capabilities(7).
    const MEDIATOR: u64 = 0x1b;
    // SYS_ADMIN (21).
    const REGISTRAR: u64 = 1 << 21;
    let set = |name: &str| u64::from_str_radix(&status.field(name), 16).ok();
    let most = match role {
        Role::Mediator => MEDIATOR,
        Role::Registrar => REGISTRAR,
        Role::Helper(_) | Role::Client | Role::Peer => 0,
    };
    let bounded = |name: &str| set(name).is_some_and(|set| set & !most == 0);
    let nothing = |name: &str| set(name) == Some(0);
    // libvirt leaves a peer's bounding set as it is: of no use behind no_new_privs.
    let bounding = role == Role::Peer || bounded("CapBnd");
    let stands = ["CapEff", "CapPrm"].into_iter().all(bounded)
        && bounding
        && ["CapInh", "CapAmb"].into_iter().all(nothing);
    let shown = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"].map(|name| {
        let value = set(name).map_or_else(|| "?".to_owned(), |set| format!("{set:x}"));
        format!("{} {value}", name.trim_start_matches("Cap").to_lowercase())
    });
    Wall::new("capabilities", stands, shown.join(", "))
}

/// Namespaces that are not those of whoever asks (the host's, for root's commands).
fn namespaces(pid: i32, role: Role, isolated: bool) -> Wall {
    const ALL: [&str; 7] = ["mnt", "pid", "ipc", "net", "uts", "cgroup", "user"];
    let wanted: &[&str] = match role {
        Role::Mediator => &ALL,
        Role::Helper(Helper::Warden) => &ALL[..6],
        Role::Helper(Helper::Init) | Role::Client if isolated => &ALL[..3],
        Role::Helper(Helper::Init) | Role::Client => &ALL[..2],
        Role::Helper(Helper::Keeper) | Role::Registrar | Role::Peer => &ALL[..1],
    };
    let link = |who: &str, kind: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    let own: BTreeSet<&str> = ALL
        .into_iter()
        .filter(|kind| {
            let theirs = link(&pid.to_string(), kind);
            theirs.is_some() && theirs != link("self", kind)
        })
        .collect();
    let stands = wanted.iter().all(|kind| own.contains(kind));
    let shown: Vec<&str> = ALL.into_iter().filter(|kind| own.contains(kind)).collect();
    Wall::new("own namespaces", stands, shown.join(" "))
}

fn user_namespace(pid: i32) -> Wall {
    let map = |file: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        lines.join(", ")
    };
    let (uids, gids) = (map("uid_map"), map("gid_map"));
    let stands = !uids.is_empty() && !gids.is_empty();
    Wall::new(
        "user namespace",
        stands,
        format!("uid_map {uids}; gid_map {gids}"),
    )
}

/// Read inside the mediator's user namespace: whose limits `/proc/sys/user` shows depends on who
/// opens it.
fn no_more_namespaces(pid: i32) -> Wall {
    let wall = |stands, found: String| Wall::new("no further namespaces", stands, found);
    let read = fs::File::open(format!("/proc/{pid}/ns/user")).and_then(|namespace| {
        let (from, to) = pipe().map_err(|error| std::io::Error::other(error.to_string()))?;
        match sys::clone_process(0)? {
            Forked::Child => {
                let told = setns(namespace.as_fd(), CloneFlags::CLONE_NEWUSER)
                    .map_err(std::io::Error::from)
                    .and_then(|()| fs::read("/proc/sys/user/max_user_namespaces"))
                    .and_then(|limit| Ok(nix::unistd::write(&to, &limit)?));
                sys::exit_now(u8::from(told.is_err()))
            }
            Forked::Parent(child) => {
                drop(to);
                let mut text = String::new();
                fs::File::from(from).take(32).read_to_string(&mut text)?;
                waitpid(child, None)?;
                Ok(text.trim().to_owned())
            }
        }
    });
    match read {
        Ok(limit) => wall(limit == "0", format!("user.max_user_namespaces {limit}")),
        Err(error) => wall(false, error.to_string()),
    }
}

/// The export, and below it what is followed or covered as it was at the start; nothing else.
fn root_mounts(pid: i32, below: &[PathBuf]) -> Wall {
    let text = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let mut mounts = Table::parse(&text).points();
    mounts.sort_unstable();
    let expected = std::iter::once(Path::new("/")).chain(below.iter().map(PathBuf::as_path));
    let as_planned = expected.eq(mounts.iter().map(PathBuf::as_path));
    let text = String::from_utf8_lossy(&text);
    let words = |line: &str, at: usize| line.split(' ').nth(at).unwrap_or_default().to_owned();
    let is_safe = |line: &str| {
        let options = words(line, 5);
        let has = |wanted: &str| options.split(',').any(|option| option == wanted);
        has("nosuid") && has("nodev") && has("noexec")
    };
    let is_private = |line: &str| !line.contains(" shared:") && !line.contains(" master:");
    let safe = text.lines().all(|line| is_safe(line) && is_private(line));
    let found = match (mounts.len(), text.lines().next()) {
        (1, Some(only)) => format!("one mount: {} ({})", words(only, 3), words(only, 5)),
        (0, _) | (_, None) => "no mount".to_owned(),
        (count, Some(_)) => {
            let points: Vec<_> = mounts.iter().map(|it| it.display().to_string()).collect();
            format!("{count} mounts: {}", points.join(", "))
        }
    };
    Wall::new("root directory is the export", as_planned && safe, found)
}

/// A helper's root directory: nothing in it.
fn empty_root(pid: i32) -> Wall {
    let listed = fs::read_dir(format!("/proc/{pid}/root/")).map(Iterator::count);
    let found = listed
        .as_ref()
        .map_or_else(std::string::ToString::to_string, |count| {
            format!("{count} entries")
        });
    Wall::new("empty root directory", matches!(listed, Ok(0)), found)
}

/// The kernel gives the files of a process that is not dumpable to root (proc(5)).
fn not_dumpable(pid: i32) -> Wall {
    let owner = fs::metadata(format!("/proc/{pid}/environ")).map(|meta| meta.uid());
    let found = owner
        .as_ref()
        .map_or_else(std::string::ToString::to_string, |uid| {
            format!("/proc/{pid}/environ belongs to uid {uid}")
        });
    Wall::new("not dumpable", matches!(owner, Ok(0)), found)
}

fn limits(pid: i32, names: &[&str]) -> Wall {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let mut stands = true;
    let shown: Vec<String> = names
        .iter()
        .map(|name| {
            let values = text
                .lines()
                .find_map(|line| line.strip_prefix("Max ")?.strip_prefix(name));
            let mut words = values.unwrap_or_default().split_whitespace();
            let hard = words.nth(1).unwrap_or("?");
            stands &= match *name {
                "core file size" | "locked memory" => hard == "0",
                _ => hard.parse::<u64>().is_ok(),
            };
            format!("{name} {hard}")
        })
        .collect();
    Wall::new("limits", stands, shown.join(", "))
}

/// What a mediator or registrar may hold open besides files of the export: each is named by what it is.
fn descriptors(pid: i32) -> Wall {
    let mut channels = 0;
    let mut strange = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let (name, target) = (entry.file_name(), fs::read_link(entry.path()));
        // The log goes where the caller wanted it.
        if name == "2" {
            continue;
        }
        let Ok(target) = target else { continue };
        let target = target.to_string_lossy();
        let channel = ["pipe:[", "socket:[", "anon_inode:["]
            .iter()
            .any(|kind| target.starts_with(kind));
        let meta = fs::metadata(entry.path());
        // As the mediator sees them; of a file of the export, its path below the export.
        if channel || meta.as_ref().is_ok_and(is_fuse) || target.ends_with("/fd") {
            channels += 1;
        } else if meta.is_ok_and(|meta| is_special(&meta)) {
            strange.push(format!("{} is {}", name.display(), target.escape_debug()));
        }
    }
    let found = if strange.is_empty() {
        format!("{channels} besides files of the export and the log")
    } else {
        strange.join("; ")
    };
    Wall::new("descriptors", strange.is_empty() && channels > 0, found)
}

/// `/dev/fuse`, whose path is another once the mount that it was opened on is detached.
fn is_fuse(meta: &fs::Metadata) -> bool {
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    // Documentation/admin-guide/devices.txt.
    meta.file_type().is_char_device() && (major, minor) == (10, 229)
}

/// Neither a regular file nor a directory nor a symbolic link.
fn is_special(meta: &fs::Metadata) -> bool {
    !(meta.is_file() || meta.is_dir() || meta.is_symlink())
}

/// What the kernel shows to nobody but the process itself.
fn read_back(found: Option<&Found>) -> Vec<Wall> {
    const AT_START: &str = "as the mediator read it back before its first request";
    let Some(found) = found else {
        return vec![Wall::new(
            "Landlock",
            false,
            "nothing was told at the start",
        )];
    };
    let landlock = match &found.landlock {
        Landlock::Enforced(abi) => {
            let lacks = Landlock::lacks(*abi);
            let lacks = if lacks.is_empty() {
                String::new()
            } else {
                format!(", which knows no {}", lacks.join(" and no "))
            };
            let found = format!("ABI {abi}{lacks}; a directory outside did not open, {AT_START}");
            Wall::new("Landlock", true, found)
        }
        missing @ (Landlock::Unasked | Landlock::Old(_) | Landlock::Absent(_)) => {
            let why = missing.missing().unwrap_or_else(|| "not built".to_owned());
            Wall::new("Landlock", false, why)
        }
    };
    let bits = Wall::new(
        "securebits",
        found.securebits_locked,
        format!("locked: {}, {AT_START}", found.securebits_locked),
    );
    vec![landlock, bits]
}

/// Two filters: one answers ENOSYS, the other allows what is listed.
fn seccomp(status: &Status) -> Wall {
    let (mode, filters) = (status.field("Seccomp"), status.field("Seccomp_filters"));
    let count = filters.parse::<u32>().unwrap_or_default();
    let stands = mode == "2" && count >= 1;
    Wall::new("seccomp", stands, format!("mode {mode}, {count} filters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_of_a_process_without_any_do_not_stand() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(!namespaces(pid, Role::Mediator, false).stands);
        assert!(!seccomp(&Status::of(pid)).stands);
        assert!(!root_mounts(pid, &[]).stands);
        let limits = limits(pid, &["core file size", "locked memory"]);
        assert!(!limits.stands || limits.found == "core file size 0, locked memory 0");
        assert!(!read_back(None)[0].stands);
    }

    #[test]
    fn fields_of_a_status_are_found_by_their_whole_name() {
        let status = Status("Seccomp:\t2\nSeccomp_filters:\t3\nUid:\t0\t1\t2\t3\n".to_owned());
        assert_eq!(status.field("Seccomp"), "2");
        assert_eq!(status.field("Uid"), "0 1 2 3");
        assert_eq!(status.field("Gid"), "");
    }
}
