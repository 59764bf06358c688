//! The weaker arrangements: what others run where the mediator is, without the product.
//!
//! Each is entered by a child of the tool, in mount and UTS namespaces of its own, which add no
//! wall (they are the first user namespace's) and keep what an attack does from the host.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use virtfs_p9::{Ids, ProxyHelper};

use crate::acts::{self, Scene};
use crate::task::{self, Failure, Line, Plant, Task, Weaker};

/// The uid and gid of [`Weaker::UidWithCapabilities`]: numbers that no user of the host should
/// have.
pub(crate) const OWN_ID: u32 = 61_777;

/// What [`Weaker::UidWithCapabilities`] holds.
const OWN_CAPABILITIES: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

/// What virtfs-proxy-helper keeps once its client has connected; [`check_proxy_helper`] compares
/// it with the packaged one's.
const PROXY_HELPER: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_MKNOD,
];

/// A child's whole life: enters the arrangement, attacks, tells how it ended.
pub(crate) fn child() {
    let ended = task::mine()
        .map_err(Failure::Unprepared)
        .and_then(enter)
        .and_then(|scene| {
            // After the last change of credentials, which clears it (prctl(2)).
            let kill = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill)
                .map_err(unprepared("prctl(PR_SET_PDEATHSIG)"))?;
            acts::run(&scene)
        });
    task::tell(&Line::Ended(ended));
}

fn enter(task: Task) -> Result<Scene, Failure> {
    let weaker = task
        .weaker
        .ok_or_else(|| Failure::Unprepared("no arrangement".to_owned()))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(unprepared("unshare"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(unprepared("mount(/, MS_PRIVATE)"))?;
    let planted = match &task.plant {
        None => None,
        Some(Plant::Open(path) | Plant::Lowest(path)) => Some(task::open_for_good(path)?),
        Some(Plant::OverControl(_)) => {
            return Err(Failure::Unprepared("there is no control socket".to_owned()));
        }
    };
    // An ordinary descriptor of /proc/self/fd, where the product has a detached clone.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc_fd = rustix::fs::open("/proc/self/fd", flags, Mode::empty())
        .map_err(unprepared("open(/proc/self/fd)"))?;
    let export = task.outside.with_file_name("export");
    let root = rustix::fs::open(&export, flags, Mode::empty()).map_err(unprepared("open"))?;
    if weaker != Weaker::Root {
        rustix::process::chroot(&export).map_err(unprepared("chroot"))?;
        rustix::process::chdir("/").map_err(unprepared("chdir"))?;
    }
    match weaker {
        Weaker::Root | Weaker::RootInChroot => {}
        Weaker::UidWithCapabilities => {
            take_ids()?;
            hold(&OWN_CAPABILITIES)?;
            rustix::thread::set_no_new_privs(true).map_err(unprepared("no_new_privs"))?;
        }
        Weaker::ProxyHelper => {
            bound(&CapsHashSet::new())?;
            hold_effective(&PROXY_HELPER)?;
        }
    }
    Ok(Scene {
        task,
        root,
        proc_fd,
        registrar: None,
        planted,
    })
}

fn take_ids() -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(OWN_ID), Gid::from_raw(OWN_ID));
    nix::sys::prctl::set_keepcaps(true).map_err(unprepared("prctl(PR_SET_KEEPCAPS)"))?;
    setgroups(&[]).map_err(unprepared("setgroups"))?;
    setresgid(gid, gid, gid).map_err(unprepared("setresgid"))?;
    setresuid(uid, uid, uid).map_err(unprepared("setresuid"))?;
    // The bounding set can only be reduced with SETPCAP in the effective set.
    let permitted = caps::read(None, CapSet::Permitted).map_err(unprepared("capget"))?;
    caps::set(None, CapSet::Effective, &permitted).map_err(unprepared("capset"))
}

/// These in all five sets, and no other.
fn hold(held: &[Capability]) -> Result<(), Failure> {
    let set: CapsHashSet = held.iter().copied().collect();
    bound(&set)?;
    caps::set(None, CapSet::Inheritable, &set).map_err(unprepared("inheritable set"))?;
    hold_effective(held)?;
    caps::set(None, CapSet::Ambient, &set).map_err(unprepared("ambient set"))?;
    for which in [CapSet::Inheritable, CapSet::Ambient] {
        let found = caps::read(None, which).map_err(unprepared("reading capabilities"))?;
        if found != set {
            return Err(Failure::Unprepared(format!("{which:?} is {found:?}")));
        }
    }
    Ok(())
}

