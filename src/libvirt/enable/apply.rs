//! What `enable` changes, shown, and made: all of it or none.

use crate::error::{Error, Result};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::{self, DomainFile};
use crate::libvirt::search::Allowance;
use crate::libvirt::show;
use crate::libvirt::undo::Undo;
use crate::libvirt::user::{self, NewUser};
use crate::libvirt::virsh::{self, Domain};
use crate::output::outln;

/// Everything that is to be changed.
pub(super) struct Changes {
    pub(super) domain: Domain,
    /// As it was read.
    pub(super) definition: Definition,
    /// The text of the new definition.
    pub(super) after: String,
    pub(super) file: DomainFile,
    pub(super) file_before: Option<DomainFile>,
    pub(super) undo: Undo,
    pub(super) undo_before: Option<Undo>,
    pub(super) user: Option<NewUser>,
    /// Directories that it is let search.
    pub(super) search: Vec<Allowance>,
}

impl Changes {
    /// Whether nothing is to be changed.
    ///
    /// # Errors
    ///
    /// As [`DomainFile::text`].
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.after == self.definition.text
            && self.file_before.as_ref() == Some(&self.file)
            && self.user.is_none()
            && self.search.is_empty())
    }

    /// On stdout: a diff of the definition, the file, and what changes on the host.
    ///
    /// # Errors
    ///
    /// As [`DomainFile::text`].
    pub(super) fn show(&self) -> Result<()> {
        let name = &self.definition.name;
        show::diff(
            &self.definition.text,
            &self.after,
            &format!("virsh dumpxml --inactive {name}"),
        );
        let path = domain_file::path_of(name)?;
        let before = match &self.file_before {
            Some(file) => file.text()?,
            None => String::new(),
        };
        show::diff(&before, &self.file.text()?, &path.display().to_string());
        if let Some(user) = &self.user {
            let kvm = match &user.kvm {
                Some((group, _)) => format!(", in group {group}"),
                None => String::new(),
            };
            outln!(
                "new system user {} (uid and gid {}{kvm})",
                user.name,
                user.id
            );
        }
        for Allowance { uid, directory, .. } in &self.search {
            outln!(
                "uid {uid} may search {} (an ACL entry)",
                directory.display()
            );
        }
        Ok(())
    }

    /// Makes the changes; the definition last, so that the domain is as it was until all else is
    /// there. What was done is undone if a later step fails.
    ///
    /// # Errors
    ///
    /// Configuration: the step that failed.
    pub(super) fn apply(&self) -> Result<()> {
        // First of all: from here on `disable` can put things back, even after a crash.
        self.undo.write(&self.definition.name)?;
        self.steps().map_err(|error| match self.roll_back() {
            Ok(()) => Error::new(
                error.class(),
                error.what(),
                if error.advice().is_empty() {
                    "nothing has been changed"
                } else {
                    error.advice()
                },
            ),
            Err(second) => Error::new(
                error.class(),
                format!("{}; and then: {}", error.what(), second.what()),
                format!(
                    "`virtfs-mediator libvirt disable {}` puts back the rest",
                    self.definition.name
                ),
            ),
        })
    }

    fn steps(&self) -> Result<()> {
        if let Some(user) = &self.user {
            user.make()?;
        }
        for allowance in &self.search {
            allowance.allow()?;
        }
        self.file.write()?;
        if self.after == self.definition.text {
            return Ok(());
        }
        self.domain.refuse_changed(&self.definition)?;
        virsh::define(&self.after)
    }

    fn roll_back(&self) -> Result<()> {
        let name = &self.definition.name;
        match &self.file_before {
            Some(file) => file.write().map(drop)?,
            None => DomainFile::remove(name).map(drop)?,
        }
        for allowance in &self.search {
            // Of what a step did a moment ago nothing is anybody else's.
            allowance.take_back().map(drop)?;
        }
        if let Some(user) = &self.user {
            user::remove(&user.name, user.id)?;
        }
        match &self.undo_before {
            Some(undo) => undo.write(name),
            None => Undo::remove(name),
        }
    }
}
