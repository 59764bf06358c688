//! Another policy for a view that is in use: all of it or none, and no answer from the old one
//! after it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::funnel::Mediator;
use crate::ids::NodeId;
use crate::policy::{Misfit, Policy};
use crate::weak;

/// How long requests of the old policy may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the client's kernel remembers, and must be made to forget. Called by a thread that serves
/// nothing: a notification may wait for a lock that a request holds.
pub trait KernelCaches: Send + Sync {
    /// Makes every name that is remembered, missing ones too, be looked up again; `false` if this
    /// kernel cannot (before Linux 6.16).
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn forget_names(&self) -> io::Result<bool>;

    /// Makes one name be looked up again.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn forget_name(&self, parent: NodeId, name: &[u8]) -> io::Result<()>;

    /// Drops the attributes, data and listing of a node.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn forget_node(&self, node: NodeId) -> io::Result<()>;
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The new policy's number: the first has 0.
    pub epoch: u64,
    /// Nodes whose caches were dropped.
    pub nodes: usize,
}

/// Why a reload failed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The walls around this mediator were built for the policy that it was started with.
    #[error("{0}")]
    Misfit(Misfit),
    /// A file is known by another spelling than its directory's, which rules by name would miss.
    #[error(
        "a file is in use under a spelling that is not its directory's, so that rules with paths \
         would not hold for it"
    )]
    Spelling,
    /// The new policy is in force, but a request that the old one allowed has not ended.
    #[error(
        "the new policy is in force, but a request that the old one allowed has not ended in {0:?}"
    )]
    Unfinished(Duration),
    /// The new policy is in force, but the kernel did not take a notification.
    #[error("the new policy is in force, but the kernel may still answer from the old one: {0}")]
    Caches(io::Error),
}

impl Mediator {
    /// Whether [`Mediator::reload`] could put a policy in force, behind these walls.
    ///
    /// # Errors
    ///
    /// What would need a new start.
    pub fn fits(&self, policy: &Policy) -> Result<(), Misfit> {
        self.first.fits(policy)
    }

    /// Puts another policy in the place of the running one. When this returns, no answer comes
    /// from the old one, the kernel's caches included; what was held is decided anew.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; with the first two the old policy goes on as if nothing had been asked.
    pub fn reload(
        &self,
        policy: Policy,
        caches: &dyn KernelCaches,
    ) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self
            .reloads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.fits(&policy).map_err(ReloadError::Misfit)?;
        if policy.goes_by_name() {
            let exact = self.export.require_exact_names();
            exact.map_err(|_misspelt| ReloadError::Spelling)?;
        }
        let _nothing_is_held = self.gate.reloading();
        self.policy.store(Arc::new(policy));
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let waits = weak::stands(weak::Wall::Turns);
        let all_over = !waits || self.turns.pass(Instant::now() + PATIENCE);
        // Even if not: better most of the answers than none.
        let nodes = self.forget_all(caches).map_err(ReloadError::Caches)?;
        if !all_over {
            return Err(ReloadError::Unfinished(PATIENCE));
        }
        Ok(Reloaded { epoch, nodes })
    }

    fn forget_all(&self, caches: &dyn KernelCaches) -> io::Result<usize> {
        if !weak::stands(weak::Wall::Invalidation) {
            return Ok(0);
        }
        let nodes = self.export.nodes();
        let names_at_once = caches.forget_names()?;
        for node in &nodes {
            if !names_at_once {
                for (parent, name) in self.export.names_of(*node) {
                    caches.forget_name(parent, &name)?;
                }
            }
            caches.forget_node(*node)?;
        }
        Ok(nodes.len())
    }
}
