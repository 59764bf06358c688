//! `replay`: a recording's requests judged by another policy.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde_json::json;
use virtfs_mediator_core::policy::{Policy, errno_symbol};
use virtfs_mediator_core::recording::{Ending, Entry, Outcome, ReadError, Reader};

use super::changes::{Changes, grouped, is_judgeable};
use super::{Form, load, show, wrong};
use crate::error::Result;

/// Opens a recording.
///
/// # Errors
///
/// Configuration: it cannot be read, or is none.
pub(super) fn open(file: &Path) -> Result<Reader<BufReader<File>>> {
    Reader::open(file).map_err(|error| no_recording(file, &error))
}

/// A recording that cannot be read on.
pub(super) fn no_recording(file: &Path, error: &ReadError) -> crate::error::Error {
    let what = format!("recording {}: {error}", file.display());
    let cure = "make one with `virtfs-mediator record VIEW -o FILE`";
    wrong(what).cure(cure)
}

/// Judges a recording's requests by a policy and tells which answers change; the status is 1 if
/// one does.
///
/// # Errors
///
/// Configuration: the policy or the recording.
pub(super) fn replay(recording: &Path, policy: &Path, form: Form) -> Result<u8> {
    let policy = load(policy)?.enforced();
    let mut reader = open(recording)?;
    let mut changes = Changes::default();
    for entry in &mut reader {
        judge(
            &policy,
            &entry.map_err(|error| no_recording(recording, &error))?,
            &mut changes,
        );
    }
    let cut_off = reader.ending() == Some(Ending::CutOff);
    let Changes {
        requests,
        changed,
        refused,
        unknown,
        ..
    } = changes;
    let groups = changes.told();
    match form {
        Form::Json => show::print_json(&json!({
            "requests": requests,
            "changed": changed,
            "refused": refused,
            "unknown": unknown,
            "cut_off": cut_off,
            "groups": groups,
        }))?,
        Form::Text => {
            let total = grouped(requests);
            let mut lines = vec![match changed {
                0 => format!("none of {total} requests changes"),
                1 => format!("1 of {total} requests changes"),
                more => format!("{} of {total} requests change", grouped(more)),
            }];
            if refused > 0 {
                lines.push(format!("it refuses {} of them", grouped(refused)));
            }
            if unknown > 0 {
                lines.push(format!(
                    "{} were not judged: what the policy asks about them was not recorded",
                    grouped(unknown)
                ));
            }
            if cut_off {
                lines.push("the recording has no end: its last seconds may be missing".to_owned());
            }
            lines.extend(groups.iter().flat_map(super::changes::Told::lines));
            show::print(&lines);
        }
    }
    Ok(u8::from(changed > 0))
}

fn judge(policy: &Policy, entry: &Entry, changes: &mut Changes) {
    let Entry {
        request,
        outcome,
        count,
        ..
    } = entry;
    if !is_judgeable(policy, request) {
        changes.add_unknown(*count);
        return;
    }
    changes.add(request, *count, &was(*outcome), &policy.answer(request));
}

/// How a request was answered, as [`show::verdict`] says it.
fn was(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done | Outcome::Failed(_) => "allow".to_owned(),
        Outcome::Refused { .. } => {
            let errno = outcome.errno().map(errno_symbol);
            format!("deny {}", errno.unwrap_or_default())
        }
    }
}
