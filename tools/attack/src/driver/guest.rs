//! Stock QEMU, driven from its 9p device as a guest's root would.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use virtfs_p9::{Export, Launch, Machine, Qemu};

use super::process::{holds_within, scratch};
use super::start::{Start, line_with};
use super::{CLIENT, OrTell as _};

/// A guest with the export under the tag `share`.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    _dir: Option<TempDir>,
}

impl Guest {
    /// QEMU as root on the directory itself.
    pub(crate) fn as_root(export: &Path) -> Result<Self, String> {
        let qemu = Qemu::new().export(Export::local("share", export));
        let machine = Machine::boot(&qemu, &Launch::new()).or_tell("QEMU as root")?;
        Ok(Self {
            machine,
            _dir: None,
        })
    }

    /// QEMU as the client of the product.
    pub(crate) fn on_view(start: &Start, export: &Path) -> Result<Self, String> {
        let dir = scratch()?;
        let words = start.words(dir.path())?;
        let qemu = Qemu::new().export(Export::local("share", export));
        let launch = Launch::new().wrapper(words, CLIENT);
        let machine = Machine::boot(&qemu, &launch).or_tell("QEMU on a view")?;
        Ok(Self {
            machine,
            _dir: Some(dir),
        })
    }

    /// The first line of the log with every one of `words`; see [`super::start::View::told`].
    pub(crate) fn told(&self, words: &[&str]) -> Option<String> {
        let mut found = None;
        holds_within(Duration::from_secs(2), || {
            found = line_with(&self.machine.output(), words);
            found.is_some()
        });
        found
    }
}
