//! Users for policies.

use virtfs_mediator_core::policy::Users;

/// A host with one user and one group.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Users for Nobody {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "nobody").then_some(65534)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "nogroup").then_some(65534)
    }
}
