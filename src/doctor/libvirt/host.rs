//! libvirt's settings, and what of ours it has to find.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::rundir::Process;
use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;
use crate::doctor::lsm;
use crate::libvirt::domain_file::{EMULATORS, WRAPPER};
use crate::libvirt::hook::await_service;
use crate::libvirt::qemu_conf::{self, QemuConf};
use crate::libvirt::show::HOOK;
use crate::serve::protocol::{EMULATOR_HOMES, SOCKET};

/// Pid files of what runs QEMU: the one daemon, or the one of its parts.
const DAEMONS: [&str; 2] = ["/run/libvirtd.pid", "/run/virtqemud.pid"];
/// How exactly it is known when libvirtd started and when a file was changed.
const TICKS: Duration = Duration::from_millis(20);
/// libvirt's AppArmor rules for QEMU have this included, and it is ours to install.
const APPARMOR: &str = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
/// Where SELinux policies are, each with its modules.
const SELINUX: &str = "/var/lib/selinux";
/// Our module in one, once `semodule -i` has taken it.
const SELINUX_MODULE: &str = "active/modules/400/virtfs-mediator";

/// All checks of this part; qemu.conf, if it could be read.
pub(super) fn check(findings: &mut Findings) -> Option<QemuConf> {
    let conf = settings(findings);
    hook(findings);
    match await_service() {
        Ok(()) => findings.ok(Problem::NoService, format!("{SOCKET} answers")),
        Err(error) => findings.tell(Problem::NoService, error.what(), error.advice()),
    }
    wrapper(findings);
    modules(findings);
    conf
}

fn settings(findings: &mut Findings) -> Option<QemuConf> {
    let file = qemu_conf::FILE;
    let conf = match QemuConf::read() {
        Ok(conf) => conf,
        Err(error) => {
            findings.tell(Problem::BadQemuConf, error.what(), error.advice());
            return None;
        }
    };
    findings.ok(Problem::BadQemuConf, format!("{file} is understood"));
    match conf.refuse_without_namespaces() {
        Ok(()) => findings.ok(
            Problem::NoMountNamespaces,
            "each QEMU has a mount namespace of its own",
        ),
        Err(error) => findings.tell(Problem::NoMountNamespaces, error.what(), error.advice()),
    }
    if conf.dynamic_ownership {
        findings.ok(
            Problem::NoOwnership,
            "libvirt gives a domain's files to its user",
        );
    } else {
        findings.tell(
            Problem::NoOwnership,
            format!("{file} has dynamic_ownership = 0: disk images stay whose they are"),
            "chown(1) the images of each enabled domain to its user, or take the line out",
        );
    }
    if conf.remember_owner {
        findings.ok(
            Problem::OwnerForgotten,
            "libvirt gives them back when the domain ends",
        );
    } else {
        findings.tell(
            Problem::OwnerForgotten,
            format!("{file} has remember_owner = 0: files are root's when a domain has ended"),
            "take the line out if whoever had them needs them back",
        );
    }
    Some(conf)
}

fn hook(findings: &mut Findings) {
    let install =
        "the package installs it; by hand: tools/libvirt/qemu.d-virtfs-mediator, mode 0755";
    let meta = match std::fs::metadata(HOOK) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => meta,
        Ok(_) => {
            findings.tell(
                Problem::NoHook,
                format!("{HOOK} is no program"),
                format!("chmod 755 {HOOK}"),
            );
            return;
        }
        Err(error) => {
            findings.tell(Problem::NoHook, format!("{HOOK}: {error}"), install);
            return;
        }
    };
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        findings.tell(
            Problem::NoHook,
            format!("others than root may write to {HOOK}, which libvirtd runs as root"),
            format!("chown root {HOOK}; chmod 755 {HOOK}"),
        );
        return;
    }
    findings.ok(Problem::NoHook, HOOK);
    let running = DAEMONS.into_iter().find_map(|file| {
        let pid: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        Some((pid, Process::find(pid)?))
    });
    let Some((pid, daemon)) = running else {
        let why = "no libvirtd runs, or it writes no pid file";
        findings.untried(Problem::HookUnknown, why);
        return;
    };
    // libvirt looks once, as it starts, whether there are hooks for QEMU at all.
    let installed = UNIX_EPOCH
        + Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or_default())
        + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or_default());
    // A file's times are those of the last timer interrupt, a process's are told in clock ticks.
    let looked = SystemTime::now() - daemon.age() + TICKS;
    if looked < installed {
        findings.tell(
            Problem::HookUnknown,
            format!("libvirtd (process {pid}) runs since before {HOOK} was installed"),
            "restart it: domains that run go on (`systemctl restart libvirtd`)",
        );
    } else {
        findings.ok(
            Problem::HookUnknown,
            "libvirtd was started since it is there",
        );
    }
}