/// Nothing but these in the bounding set.
fn bound(set: &CapsHashSet) -> Result<(), Failure> {
    for capability in caps::runtime::thread_all_supported() {
        if !set.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(unprepared("bounding set"))?;
        }
    }
    let found = caps::read(None, CapSet::Bounding).map_err(unprepared("bounding set"))?;
    if found == *set {
        Ok(())
    } else {
        Err(Failure::Unprepared(format!(
            "the bounding set is {found:?}"
        )))
    }
}

/// These in the effective and the permitted set.
fn hold_effective(held: &[Capability]) -> Result<(), Failure> {
    let set: CapsHashSet = held.iter().copied().collect();
    caps::set(None, CapSet::Effective, &set).map_err(unprepared("effective set"))?;
    caps::set(None, CapSet::Permitted, &set).map_err(unprepared("permitted set"))?;
    for which in [CapSet::Effective, CapSet::Permitted] {
        let found = caps::read(None, which).map_err(unprepared("reading capabilities"))?;
        if found != set {
            return Err(Failure::Unprepared(format!("{which:?} is {found:?}")));
        }
    }
    Ok(())
}

fn unprepared<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::Unprepared(format!("{what}: {error}"))
}

/// What the packaged virtfs-proxy-helper holds while it serves a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) uid: u32,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) bounding: u64,
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: bool,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "uid {}, effective {:016x}, permitted {:016x}, bounding {:016x}, no_new_privs {}, \
             seccomp {}",
            self.uid,
            self.effective,
            self.permitted,
            self.bounding,
            self.no_new_privs,
            self.seccomp
        )
    }
}

/// Where Debian has the helper.
const PROGRAM: &str = "/usr/lib/qemu/virtfs-proxy-helper";

/// Starts the packaged helper, connects as QEMU does, and reads what the kernel says of it.
///
/// # Errors
///
/// In words: it does not start, or holds other capabilities than [`Weaker::ProxyHelper`]. `None`
/// if it is not installed.
pub(crate) fn check_proxy_helper() -> Result<Option<Held>, String> {
    if !Path::new(PROGRAM).exists() {
        return Ok(None);
    }
    let export = tempfile::tempdir().map_err(|error| error.to_string())?;
    let user = Ids {
        uid: OWN_ID,
        gid: OWN_ID,
    };
    let helper = ProxyHelper::start(export.path(), user).map_err(|error| error.to_string())?;
    let _client = std::os::unix::net::UnixStream::connect(helper.socket())
        .map_err(|error| format!("connecting to virtfs-proxy-helper: {error}"))?;
    let pid =
        child_named("virtfs-proxy-he").ok_or("virtfs-proxy-helper is not among our children")?;
    // It gives its capabilities up after accept(2), at a moment that it tells nobody.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let capabilities = bits(&PROXY_HELPER);
    loop {
        let held = held_by(pid).ok_or("virtfs-proxy-helper has ended")?;
        let expected = Held {
            uid: 0,
            effective: capabilities,
            permitted: capabilities,
            bounding: 0,
            no_new_privs: false,
            seccomp: false,
        };
        if held == expected {
            return Ok(Some(held));
        }
        if std::time::Instant::now() > end {
            return Err(format!(
                "virtfs-proxy-helper is another than expected: {held}"
            ));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn bits(set: &[Capability]) -> u64 {
    set.iter().fold(0, |bits, one| bits | one.bitmask())
}

fn child_named(name: &str) -> Option<i32> {
    let me = std::process::id().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let is = field(&status, "Name")? == name && field(&status, "PPid")? == me;
        is.then_some(pid)
    })
}

fn held_by(pid: i32) -> Option<Held> {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let set = |name| u64::from_str_radix(&field(&status, name)?, 16).ok();
    Some(Held {
        uid: field(&status, "Uid")?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()?,
        effective: set("CapEff")?,
        permitted: set("CapPrm")?,
        bounding: set("CapBnd")?,
        no_new_privs: field(&status, "NoNewPrivs")? != "0",
        seccomp: field(&status, "Seccomp")? != "0",
    })
}

fn field(status: &str, name: &str) -> Option<String> {
    status.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim().to_owned())
    })
}
