//! The kernel: each feature that a start needs, tried, most of them by the very code that uses it.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, Ruleset,
    RulesetAttr as _,
};
use nix::sys::wait::WaitPidFlag;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::process::PidfdFlags;

use crate::doctor::catalogue::Problem;
use crate::doctor::child::{self, Outcome, Silent};
use crate::doctor::findings::Findings;
use crate::doctor::{NEEDS_ROOT, sandbox, sysctl};
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::calls;
use crate::launch::seccomp::{self, Verdict};
use crate::launch::walls::Silence;
use crate::launch::{namespace, walls};
use crate::sys;

/// The oldest kernel that the project means to work on.
const OLDEST: (u32, u32) = (5, 14);

/// What a start does with root's power, by the capability that it takes.
const NEEDED: [Capability; 7] = [
    // Mount and unmount, make namespaces.
    Capability::CAP_SYS_ADMIN,
    // chroot: the keeper's empty root directory.
    Capability::CAP_SYS_CHROOT,
    // Become the mediator and the client, map every id.
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETFCAP,
    // Give capabilities up for good.
    Capability::CAP_SETPCAP,
    // Pass signals on to the client.
    Capability::CAP_KILL,
];

/// All checks of this group. `mediator`: as whom the user namespace is tried.
pub(super) fn check(findings: &mut Findings, root: bool, mediator: &Ids) {
    capabilities(findings, root);
    version(findings);
    if root {
        told(
            findings,
            Problem::UserNamespaces,
            sandbox::run(mediator, || {
                Ok("every id mapped, four capabilities kept".to_owned())
            }),
        );
        told(findings, Problem::Namespaces, namespaces());
        told(
            findings,
            Problem::MountApi,
            child::run(0, |_| mount_api()).result(),
        );
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        let own = child::run(flags, |_| own_descriptors()).result();
        told(findings, Problem::OwnDescriptors, own);
        told(
            findings,
            Problem::Privileges,
            child::run(0, |_| privileges()).result(),
        );
    } else {
        for problem in [
            Problem::UserNamespaces,
            Problem::Namespaces,
            Problem::MountApi,
            Problem::OwnDescriptors,
            Problem::Privileges,
        ] {
            findings.untried(problem, NEEDS_ROOT);
        }
    }
    users_namespaces(findings);
    told(findings, Problem::MountId, mount_id());
    told(findings, Problem::Seccomp, seccomp_filters());
    landlock(findings);
    told(findings, Problem::Pidfd, pidfd());
    told(findings, Problem::CloseRange, close_range());
}

/// Most problems here are told by the error of the step itself.
fn told(findings: &mut Findings, problem: Problem, result: Result<String>) {
    match result {
        Ok(found) => findings.ok(problem, found),
        Err(error) => {
            let cure = if error.advice().is_empty() {
                "needs a kernel that has it, and nothing around this process (a container's seccomp \
                 profile, a service's restrictions) that takes it away"
            } else {
                error.advice()
            };
            findings.tell(problem, error.what(), cure);
        }
    }
}

fn capabilities(findings: &mut Findings, root: bool) {
    if !root {
        findings.untried(Problem::Capabilities, NEEDS_ROOT);
        return;
    }
    let held = match caps::read(None, CapSet::Effective) {
        Ok(held) => held,
        Err(error) => {
            findings.untried(Problem::Capabilities, &error.to_string());
            return;
        }
    };
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|needed| !held.contains(needed))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        findings.ok(Problem::Capabilities, "all that a start needs");
    } else {
        findings.tell(
            Problem::Capabilities,
            format!("root lacks {}", missing.join(", ")),
            "start from the host, or give the container or service these capabilities",
        );
    }
}

fn version(findings: &mut Findings) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version >= OLDEST => {
            findings.ok(Problem::OldKernel, format!("Linux {release}"));
        }
        Some(_) | None => findings.tell(
            Problem::OldKernel,
            format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1),
            "take a newer kernel: what the checks below find may work, but is not tried there",
        ),
    }
}

/// `6.1.0-18-amd64` and the like.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let mut parts = release.split('.');
    Some((number(parts.next()?)?, number(parts.next()?)?))
}

/// What Debian's and Ubuntu's kernels add. Neither holds root.
fn users_namespaces(findings: &mut Findings) {
    let kept: Vec<String> = [
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ]
    .iter()
    .filter(|(name, closed)| sysctl(name).as_deref() == Some(closed))
    .map(|(name, closed)| format!("{name} = {closed}"))
    .collect();
    if kept.is_empty() {
        findings.ok(Problem::UsersNamespaces, "not restricted");
    } else {
        findings.tell(
            Problem::UsersNamespaces,
            format!(
                "{}: a start is root's, which it does not hold",
                kept.join(", ")
            ),
            "",
        );
    }
}

fn namespaces() -> Result<String> {
    let flags = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    child::run(
        flags,
        |_| Ok("pid, mount, net, ipc, uts, cgroup".to_owned()),
    )
    .result()
    .map_err(|error| {
        Error::new(
            Class::Confinement,
            format!("the mediator's namespaces: {}", error.what()),
            "none of the sysctls user.max_*_namespaces may be 0",
        )
    })
}

fn mount_api() -> Result<String> {
    namespace::own_mounts()?;
    let empty = namespace::empty_root()?;
    let place = namespace::open_plain(Path::new("/proc"))?;
    namespace::attach(&empty, &place, "/proc")?;
    let tree = namespace::clone_export(&namespace::open_plain(Path::new("/proc"))?, true, false)?;
    namespace::pivot_onto(&tree)?;
    Ok("fsopen, open_tree, mount_setattr, move_mount, pivot_root".to_owned())
}

