//! Where commands come from: a terminal with history and completion, or a script.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Context, Editor, Helper, Highlighter, Hinter, Validator};

use super::command::COMMANDS;
use super::desk::Desk;
use super::show::Printer;
use crate::error::{Class, Error, Result};
use crate::output::outln;

/// A script is read whole before it begins; more than this is none.
const SCRIPT_MAX: u64 = 1 << 20;

/// Where commands come from.
pub(super) enum Input {
    Terminal(Box<Editor<Words, DefaultHistory>>),
    Script(VecDeque<String>),
}

/// What can be completed: commands, operations, and paths that the console has seen.
#[derive(Helper, Hinter, Highlighter, Validator)]
pub(super) struct Words {
    desk: Option<Arc<Desk>>,
}

impl Input {
    /// A script if one is given or nobody types, else the terminal.
    ///
    /// # Errors
    ///
    /// Usage: the script cannot be read. Mount: the terminal cannot be used.
    pub(super) fn open(script: Option<&Path>) -> Result<Self> {
        let piped = !std::io::stdin().is_terminal();
        let script = match script {
            Some(file) if file == Path::new("-") => Some(read(std::io::stdin(), "-")?),
            Some(file) => {
                let shown = file.display().to_string();
                let open = std::fs::File::open(file);
                Some(read(
                    open.map_err(|error| unreadable(&shown, &error))?,
                    &shown,
                )?)
            }
            None if piped => Some(read(std::io::stdin(), "-")?),
            None => None,
        };
        if let Some(text) = script {
            return Ok(Self::Script(text.lines().map(str::to_owned).collect()));
        }
        let mut editor = Editor::new().map_err(|error| {
            Error::new(Class::Usage, format!("terminal: {error}"), "use --script")
        })?;
        editor.set_helper(Some(Words { desk: None }));
        Ok(Self::Terminal(Box::new(editor)))
    }

    pub(super) fn is_script(&self) -> bool {
        matches!(self, Self::Script(_))
    }

    pub(super) fn printer(&mut self) -> Printer {
        match self {
            Self::Terminal(editor) => match editor.create_external_printer() {
                Ok(printer) => Printer::Above(Box::new(printer)),
                Err(_) => Printer::Out,
            },
            Self::Script(_) => Printer::Out,
        }
    }

    /// From now on paths of held requests are completed too.
    pub(super) fn complete_from(&mut self, desk: &Arc<Desk>) {
        if let Self::Terminal(editor) = self {
            editor.set_helper(Some(Words {
                desk: Some(Arc::clone(desk)),
            }));
        }
    }

    /// The next line; `None` at the end. A script's lines are shown as if they were typed.
    ///
    /// # Errors
    ///
    /// Mount: the terminal cannot be read.
    pub(super) fn next(&mut self, prompt: &str) -> Result<Option<String>> {
        match self {
            Self::Script(lines) => {
                let line = lines.pop_front();
                if let Some(line) = &line {
                    Screen::echo(prompt, line);
                }
                Ok(line)
            }
            Self::Terminal(editor) => loop {
                match editor.readline(prompt) {
                    Ok(line) => {
                        if !line.trim().is_empty() {
                            // In memory alone; a full history drops its oldest.
                            let _kept = editor.add_history_entry(&line);
                        }
                        return Ok(Some(line));
                    }
                    // Ctrl-C drops the line, as in gdb.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(Error::step(Class::Mount, "read(terminal)", error)),
                }
            },
        }
    }
}

/// Only for [`Input::next`].
struct Screen;

impl Screen {
    fn echo(prompt: &str, line: &str) {
        outln!("{prompt}{line}");
    }
}

fn unreadable(file: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(
        Class::Usage,
        format!("--script {file}: {why}"),
        "name a text file with a command a line, or `-`",
    )
}

fn read(from: impl std::io::Read, file: &str) -> Result<String> {
    let mut text = String::new();
    let read = from.take(SCRIPT_MAX).read_to_string(&mut text);
    read.map_err(|error| unreadable(file, &error))?;
    Ok(text)
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = line.get(..pos).unwrap_or(line);
        let start = typed
            .rfind(|letter: char| letter.is_whitespace() || letter == '|')
            .map_or(0, |at| at + 1);
        let (before, word) = typed.split_at(start);
        let words: Vec<String> = match before.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => COMMANDS
                .iter()
                .map(|(name, ..)| (*name).to_owned())
                .collect(),
            ["break" | "b", .., "op"] => super::desk::operations(),
            ["break" | "b", rest @ ..] => match (rest.last(), &self.desk) {
                (Some(&"path"), Some(desk)) => desk.paths(),
                (Some(&"rule"), Some(desk)) => desk.rules(),
                (Some(&last), _) if last.contains('|') => super::desk::operations(),
                _ => ["op", "path", "rule", "deny", "when"]
                    .map(str::to_owned)
                    .into(),
            },
            ["until"] => vec!["deny".to_owned()],
            ["allow" | "deny"] => vec!["once".to_owned()],
            ["deny", "once"] => ["EACCES", "EPERM", "EROFS", "ENOENT", "EDQUOT"]
                .map(str::to_owned)
                .into(),
            ["trace"] => vec!["on".to_owned(), "off".to_owned()],
            ["continue" | "c"] => vec!["all".to_owned()],
            _ => Vec::new(),
        };
        let fitting = words.into_iter().filter(|one| one.starts_with(word));
        let pairs = fitting.map(|one| Pair {
            display: one.clone(),
            replacement: one,
        });
        Ok((start, pairs.collect()))
    }
}
