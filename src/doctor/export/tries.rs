//! What client and mediator can do with an export: tried in a child that is as they are.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::doctor::catalogue::Problem;
use crate::doctor::export::Export;
use crate::doctor::findings::Findings;
use crate::doctor::ids::user_name;
use crate::doctor::{NEEDS_ROOT, Who, child, sandbox};
use crate::error::{Class, Error, Result};

/// The attribute that is asked for, and that nobody sets on a file with a name.
const XATTR: &str = "user.virtfs-mediator.doctor";

/// What came of one try within the sandbox.
#[derive(Deserialize, Serialize)]
enum Tried {
    Works,
    Refused(String),
    /// It could not be tried.
    Not(String),
}

/// What a mediator found.
#[derive(Deserialize, Serialize)]
struct Seen {
    owners: Tried,
    xattr: Tried,
}

/// All checks of this part.
pub(super) fn check(findings: &mut Findings, who: &Who<'_>, export: &Export<'_>) {
    way(findings, who, export);
    if !who.root {
        findings.untried(Problem::Reach, &export.says(NEEDS_ROOT));
        findings.untried(Problem::Owners, &export.says(NEEDS_ROOT));
        told_xattr(findings, export, xattr_by_reading(export.path));
        return;
    }
    let owner = owner_to_give(export);
    let readonly = export.policy.readonly();
    let seen = sandbox::run_in(who.mediator, export.path, |root| {
        list(&root)?;
        Ok(if readonly {
            Seen {
                owners: Tried::Not("the policy is read-only".to_owned()),
                xattr: xattr_by_reading(Path::new("/")),
            }
        } else {
            make(&root, owner)
        })
    });
    let seen = match seen {
        Ok(seen) => {
            findings.ok(
                Problem::Reach,
                export.says("a mediator in its sandbox can list it"),
            );
            seen
        }
        Err(error) => {
            findings.tell(
                Problem::Reach,
                export.says(format!("a mediator in its sandbox: {}", error.what())),
                "the file system itself refuses it (a FUSE mount without allow_other, a file \
                 server's check, a security module) unless the kernel's checks FAIL as well: share \
                 a directory of a local file system",
            );
            let why = export.says("a mediator cannot get in");
            findings.untried(Problem::Owners, &why);
            findings.untried(Problem::NoXattr, &why);
            return;
        }
    };
    match seen.owners {
        Tried::Works => findings.ok(Problem::Owners, export.says("files take any owner")),
        Tried::Refused(why) => findings.tell(
            Problem::Owners,
            export.says(format!("a mediator cannot give a file an owner: {why}")),
            "share a directory of a file system that keeps owners, and is not full",
        ),
        Tried::Not(why) => findings.untried(Problem::Owners, &export.says(why)),
    }
    told_xattr(findings, export, seen.xattr);
}

fn told_xattr(findings: &mut Findings, export: &Export<'_>, tried: Tried) {
    match tried {
        Tried::Works => findings.ok(Problem::NoXattr, export.says("user attributes")),
        Tried::Refused(why) => findings.tell(
            Problem::NoXattr,
            export.says(format!("the guest will have no user attributes: {why}")),
            "share another file system if the guest needs them",
        ),
        Tried::Not(why) => findings.untried(Problem::NoXattr, &export.says(why)),
    }
}

/// Whether the client can name the export: the view lies over it, behind the same parents.
fn way(findings: &mut Findings, who: &Who<'_>, export: &Export<'_>) {
    let Some(client) = who.client else {
        findings.untried(Problem::NoWay, &export.says("no client is named"));
        return;
    };
    if !who.root {
        findings.untried(Problem::NoWay, &export.says(NEEDS_ROOT));
        return;
    }
    let closed = child::run(0, |_| {
        child::become_user(client)?;
        // From the top: the first that cannot be searched stops the client.
        let parents: Vec<&Path> = export.path.ancestors().skip(1).collect();
        let closed = parents.into_iter().rev().find(|parent| {
            let inside = parent.join(".");
            rustix::fs::statat(CWD, &inside, AtFlags::empty()).err() == Some(Errno::ACCESS)
        });
        Ok(closed.map(Path::to_owned))
    })
    .result();
    match closed {
        Ok(None) => findings.ok(
            Problem::NoWay,
            export.says("the client can get to its path"),
        ),
        Ok(Some(parent)) => findings.tell(
            Problem::NoWay,
            export.says(format!(
                "user {} may not search {}, so that QEMU cannot name the view",
                user_name(client.uid),
                parent.display()
            )),
            "start it with --isolate, whose directories are open, or --at another place; or let \
             the client search it (`chmod o+x`)",
        ),
        Err(error) => findings.untried(Problem::NoWay, &export.says(error.what())),
    }
}

/// An owner that neither root nor the mediator is, and that the policy's map can name.
fn owner_to_give(export: &Export<'_>) -> u32 {
    const ANY: u32 = 12_345;
    let uids = export.policy.host_uids().unwrap_or_default();
    uids.first().map_or(ANY, |span| span.first)
}

fn list(root: &OwnedFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(root, ".", flags, Mode::empty())
        .map_err(|errno| step("open(export)", errno))?;
    let mut entries =
        rustix::fs::Dir::new(directory).map_err(|errno| step("getdents64(export)", errno))?;
    match entries.next() {
        Some(Err(errno)) => Err(step("getdents64(export)", errno)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// A file without a name, which is gone when it is closed: nobody sees it, nor does it change its
/// directory.
fn make(root: &OwnedFd, owner: u32) -> Seen {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(root, ".", flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(errno) => {
            let why = format!("no file without a name can be made there: {errno}");
            let read = matches!(errno, Errno::OPNOTSUPP | Errno::ISDIR | Errno::ROFS);
            return Seen {
                owners: if read {
                    Tried::Not(why)
                } else {
                    Tried::Refused(why)
                },
                xattr: xattr_by_reading(Path::new("/")),
            };
        }
    };
    let uid_gid = (Uid::from_raw(owner), Gid::from_raw(owner));
    let owners = rustix::fs::fchown(&file, Some(uid_gid.0), Some(uid_gid.1))
        .and_then(|()| rustix::fs::fstat(&file));
    let owners = match owners {
        Ok(stat) if (stat.st_uid, stat.st_gid) == (owner, owner) => Tried::Works,
        Ok(stat) => Tried::Refused(format!(
            "{owner}:{owner} became {}:{}",
            stat.st_uid, stat.st_gid
        )),
        Err(errno) => Tried::Refused(format!("fchown: {errno}")),
    };
    let xattr = match rustix::fs::fsetxattr(&file, XATTR, b"1", XattrFlags::empty()) {
        Ok(()) => Tried::Works,
        Err(errno) => Tried::Refused(format!("fsetxattr: {errno}")),
    };
    Seen { owners, xattr }
}

/// ENODATA: there could be one.
fn xattr_by_reading(path: &Path) -> Tried {
    match rustix::fs::getxattr(path, XATTR, &mut [0_u8; 0]) {
        Ok(_) | Err(Errno::NODATA) => Tried::Works,
        Err(Errno::OPNOTSUPP) => Tried::Refused(Errno::OPNOTSUPP.to_string()),
        Err(errno) => Tried::Not(format!("getxattr: {errno}")),
    }
}

fn step(call: &str, errno: Errno) -> Error {
    Error::step(Class::Confinement, call, errno)
}
