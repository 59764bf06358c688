//! `suggest`: a policy for what a recording asked.

use std::path::Path;

use virtfs_mediator_core::recording::suggest::{From, Observed, Spans, suggest as suggestion};

use super::replay::{no_recording, open};
use super::{Host, load_text, show, wrong};
use crate::error::Result;

/// Prints a policy that allows what a recording's requests were allowed.
///
/// # Errors
///
/// Configuration: the recording or the policy; a recording in which nothing was allowed.
pub(super) fn suggest(recording: &Path, from: Option<&Path>) -> Result<()> {
    let kept = from
        .map(|file| load_text(file).map(|(_checked, text)| (file.display().to_string(), text)))
        .transpose()?;
    let mut observed = Observed::new(if kept.is_some() {
        Spans::Kept
    } else {
        Spans::Folded
    });
    let fault = |error: &dyn std::fmt::Display| {
        wrong(format!("recording {}: {error}", recording.display()))
    };
    for entry in open(recording)? {
        let entry = entry.map_err(|error| no_recording(recording, &error))?;
        observed.add(entry).map_err(|error| fault(&error))?;
    }
    let from = kept.as_ref().map(|(file, text)| From { file, text });
    let suggestion = suggestion(&observed, from, &Host).map_err(|error| fault(&error))?;
    show::print(&[suggestion.text.trim_end().to_owned()]);
    Ok(())
}
