//! `trace`: decisions as they are made, one line each.
#![allow(clippy::print_stderr, reason = "the command's output")]

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use virtfs_mediator_core::control::{Answer, Line, Question};
use virtfs_mediator_core::mediate::{Event, Selector};

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::live::in_force::Text;
use crate::live::link::{self, Link, PATIENCE, failed};
use crate::live::words;
use crate::plan;

/// Which decisions.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Which {
    /// Refusals only.
    #[arg(long)]
    pub(crate) deny: bool,
    /// Only these operations: words of `do`, or raw names.
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub(crate) op: Vec<String>,
    /// Only these paths: a glob as in a rule.
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Vec<String>,
    /// Only what this rule decided: its name, or its number from 1.
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,
}

impl Which {
    /// As the mediator understands it.
    ///
    /// # Errors
    ///
    /// Usage: no such rule; a word or glob that is none.
    pub(crate) fn selector(&self, policy: &Text) -> Result<Selector> {
        let decided_by = match &self.rule {
            None => None,
            Some(word) => Some(policy.find_rule(word).ok_or_else(|| {
                Error::new(
                    Class::Usage,
                    format!("{} has no rule '{}'", policy.file, word.escape_debug()),
                    "name a rule of it, or give its number, from 1",
                )
            })?),
        };
        let mut rule = String::new();
        for (key, words) in [("path", &self.path), ("do", &self.op)] {
            if !words.is_empty() {
                let list = toml::Value::from(words.clone());
                // Writing to a String cannot fail.
                let _infallible = writeln!(rule, "{key} = {list}");
            }
        }
        let selector = Selector {
            rule: (!rule.is_empty()).then_some(rule),
            refused: self.deny,
            decided_by,
        };
        match selector.compile(&crate::policies::Host) {
            Ok(_) => Ok(selector),
            Err(mistakes) => {
                let what: Vec<String> = mistakes
                    .list
                    .iter()
                    .map(|mistake| format!("{} ({})", mistake.what, mistake.hint))
                    .collect();
                Err(Error::new(Class::Usage, what.join("; "), ""))
            }
        }
    }
}

/// Prints decisions until interrupted or the view ends.
pub(crate) fn trace(view: &str, which: &Which, as_json: bool) -> Result<()> {
    plan::require_root()?;
    let mut policy = Text::of_view(&rundir::load(view)?)?;
    let select = which.selector(&policy)?;
    let mut link = Link::to(view)?;
    let mut epoch = begin(&mut link, view, select)?;
    let mut out = std::io::stdout().lock();
    while let Some(line) = link.next()? {
        let written = match line {
            Line::Event(event) if as_json => link::json(&event)
                .map_err(std::io::Error::from)
                .and_then(|text| writeln!(out, "{text}")),
            Line::Event(event) => {
                if event.decision.epoch != epoch {
                    epoch = event.decision.epoch;
                    // Reloaded meanwhile: root's record tells by which text.
                    policy = Text::of_view(&rundir::load(view)?)?;
                }
                writeln!(out, "{}", shown(&event, &policy))
            }
            Line::Dropped(count) => {
                eprintln!("virtfs-mediator: {count} decisions came faster than they could be told");
                Ok(())
            }
            Line::Told(_) | Line::Done(_) | Line::NotDone { .. } => Ok(()),
        };
        // Whoever reads has enough (`| head`).
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A trace that goes on beside something else; it ends when this is dropped.
pub(crate) struct Tracer {
    connection: std::os::unix::net::UnixStream,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tracer {
    /// Tells every decision of a view to `say`, a line each.
    ///
    /// # Errors
    ///
    /// Mount: the mediator does not answer.
    pub(crate) fn start(
        policy: Text,
        view: &str,
        say: impl Fn(&str) + Send + 'static,
    ) -> Result<Self> {
        let mut link = Link::to(view)?;
        let select = Selector::default();
        begin(&mut link, view, select)?;
        let connection = link.connection()?;
        let thread = std::thread::spawn(move || {
            while let Ok(Some(line)) = link.next() {
                match line {
                    Line::Event(event) => say(&shown(&event, &policy)),
                    Line::Dropped(count) => say(&format!("{count} decisions are missing here")),
                    Line::Told(_) | Line::Done(_) | Line::NotDone { .. } => {}
                }
            }
        });
        Ok(Self {
            connection,
            thread: Some(thread),
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _closed_already = self.connection.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic aborts the process, so there is nothing to learn from the result.
            let _panicked = thread.join();
        }
    }
}

/// Asks for decisions; tells which policy is in force.
pub(super) fn begin(link: &mut Link, view: &str, select: Selector) -> Result<u64> {
    match link.ask(&Question::Watch { select }, PATIENCE)? {
        Answer::Begun { epoch } => Ok(epoch),
        other @ (Answer::Status(_) | Answer::Reloaded { .. } | Answer::Error(_)) => {
            Err(failed(view, &format!("{other:?}")))
        }
    }
}

fn shown(event: &Event, policy: &Text) -> String {
    let decision = &event.decision;
    format!(
        "{:>11.6} {} {} ({}, {} us)",
        std::time::Duration::from_micros(event.at_us).as_secs_f64(),
        decision.request.phrase(),
        words::verdict(&decision.verdict, decision.by_hand, Some(policy)),
        words::ended(event.ended),
        event.took_us
    )
}
