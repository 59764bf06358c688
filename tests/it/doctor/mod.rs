//! `doctor`: every problem of its table is made real and must be reported, and must not be
//! reported where it is not there.
//!
//! Nothing of the host is changed: mounts are made in a mount namespace of the test's own thread,
//! system calls are made to fail by a seccomp filter on that thread, sysctls are set in a user
//! namespace of its own or covered by a mount.

mod behaviour;
#[allow(
    dead_code,
    reason = "the program's own table; the tests use a part of it"
)]
#[path = "../../../src/doctor/catalogue.rs"]
mod catalogue;
mod exports;
mod fusefs;
mod harness;
mod host;
mod ids;
mod kernel;
mod libvirt;
mod owners;
mod qemu;

use catalogue::{Problem, Proof};

pub(crate) use harness::elsewhere;

/// All that the cases provoke.
fn provoked() -> Vec<Problem> {
    let all = [
        kernel::PROVOKED,
        host::PROVOKED,
        ids::PROVOKED,
        exports::PROVOKED,
        owners::PROVOKED,
        qemu::PROVOKED,
        libvirt::PROVOKED,
    ];
    all.concat()
}

#[test]
fn each_problem_is_either_provoked_by_a_case_or_says_why_not() {
    let provoked = provoked();
    for problem in Problem::ALL {
        let has_case = provoked.contains(problem);
        match problem.row().proof {
            Proof::Provoked | Proof::StandIn(_) => {
                assert!(has_case, "no case provokes {problem:?}")
            }
            Proof::NotProvoked(why) => {
                assert!(
                    !has_case,
                    "{problem:?} is provoked, but marked otherwise: {why}"
                );
            }
        }
    }
}
