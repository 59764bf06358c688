//! The directories that are to be shared, and the policies that go with them.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use virtfs_mediator_core::ids::{HostGid, HostOwner, HostUid};
use virtfs_mediator_core::policy::{CacheWord, DataJudgement, IdSpan, Policy, SubmountsWord};

use crate::cli::{CacheOption, DataOption, SubmountsOption};
use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::live::in_force::Text;
use crate::plan::{ViewPlan, config};
use crate::submounts::{Submounts, is_kernels_own, is_view};
use crate::{mounts, view_name};

/// Root too is refused where it has no capability that goes past mode bits, as in the units that are shipped.
const NO_WAY: &str = "a directory above it may not be searched by root without a capability: `chmod o+x` \
                      it (g+x if its group is root's), or give the service one (`systemctl edit`, [Service] \
                      CapabilityBoundingSet=CAP_DAC_READ_SEARCH)";

/// What is wanted of one export.
pub(crate) struct Wish<'a> {
    /// Derived from the export if it is not given.
    pub(crate) name: Option<&'a str>,
    pub(crate) export: PathBuf,
    /// No directory above it may have been made a link since its path was written down.
    pub(crate) canonical: bool,
    pub(crate) policy: Option<PathBuf>,
    /// Over the export's own path if it is not given.
    pub(crate) at: Option<&'a Path>,
    /// As the policy says if it is not given.
    pub(crate) cache: Option<CacheOption>,
    /// As the policy says if it is not given.
    pub(crate) submounts: Option<SubmountsOption>,
    pub(crate) data: DataOption,
    pub(crate) readonly: bool,
}

pub(super) fn view(
    wish: &Wish<'_>,
    table: &mounts::Table,
    earlier: &[ViewPlan],
) -> Result<ViewPlan> {
    let (path, export_fd) = open_directory(&wish.export, "export")?;
    if wish.canonical && path != wish.export {
        return Err(config(
            format!(
                "export {} is {}: a directory above it is a symbolic link",
                wish.export.display(),
                path.display()
            ),
            "find out who may rename directories above it; if the link is meant, name the directory \
             itself, in the domain's definition too",
        ));
    }
    refuse_unfit_export(&path, table)?;
    let at = match wish.at {
        Some(at) => open_directory(at, "place of the view (--at)")?.0,
        None => path.clone(),
    };
    for other in earlier {
        if at.starts_with(&other.at) || other.at.starts_with(&at) {
            return Err(config(
                format!(
                    "the views of {} and {} would cover each other",
                    path.display(),
                    other.export.display()
                ),
                "share the upper directory alone, or start two clients",
            ));
        }
    }
    if at != path && at.starts_with(&path) {
        return Err(config(
            format!(
                "the view at {} would lie inside its own export {}",
                at.display(),
                path.display()
            ),
            "choose a place outside the export",
        ));
    }
    // The record outlives the working directory.
    let policy_file = wish
        .policy
        .as_ref()
        .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    let (mut policy, policy_text, policy_origin) = match &policy_file {
        Some(file) => {
            let read = Text::read(file)?;
            (read.policy, Some(read.text), read.origin)
        }
        None => (Policy::parity(), None, None),
    };
    if wish.readonly {
        policy.set_readonly();
    }
    refuse_other_export(&path, &policy)?;
    refuse_unmapped_root(&path, &export_fd, &policy)?;
    let submounts = Submounts::plan(submounts_word(wish.submounts, &policy), &path, table)?;
    refuse_strict_passthrough(wish.data, &policy)?;
    warn_of_overflow_ids(&policy);
    warn_of_observing(&path, &policy);
    let cache = wish.cache.unwrap_or(match policy.settings().cache {
        Some(CacheWord::Auto) | None => CacheOption::Auto,
        Some(CacheWord::None) => CacheOption::None,
        Some(CacheWord::Exclusive) => CacheOption::Exclusive,
    });
    let name = match wish.name {
        Some(name) => view_name::checked(name)?,
        None => view_name::derived(&path, |name| {
            earlier.iter().any(|view| view.name == name) || rundir::is_live(name)
        }),
    };
    table.report_other_mounts(&path);
    Ok(ViewPlan {
        name,
        export: path,
        export_fd,
        at,
        policy,
        cache,
        submounts,
        data: wish.data.into(),
        policy_file,
        policy_text,
        policy_origin,
        readonly: wish.readonly,
    })
}

/// The word that was given, else the policy's.
pub(crate) fn submounts_word(given: Option<SubmountsOption>, policy: &Policy) -> SubmountsWord {
    match given {
        Some(SubmountsOption::Refuse) => SubmountsWord::Refuse,
        Some(SubmountsOption::Hide) => SubmountsWord::Hide,
        Some(SubmountsOption::Follow) => SubmountsWord::Follow,
        None => policy.settings().submounts.unwrap_or_default(),
    }
}

/// The exports of the command line, each with the policy file of its own if it has one; without
/// any, the one that `policy` names.
pub(super) fn named(
    exports: &[OsString],
    policy: Option<&Path>,
) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
    if !exports.is_empty() {
        return Ok(exports.iter().map(|typed| split_policy(typed)).collect());
    }
    let Some(file) = policy else {
        return Err(Error::new(
            Class::Usage,
            "no export: neither EXPORT nor a policy that names one is given",
            "name the directory, or a policy with `export = \"/DIR\"` in it (--policy FILE)",
        ));
    };
    match &Text::read(file)?.policy.settings().export {
        Some(export) => Ok(vec![(export.into(), None)]),
        None => Err(config(
            format!(
                "policy {} names no export, and neither does the command line",
                file.display()
            ),
            "write `export = \"/DIR\"` into it, or give EXPORT",
        )),
    }
}

