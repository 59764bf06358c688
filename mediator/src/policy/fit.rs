//! Whether a policy may take another's place behind walls that were built for that one.

use super::model::Policy;
use super::owners::IdSpan;
use crate::ids::Mode;

/// Why a policy does not fit the walls of a running view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The user namespace holds the ids of the first policy.
    #[error(
        "its `map`, or the ids that its rules give, reach host ids that the view was not started with"
    )]
    Ids,
    /// Capabilities and a filter follow from the set-id bits that the first policy can give.
    #[error(
        "it can give set-id bits that the view was not started with (`set_id`, `setgid_directories`, a rule's `mode`)"
    )]
    SetId,
    /// The mount and the capabilities of a read-only view allow no change.
    #[error("the view was started read-only")]
    ReadOnly,
    /// `export`, `client`, `cache` and `submounts` speak of the view's start.
    #[error(
        "`export`, `client`, `cache` or `submounts` differ from what the view was started with"
    )]
    Settings,
}

impl Policy {
    /// Whether `next` may be enforced where this one was started.
    ///
    /// # Errors
    ///
    /// What would need a new start.
    pub fn fits(&self, next: &Self) -> Result<(), Misfit> {
        let reaches = |own: Option<&[IdSpan]>, other: Option<&[IdSpan]>| match (own, other) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => {
                let own = IdSpan::united(own.iter().copied());
                other
                    .iter()
                    .all(|span| own.iter().any(|is| is.covers(*span)))
            }
        };
        // Without a map every file is served; with one, those of others are refused by the kernel
        // as well: a policy without is another world.
        let bounded = self.host_uids().is_some() == next.host_uids().is_some();
        if !bounded
            || !reaches(self.host_uids(), next.host_uids())
            || !reaches(self.host_gids(), next.host_gids())
        {
            return Err(Misfit::Ids);
        }
        let given = self.set_id_bits();
        if Mode::new(next.set_id_bits().bits() & !given.bits()).bits() != 0 {
            return Err(Misfit::SetId);
        }
        if self.readonly() && !next.readonly() {
            return Err(Misfit::ReadOnly);
        }
        if self.settings() != next.settings() {
            return Err(Misfit::Settings);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Nobody;

    #[test]
    fn policy_that_needs_other_walls_does_not_fit() {
        let policy = |text: &str| Policy::parse("t", text, &Nobody).unwrap();
        let mapped = "default = \"allow\"\nmap = [{ guest = 0, host = 100000, count = 1000 }]\n";
        let plain = "default = \"allow\"\n";
        let no_set_id = "default = \"allow\"\nsetgid_directories = \"deny\"\n";
        for (first, next, fit) in [
            (plain, "default = \"deny\"\n", Ok(())),
            (plain, "default = \"allow\"\nreadonly = true\n", Ok(())),
            (plain, no_set_id, Ok(())),
            (no_set_id, plain, Err(Misfit::SetId)),
            (
                plain,
                "default = \"allow\"\nset_id = \"allow\"\n",
                Err(Misfit::SetId),
            ),
            (
                "default = \"allow\"\nreadonly = true\n",
                plain,
                Err(Misfit::ReadOnly),
            ),
            (
                plain,
                "default = \"allow\"\ncache = \"none\"\n",
                Err(Misfit::Settings),
            ),
            (
                plain,
                "default = \"allow\"\nsubmounts = \"follow\"\n",
                Err(Misfit::Settings),
            ),
            (plain, mapped, Err(Misfit::Ids)),
            (mapped, plain, Err(Misfit::Ids)),
            (
                mapped,
                "default = \"deny\"\nmap = [{ guest = 5, host = 100500, count = 500 }]\n",
                Ok(()),
            ),
            (
                mapped,
                "default = \"deny\"\nmap = [{ guest = 0, host = 100500, count = 501 }]\n",
                Err(Misfit::Ids),
            ),
        ] {
            assert_eq!(policy(first).fits(&policy(next)), fit, "{first} -> {next}");
        }
    }
}
