//! libvirt: settings, hook, service, wrapper and domains, each in a lab with the real libvirtd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use super::catalogue::Problem;
use super::harness::{Report, Seen, provoke};
use crate::common::{Export, LIMIT, await_that};
use crate::libvirt::domain::{Domain, filesystem};
use crate::libvirt::lab::{LINK, Lab, QEMU};

provoke! {
    libvirtd_that_does_not_run => [NoLibvirt];
    settings_that_are_no_settings => [BadQemuConf];
    settings_that_cost_views_or_files => [NoMountNamespaces, NoOwnership, OwnerForgotten];
    hook_missing_or_open_to_others => [NoHook];
    hook_younger_than_libvirtd => [HookUnknown];
    service_that_is_gone => [NoService];
    link_that_leads_elsewhere => [NoWrapper];
    emulator_younger_than_the_wrapper => [OldKnowledge];
    apparmor_without_our_rules => [LibvirtApparmor];
    selinux_without_our_module => [LibvirtSelinux];
    definition_that_left_its_file => [Drift];
    another_process_of_the_domains_user => [SharedUid];
    user_without_an_account => [NoAccount];
    directory_that_was_closed => [Closed];
    way_that_is_closed_to_the_service => [ServiceClosed];
    way_that_others_may_rename => [ExportMovable];
    domain_that_is_not_enabled => [NotEnabled];
}

/// A lab with an enabled domain in it.
struct Host {
    lab: Lab,
    export: Export,
}

impl Host {
    fn new() -> Self {
        Self {
            lab: Lab::new(),
            export: Export::new(),
        }
    }

    fn domain(&self) -> Domain<'_> {
        Domain::plain(&self.lab, &self.export).enabled()
    }

    #[track_caller]
    fn doctor(&self) -> Report {
        // QEMU's own checks start it, and are others' to test.
        Report::of(&self.output("exec virtfs-mediator doctor --json --libvirt --qemu /bin/true"))
    }

    fn output(&self, words: &str) -> Output {
        self.lab.run(["sh", "-ec", words])
    }

    /// With files over others, for this one run.
    #[track_caller]
    fn doctor_after(&self, words: &str) -> Report {
        let run = "exec virtfs-mediator doctor --json --libvirt --qemu /bin/true";
        let words = format!("{words}\n{run}");
        Report::of(&self.lab.run(["unshare", "--mount", "sh", "-ec", &words]))
    }
}

fn libvirtd_that_does_not_run() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    control.ok(Problem::NoLibvirt);
    host.lab.crash_libvirtd();
    let changed = host.doctor();
    changed.says(Problem::NoLibvirt, &["start libvirtd"]);
    Seen { control, changed }
}

fn settings_that_are_no_settings() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    host.lab
        .write("/etc/libvirt/qemu.conf", "user = \"x\"\nuser = \"y\"\n");
    host.doctor().ok(Problem::BadQemuConf);
    host.lab
        .write("/etc/libvirt/qemu.conf", "user = \"x\"\n= 1\n");
    let changed = host.doctor();
    changed.says(Problem::BadQemuConf, &["/etc/libvirt/qemu.conf", "line 2"]);
    Seen { control, changed }
}

fn settings_that_cost_views_or_files() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    let text = "namespaces = []\ndynamic_ownership = 0\nremember_owner = 0\n";
    host.lab.write("/etc/libvirt/qemu.conf", text);
    let changed = host.doctor();
    Seen { control, changed }
}

fn hook_missing_or_open_to_others() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    let hook = host.lab.path("/etc/libvirt/hooks/qemu.d/virtfs-mediator");
    let mode = |mode| fs::set_permissions(&hook, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o775);
    host.doctor().says(Problem::NoHook, &["others than root"]);
    mode(0o644);
    host.doctor().says(Problem::NoHook, &["no program"]);
    fs::remove_file(&hook).unwrap();
    let changed = host.doctor();
    Seen { control, changed }
}

fn hook_younger_than_libvirtd() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    control.ok(Problem::HookUnknown);
    let hook = host.lab.path("/etc/libvirt/hooks/qemu.d/virtfs-mediator");
    let mut changed = None;
    // The start of a process is told in clock ticks.
    await_that(LIMIT, "some ticks go by", || {
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let report = host.doctor();
        let has = report.has(Problem::HookUnknown);
        changed = Some(report);
        has
    });
    let changed = changed.unwrap();
    changed.says(Problem::HookUnknown, &["systemctl restart libvirtd"]);
    Seen { control, changed }
}

fn service_that_is_gone() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    control.ok(Problem::NoService);
    host.lab.crash_service();
    Seen {
        control,
        changed: host.doctor(),
    }
}

fn link_that_leads_elsewhere() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    let link = host.lab.path(LINK);
    fs::remove_file(&link).unwrap();
    host.doctor()
        .says(Problem::NoWrapper, &["no link", "ln -sf"]);
    std::os::unix::fs::symlink("/bin/true", &link).unwrap();
    let changed = host.doctor();
    changed.says(Problem::NoWrapper, &[LINK]);
    Seen { control, changed }
}

fn emulator_younger_than_the_wrapper() -> Seen {
    let host = Host::new();
    let wrapper = host.lab.path("/usr/bin/virtfs-mediator-qemu");
    let touch = |path: &Path| {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, mode).unwrap();
    };
    touch(&wrapper);
    let control = host.doctor();
    control.ok(Problem::OldKnowledge);
    // In the lab's overlay; as an upgrade does it.
    touch(&host.lab.path(QEMU));
    let changed = host.doctor();
    changed.says(Problem::OldKnowledge, &[QEMU, "touch"]);
    Seen { control, changed }
}

