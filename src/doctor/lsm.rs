//! Security modules: which are active, and what that means for a view.

use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;

/// Where the kernel lists them, if securityfs is mounted.
const LIST: &str = "/sys/kernel/security/lsm";

/// All checks of this group.
pub(super) fn check(findings: &mut Findings) {
    let list = std::fs::read_to_string(LIST).ok();
    match &list {
        Some(text) => findings.ok(Problem::LsmUnknown, text.trim()),
        None => findings.tell(
            Problem::LsmUnknown,
            format!("{LIST} is not there: which security modules are active cannot be told"),
            "mount -t securityfs securityfs /sys/kernel/security",
        ),
    }
    let listed = |name: &str| {
        let list = list.as_deref().unwrap_or_default();
        list.trim().split(',').any(|module| module == name)
    };
    apparmor(findings, listed("apparmor"));
    selinux(findings, listed("selinux"));
}

/// Whether AppArmor confines anything here.
pub(super) fn apparmor_active() -> bool {
    let list = std::fs::read_to_string(LIST).unwrap_or_default();
    list.trim().split(',').any(|module| module == "apparmor")
        || read("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y")
}

/// Whether SELinux refuses anything here.
pub(super) fn selinux_enforcing() -> bool {
    read("/sys/fs/selinux/enforce").as_deref() == Some("1")
}

fn apparmor(findings: &mut Findings, listed: bool) {
    let enabled = read("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y");
    if !listed && !enabled {
        findings.ok(Problem::AppArmor, "not active");
        return;
    }
    let label = read("/proc/self/attr/apparmor/current")
        .or_else(|| read("/proc/self/attr/current"))
        .unwrap_or_default();
    if label.is_empty() || label.starts_with("unconfined") {
        findings.tell(
            Problem::AppArmor,
            "active, this process is not confined; a profile that confines QEMU judges a view's \
             files by their paths, like those of any mount",
            "let QEMU's profile name the paths of its views",
        );
    } else {
        findings.tell(
            Problem::AppArmorConfined,
            format!("active, and this process is confined by profile {label}"),
            "the profile must allow mount, pivot_root, user namespaces and every capability of \
             root's that a start needs; or start views from an unconfined shell or service",
        );
    }
}

fn selinux(findings: &mut Findings, listed: bool) {
    let enforce = read("/sys/fs/selinux/enforce");
    match (enforce.as_deref(), listed) {
        (Some("1"), _) => findings.tell(
            Problem::SelinuxEnforcing,
            "enforcing: a domain that confines QEMU may be refused files on FUSE",
            "for libvirt's guests: `setsebool -P virt_use_fusefs on`; else see `ausearch -m avc`",
        ),
        (Some(_), _) | (None, true) => findings.tell(
            Problem::Selinux,
            "active, but not enforcing: refusals are only logged",
            "before you enforce it, see what `ausearch -m avc` says of a view",
        ),
        (None, false) => findings.ok(Problem::Selinux, "not active"),
    }
}

fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}