/// In its own pid and mount namespaces.
fn own_descriptors() -> Result<String> {
    namespace::own_mounts()?;
    namespace::fresh_proc()?;
    let descriptors = namespace::own_descriptors()?;
    let root = open_root()?;
    let open = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&descriptors, name, flags, Mode::empty())
    };
    open(&root.as_raw_fd().to_string())
        .map_err(|errno| step("openat(detached /proc/self/fd, N)", errno))?;
    if open("../status").is_ok() {
        return Err(step("detached /proc/self/fd", "`..` leads out of it"));
    }
    Ok("a detached /proc/self/fd opens descriptors, and `..` ends there".to_owned())
}

fn privileges() -> Result<String> {
    walls::limit_resources()?;
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    Ok("capabilities, securebits, no_new_privs, limits: given up and read back".to_owned())
}

fn mount_id() -> Result<String> {
    let stat = rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID)
        .map_err(|errno| step("statx(/, STATX_MNT_ID)", errno))?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(step("statx(/, STATX_MNT_ID)", "not answered"));
    }
    Ok("statx tells mounts apart".to_owned())
}

/// The product's own filters; then a call that they do not list. The kernel's log is spared: the
/// filter that traps is used, not the one that kills.
fn seccomp_filters() -> Result<String> {
    let outcome = child::run::<()>(0, |_| {
        // Nothing may be told of the call on the caller's stderr.
        walls::silence(Silence::All)?;
        seccomp::confine(&calls::MEDIATOR, &open_root()?, Verdict::Tell)?;
        let _refused = nix::unistd::setsid();
        Ok(())
    });
    match outcome {
        Outcome::Silent(Silent::Exited(status)) if status == 128 + libc::SIGSYS => {
            Ok("the mediator's filters hold".to_owned())
        }
        Outcome::Answered(Ok(())) => Err(step("seccomp", "a call that is not listed succeeded")),
        other @ (Outcome::Answered(Err(_)) | Outcome::Silent(_)) => {
            other.result().map(|()| String::new())
        }
    }
}

fn landlock(findings: &mut Findings) {
    let status = child::run(0, |_| {
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V1))
            .and_then(Ruleset::create)
            .and_then(landlock::RulesetCreated::restrict_self)
            .map_err(|error| step("Landlock", error))?;
        let abi = match status.landlock {
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            } => kernel_abi.unwrap_or(effective_abi as i32),
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => return Ok(0),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, "/", flags, Mode::empty()) {
            Err(_refused) => Ok(abi),
            Ok(_) => Err(step("Landlock", "it is enforced, but a directory opens")),
        }
    })
    .result();
    match status {
        Ok(abi) if abi > 0 => match lacking(abi).as_slice() {
            [] => findings.ok(Problem::OldLandlock, format!("ABI {abi}")),
            lacking => findings.tell(
                Problem::OldLandlock,
                format!("ABI {abi}, without {}", lacking.join(", ")),
                "a newer kernel closes these too; other walls do as well",
            ),
        },
        result => {
            let why = match result {
                Ok(_) => "this kernel has none, or it is not enabled".to_owned(),
                Err(error) => error.what().to_owned(),
            };
            findings.tell(
                Problem::NoLandlock,
                format!("one wall is missing: {why}"),
                "boot with `lsm=landlock,...` (the other names as /sys/kernel/security/lsm has them)",
            );
        }
    }
}

/// What the mediator asks of Landlock and an older one does not know (landlock(7), the history of
/// its ABI).
fn lacking(abi: i32) -> Vec<&'static str> {
    [
        (2, "rename and link between directories"),
        (3, "truncation"),
        (4, "TCP ports"),
        (5, "ioctl on devices"),
        (6, "abstract UNIX sockets and signals"),
    ]
    .iter()
    .filter(|(since, _)| abi < *since)
    .map(|(_, right)| *right)
    .collect()
}

fn pidfd() -> Result<String> {
    let ended = |pid: nix::unistd::Pid| {
        let pid = rustix::process::Pid::from_raw(pid.as_raw());
        let pid = pid.ok_or_else(|| step("fork", "no pid"))?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| step("pidfd_open", errno))?;
        nix::sys::wait::waitid(
            nix::sys::wait::Id::PIDFd(fd.as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        )
        .map(|_status| ())
        .map_err(|errno| step("waitid(P_PIDFD)", errno))
    };
    child::run_beside(
        0,
        |_| Ok("processes are held by descriptor".to_owned()),
        ended,
    )
    .result()
}

fn close_range() -> Result<String> {
    child::run(0, |pipe| {
        sys::close_all_but(&[pipe.as_raw_fd()])
            .map(|()| "descriptors are closed as a range".to_owned())
            .map_err(|error| step("close_range", error))
    })
    .result()
}

fn open_root() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(|errno| step("open(/)", errno))
}

fn step(call: &str, why: impl std::fmt::Display) -> Error {
    Error::step(Class::Confinement, call, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_as_distributions_write_it() {
        for (release, version) in [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("6.18-rc3", Some((6, 18))),
            ("4.19.0", Some((4, 19))),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(parse_release(release), version, "{release}");
        }
    }

    #[test]
    fn older_landlock_lacks_what_came_later() {
        assert_eq!(lacking(1).len(), 5);
        assert_eq!(lacking(5), ["abstract UNIX sockets and signals"]);
        assert!(lacking(7).is_empty() && lacking(99).is_empty());
    }
}