/// `EXPORT=POLICY`, unless a directory of that very name exists.
pub(crate) fn split_policy(export: &OsStr) -> (PathBuf, Option<PathBuf>) {
    let bytes = export.as_bytes();
    if !Path::new(export).exists()
        && let Some(at) = bytes.iter().rposition(|byte| *byte == b'=')
    {
        let (path, policy) = (&bytes[..at], &bytes[at + 1..]);
        return (
            OsStr::from_bytes(path).into(),
            Some(OsStr::from_bytes(policy).into()),
        );
    }
    (export.into(), None)
}

/// Opens a directory without following a symbolic link in its last component, and tells its
/// canonical path.
pub(crate) fn open_directory(typed: &Path, what: &str) -> Result<(PathBuf, OwnedFd)> {
    let shown = typed.display();
    let failed = |errno: rustix::io::Errno| {
        let cure = match errno {
            rustix::io::Errno::ACCESS => NO_WAY,
            _ => "name a directory that exists",
        };
        config(format!("{what} {shown}: {errno}"), cure)
    };
    // Opened before it is looked at: what is checked, and whose path is told, is what is used.
    // Without a trailing slash, which would have the kernel follow a link in spite of O_NOFOLLOW.
    let plain: PathBuf = typed.components().collect();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &plain, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Err(config(
            format!("{what} {shown} is a symbolic link"),
            "name the directory itself: a link could be changed to lead elsewhere",
        ));
    }
    if kind != FileType::Directory {
        return Err(config(
            format!("{what} {shown} is not a directory"),
            "name a directory",
        ));
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|error| config(format!("{what} {shown}: {error}"), "mount /proc"))?;
    Ok((path, fd))
}

/// Refuses what can be no export, whatever is mounted inside it.
///
/// # Errors
///
/// Configuration.
pub(crate) fn refuse_unfit_export(path: &Path, table: &mounts::Table) -> Result<()> {
    let shown = path.display();
    if path == Path::new("/") {
        return Err(config(
            "the export is the root directory",
            "share a directory below it: a view of everything protects nothing",
        ));
    }
    if let Some(mount) = table.holding(path)
        && is_kernels_own(&mount.kind)
    {
        return Err(config(
            format!("export {shown} lies on a {} mount", mount.kind),
            "kernel file systems cannot be shared: choose another directory",
        ));
    }
    if let Some(mount) = table.holding(path)
        && is_view(&mount.kind)
    {
        return Err(config(
            format!("export {shown} is itself a view"),
            "share the original",
        ));
    }
    Ok(())
}

/// A policy that names its export is not used for another by mistake.
pub(crate) fn refuse_other_export(path: &Path, policy: &Policy) -> Result<()> {
    match &policy.settings().export {
        Some(export) if Path::new(export) != path => Err(config(
            format!("the policy is for export {export}, not {}", path.display()),
            "name the policy's own export, or change `export` in the policy",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Inside a user namespace an owner that it does not map looks like this one.
fn warn_of_overflow_ids(policy: &Policy) {
    const OVERFLOW: u32 = 65534;
    let among = |spans: Option<&[IdSpan]>| {
        spans.is_some_and(|spans| spans.iter().any(|span| span.holds(OVERFLOW)))
    };
    if among(policy.host_uids()) || among(policy.host_gids()) {
        tracing::warn!(
            "the policy's host ids include {OVERFLOW}, which is also what the kernel shows for ids \
             outside of `map`: such files are judged by their mode for others, not refused"
        );
    }
}

/// A view that only watches must not be taken for one that guards.
pub(crate) fn warn_of_observing(path: &Path, policy: &Policy) {
    if policy.observes() {
        tracing::warn!(
            export = %path.display(),
            "`mode = \"observe\"`: what the policy's rules refuse is let through and only told"
        );
    }
}

/// The mediator of a policy with a `map` has power over the map's ids alone: a root directory of
/// anyone else would be closed to it.
pub(crate) fn refuse_unmapped_root(path: &Path, export: &OwnedFd, policy: &Policy) -> Result<()> {
    let stat = rustix::fs::fstat(export)
        .map_err(|errno| config(format!("export {}: {errno}", path.display()), ""))?;
    let owner = HostOwner {
        uid: HostUid(stat.st_uid),
        gid: HostGid(stat.st_gid),
    };
    if policy.admits(owner) {
        return Ok(());
    }
    let first =
        |spans: Option<&[IdSpan]>| spans.and_then(<[_]>::first).map_or(0, |span| span.first);
    Err(config(
        format!(
            "export {} belongs to {}:{}, which is outside of every range of the policy's `map`",
            path.display(),
            owner.uid,
            owner.gid
        ),
        format!(
            "give it to an id inside (chown {}:{} {}; files below it likewise), or extend `map`",
            first(policy.host_uids()),
            first(policy.host_gids()),
            path.display()
        ),
    ))
}

/// Both are asked for on purpose, and one would be without effect.
fn refuse_strict_passthrough(data: DataOption, policy: &Policy) -> Result<()> {
    if data == DataOption::Passthrough && policy.judges_data() == DataJudgement::Always {
        return Err(config(
            "--data passthrough, but `strict = true` in the policy has every read and write judged",
            "leave out one of them",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_on_a_kernel_file_system_is_refused() {
        let table = mounts::Table::read().unwrap();
        let error = refuse_unfit_export(Path::new("/proc/self"), &table).unwrap_err();
        assert!(error.to_string().contains("proc mount"), "{error}");
        assert!(!is_kernels_own("ext4") && !is_kernels_own("tmpfs"));
    }
}
