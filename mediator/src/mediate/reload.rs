//! Another policy for a view that is in use: all of it or none, and no answer from the old one
//! after it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::funnel::Mediator;
use super::in_force::InForce;
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

    /// Waits until what was answered of a directory's listing has arrived in the kernel's cache.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    fn wait_for_listings(&self, directory: NodeId) -> io::Result<()>;

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
    /// Open files whose data goes past this process, and goes on to until they are closed.
    pub past: usize,
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
        let (in_force, settling) = InForce::instead(policy);
        self.policy.store(Arc::new(in_force));
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        // Behind the new policy: what was held is decided anew, and by no older one.
        let _nothing_is_held = self.gate.reloading();
        let waits = weak::stands(weak::Wall::Turns);
        let all_over = !waits || self.turns.pass(Instant::now() + PATIENCE);
        // What requests of the old policy add is in its books, not in these. If one does not end,
        // nothing can be added where totals are limited until the next reload.
        if all_over {
            settling.over(&self.export);
        }
        // Even if not: better most of the answers than none.
        let nodes = self.forget_all(caches).map_err(ReloadError::Caches)?;
        if !all_over {
            return Err(ReloadError::Unfinished(PATIENCE));
        }
        let past = self.backings.usage().open;
        tracing::info!(epoch, nodes, past, "another policy is in force");
        Ok(Reloaded { epoch, nodes, past })
    }

    fn forget_all(&self, caches: &dyn KernelCaches) -> io::Result<usize> {
        if !weak::stands(weak::Wall::Invalidation) {
            return Ok(0);
        }
        let nodes = self.export.nodes();
        let names_at_once = caches.forget_names()?;
        // A listing has no version: what is still on its way would come in behind the dropping.
        for directory in self.export.directories() {
            caches.wait_for_listings(directory)?;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use rustix::io::Errno;

    use super::super::tests::World;

    use super::*;
    use crate::policy::tests::Nobody;

    /// What a kernel was told, and whether it knows how to forget all names at once.
    #[derive(Default)]
    struct Kernel {
        all_at_once: bool,
        told: Mutex<Vec<String>>,
    }

    impl Kernel {
        fn hear(&self, what: String) -> io::Result<()> {
            self.told.lock().unwrap().push(what);
            Ok(())
        }

        fn told(&self) -> Vec<String> {
            std::mem::take(&mut *self.told.lock().unwrap())
        }
    }

    impl KernelCaches for Kernel {
        fn forget_names(&self) -> io::Result<bool> {
            Ok(self.all_at_once)
        }

        fn forget_name(&self, parent: NodeId, name: &[u8]) -> io::Result<()> {
            self.hear(format!("name {} {}", parent.0, name.escape_ascii()))
        }

        fn wait_for_listings(&self, directory: NodeId) -> io::Result<()> {
            self.hear(format!("listings {}", directory.0))
        }

        fn forget_node(&self, node: NodeId) -> io::Result<()> {
            self.hear(format!("node {}", node.0))
        }
    }

    fn policy(text: &str) -> Policy {
        Policy::parse("test", text, &Nobody).unwrap()
    }

    #[test]
    fn kernel_that_forgets_no_names_at_once_is_told_each() {
        let world = World::over("default = \"allow\"\n", &[("d/x", b"")]);
        std::fs::hard_link(world.path("d/x"), world.path("d/y")).unwrap();
        let (d, x) = (world.walk("d").unwrap(), world.walk("d/x").unwrap());
        assert_eq!(world.walk("d/y"), Ok(x));
        let nodes = [NodeId::ROOT, d, x].map(|node| format!("node {}", node.0));
        let mut listings = [NodeId::ROOT, d].map(|node| format!("listings {}", node.0));
        listings.sort();
        let names = [
            "name 1 d".to_owned(),
            format!("name {} x", d.0),
            format!("name {} y", d.0),
        ];
        for all_at_once in [false, true] {
            let kernel = Kernel {
                all_at_once,
                ..Kernel::default()
            };
            let next = policy("default = \"deny\"\n");
            let done = world.mediator.reload(next, &kernel).unwrap();
            assert_eq!(done.nodes, 3);
            let mut wanted = nodes.to_vec();
            if !all_at_once {
                wanted.extend(names.iter().cloned());
            }
            wanted.sort();
            let mut told = kernel.told();
            // Before anything is dropped, all of them.
            told[..2].sort();
            told[2..].sort();
            assert_eq!(told, [&listings[..], &wanted].concat());
        }
        assert_eq!(world.walk("d"), Err(Errno::ACCESS));
    }

    #[test]
    fn kernel_is_told_to_forget_only_when_requests_of_the_old_policy_have_ended() {
        let world = World::new("default = \"allow\"\n");
        let before = world.mediator.enter();
        let kernel = Kernel::default();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reloading = scope.spawn(|| {
                let next = policy("default = \"deny\"\n");
                let done = world.mediator.reload(next, &kernel);
                assert!(ended.load(Ordering::SeqCst), "it did not wait");
                done
            });
            // The new policy judges at once what begins now.
            while world.mediator.epoch() == 0 {
                std::thread::yield_now();
            }
            let root = world.mediator.opendir(world.who, NodeId::ROOT);
            assert_eq!(root.err(), Some(Errno::ACCESS));
            assert_eq!(kernel.told(), Vec::<String>::new());
            ended.store(true, Ordering::SeqCst);
            drop(before);
            reloading.join().unwrap().unwrap();
        });
        assert_eq!(kernel.told(), ["listings 1", "node 1"]);
    }
}
