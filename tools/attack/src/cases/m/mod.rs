//! Seat M: runs code in the mediator.

pub(super) mod answers;
pub(super) mod calls;
pub(super) mod escape;
pub(super) mod files;
pub(super) mod namespaces;
pub(super) mod processes;
pub(super) mod registrar;

use std::path::PathBuf;

use virtfs_mediator::attack::Wall;

use crate::case::{Attempt, Case, Seat};
use crate::lab::{Lab, Place};
use crate::task::Task;
use crate::trial::{self, Setting};

/// What a case makes of a fresh place before one try.
struct Prepared {
    place: Place,
    task: Task,
    policy: Option<PathBuf>,
}

impl Prepared {
    fn new(act: &str) -> Result<Self, String> {
        Ok(Self {
            place: Place::new().map_err(|error| format!("a place for the attack: {error}"))?,
            task: Task {
                act: act.to_owned(),
                // A process that any root may look into.
                pid: std::process::id().cast_signed(),
                ..Task::default()
            },
            policy: None,
        })
    }

    fn attempt(&self, setting: &Setting) -> Attempt {
        let (task, policy) = (self.task.clone(), self.policy.as_deref());
        trial::attempt(setting, &self.place, task, policy)
    }
}

const fn case(
    row: u8,
    id: &'static str,
    what: &'static str,
    stopped_by: &'static str,
    run: fn(&Lab) -> Result<Vec<Attempt>, String>,
) -> Case {
    Case {
        row,
        id,
        seat: Seat::M,
        what,
        stopped_by,
        run,
    }
}

/// The same act in each setting, each in a fresh place.
fn everywhere(
    settings: &[Setting],
    prepare: impl Fn(&Setting) -> Result<Prepared, String>,
) -> Result<Vec<Attempt>, String> {
    settings
        .iter()
        .map(|setting| Ok(prepare(setting)?.attempt(setting)))
        .collect()
}

fn all_but_seccomp() -> Setting {
    trial::without("all walls but seccomp", &[Wall::Seccomp])
}

fn seccomp_alone() -> Setting {
    trial::only("seccomp alone", &[Wall::Seccomp])
}

fn no_wall() -> Setting {
    trial::only("none of the walls", &[])
}
