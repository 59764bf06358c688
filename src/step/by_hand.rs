//! What a person decides at the console: the rule that would do the same, and a policy's text on its
//! way through an editor.

use std::fmt::Write as _;

use rustix::io::Errno;
use virtfs_mediator_core::policy::{Request, errno_symbol, glob_of};

use crate::error::{Class, Error, Result};

/// What was done by hand.
pub(super) struct Done {
    pub(super) request: Request,
    /// `None`: allowed.
    pub(super) errno: Option<i32>,
}

/// The rule that would do what was done by hand.
pub(super) fn rule_for(done: &Done) -> String {
    let request = &done.request;
    let names = request.names.iter().chain(&request.second);
    let globs: Vec<String> = names.map(|name| glob_of(name)).collect();
    let mut rule = String::from("[[rule]]\n");
    if !globs.is_empty() {
        let _infallible = writeln!(rule, "path = {}", toml::Value::from(globs));
    }
    let _infallible = writeln!(rule, "do = [\"{}\"]", request.op.raw_name());
    match done.errno {
        None => rule.push_str("action = \"allow\"\n"),
        Some(errno) => {
            let errno = errno_symbol(Errno::from_raw_os_error(errno));
            let _infallible = writeln!(rule, "action = \"deny\"\nerrno = \"{errno}\"");
        }
    }
    rule
}

/// A text as it comes back from the person's editor.
///
/// # Errors
///
/// Usage: there is no editor, or it failed.
pub(super) fn edited(text: &str) -> Result<String> {
    let failed = |what: &dyn std::fmt::Display| {
        Error::new(
            Class::Usage,
            format!("edit: {what}"),
            "set $EDITOR, or write `edit FILE`",
        )
    };
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(std::env::var_os);
    let editor = editor.ok_or_else(|| failed(&"neither $VISUAL nor $EDITOR is set"))?;
    let file = tempfile::Builder::new()
        .prefix("policy-")
        .suffix(".toml")
        .tempfile()
        .map_err(|error| failed(&error))?;
    std::fs::write(file.path(), text).map_err(|error| failed(&error))?;
    // As git and crontab do it: the variable may hold arguments.
    let status = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg("exec $0 \"$1\"")
        .arg(&editor)
        .arg(file.path())
        .status()
        .map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&format!("{} ended with {status}", editor.display())));
    }
    std::fs::read_to_string(file.path()).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtfs_mediator_core::op::{AnyAsk, Op};
    use virtfs_mediator_core::policy::{Facts, Policy, Requester};

    #[test]
    fn rule_for_what_was_done_by_hand_does_just_that() {
        let requester = Requester {
            uid: 1,
            gid: 1,
            pid: 0,
        };
        let request = |path: &[u8]| {
            let names = [path];
            let facts = Facts {
                names: &names,
                ..Facts::of(Op::Unlink, requester)
            };
            Request::of(&facts, AnyAsk::Nothing)
        };
        let odd: &[u8] = b"/a*[x]?\\ \xff\n";
        for errno in [None, Some(libc::EROFS)] {
            let done = Done {
                request: request(odd),
                errno,
            };
            let other = if errno.is_none() { "deny" } else { "allow" };
            let text = format!("default = \"{other}\"\n{}", rule_for(&done));
            let policy = Policy::parse("t", &text, &crate::policies::Host).unwrap();
            let verdict = |path| policy.decide_request(&request(path));
            assert_eq!(verdict(odd).err().map(|no| no.errno.raw_os_error()), errno);
            assert_ne!(verdict(b"/axxxx").is_ok(), errno.is_none(), "{text}");
        }
    }
}