fn wrapper(findings: &mut Findings) {
    let entries = std::fs::read_dir(EMULATORS).into_iter().flatten().flatten();
    let links: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let leads = |link: &&PathBuf| {
        let target = link.canonicalize().ok();
        target.is_some_and(|target| target.ends_with(WRAPPER))
    };
    let (good, bad): (Vec<&PathBuf>, Vec<&PathBuf>) = links.iter().partition(leads);
    if good.is_empty() || !bad.is_empty() {
        let what = bad.first().map_or_else(
            || format!("no link to {WRAPPER} in {EMULATORS}"),
            |link| format!("{} does not lead to {WRAPPER}", link.display()),
        );
        findings.tell(
            Problem::NoWrapper,
            what,
            format!("ln -sf /usr/bin/{WRAPPER} {EMULATORS}/qemu-system-x86_64"),
        );
        return;
    }
    findings.ok(
        Problem::NoWrapper,
        format!("{} emulators lead to {WRAPPER}", good.len()),
    );
    // libvirt remembers what an emulator can do, by the change time of what <emulator> names.
    let newer = good.iter().find_map(|link| {
        let wrapper = std::fs::metadata(link).ok()?;
        let name = link.file_name()?;
        let emulator = EMULATOR_HOMES.iter().map(|home| Path::new(home).join(name));
        let emulator = emulator.into_iter().find(|path| path.exists())?;
        let meta = std::fs::metadata(&emulator).ok()?;
        let time = |meta: &std::fs::Metadata| (meta.ctime(), meta.ctime_nsec());
        (time(&meta) > time(&wrapper)).then_some((emulator, (*link).clone()))
    });
    match newer {
        Some((emulator, link)) => findings.tell(
            Problem::OldKnowledge,
            format!(
                "{} was changed after {WRAPPER}: libvirt goes by what it remembers of the one before",
                emulator.display()
            ),
            format!("touch {} and restart libvirtd", link.canonicalize().unwrap_or(link).display()),
        ),
        None => findings.ok(Problem::OldKnowledge, "no emulator is newer than the wrapper"),
    }
}

fn modules(findings: &mut Findings) {
    let rules = std::fs::read_to_string(APPARMOR).unwrap_or_default();
    if !lsm::apparmor_active() {
        findings.ok(Problem::LibvirtApparmor, "AppArmor is not active");
    } else if rules.contains("virtfs-mediator") {
        findings.ok(
            Problem::LibvirtApparmor,
            format!("{APPARMOR} has our rules"),
        );
    } else {
        findings.tell(
            Problem::LibvirtApparmor,
            format!("AppArmor confines QEMU, and {APPARMOR} does not let it run the wrapper"),
            format!(
                "append /usr/share/virtfs-mediator/apparmor/libvirt-qemu to {APPARMOR}, and restart \
                 the domains"
            ),
        );
    }
    if !lsm::selinux_enforcing() {
        findings.ok(Problem::LibvirtSelinux, "SELinux does not enforce");
    } else if std::fs::read_dir(SELINUX)
        .into_iter()
        .flatten()
        .flatten()
        .any(|policy| policy.path().join(SELINUX_MODULE).exists())
    {
        findings.ok(Problem::LibvirtSelinux, "our SELinux module is installed");
    } else {
        findings.tell(
            Problem::LibvirtSelinux,
            "SELinux enforces, and our module, which lets QEMU's domains have views, is not there",
            "semodule -i /usr/share/virtfs-mediator/selinux/virtfs-mediator.cil",
        );
    }
}