/// What the kernel would tell, from files over those by which it does.
const APPARMOR: &str = "mkdir -p /run/module/apparmor/parameters; \
    echo Y >/run/module/apparmor/parameters/enabled; mount --bind /run/module /sys/module";

fn apparmor_without_our_rules() -> Seen {
    let host = Host::new();
    let rules = "/etc/apparmor.d/local/abstractions/libvirt-qemu";
    let with_rules = format!(
        "{APPARMOR}; mkdir -p $(dirname {rules}); echo '/usr/bin/virtfs-mediator-qemu rix,' >{rules}"
    );
    let without = format!("{APPARMOR}; rm -f {rules}");
    let control = host.doctor_after(&with_rules);
    control.ok_saying(Problem::LibvirtApparmor, &["our rules"]);
    Seen {
        control,
        changed: host.doctor_after(&without),
    }
}

fn selinux_without_our_module() -> Seen {
    let host = Host::new();
    // /sys/fs is sysfs: a directory over it.
    let selinux =
        "mkdir -p /run/fs/selinux; echo 1 >/run/fs/selinux/enforce; mount --bind /run/fs /sys/fs";
    let module = "/var/lib/selinux/targeted/active/modules/400/virtfs-mediator";
    let control = host.doctor_after(&format!("{selinux}; mkdir -p {module}"));
    control.ok_saying(Problem::LibvirtSelinux, &["is installed"]);
    let changed = host.doctor_after(&format!("{selinux}; rmdir {module}"));
    changed.says(Problem::LibvirtSelinux, &["semodule"]);
    Seen { control, changed }
}

fn definition_that_left_its_file() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    let control = host.doctor();
    control.ok_saying(Problem::Drift, &[&domain.name, "agree"]);
    domain.redefine(|xml| xml.replace(LINK, QEMU));
    let changed = host.doctor();
    changed.says(Problem::Drift, &["does not start", "libvirt enable"]);
    domain.redefine(|xml| xml.replace(QEMU, LINK));
    host.lab.write(&domain.file(), "domain = 1\n");
    host.doctor()
        .says(Problem::Drift, &[&domain.file(), "line 1"]);
    fs::remove_file(host.lab.path(&domain.file())).unwrap();
    host.doctor().says(Problem::Drift, &["it has no file"]);
    Seen { control, changed }
}

fn another_process_of_the_domains_user() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    domain.start();
    let control = host.doctor();
    control.ok_saying(Problem::SharedUid, &[&domain.name]);
    let uid = domain.ids().uid;
    let words = [
        "setpriv",
        &format!("--reuid={uid}"),
        "--clear-groups",
        "sleep",
        "60",
    ];
    let mut other = host.lab.command(words).spawn().unwrap();
    let mut changed = None;
    await_that(LIMIT, "it is the other user", || {
        let report = host.doctor();
        let has = report.has(Problem::SharedUid);
        changed = Some(report);
        has
    });
    other.kill().unwrap();
    other.wait().unwrap();
    let changed = changed.unwrap();
    changed.says(Problem::SharedUid, &["/proc", "sleep"]);
    Seen { control, changed }
}

fn user_without_an_account() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    let control = host.doctor();
    control.ok(Problem::NoAccount);
    let user = format!("virtfs-{}", domain.name);
    host.lab.ok(["userdel", &user]);
    Seen {
        control,
        changed: host.doctor(),
    }
}

fn directory_that_was_closed() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    let control = host.doctor();
    control.ok_saying(Problem::Closed, &[&domain.name]);
    host.lab
        .ok(["setfacl", "--remove-all", "/var/lib/libvirt/qemu"]);
    let changed = host.doctor();
    changed.says(Problem::Closed, &["/var/lib/libvirt/qemu", "setfacl -m u:"]);
    // As it says, so it is: and the cure is one.
    let told = domain.start_fails();
    assert!(told.contains("master-key.aes"), "{told}");
    let cure = format!("u:{}:x", domain.ids().uid);
    host.lab
        .ok(["setfacl", "-m", &cure, "/var/lib/libvirt/qemu"]);
    host.doctor().ok(Problem::Closed);
    domain.start();
    Seen { control, changed }
}

fn way_that_is_closed_to_the_service() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    let control = host.doctor();
    control.ok_saying(Problem::ServiceClosed, &[&domain.name]);
    let home = host.export.path().parent().unwrap();
    let (uid, home) = (domain.ids().uid, home.to_str().unwrap());
    // Open to the domain's user, so that it is root alone who has no way.
    host.lab.ok(["chown", &uid.to_string(), home]);
    host.lab.ok(["chmod", "700", home]);
    let changed = host.doctor();
    changed.says(Problem::ServiceClosed, &[home, "CAP_DAC_READ_SEARCH"]);
    changed.ok(Problem::Closed);
    let told = host
        .lab
        .ours_ok(&["libvirt", "enable", "--dry-run", &domain.name]);
    assert!(told.contains("CAP_DAC_READ_SEARCH"), "{told}");
    Seen { control, changed }
}

fn way_that_others_may_rename() -> Seen {
    let host = Host::new();
    let domain = host.domain();
    let control = host.doctor();
    control.ok_saying(Problem::ExportMovable, &[&domain.name]);
    let above = host.export.path().parent().unwrap().to_str().unwrap();
    host.lab.ok(["chmod", "777", above]);
    let changed = host.doctor();
    changed.says(Problem::ExportMovable, &[above, "next start"]);
    Seen { control, changed }
}

fn domain_that_is_not_enabled() -> Seen {
    let host = Host::new();
    let control = host.doctor();
    let devices = filesystem(host.export.path(), "share");
    let domain = Domain::of(&host.lab, &devices, "");
    let changed = host.doctor();
    changed.says(Problem::NotEnabled, &[&domain.name]);
    Seen { control, changed }
}
