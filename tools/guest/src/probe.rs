//! Runs one probe in a directory of its own and words its outcome.

use std::path::Path;

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;

use crate::errno;
use crate::script::{self, Probe};
use crate::step::{Context, Failure};

/// The scripts that are built in, by the name they are run under.
pub const SCRIPTS: &[(&str, &[&str])] = &[
    (
        "matrix",
        &[
            include_str!("../probes/names.probes"),
            include_str!("../probes/owners.probes"),
            include_str!("../probes/data.probes"),
            include_str!("../probes/attributes.probes"),
            include_str!("../probes/users.probes"),
        ],
    ),
    ("try", &[include_str!("../probes/try.probes")]),
];

/// The probes of a built-in script.
///
/// # Errors
/// No such script, or a mistake in it (which a test excludes).
pub fn load(name: &str) -> Result<Vec<Probe>, String> {
    let (_, texts) = SCRIPTS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("no script is called {name}"))?;
    let mut probes = Vec::new();
    for text in *texts {
        probes.extend(script::parse(text).map_err(|mistake| mistake.to_string())?);
    }
    Ok(probes)
}

/// Runs `probe` in `mounts/SHARE/FAMILY/NAME` and gives its outcome: `ok` and its facts, or the
/// errno and the step that met it.
#[must_use]
pub fn run(probe: &Probe, mounts: &Path) -> String {
    let share = mounts.join(&probe.share);
    if let Err(errno) = enter(&share, &probe.name) {
        return format!("{} workdir", errno::name(errno));
    }
    let mut context = Context::new();
    let mut facts = Vec::new();
    let mut end = "ok".to_owned();
    for step in &probe.steps {
        match context.run(step) {
            Ok(Some(fact)) => facts.push(fact),
            Ok(None) => {}
            Err(Failure::Os(errno)) if step.tolerate => {
                facts.push(format!("{}={}", step.op, errno::name(errno)));
            }
            Err(Failure::Os(errno)) => {
                end = format!("{} {}", errno::name(errno), step.op);
                break;
            }
            Err(Failure::Script(what)) => {
                end = format!("BADSCRIPT {}: {what}", step.op);
                break;
            }
        }
    }
    context.leave();
    facts.insert(0, end);
    facts.join(" ")
}

/// Makes the probe's directory and goes there, so that its paths are short.
fn enter(share: &Path, name: &str) -> Result<(), Errno> {
    rustix::process::chdir(share)?;
    rustix::process::umask(Mode::empty());
    let mut path = String::new();
    for part in name.split('/') {
        path.push_str(part);
        match mkdirat(CWD, path.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        path.push('/');
    }
    rustix::process::chdir(path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_hold_no_mistake_and_enough_probes() {
        assert!(load("matrix").unwrap().len() > 400);
        assert!(!load("try").unwrap().is_empty());
        assert!(load("other").is_err());
    }

    /// As root every operation of the scripts is exercised; without, most probes end early.
    #[test]
    fn run_on_a_plain_directory_knows_every_operation() {
        let mounts = tempfile::tempdir().unwrap();
        for share in ["share", "posix", "mmap", "cached"] {
            std::fs::create_dir(mounts.path().join(share)).unwrap();
        }
        // The probes change ids, umask and working directory: of this test's process, since
        // every test has its own under nextest, and this is the only one that does.
        for probe in load("matrix").unwrap().iter().chain(&load("try").unwrap()) {
            let outcome = run(probe, mounts.path());
            assert!(!outcome.contains("BADSCRIPT"), "{}: {outcome}", probe.name);
        }
    }
}
