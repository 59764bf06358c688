//! What the commands print and ask.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use clap::Args;
use similar::TextDiff;

use crate::error::{Class, Error, Result};
use crate::libvirt::definition::Definition;
use crate::output::{self, out, outln};

/// Where libvirt calls our hook.
pub(crate) const HOOK: &str = "/etc/libvirt/hooks/qemu.d/virtfs-mediator";

/// Whether changes are made, asked about, or only shown.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Only show what would be changed.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

impl Consent {
    /// Whether the changes are to be made. Said, or answered on the terminal.
    ///
    /// # Errors
    ///
    /// Usage: nobody is there to answer.
    pub(crate) fn given(&self, question: &str) -> Result<bool> {
        if self.yes || self.dry_run {
            return Ok(self.yes);
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Error::new(
                Class::Usage,
                "nobody is there to be asked: standard input is no terminal",
                "say --yes, or --dry-run to see the changes alone",
            ));
        }
        out!("{question} [y/N] ");
        output::flush();
        let mut answer = String::new();
        let _no_answer_is_no = stdin.lock().read_line(&mut answer);
        let agreed = matches!(answer.trim(), "y" | "Y" | "yes");
        if !agreed {
            outln!("nothing has been changed");
        }
        Ok(agreed)
    }
}

/// A unified diff of a text under one name, or nothing.
pub(crate) fn diff(before: &str, after: &str, name: &str) {
    if before == after {
        return;
    }
    // The last line may have no end of its own.
    let (before, after) = (
        format!("{}\n", before.trim_end()),
        format!("{}\n", after.trim_end()),
    );
    let before = before.trim_start_matches('\n');
    let diff = TextDiff::from_lines(before, after.as_str());
    let (old, new) = (format!("{name} (now)"), format!("{name} (then)"));
    let text = diff.unified_diff().header(&old, &new).to_string();
    out!("{}", without_passwords(&text));
}

/// Lines around a change may hold one (`<graphics passwd=...>`), and terminals are looked at.
fn without_passwords(text: &str) -> String {
    const KEY: &str = " passwd='";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(KEY) {
        shown.push_str(before);
        shown.push_str(KEY);
        shown.push_str("...");
        let end = after.find('\'').unwrap_or(after.len());
        rest = after.get(end..).unwrap_or_default();
    }
    shown.push_str(rest);
    shown
}

/// A line for each.
pub(crate) fn notes(notes: &[String]) {
    for note in notes {
        outln!("note: {note}");
    }
}

/// What a start of the domain will miss.
pub(crate) fn note_what_is_missing(notes: &mut Vec<String>) {
    let socket = crate::serve::protocol::SOCKET;
    for (path, what) in [
        (HOOK, "libvirt has no hook of ours"),
        (socket, "the service does not listen"),
    ] {
        if !Path::new(path).exists() {
            notes.push(format!(
                "{what} ({path}): the domain will not start until that is so; see \
                 `virtfs-mediator doctor --libvirt`"
            ));
        }
    }
}

/// virsh takes a number for a running domain's, which may be another than the one of that name.
///
/// # Errors
///
/// Usage: it was a number.
pub(crate) fn refuse_number(typed: &str, definition: &Definition) -> Result<()> {
    let number = typed.bytes().all(|byte| byte.is_ascii_digit());
    if !number || typed == definition.name {
        return Ok(());
    }
    Err(Error::new(
        Class::Usage,
        format!(
            "{typed} is the number of domain '{}' while it runs",
            definition.name
        ),
        format!("name it: {}, or {}", definition.name, definition.uuid),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let text = "-a\n <graphics type='vnc' passwd='secret' x='1'/>\n passwd='second'";
        let shown = without_passwords(text);
        assert!(!shown.contains("sec"), "{shown}");
        assert!(
            shown.contains("type='vnc'") && shown.contains("x='1'"),
            "{shown}"
        );
        assert_eq!(without_passwords("nothing"), "nothing");
    }
}
