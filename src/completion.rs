//! What a shell offers after TAB: running views, users, programs, files where files are meant.
//!
//! The scripts of `tools/completions` ask the program itself, by an environment variable of its
//! own name: completing knows every command and option by the same table that parses them. It only
//! looks, as whoever types: the names of views are root's alone, so they are offered to root.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};

use crate::cli::Cli;
use crate::control::rundir;

/// Asks for candidates, or for the script that will ask for them, by the shell's name.
pub(crate) const VARIABLE: &str = "VIRTFS_MEDIATOR_COMPLETE";

/// Where users are listed.
const PASSWD: &str = "/etc/passwd";

/// Answers a shell; tells whether one asked.
///
/// # Errors
///
/// The shell is none that is known, or there is nothing to complete.
pub(crate) fn answered() -> clap::error::Result<bool> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), here.as_deref())
}

/// The command line with what can be offered for its values.
fn command() -> Command {
    offering(Cli::command())
}

/// By the arguments' names, so that a new command's VIEW is completed as the others' are.
fn offering(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_id().as_str() {
            "view" => arg.add(ArgValueCandidates::new(views)),
            "domain" => arg.add(ArgValueCandidates::new(domains)),
            "export" | "exports" => offer(arg, export),
            "client" | "mediator_user" => offer(arg, user),
            "command" => arg.add(ArgValueCompleter::new(Words)),
            "qemu" => offer(arg, program),
            "audit" => offer(arg, sink),
            "share" => arg.add(ArgValueCompleter::new(PathCompleter::dir())),
            _ => arg,
        })
        .mut_subcommands(offering)
}

fn offer(arg: Arg, offers: fn(&OsStr) -> Vec<CompletionCandidate>) -> Arg {
    arg.add(ArgValueCompleter::new(offers))
}

/// The views that run; none for those who may not know.
fn views() -> Vec<CompletionCandidate> {
    let entries = fs::read_dir(rundir::RUN).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| rundir::load(&name).ok())
        .map(|state| {
            CompletionCandidate::new(state.view).help(Some(format!("{:?}", state.export).into()))
        })
        .collect()
}

/// The domains that libvirt has files of.
fn domains() -> Vec<CompletionCandidate> {
    let entries = fs::read_dir("/etc/libvirt/qemu")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".xml").map(CompletionCandidate::new))
        .collect()
}

/// How many words there are behind the `--` of what is being typed, if there is one. The first of
/// the program's own words is a `--` of the script. clap_complete takes what stands behind the other
/// for one more EXPORT, since of these there may be any number.
fn behind_dashes() -> Option<usize> {
    let words: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect();
    let at = words.iter().position(|word| word == "--")?;
    Some(words.len() - at - 1)
}

/// `EXPORT[=POLICY]`: a directory, and behind the `=` a file. Where the shell takes the two for
/// words of their own (bash), the word after `=` does not tell, so that policies are offered too.
fn export(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_policy = |path: &Path| path.extension() == Some(OsStr::new("toml"));
    if let Some(words) = behind_dashes() {
        return Words.complete_at(words.saturating_sub(1), current);
    }
    let text = current.to_string_lossy();
    match text.split_once('=') {
        Some((directory, file)) => PathCompleter::any()
            .filter(is_policy)
            .complete(OsStr::new(file))
            .into_iter()
            .map(|candidate| candidate.add_prefix(format!("{directory}=")))
            .collect(),
        None => PathCompleter::any()
            .filter(move |path| path.is_dir() || is_policy(path))
            .complete(current),
    }
}

/// Users by name. Groups after a `:` are not offered.
fn user(current: &OsStr) -> Vec<CompletionCandidate> {
    let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
    beginning(
        current,
        passwd
            .lines()
            .filter_map(|line| line.split(':').next())
            // No client is root, and no mediator.
            .filter(|name| *name != "root")
            .map(OsString::from),
    )
}

/// `stderr`, `journald`, or a file.
fn sink(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = beginning(current, ["stderr", "journald"].map(OsString::from));
    found.extend(PathCompleter::any().complete(current));
    found
}

/// A program: by its path, or a name that PATH leads to.
fn program(current: &OsStr) -> Vec<CompletionCandidate> {
    if current.to_string_lossy().contains('/') {
        return PathCompleter::any().filter(is_program).complete(current);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut names: Vec<OsString> = std::env::split_paths(&path)
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| begins(&entry.file_name(), current) && is_program(&entry.path()))
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `COMMAND ARG...`: a program, then files.
struct Words;

impl ValueCompleter for Words {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        PathCompleter::any().complete(current)
    }

    fn complete_at(&self, at: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        if at == 0 {
            program(current)
        } else {
            self.complete(current)
        }
    }
}

fn beginning(
    current: &OsStr,
    names: impl IntoIterator<Item = OsString>,
) -> Vec<CompletionCandidate> {
    let names = names.into_iter().filter(|name| begins(name, current));
    names.map(CompletionCandidate::new).collect()
}

fn begins(name: &OsStr, with: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(with.as_encoded_bytes())
}
