//! All that is known at once: what a reload must make the kernel forget, and look at again.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::{Export, Fault};
use crate::ids::{FileKind, NodeId};
use crate::name::Name;

impl Export {
    /// Every node that the kernel may know, the root too.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.with(|table| table.nodes.ids().collect())
    }

    /// Every directory among them.
    #[must_use]
    pub fn directories(&self) -> Vec<NodeId> {
        self.with(|table| {
            let nodes = &table.nodes;
            let is_directory = |node: &NodeId| {
                let kind = nodes.slot(*node).map(|slot| nodes.kind(slot));
                kind == Some(FileKind::Directory)
            };
            nodes.ids().filter(is_directory).collect()
        })
    }

    /// The names by which a node is known: the directory's node and the name in it. None for the
    /// root and for what was forgotten meanwhile.
    #[must_use]
    pub fn names_of(&self, node: NodeId) -> Vec<(NodeId, Vec<u8>)> {
        self.with(|table| {
            let Ok(slot) = table.slot(node) else {
                return Vec::new();
            };
            (0..table.nodes.names(slot))
                .filter_map(|which| table.nodes.nth_name(slot, which))
                .filter(|_| node != NodeId::ROOT)
                .map(|(parent, name)| (table.nodes.id(parent), name.to_vec()))
                .collect()
        })
    }

    /// A node's path, `/a/b`, by its first name; `None` for what was forgotten meanwhile.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Option<Vec<u8>> {
        self.with(|table| {
            let slot = table.slot(node).ok()?;
            let mut path = Vec::new();
            table.nodes.write_path(slot, &mut path);
            Some(path)
        })
    }

    /// From now on names are good only as their directory spells them, those that are known
    /// already included.
    ///
    /// # Errors
    ///
    /// EACCES if a file is known by another spelling than its directory's: rules that go by name
    /// would not hold for it until it is forgotten.
    pub fn require_exact_names(&self) -> Result<(), Fault> {
        if self.exact_names.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let checked = self.nodes().into_iter().try_for_each(|node| {
            let names = self.names_of(node).into_iter();
            names.into_iter().try_for_each(|(parent, name)| {
                // What is gone or elsewhere by now is looked up anew before it is used.
                let (Ok(parent), Ok(name)) = (self.pin(parent), Name::new(&name)) else {
                    return Ok(());
                };
                match self.child(&parent, &name) {
                    Err(fault) if fault.errno == Errno::ACCESS => Err(fault),
                    Ok(_) | Err(_) => Ok(()),
                }
            })
        });
        if checked.is_err() {
            self.exact_names.store(false, Ordering::SeqCst);
        }
        checked
    }
}
