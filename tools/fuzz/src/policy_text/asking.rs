//! Asking a policy: questions, and what holds for every answer.

use rustix::io::Errno;
use virtfs_mediator_core::ids::{
    FileKind, GuestGid, GuestOwner, GuestUid, HostGid, HostOwner, HostUid, Mode,
};
use virtfs_mediator_core::op::{BirthAsk, OpenAs, Operation};
use virtfs_mediator_core::policy::{Facts, Judged, Policy, Refusal, Requester};

pub(super) const WHO: Requester = Requester {
    uid: 64055,
    gid: 64055,
    pid: 0,
};

/// Asks, and checks what holds for every verdict.
pub(super) fn ask<O: Judged>(
    policy: &Policy,
    facts: &Facts<'_>,
    ask: O::Ask,
) -> Result<O::Grant, Refusal> {
    let verdict = policy.decide::<O>(facts, ask);
    let rules = policy.rule_count();
    let known = |rule: Option<u32>| rule.is_none_or(|at| (at as usize) < rules);
    match verdict {
        Ok(permit) => {
            assert!(known(permit.rule()), "a rule that does not exist decided");
            Ok(permit.grant())
        }
        Err(refusal) => {
            let fault = [Errno::NOSYS, Errno::IO, Errno::NOTCONN].contains(&refusal.errno);
            assert!(!fault, "a refusal that passes for a fault: {refusal:?}");
            assert!(known(refusal.rule), "a rule that does not exist decided");
            Err(refusal)
        }
    }
}

/// All facts of a regular file of these names.
pub(super) fn facts<'f, O: Operation>(names: &'f [&'f [u8]]) -> Facts<'f> {
    Facts {
        names,
        kind: Some(FileKind::Regular),
        mode: Some(Mode::new(0o644)),
        owner: Some(HostOwner {
            uid: HostUid(1000),
            gid: HostGid(1000),
        }),
        size: Some(4096),
        nlink: Some(1),
        ..Facts::of(O::OP, WHO)
    }
}

/// The facts of a name that is to be made.
pub(super) fn new_name<'f, O: Operation>(names: &'f [&'f [u8]]) -> Facts<'f> {
    Facts {
        names,
        ..Facts::of(O::OP, WHO)
    }
}

pub(super) fn birth(kind: FileKind, mode: u32) -> BirthAsk {
    BirthAsk {
        requester: GuestOwner {
            uid: GuestUid(WHO.uid),
            gid: GuestGid(WHO.gid),
        },
        kind,
        mode: Mode::new(mode),
        open: OpenAs {
            write: true,
            ..OpenAs::default()
        },
    }
}

pub(super) const READ: OpenAs = OpenAs {
    read: true,
    write: false,
    append: false,
    truncate: false,
    exclusive: false,
    sync: false,
    direct: false,
    no_atime: false,
};
