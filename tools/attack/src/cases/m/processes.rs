//! Other processes.

use virtfs_mediator::attack::Wall;

use super::{Prepared, all_but_seccomp, case, everywhere, no_wall, seccomp_alone};
use crate::case::{Attempt, Case, Verdict};
use crate::lab::Lab;
use crate::trial::{CLIENT, PRODUCT, PROXY, ROOT_IN_CHROOT, Setting, UID, only};
use crate::victim::{OtherView, Victim, mediator_uid};

pub(crate) const CASES: &[Case] = &[
    case(
        15,
        "signal",
        "a signal to a process of the same user",
        "pid namespace; seccomp",
        |_| victims("signal", same_user),
    ),
    case(
        15,
        "ptrace",
        "ptrace of a process of the same user",
        "pid namespace; seccomp",
        |_| victims("ptrace", same_user),
    ),
    case(
        15,
        "vm-read",
        "process_vm_readv of a process of the same user",
        "pid namespace; seccomp",
        |_| victims("vm-read", same_user),
    ),
    case(
        15,
        "pidfd-getfd",
        "pidfd_getfd from a process of the same user",
        "pid namespace; seccomp",
        |_| victims("pidfd-getfd", same_user),
    ),
    case(
        15,
        "signal-client",
        "a signal to a process of the client's user",
        "own user; pid namespace; seccomp",
        |_| victims("signal", |_| CLIENT),
    ),
    case(
        15,
        "vm-read-client",
        "process_vm_readv of a process of the client's user",
        "own user; pid namespace; seccomp",
        |_| victims("vm-read", |_| CLIENT),
    ),
    case(
        15,
        "signal-view",
        "a signal to the mediator of another view",
        "pid namespace; seccomp",
        |lab| other_view(lab, "signal"),
    ),
    case(
        15,
        "ptrace-view",
        "ptrace of the mediator of another view",
        "pid namespace; seccomp",
        |lab| other_view(lab, "ptrace"),
    ),
    case(
        15,
        "ptrace-warden",
        "ptrace of the own warden, pid 1 of the pid namespace",
        "own user; user namespace; seccomp",
        warden,
    ),
];

fn same_user(setting: &Setting) -> u32 {
    setting.uid().unwrap_or_else(mediator_uid)
}

/// Against a process of a user's, which sees all of the host's pids as numbers of its own.
fn victims(act: &str, user: fn(&Setting) -> u32) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    let mut attempts = Vec::new();
    for setting in &settings {
        let mut prepared = Prepared::new(act)?;
        let victim = Victim::start(&prepared.place, user(setting))?;
        prepared.task.pid = victim.pid();
        prepared.task.address = victim.address;
        let attempt = prepared.attempt(setting);
        let (ended, lives) = (|| victim.is_ended(), || victim.lives());
        attempts.push(if act == "signal" {
            seen(attempt, ended, lives)
        } else {
            attempt
        });
    }
    Ok(attempts)
}

/// A signal that was sent must have ended the victim, and one that was not must not have.
fn seen(attempt: Attempt, ended: impl Fn() -> bool, lives: impl Fn() -> bool) -> Attempt {
    let verdict = match attempt.verdict {
        Verdict::Succeeded(_) if ended() => Verdict::Succeeded("the victim has ended".to_owned()),
        Verdict::Succeeded(how) => Verdict::Untried(format!("{how}, but the victim lives")),
        Verdict::Refused(how) if lives() => Verdict::Refused(how),
        Verdict::Refused(how) => Verdict::Succeeded(format!("{how}, but the victim has ended")),
        Verdict::Untried(why) => Verdict::Untried(why),
    };
    Attempt { verdict, ..attempt }
}

fn other_view(lab: &Lab, act: &str) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    let mut attempts = Vec::new();
    for setting in &settings {
        let view = OtherView::start(lab)?;
        let mut prepared = Prepared::new(act)?;
        prepared.task.pid = view.mediator;
        let attempt = prepared.attempt(setting);
        let (ended, lives) = (|| view.is_ended(), || view.lives());
        attempts.push(if act == "signal" {
            seen(attempt, ended, lives)
        } else {
            attempt
        });
    }
    Ok(attempts)
}

fn warden(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        no_wall(),
        only("user namespace alone", &[Wall::UserNamespace]),
        only(
            "own ids and four capabilities alone",
            &[Wall::Ids, Wall::Capabilities],
        ),
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| Prepared::new("ptrace-warden"))
}
