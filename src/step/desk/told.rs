//! What the console tells when it is asked.

use std::fmt::Write as _;
use std::time::Instant;

use super::super::by_hand::rule_for;
use super::super::command::COMMANDS;
use super::{Desk, usage};
use crate::error::Result;
use crate::live::words;
use crate::policies;

impl Desk {
    pub(super) fn info(&self) {
        let memory = self.memory();
        let mut text = String::new();
        // Writing to a String cannot fail, here and below.
        let edited = if memory.edited {
            " (edited here; the file is as it was)"
        } else {
            ""
        };
        let _infallible = writeln!(text, "policy: {}{edited}", memory.policy.file);
        if memory.draft.is_some() {
            text.push_str("edited, not kept: `keep` puts it in force, `drop` forgets it\n");
        }
        for (number, breakpoint) in &memory.breakpoints {
            let _infallible = writeln!(text, "breakpoint {number}: {breakpoint}");
        }
        for (id, held) in &memory.held {
            let left = held
                .until
                .saturating_duration_since(Instant::now())
                .as_secs();
            let mark = if memory.current == Some(*id) {
                "=>"
            } else {
                "  "
            };
            let shown = self.shown(&memory, &held.decision);
            let _infallible = writeln!(text, "{mark} request {id}, {left} s left: {shown}");
        }
        if memory.held.is_empty() {
            text.push_str("nothing is held\n");
        }
        self.screen.say(text.trim_end());
    }

    pub(super) fn facts(&self) -> Result<()> {
        let (_, decision) = self.current()?;
        let facts = words::facts(&decision.request);
        let lines = facts
            .into_iter()
            .map(|(fact, value)| format!("  {fact:<10} {value}"));
        self.screen.say(&lines.collect::<Vec<_>>().join("\n"));
        Ok(())
    }

    pub(super) fn why(&self) -> Result<()> {
        let (_, decision) = self.current()?;
        let memory = self.memory();
        let lines = policies::why(
            &memory.policy.policy,
            &memory.policy.text,
            &decision.request,
        );
        self.screen.say(&lines.join("\n"));
        Ok(())
    }

    pub(super) fn list(&self) {
        let memory = self.memory();
        let decides = memory
            .current
            .and_then(|id| memory.held.get(&id))
            .and_then(|held| {
                memory
                    .policy
                    .policy
                    .rule_line(held.decision.verdict.rule()?)
            });
        if memory.policy.text.is_empty() {
            self.screen
                .say("the default policy: everything that QEMU as root could do, but device nodes");
            return;
        }
        let lines = (1..).zip(memory.policy.text.lines()).map(|(number, line)| {
            let mark = if decides == Some(number) { "=>" } else { "  " };
            format!(
                "{mark} {number:>4} | {}",
                crate::live::link::printable(line)
            )
        });
        self.screen.say(&lines.collect::<Vec<_>>().join("\n"));
    }

    /// The rule that would do what was last done by hand.
    pub(super) fn print_rule(&self) -> Result<()> {
        let memory = self.memory();
        let none = || {
            usage(
                "nothing was done by hand yet",
                "`allow once` or `deny once` first",
            )
        };
        let done = memory.by_hand.as_ref().ok_or_else(none)?;
        self.screen.say(rule_for(done).trim_end());
        Ok(())
    }

    pub(super) fn help(&self) {
        let lines = COMMANDS.iter().map(|(name, arguments, what)| {
            format!(
                "{}\n      {what}",
                format!("  {name} {arguments}").trim_end()
            )
        });
        self.screen.say(&lines.collect::<Vec<_>>().join("\n"));
    }
}
