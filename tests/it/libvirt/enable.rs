//! `libvirt enable`, `disable` and `status`: what becomes of a domain's definition and of the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::domain::{Domain, filesystem, path};
use super::lab::{LINK, Lab, QEMU};
use crate::common::{Export, shown, stdout};

/// What `enable` may change of the host, in one text.
pub(super) fn host(lab: &Lab) -> String {
    let mut text = String::new();
    for words in [
        &["getent", "passwd"][..],
        &["getent", "group"],
        &["getfacl", "--absolute-names", "/var/lib/libvirt/qemu"],
        &[
            "find",
            "/etc/virtfs-mediator",
            "/var/lib/virtfs-mediator",
            "-type",
            "f",
        ],
    ] {
        text.push_str(&stdout(&lab.run(words)));
    }
    text
}

/// Enabled, and disabled: libvirt's definition and the host are as before, to the byte.
#[track_caller]
fn there_and_back(lab: &Lab, domain: &Domain<'_>, words: &[&str]) -> (String, String) {
    let (before, host_before) = (domain.definition(), host(lab));
    let told = domain.enable(words);
    let enabled = domain.definition();
    assert!(
        enabled.contains(&format!("<emulator>{LINK}</emulator>")),
        "{enabled}"
    );
    assert_ne!(host(lab), host_before);
    let again = domain.enable(&[]);
    assert!(again.contains("enabled already"), "{again}");
    assert_eq!(domain.definition(), enabled);
    let back = domain.disable();
    assert!(back.contains("is disabled"), "{back}");
    assert_eq!(domain.definition(), before);
    assert_eq!(host(lab), host_before);
    let nothing = domain.disable();
    assert!(nothing.contains("is not enabled"), "{nothing}");
    (told, enabled)
}

