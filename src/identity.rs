//! Who the client is, and who the mediator is.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::error::{Class, Error, Result};

/// The ids of a process that we start. Host ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Real, effective and saved user id.
    pub(crate) uid: u32,
    /// Real, effective and saved group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// The mediator's user, if the host has one.
pub(crate) const MEDIATOR_USER: &str = "virtfs-mediator";
/// The mediator's uid and gid where no such user exists: high, outside every range that
/// distributions, systemd or container tools hand out (systemd's UIDS-GIDS: 1879048192 to
/// 2147483647 is unused).
pub(crate) const MEDIATOR_FALLBACK: u32 = 2_000_000_990;

/// Resolves `USER[:GROUP]`, each a name or a number, or who called sudo.
///
/// # Errors
///
/// Configuration: unknown user or group, root as the client; usage: no client can be derived.
pub(crate) fn client(asked: Option<&str>) -> Result<Ids> {
    let ids = match asked {
        Some(text) => parse(text)?,
        None => caller_of_sudo()?,
    };
    let root = match (ids.uid, ids.gid) {
        (0, _) => Some("the client would be root"),
        (_, 0) => Some("the client would be in root's group"),
        _ => None,
    };
    if let Some(what) = root {
        return Err(Error::new(
            Class::Configuration,
            what,
            "name an ordinary user with --client USER[:GROUP]; a mediated QEMU needs no privilege",
        ));
    }
    Ok(ids)
}

/// The mediator's own ids: a named user, or the fixed fallback. It never has groups.
pub(crate) fn mediator(asked: Option<&str>) -> Result<Ids> {
    let mut ids = match asked {
        Some(text) => parse(text)?,
        None => match User::from_name(MEDIATOR_USER) {
            Ok(Some(user)) => Ids {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                groups: Vec::new(),
            },
            Ok(None) | Err(_) => Ids {
                uid: MEDIATOR_FALLBACK,
                gid: MEDIATOR_FALLBACK,
                groups: Vec::new(),
            },
        },
    };
    ids.groups.clear();
    if ids.uid == 0 || ids.gid == 0 {
        return Err(Error::new(
            Class::Configuration,
            "the mediator would be root",
            "name a system user of its own with --mediator-user",
        ));
    }
    Ok(ids)
}

fn caller_of_sudo() -> Result<Ids> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u32>().ok())
    };
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) if uid != 0 => Ok(of_user(uid, Some(gid))),
        _ => Err(Error::new(
            Class::Usage,
            "no client: it is not known who should run the command",
            "name it with --client USER[:GROUP], best a user of its own for each virtual machine \
             (`adduser --system --group vm-web`), or call through sudo",
        )),
    }
}

fn parse(text: &str) -> Result<Ids> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let gid = group.map(resolve_group).transpose()?;
    if let Ok(uid) = user.parse::<u32>() {
        if uid == u32::MAX {
            return Err(unknown("user", user));
        }
        return Ok(of_user(uid, gid));
    }
    match User::from_name(user) {
        Ok(Some(found)) => Ok(of_user(found.uid.as_raw(), gid)),
        Ok(None) | Err(_) => Err(unknown("user", user)),
    }
}

/// A group that is named replaces the user's own; supplementary groups stay the user's, as with
/// `sudo -u USER -g GROUP`. A number that no user has gets the same number as group.
fn of_user(uid: u32, gid: Option<u32>) -> Ids {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => {
            let gid = gid.unwrap_or(user.gid.as_raw());
            let groups = CString::new(user.name)
                .ok()
                .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
                .unwrap_or_default();
            Ids {
                uid,
                gid,
                groups: groups.into_iter().map(Gid::as_raw).collect(),
            }
        }
        Ok(None) | Err(_) => Ids {
            uid,
            gid: gid.unwrap_or(uid),
            groups: Vec::new(),
        },
    }
}

fn resolve_group(text: &str) -> Result<u32> {
    if let Ok(gid) = text.parse::<u32>() {
        return if gid == u32::MAX {
            Err(unknown("group", text))
        } else {
            Ok(gid)
        };
    }
    match Group::from_name(text) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) | Err(_) => Err(unknown("group", text)),
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(
        Class::Configuration,
        format!("unknown {what} '{name}'"),
        format!("use a name that `getent` knows, or a number (--client USER[:GROUP], {what})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_numbers_are_taken_as_they_are() {
        let ids = client(Some("64055:1234")).unwrap();
        assert_eq!((ids.uid, ids.gid), (64055, 1234));
        let ids = client(Some("3000000001")).unwrap();
        assert_eq!((ids.uid, ids.gid), (3_000_000_001, 3_000_000_001));
    }

    #[test]
    fn client_root_or_unknown_is_refused() {
        for bad in [
            "root",
            "0",
            "0:5",
            "no-such-user",
            "nobody:no-such-group",
            "4294967295",
        ] {
            assert_eq!(
                client(Some(bad)).unwrap_err().class(),
                Class::Configuration,
                "{bad}"
            );
        }
    }
}
