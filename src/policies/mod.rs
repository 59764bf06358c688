//! Policy files on disk: reading them, resolving their users, printing the shipped ones, and the
//! tools that judge requests by them without a view.

mod cases;
mod changes;
mod check;
mod diff;
mod explain;
mod replay;
mod show;
mod suggest;

use std::path::Path;

use nix::unistd::{Group, User};
use virtfs_mediator_core::policy::{Answer, Policy, Request, Requester, Users, shipped};

use crate::cli::PolicyCommand;
use crate::error::{Class, Error, Result};
use crate::files;
use crate::live::in_force::Text;
use crate::output::out;

pub(crate) use explain::request_help;

/// `policy ...`: does it and hands out the exit status.
///
/// # Errors
///
/// What each command says.
pub(crate) fn run(command: PolicyCommand) -> Result<u8> {
    match command {
        PolicyCommand::Check { files } => Ok(check::check(&files)),
        PolicyCommand::Init { name } => {
            init(&name);
            Ok(0)
        }
        PolicyCommand::Explain {
            file,
            request,
            around,
            json,
        } => explain::explain(&file, &request.join(" "), &around, Form::of(json)).map(|()| 0),
        PolicyCommand::Diff {
            old,
            new,
            recording,
        } => diff::diff(&old, &new, recording.as_deref()),
        PolicyCommand::Test { file, cases } => cases::test(&file, &cases),
    }
}

/// `replay`.
///
/// # Errors
///
/// Configuration: the policy or the recording.
pub(crate) fn replay(recording: &Path, policy: &Path, json: bool) -> Result<u8> {
    replay::replay(recording, policy, Form::of(json))
}

/// `suggest`.
///
/// # Errors
///
/// Configuration: the recording or the policy.
pub(crate) fn suggest(recording: &Path, from: Option<&Path>) -> Result<()> {
    suggest::suggest(recording, from)
}

/// How a policy judges a request, rule by rule, for people; `text` is the policy file's.
pub(crate) fn why(policy: &Policy, text: &str, request: &Request) -> Vec<String> {
    explain::why(policy, text, request)
}

/// An answer in a few words.
pub(crate) fn short(answer: &Answer) -> String {
    show::answer(answer)
}

/// How a command tells what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

impl Form {
    fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// The host's user database.
pub(crate) struct Host;

impl Users for Host {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }
}

/// Reads and compiles a policy file.
///
/// # Errors
///
/// Configuration: it cannot be read, or every mistake in it with line and column.
pub(crate) fn load(file: &Path) -> Result<Policy> {
    load_text(file).map(|(policy, _text)| policy)
}

/// As [`load`], with the file's text.
fn load_text(file: &Path) -> Result<(Policy, String)> {
    Text::read(file).map(|read| (read.policy, read.text))
}

fn read(file: &Path, what: &str, cure: &str) -> Result<String> {
    files::text(file).map_err(|error| {
        let what = format!("{what} {}: {error}", file.display());
        Error::new(Class::Configuration, what, cure)
    })
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, "")
}

/// Who asks where nothing says who: the policy's client, else the first user of a host.
fn usual_requester(policy: &Policy) -> Requester {
    const FIRST_USER: u32 = 1000;
    let settings = policy.settings();
    let uid = settings.client_user.map_or(FIRST_USER, |id| id.0);
    let gid = settings.client_group.map_or(uid, |id| id.0);
    Requester { uid, gid, pid: 0 }
}

/// `policy init`: a policy to start from, on stdout.
pub(crate) fn init(name: &str) {
    for (_, text) in shipped::ALL.iter().filter(|(shipped, _)| *shipped == name) {
        out!("{text}");
    }
}
