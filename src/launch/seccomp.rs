//! seccomp: the kernel runs no system call for a process of ours but those of its list in
//! [`calls`].
//!
//! Two filters, since a filter has one action: the first answers ENOSYS where a library has
//! another way, the second ends the process for everything that is not listed. The kernel takes
//! the stricter answer of the two (seccomp(2)).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, RawFd};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::{Class, Error, Result};
use crate::launch::calls::{self, Check, List, Rule, Value};
use crate::sys;

/// What a call that is not listed meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The process is killed (SIGSYS); the kernel's log has the number.
    Kill,
    /// The call is refused, its number is told on standard error, and the process exits.
    Tell,
}

impl Verdict {
    /// What `--debug` asks for.
    pub(crate) fn of(debug: bool) -> Self {
        if debug { Self::Tell } else { Self::Kill }
    }
}

/// Builds the wall around this process, which must have one thread, and around all threads that it
/// starts. `given` is the descriptor that the list is built around. Reads it back.
///
/// # Errors
///
/// Confinement: the kernel has no seccomp filters, or the processor is none that is known.
pub(crate) fn confine(list: &List, given: &impl AsRawFd, verdict: Verdict) -> Result<()> {
    confine_around(list, &[given.as_raw_fd()], verdict)
}

/// As [`confine`], with the further descriptors that the list knows.
///
/// # Errors
///
/// As [`confine`].
pub(crate) fn confine_around(list: &List, given: &[RawFd], verdict: Verdict) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::step(
            Class::Confinement,
            format!("seccomp of {}", list.name),
            error,
        )
    };
    let (action, telling) = match verdict {
        Verdict::Kill => (SeccompAction::KillProcess, &[][..]),
        Verdict::Tell => {
            sys::tell_bad_calls().map_err(|error| failed(&error))?;
            (SeccompAction::Trap, calls::TELLING)
        }
    };
    let absent = absent(list).map_err(|error| failed(&error))?;
    let rules = list.allowed.iter().copied().flatten();
    let rules = rules.chain(list.absent).chain(telling);
    let allowed = allowed(rules, given, action).map_err(|error| failed(&error))?;
    if let Some(absent) = absent {
        seccompiler::apply_filter_all_threads(&absent).map_err(|error| failed(&error))?;
    }
    seccompiler::apply_filter_all_threads(&allowed).map_err(|error| failed(&error))?;
    match sys::seccomp_mode() {
        Ok(2) => Ok(()),
        Ok(mode) => Err(failed(&format!("mode is {mode}, not 2"))),
        Err(error) => Err(failed(&error)),
    }
}

/// One more filter around this process: a mode with set-id bits that the policy gives to nothing is
/// passed to no system call, so that not even a broken-into mediator leaves a program that makes
/// others root. `given` are the bits that may be passed.
///
/// # Errors
///
/// As [`confine`].
pub(crate) fn refuse_set_id(
    given: virtfs_mediator_core::ids::Mode,
    verdict: Verdict,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::step(Class::Confinement, "seccomp of set-id bits", error)
    };
    let action = match verdict {
        Verdict::Kill => SeccompAction::KillProcess,
        Verdict::Tell => SeccompAction::Trap,
    };
    let Some(program) = set_id(given.bits(), action).map_err(|error| failed(&error))? else {
        return Ok(());
    };
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed(&error))
}

fn set_id(
    given: u32,
    action: SeccompAction,
) -> std::result::Result<Option<BpfProgram>, BackendError> {
    let mut refused: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
    for (call, argument, bit) in calls::set_id_rules(given) {
        let (length, value) = (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit));
        let condition = SeccompCondition::new(argument, length, value, bit)?;
        let rules = refused.entry(call).or_default();
        rules.push(SeccompRule::new(vec![condition])?);
    }
    if refused.is_empty() {
        return Ok(None);
    }
    compile(refused, SeccompAction::Allow, action).map(Some)
}

/// [`List::absent`] as a program.
fn absent(list: &List) -> std::result::Result<Option<BpfProgram>, BackendError> {
    if list.absent.is_empty() {
        return Ok(None);
    }
    let rules = list.absent.iter().map(|rule| (rule.call, Vec::new()));
    let errno = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    compile(rules.collect(), SeccompAction::Allow, errno).map(Some)
}

/// [`List::allowed`] as a program; those of [`List::absent`] pass here and get ENOSYS there.
fn allowed<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    given: &[RawFd],
    otherwise: SeccompAction,
) -> std::result::Result<BpfProgram, BackendError> {
    let mut ways: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
    // A call with a row without conditions passes whatever its other rows say; for seccompiler
    // that is one without any rule.
    let mut free = BTreeSet::new();
    let knows = |check: &Check| !matches!(check.value, Value::Also(at) if given.get(usize::from(at)).is_none());
    for rule in rules.filter(|rule| rule.checks.iter().all(knows)) {
        let way = ways.entry(rule.call).or_default();
        if rule.checks.is_empty() {
            free.insert(rule.call);
        } else {
            let conditions = rule.checks.iter().map(|check| condition(check, given));
            way.push(SeccompRule::new(
                conditions.collect::<std::result::Result<_, _>>()?,
            )?);
        }
    }
    for call in free {
        ways.insert(call, Vec::new());
    }
    compile(ways, otherwise, SeccompAction::Allow)
}

fn condition(
    check: &Check,
    given: &[RawFd],
) -> std::result::Result<SeccompCondition, BackendError> {
    let (length, operator, value) = match check.value {
        Value::Is(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
        Value::AllOf(value) => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value),
        Value::Masked(mask, value) => {
            (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
        }
        Value::Given => descriptor(given, 0),
        Value::Also(at) => descriptor(given, at),
    };
    SeccompCondition::new(check.argument, length, operator, value)
}

/// One of the given descriptors; a number that no descriptor has if there is none.
fn descriptor(given: &[RawFd], at: u8) -> (SeccompCmpArgLen, SeccompCmpOp, u64) {
    let number = given.get(usize::from(at)).copied().unwrap_or(RawFd::MAX);
    let number = u64::from(number.unsigned_abs());
    (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> std::result::Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, otherwise, listed, arch)?.try_into()
}
