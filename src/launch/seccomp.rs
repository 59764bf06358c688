//! seccomp: the kernel runs no system call for a mediator but those of [`calls::ALLOWED`].
//!
//! Two filters, since a filter has one action: the first answers ENOSYS where a library has
//! another way, the second ends the process for everything that is not listed. The kernel takes
//! the stricter answer of the two (seccomp(2)).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::{Class, Error, Result};
use crate::launch::calls::{self, Check, Rule, Value};
use crate::sys;

/// What a call that is not listed meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The process is killed (SIGSYS); the kernel's log has the number.
    Kill,
    /// The call is refused, its number is told on standard error, and the process exits.
    Tell,
}

/// Builds the wall around this process, which must have one thread, and around all threads that it
/// starts. `proc_fd` is the one directory that it may still change to. Reads it back.
///
/// # Errors
///
/// Confinement: the kernel has no seccomp filters, or the processor is none that is known.
pub(crate) fn confine(proc_fd: &OwnedFd, verdict: Verdict) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::step(Class::Confinement, "seccomp", error);
    let action = match verdict {
        Verdict::Kill => SeccompAction::KillProcess,
        Verdict::Tell => {
            sys::tell_bad_calls().map_err(|error| failed(&error))?;
            SeccompAction::Trap
        }
    };
    let absent = absent().map_err(|error| failed(&error))?;
    let allowed = allowed(proc_fd, action).map_err(|error| failed(&error))?;
    seccompiler::apply_filter_all_threads(&absent).map_err(|error| failed(&error))?;
    seccompiler::apply_filter_all_threads(&allowed).map_err(|error| failed(&error))?;
    match sys::seccomp_mode() {
        Ok(2) => Ok(()),
        Ok(mode) => Err(failed(&format!("mode is {mode}, not 2"))),
        Err(error) => Err(failed(&error)),
    }
}

/// [`calls::ABSENT`] as a program.
fn absent() -> std::result::Result<BpfProgram, BackendError> {
    let rules = calls::ABSENT.iter().map(|rule| (rule.call, Vec::new()));
    let errno = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(rules.collect(), SeccompAction::Allow, errno)
}

/// [`calls::ALLOWED`] as a program; those of [`calls::ABSENT`] pass here and get ENOSYS there.
fn allowed(
    proc_fd: &OwnedFd,
    otherwise: SeccompAction,
) -> std::result::Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for rule in calls::ALLOWED.iter().chain(calls::ABSENT) {
        rules.insert(rule.call, ways(rule, proc_fd)?);
    }
    compile(rules, otherwise, SeccompAction::Allow)
}

fn ways(rule: &Rule, proc_fd: &OwnedFd) -> std::result::Result<Vec<SeccompRule>, BackendError> {
    rule.ways
        .iter()
        .map(|checks| {
            let conditions = checks.iter().map(|check| condition(check, proc_fd));
            SeccompRule::new(conditions.collect::<std::result::Result<_, _>>()?)
        })
        .collect()
}

fn condition(
    check: &Check,
    proc_fd: &OwnedFd,
) -> std::result::Result<SeccompCondition, BackendError> {
    let (length, operator, value) = match check.value {
        Value::Is(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
        Value::Null => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
        Value::AllOf(value) => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value),
        Value::Masked(mask, value) => {
            (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
        }
        Value::ProcFd => (
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(proc_fd.as_raw_fd().unsigned_abs()),
        ),
    };
    SeccompCondition::new(check.argument, length, operator, value)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> std::result::Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, listed, arch)?.try_into()
}