#[test]
fn disable_puts_back_what_was() {
    let (lab, export, other) = (Lab::new(), Export::new(), Export::new());
    // All that an administrator may have written, which is none of our business.
    let devices = format!(
        "{}{}\
         <filesystem type='mount' accessmode='mapped'><source dir='/srv'/><target dir='m'/></filesystem>\
         <filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='v'/></filesystem>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
         <graphics type='vnc' port='-1' autoport='yes' passwd='secret'/>",
        filesystem(export.path(), "share"),
        filesystem(other.path(), "other").replace("</filesystem>", "<readonly/></filesystem>"),
    );
    let rest = "<metadata><mine:note xmlns:mine='urn:mine' a='1'>\
                <mine:emulator>&lt;/not/me&gt;</mine:emulator></mine:note></metadata>\
                <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\
                <qemu:commandline><qemu:arg value='-msg'/><qemu:arg value='timestamp=on'/>\
                <qemu:env name='A' value='b'/></qemu:commandline>";
    let domain = Domain::of(&lab, &devices, rest);
    let (told, enabled) = there_and_back(&lab, &domain, &[]);
    // The whole plan was shown: a diff, the file, the user, the directory.
    for word in [
        &format!("-    <emulator>{QEMU}</emulator>"),
        &format!("+    <emulator>{LINK}</emulator>"),
        &format!("+export = \"{}\"", path(&export)),
        "+readonly = true",
        "new system user virtfs-",
        "may search /var/lib/libvirt/qemu",
        "filesystem 'm' has accessmode='mapped'",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    for word in [
        "urn:mine",
        "&lt;/not/me&gt;",
        "passwd='secret'",
        "timestamp=on",
        "accessmode='mapped'",
        "<driver type='virtiofs'/>",
    ] {
        assert!(enabled.contains(word), "{word}: {enabled}");
    }
}

#[test]
fn dynamic_label_is_put_back_in_its_place() {
    let (lab, export) = (Lab::new(), Export::new());
    let label = "<seclabel type='dynamic' model='dac' relabel='yes'><baselabel>+61234:+61234</baselabel></seclabel>";
    let domain = Domain::of(&lab, &filesystem(export.path(), "share"), label);
    assert!(
        domain.definition().contains("<seclabel"),
        "{}",
        domain.definition()
    );
    there_and_back(&lab, &domain, &[]);
}

#[test]
fn directory_that_is_shared_on_top_is_a_filesystem_less_afterwards() {
    let (lab, export, other) = (Lab::new(), Export::new(), Export::new());
    let policy = export.beside("policy.toml");
    fs::write(&policy, "default = \"allow\"\n").unwrap();
    let domain = Domain::of(&lab, "", "");
    let (_, told) = domain.enable_fails(&[]);
    assert!(told.contains("--share DIR:TAG"), "{told}");
    let share = format!("{}:web={}", path(&export), shown(&policy));
    let second = format!("{}:docs", path(&other));
    let (told, enabled) = there_and_back(&lab, &domain, &["--share", &share, "--share", &second]);
    assert!(
        told.contains(&format!("+policy = \"{}\"", shown(&policy))),
        "{told}"
    );
    assert!(enabled.contains("<target dir='web'/>") && enabled.contains("<target dir='docs'/>"));
}

#[test]
fn source_behind_a_link_is_written_without_it() {
    let (lab, export) = (Lab::new(), Export::new());
    let link = export.beside("link");
    symlink(export.path().parent().unwrap(), &link).unwrap();
    let domain = Domain::of(&lab, &filesystem(&link.join("export"), "share"), "");
    let (_, enabled) = there_and_back(&lab, &domain, &[]);
    assert!(
        enabled.contains(&format!("<source dir='{}'/>", path(&export))),
        "{enabled}"
    );
}

#[test]
fn enabled_domain_takes_a_policy_and_another_share_later() {
    let (lab, export, other) = (Lab::new(), Export::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    let before = domain.definition();
    domain.enable(&[]);
    let ids = domain.ids();
    let policy = export.beside("policy.toml");
    fs::write(&policy, "default = \"allow\"\n").unwrap();
    domain.enable(&["--policy", &shown(&policy)]);
    assert!(lab.read(&domain.file()).contains("policy.toml"));
    domain.enable(&["--share", &format!("{}:more", path(&other))]);
    let file = lab.read(&domain.file());
    assert!(
        file.contains("policy.toml") && file.contains(&path(&other)),
        "{file}"
    );
    assert_eq!(domain.ids(), ids);
    domain.start();
    for place in [&export, &other] {
        let seen = lab.who_sees_view_at(place.path());
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
    domain.destroy();
    domain.disable();
    assert_eq!(domain.definition(), before);
}

#[test]
fn nothing_is_changed_without_consent_or_by_a_dry_run() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    let (before, host_before) = (domain.definition(), host(&lab));
    let shown = lab.ours_ok(&["libvirt", "enable", "--dry-run", &domain.name]);
    assert!(
        shown.contains(&format!("+    <emulator>{LINK}</emulator>")),
        "{shown}"
    );
    let (status, told) = lab.ours_fails(&["libvirt", "enable", &domain.name]);
    assert_eq!(status, 64);
    assert!(told.contains("--yes"), "{told}");
    // On a terminal it asks.
    for (answer, enabled) in [("n", false), ("", false), ("y", true)] {
        let words = format!("virtfs-mediator libvirt enable {}", domain.name);
        let asked = lab.ok([
            "sh",
            "-c",
            &format!("echo '{answer}' | script -qec '{words}' /dev/null"),
        ]);
        assert!(asked.contains("[y/N]"), "{asked}");
        assert_eq!(asked.contains("is enabled"), enabled, "{asked}");
        assert_eq!(domain.definition() != before, enabled);
        assert_eq!(host(&lab) != host_before, enabled);
    }
}

#[test]
fn domain_that_runs_is_enabled_from_its_next_start_on_and_disabled_when_it_is_down() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    domain.start();
    let told = domain.enable(&[]);
    assert!(told.contains("when it is next started"), "{told}");
    assert_eq!(lab.who_sees_view_at(export.path()), []);
    // What runs has no view yet, so that there is nothing to wait for.
    domain.disable();
    domain.enable(&[]);
    domain.destroy();
    domain.start();
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    let (status, told) = lab.ours_fails(&["libvirt", "disable", "--yes", &domain.name]);
    assert_eq!(status, 78);
    assert!(told.contains("shut it down first"), "{told}");
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    domain.destroy();
    domain.disable();
}

#[test]
fn static_label_is_kept_if_it_is_the_domains_own() {
    let (lab, export) = (Lab::new(), Export::new());
    let label = |ids: &str| {
        format!("<seclabel type='static' model='dac' relabel='yes'><label>{ids}</label></seclabel>")
    };
    let devices = filesystem(export.path(), "share");
    let own = Domain::of(&lab, &devices, &label("+61240:+61241"));
    let (_, enabled) = there_and_back(&lab, &own, &[]);
    assert!(enabled.contains("<label>+61240:+61241</label>"));
    own.enable(&[]);
    own.start();
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    own.destroy();

    let refused = |domain: &Domain<'_>, word: &str| {
        let before = (domain.definition(), host(&lab));
        let (status, told) = domain.enable_fails(&[]);
        assert_eq!(status, 78);
        assert!(told.contains(word) && told.contains("virsh edit"), "{told}");
        assert_eq!((domain.definition(), host(&lab)), before);
    };
    let second = Domain::of(&lab, &devices, &label("+61240:+61242"));
    refused(&second, &format!("does domain '{}'", own.name));
    let shared = Domain::of(&lab, &devices, &label("libvirt-qemu:libvirt-qemu"));
    refused(&shared, "every domain without a label");
    let root = Domain::of(&lab, &devices, &label("+0:+0"));
    refused(&root, "runs as root");
}

