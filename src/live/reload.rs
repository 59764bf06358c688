//! `reload`: another policy for a running view, all of it or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use virtfs_mediator_core::control::{Answer, Question};

use crate::control::rundir::{self, State};
use crate::error::{Class, Error, Result};
use crate::live::in_force::Text;
use crate::live::link::{Link, failed, printable};
use crate::output::outln;
use crate::{mounts, plan};

/// Longer than a mediator waits for requests of the old policy, and time to drop caches.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reloads a view's policy from its file, or from another.
pub(crate) fn reload(view: &str, file: Option<PathBuf>, dry_run: bool) -> Result<()> {
    plan::require_root()?;
    let mut state = rundir::load(view)?;
    let Some(file) = file.or_else(|| state.policy.clone()) else {
        return Err(Error::new(
            Class::Usage,
            format!("view '{view}' was started without a policy file"),
            "name one with --policy FILE",
        ));
    };
    // The record outlives our working directory.
    let file = std::path::absolute(&file).unwrap_or(file);
    let text = Text::read(&file)?;
    let Loaded {
        epoch,
        past,
        past_files,
        unfinished,
    } = put_in_force(&mut state, &text, Some(&file), dry_run)?;
    if let Some(why) = unfinished {
        return Err(Error::new(
            Class::Mount,
            format!("view '{view}': {why}"),
            "reload once more when what hangs has ended",
        ));
    }
    if dry_run {
        outln!("{}: ok, view '{view}' can take it", file.display());
    } else {
        outln!(
            "view '{view}': {} is in force (reload {epoch})",
            file.display()
        );
        if past > 0 {
            outln!(
                "open files whose data goes past the mediator until they are closed, whatever this \
                 policy says of it: {past}"
            );
            for file in past_files {
                outln!("  {}", file.escape_ascii());
            }
        }
    }
    Ok(())
}

/// What became of a policy that is in force.
pub(crate) struct Loaded {
    /// The how manieth reload it is.
    pub(crate) epoch: u64,
    /// Open files whose data goes past the mediator.
    pub(crate) past: u64,
    /// Their names, as many as the mediator told.
    pub(crate) past_files: Vec<Vec<u8>>,
    /// Answers from the one before may still come: why.
    pub(crate) unfinished: Option<String>,
}

/// Gives a mediator another policy and records it.
///
/// # Errors
///
/// Configuration: it speaks of another export, lies where a guest could change it, or needs walls that
/// the view does not have. Mount:
/// the mediator does not answer. The old policy stays in force unless the message says otherwise.
pub(crate) fn put_in_force(
    state: &mut State,
    text: &Text,
    file: Option<&Path>,
    dry_run: bool,
) -> Result<Loaded> {
    plan::refuse_other_export(&state.export, &text.policy)?;
    if let Some(origin) = &text.origin {
        let mut shared = mounts::Table::read()?.places_of(&state.export);
        shared.push(state.at.clone());
        origin.refuse_shared(&shared)?;
        if state.peer.is_some() {
            origin.refuse_others()?;
        }
    }
    plan::warn_of_observing(&state.export, &text.policy);
    let question = Question::Reload {
        policy: text.text.clone(),
        names: text.names.clone(),
        readonly: state.readonly,
        dry_run,
    };
    let answer = Link::to(&state.view)?.ask(&question, PATIENCE);
    let answer = answer.map_err(|error| {
        error.cure("the policy that was in force stays, unless this says otherwise; end the view and start it anew for what cannot be reloaded")
    })?;
    let Answer::Reloaded {
        epoch,
        past,
        past_files,
        unfinished,
        ..
    } = answer
    else {
        return Err(failed(&state.view, &"another answer"));
    };
    if dry_run {
        let unfinished = None;
        return Ok(Loaded {
            epoch,
            past,
            past_files,
            unfinished,
        });
    }
    state.policy_text = Some(text.text.clone());
    state.policy = file.map(Path::to_path_buf).or_else(|| state.policy.take());
    rundir::rewrite(state)?;
    let unfinished = unfinished.map(|why| printable(&why));
    Ok(Loaded {
        epoch,
        past,
        past_files,
        unfinished,
    })
}
