//! One export: whether a start would take it, and what a guest will meet there.
//!
//! * [`place`]: its file system and mount.
//! * [`tries`]: what client and mediator can do there, tried as them.
//! * [`walk`]: what lies inside, as far as a bounded look goes.

mod place;
mod tries;
mod walk;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use virtfs_mediator_core::policy::Policy;

use crate::doctor::Who;
use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;
use crate::error::{Error, Result};
use crate::mounts::{Mount, Table};
use crate::submounts::Submounts;
use crate::{plan, policies};

/// What was typed for an export.
pub(super) struct Planned {
    path: PathBuf,
    policy_file: Option<PathBuf>,
    /// No rules if no file is named; an error if it cannot be used.
    policy: Result<Policy>,
}

/// An export that a start would take.
struct Export<'a> {
    path: &'a Path,
    fd: &'a OwnedFd,
    policy: &'a Policy,
    mount: &'a Mount,
}

impl Export<'_> {
    /// A finding's text, which says which export it is about.
    fn says(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.path.display())
    }
}

/// Splits what was typed, and reads the policies.
pub(super) fn planned(typed: &[OsString], policy: Option<&Path>) -> Vec<Planned> {
    let planned = |typed: &OsString| {
        let (path, file) = plan::split_policy(typed);
        let policy_file = file.or_else(|| policy.map(Path::to_owned));
        let policy = policy_file
            .as_deref()
            .map_or_else(|| Ok(Policy::parity()), policies::load);
        Planned {
            path,
            policy_file,
            policy,
        }
    };
    typed.iter().map(planned).collect()
}

/// The client that the policies name, as `--client` takes it.
pub(super) fn client_of(exports: &[Planned]) -> Option<String> {
    exports.iter().find_map(|export| {
        let settings = export.policy.as_ref().ok()?.settings();
        let user = settings.client_user?;
        Some(match settings.client_group {
            Some(group) => format!("{user}:{group}"),
            None => user.to_string(),
        })
    })
}

/// All checks of one export.
pub(super) fn check(findings: &mut Findings, table: &Table, who: &Who<'_>, planned: Planned) {
    let opened = plan::open_directory(&planned.path, "export")
        .and_then(|(path, fd)| plan::refuse_unfit_export(&path, table).map(|()| (path, fd)));
    let (path, fd) = match opened {
        Ok(opened) => opened,
        Err(error) if who.root && refuses_root(&planned.path) => {
            findings.tell(
                Problem::Unfit,
                error.what(),
                "whoever mounted it keeps even root out (FUSE): mount it with allow_other, or \
                 share a directory of a local file system",
            );
            return;
        }
        Err(error) => {
            tell_error(findings, Problem::Unfit, &error);
            return;
        }
    };
    let shown = path.display();
    let policy = match policy(&planned, &path) {
        Ok(policy) => {
            let file = planned.policy_file.as_ref();
            let file = file.map_or(
                "none: everything but device nodes is allowed".into(),
                |file| file.display().to_string(),
            );
            findings.ok(Problem::BadPolicy, format!("{shown}: {file}"));
            policy
        }
        Err(error) => {
            tell_error(findings, Problem::BadPolicy, &error);
            Policy::parity()
        }
    };
    let choice = plan::submounts_word(None, &policy);
    if let Err(error) = Submounts::plan(choice, &path, table) {
        tell_error(findings, Problem::Unfit, &error);
        return;
    }
    let Some(mount) = table.holding(&path) else {
        let why = format!("{shown}: /proc/self/mountinfo does not name its mount");
        findings.untried(Problem::Unfit, &why);
        return;
    };
    let export = Export {
        path: &path,
        fd: &fd,
        policy: &policy,
        mount,
    };
    let place = format!("{} mounted on {}", mount.kind, mount.point.display());
    findings.ok(Problem::Unfit, export.says(place));
    place::check(findings, table, &export);
    tries::check(findings, who, &export);
    walk::check(findings, &export);
}

/// No mode bits refuse root: it is the file system that does.
fn refuses_root(path: &Path) -> bool {
    let error = path.symlink_metadata().err();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn policy(planned: &Planned, path: &Path) -> Result<Policy> {
    let policy = planned
        .policy
        .as_ref()
        .map_err(|error| Error::new(error.class(), error.what(), error.advice()))?;
    plan::refuse_other_export(path, policy)?;
    Ok(policy.clone())
}

fn tell_error(findings: &mut Findings, problem: Problem, error: &Error) {
    let advice = if error.advice().is_empty() {
        "see `virtfs-mediator policy check FILE`, or `ls -ld` on the path"
    } else {
        error.advice()
    };
    findings.tell(problem, error.what(), advice);
}