#[test]
fn status_tells_each_difference() {
    let (lab, export, other) = (Lab::new(), Export::new(), Export::new());
    let none = lab.ours_ok(&["libvirt", "status"]);
    assert!(none.contains("no domain is enabled"), "{none}");
    let domain = Domain::plain(&lab, &export).enabled();
    let good = domain.definition();
    let told = || -> serde_json::Value {
        let text = lab.ours_ok(&["libvirt", "status", "--json", &domain.name]);
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all.as_array().unwrap().len(), 1);
        all[0].clone()
    };
    let fine = told();
    let ids = domain.ids();
    assert_eq!(fine["enabled"], true);
    assert_eq!(fine["state"], "shut off");
    assert_eq!(fine["client"], format!("{}:{}", ids.uid, ids.gid));
    assert_eq!(fine["views"][0]["name"], domain.view());
    assert_eq!(fine["views"][0]["running"], false);
    assert_eq!(fine["stage"], serde_json::Value::Null);
    domain.start();
    let runs = told();
    assert_eq!(runs["views"][0]["running"], true);
    assert_eq!(runs["stage"], "attached");
    domain.destroy();

    for (from, to, word) in [
        (LINK.to_owned(), QEMU.to_owned(), "does not start"),
        (format!("+{}:", ids.uid), "+61234:".to_owned(), "DAC label"),
        (path(&export), path(&other), "has no view"),
        (
            "accessmode='passthrough'".into(),
            "accessmode='mapped'".into(),
            "no passthrough filesystem",
        ),
    ] {
        lab.define(&good.replace(&from, &to));
        let told = told();
        assert_eq!(told["enabled"], false);
        let drift = told["drift"].to_string();
        assert!(drift.contains(word), "{drift}");
        // And so it is.
        domain.start_fails();
    }
    // Said again, `enable` makes it so again.
    lab.define(&good.replace(LINK, QEMU));
    domain.enable(&[]);
    assert_eq!(domain.definition(), good);
    lab.virsh(&["undefine", &domain.name]);
    let drift = told()["drift"].to_string();
    assert!(drift.contains("does not know"), "{drift}");
    let host_before = host(&lab);
    let back = domain.disable();
    assert!(back.contains("is disabled"), "{back}");
    assert_ne!(host(&lab), host_before);
    assert!(!host(&lab).contains(&ids.uid.to_string()));
}

#[test]
fn kvm_group_is_the_users_where_the_device_needs_it() {
    let (lab, export) = (Lab::unstarted(""), Export::new());
    lab.ok([
        "sh",
        "-ec",
        "mknod /run/kvm c 1 3; chgrp kvm /run/kvm; chmod 660 /run/kvm; \
                          mount --bind /run/kvm /dev/kvm",
    ]);
    lab.start_libvirtd();
    lab.start_service();
    let domain = Domain::plain(&lab, &export);
    let told = domain.enable(&[]);
    assert!(told.contains(", in group kvm)"), "{told}");
    domain.start();
    let status = fs::read_to_string(lab.proc(domain.qemu(), "status")).unwrap();
    let groups = status
        .lines()
        .find(|line| line.starts_with("Groups:"))
        .unwrap();
    let kvm = nix::unistd::Group::from_name("kvm").unwrap().unwrap().gid;
    let ids = domain.ids();
    let mut held: Vec<&str> = groups.split_whitespace().skip(1).collect();
    held.sort_by_key(|gid| gid.parse::<u32>().unwrap());
    assert_eq!(held, [&kvm.to_string(), &ids.gid.to_string()]);
    domain.destroy();

    // Where the group is the one of all other domains too, that is said.
    lab.write(
        "/etc/libvirt/qemu.conf",
        "user = \"libvirt-qemu\"\ngroup = \"kvm\"\n",
    );
    let second = Domain::plain(&lab, &export);
    let told = second.enable(&[]);
    assert!(told.contains("open their guest agents' sockets"), "{told}");
    assert!(
        told.contains(&format!("domain '{}' shares", domain.name)),
        "{told}"
    );
}

#[test]
fn disk_behind_a_closed_directory_is_reached() {
    let (lab, export) = (Lab::new(), Export::new());
    let home = export.beside("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let disk = home.join("disk.raw");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let devices = format!(
        "{}<disk type='file' device='disk'><driver name='qemu' type='raw'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk>",
        filesystem(export.path(), "share"),
        shown(&disk)
    );
    let domain = Domain::of(&lab, &devices, "");
    let told = domain.enable(&[]);
    assert!(
        told.contains(&format!("may search {} (an ACL", shown(&home))),
        "{told}"
    );
    domain.start();
    assert_eq!(super::domain::owner(&disk), domain.ids());
    domain.destroy();
    assert_eq!(super::domain::owner(&disk), virtfs_p9::Ids::ROOT);
    domain.disable();
    let acl = lab.ok([
        "getfacl",
        "--absolute-names",
        "--omit-header",
        &shown(&home),
    ]);
    assert_eq!(acl, "user::rwx\ngroup::---\nother::---");
    assert!(Path::new(&home).metadata().unwrap().permissions().mode() & 0o777 == 0o700);
}
