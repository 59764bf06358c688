//! The policy in force, as root recorded it: the mediator is not asked for it.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;

use virtfs_mediator_core::control::Names;
use virtfs_mediator_core::policy::{Policy, Users};

use crate::control::rundir::State;
use crate::error::{Class, Error, Result};
use crate::files;
use crate::live::origin::Origin;
use crate::policies::Host;

/// A policy with its text and the ids of whoever it names.
#[derive(Clone)]
pub(crate) struct Text {
    /// What messages call it.
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) names: Names,
    pub(crate) policy: Policy,
    /// The file that it was read from, if it was.
    pub(crate) origin: Option<Origin>,
}

/// The host's user database, remembering what was found.
#[derive(Default)]
struct Asked(RefCell<Names>);

impl Users for Asked {
    fn user(&self, name: &str) -> Option<u32> {
        let id = Host.user(name)?;
        self.0.borrow_mut().users.insert(name.to_owned(), id);
        Some(id)
    }

    fn group(&self, name: &str) -> Option<u32> {
        let id = Host.group(name)?;
        self.0.borrow_mut().groups.insert(name.to_owned(), id);
        Some(id)
    }
}

impl Text {
    /// Reads and understands a policy file.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be read, or every mistake in it with line and column.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let shown = file.display().to_string();
        let read = || {
            let open = File::open(file).map_err(|error| error.to_string())?;
            let origin = Origin::of(&shown, &open).map_err(|error| error.to_string())?;
            Ok((origin, files::text_of(open)?))
        };
        let (origin, text) = read().map_err(|why: String| {
            Error::new(
                Class::Configuration,
                format!("policy {shown}: {why}"),
                "name a policy file (`virtfs-mediator policy init readonly >FILE` makes one to start from)",
            )
        })?;
        Ok(Self {
            origin: Some(origin),
            ..Self::of(&shown, text)?
        })
    }

    /// Understands a policy's text.
    ///
    /// # Errors
    ///
    /// Configuration: every mistake in it with line and column.
    pub(crate) fn of(file: &str, text: String) -> Result<Self> {
        let asked = Asked::default();
        let policy = Policy::parse(file, &text, &asked)
            .map_err(|all| Error::new(Class::Configuration, all.to_string().trim_end(), ""))?;
        Ok(Self {
            file: file.to_owned(),
            text,
            names: asked.0.into_inner(),
            policy,
            origin: None,
        })
    }

    /// The policy of a running view; without a file, the default's text is empty.
    pub(crate) fn of_view(state: &State) -> Result<Self> {
        let Some(text) = &state.policy_text else {
            return Ok(Self {
                file: "the default policy".to_owned(),
                text: String::new(),
                names: Names::default(),
                policy: Policy::parity(),
                origin: None,
            });
        };
        let file = match &state.policy {
            Some(file) => file.display().to_string(),
            None => "the view's policy".to_owned(),
        };
        let mut read = Self::of(&file, text.clone())?;
        if state.readonly {
            read.policy.set_readonly();
        }
        Ok(read)
    }

    /// What a rule is called: `rule 3 "uploads" (line 17)`.
    pub(crate) fn rule(&self, index: u32) -> String {
        let number = u64::from(index) + 1;
        let name = self
            .policy
            .rule_name(index)
            .map(|name| format!(" \"{}\"", name.escape_debug()))
            .unwrap_or_default();
        match self.policy.rule_line(index) {
            Some(line) => format!("rule {number}{name} (line {line})"),
            None => format!("rule {number}"),
        }
    }

    /// The rule of that number, from 1, or name.
    pub(crate) fn find_rule(&self, word: &str) -> Option<u32> {
        let count = u32::try_from(self.policy.rule_count()).unwrap_or(u32::MAX);
        if let Ok(number) = word.parse::<u32>() {
            return number.checked_sub(1).filter(|index| *index < count);
        }
        (0..count).find(|index| self.policy.rule_name(*index) == Some(word))
    }
}
