//! What others change of a domain between `enable` and `disable`, and while a question waits.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use super::domain::{Domain, filesystem};
use super::lab::{LINK, Lab};
use crate::common::{Export, LIMIT, await_that, shown, stderr, stdout};

/// `libvirt WORDS` on a terminal, its question asked and not answered yet.
struct Asking<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Asking<'a> {
    fn of(lab: &'a Lab, words: &str) -> Self {
        for mark in ["/run/asked", "/run/go"] {
            let _may_not_be_there = fs::remove_file(lab.path(mark));
        }
        let script = format!(
            "(until [ -e /run/go ]; do sleep 0.02; done; echo y) | \
             script -qefc 'virtfs-mediator libvirt {words}' /run/asked"
        );
        let mut command = lab.command(["sh", "-c", &script]);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let asking = Self { lab, child };
        await_that(LIMIT, "it asks", || asking.said().contains("[y/N]"));
        asking
    }

    fn said(&self) -> String {
        fs::read_to_string(self.lab.path("/run/asked")).unwrap_or_default()
    }

    /// Says yes: whether it ended well, and all that it said.
    fn yes(mut self) -> (bool, String) {
        self.lab.write("/run/go", "");
        let status = self.child.wait().unwrap();
        (status.success(), self.said())
    }
}

#[test]
fn disable_looks_again_when_its_question_is_answered() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export).enabled();
    let disable = format!("disable {}", domain.name);

    // Another administrator's edit is not written over.
    let asking = Asking::of(&lab, &disable);
    domain.redefine(|xml| xml.replace("65536</memory>", "131072</memory>"));
    let edited = domain.definition();
    assert!(edited.contains("131072</memory>"), "{edited}");
    let (well, told) = asking.yes();
    assert!(!well && told.contains("was changed meanwhile"), "{told}");
    assert_eq!(domain.definition(), edited);
    assert!(lab.path(&domain.file()).exists());

    // A domain that was started keeps what it runs with.
    let asking = Asking::of(&lab, &disable);
    domain.start();
    let (well, told) = asking.yes();
    assert!(!well && told.contains("shut it down first"), "{told}");
    assert_eq!(domain.definition(), edited);
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    domain.destroy();

    let (well, told) = Asking::of(&lab, &disable).yes();
    assert!(well, "{told}");
    assert!(!domain.definition().contains(LINK));
}

#[test]
fn file_that_was_changed_since_is_kept_and_told() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export).enabled();
    let text = format!("{}readonly = true\n", lab.read(&domain.file()));
    lab.write(&domain.file(), &text);
    let told = domain.disable();
    let kept = format!("{}.old", domain.file());
    assert!(told.contains(&kept), "{told}");
    assert_eq!(lab.read(&kept), text);
    assert!(!lab.path(&domain.file()).exists());
    // What nobody has changed leaves nothing.
    fs::remove_file(lab.path(&kept)).unwrap();
    domain.enable(&[]);
    domain.disable();
    assert!(!lab.path(&kept).exists());
}

#[test]
fn second_command_says_what_it_waits_for() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    let asking = Asking::of(&lab, &format!("enable {}", domain.name));
    let script = format!(
        "virtfs-mediator libvirt disable --yes {} 2>/run/second",
        domain.name
    );
    let mut second = lab.command(["sh", "-c", &script]).spawn().unwrap();
    let said = || fs::read_to_string(lab.path("/run/second")).unwrap_or_default();
    await_that(LIMIT, "the second says why it waits", || {
        said().contains("waiting for its end")
    });
    let (well, told) = asking.yes();
    assert!(well && told.contains("is enabled"), "{told}");
    assert!(second.wait().unwrap().success(), "{}", said());
    assert!(!domain.definition().contains(LINK));
}

/// qemu.conf with a key twice, a backslash in a string, and one that is appended: libvirt takes the first.
#[test]
fn settings_count_as_they_do_for_libvirt() {
    let export = Export::new();
    let lab = Lab::with(
        "user = \"nobody\"\nauto_dump_path = \"C:\\dump\"\nspice_password = 'it is \"s\"'\n",
    );
    let plain = Domain::of(&lab, "", "");
    plain.start();
    let status = fs::read_to_string(lab.proc(plain.qemu(), "status")).unwrap();
    let user = nix::unistd::User::from_name("libvirt-qemu")
        .unwrap()
        .unwrap();
    assert!(
        status.contains(&format!("\nUid:\t{}\t", user.uid)),
        "{status}"
    );
    plain.destroy();
    let domain = Domain::plain(&lab, &export).enabled();
    domain.start();
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    domain.destroy();
    // The user that counts is the one that no domain with views may have.
    let label = "<seclabel type='static' model='dac' relabel='yes'>\
                 <label>libvirt-qemu:libvirt-qemu</label></seclabel>";
    let shared = Domain::of(&lab, &filesystem(export.path(), "share"), label);
    let (_, told) = shared.enable_fails(&[]);
    assert!(told.contains("every domain without a label"), "{told}");
}

/// libvirt's own helper would be in QEMU's namespace too.
#[test]
fn domain_with_managed_reservations_is_refused() {
    let (lab, export) = (Lab::new(), Export::new());
    let devices = |managed: &str| {
        format!(
            "{}<controller type='scsi' model='virtio-scsi'/><disk type='block' device='lun'>\
             <source dev='/dev/null'>{managed}</source><target dev='sda' bus='scsi'/></disk>",
            filesystem(export.path(), "share")
        )
    };
    let helper = Domain::of(&lab, &devices("<reservations managed='yes'/>"), "");
    let (status, told) = helper.enable_fails(&[]);
    assert!(status == 78 && told.contains("qemu-pr-helper"), "{told}");
    Domain::of(&lab, &devices(""), "").enable(&[]);
}

/// A policy that a start would refuse is refused now.
#[test]
fn policy_in_what_is_shared_is_refused() {
    let (lab, export) = (Lab::new(), Export::new());
    let write = |path: &Path| fs::write(path, "default = \"allow\"\n").unwrap();
    let (inside, open) = (export.path().join("p.toml"), export.beside("p.toml"));
    write(&inside);
    write(&open);
    std::os::unix::fs::chown(&open, Some(61_399), None).unwrap();
    let domain = Domain::plain(&lab, &export);
    let before = domain.definition();
    let beside = export.beside("own");
    fs::create_dir(&beside).unwrap();
    for (policy, word) in [
        (&inside, "others than root may put another"),
        (&open, "others than root may write"),
    ] {
        let (status, told) = domain.enable_fails(&["--policy", &shown(policy)]);
        assert!(status == 78 && told.contains(word), "{told}");
    }
    // In a directory of root's alone that is shared:
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(export.path(), mode).unwrap();
    let (status, told) = domain.enable_fails(&["--policy", &shown(&inside)]);
    assert!(status == 78 && told.contains("which is shared"), "{told}");
    assert_eq!(domain.definition(), before);
}

/// One domain whose definition is not understood is passed over, by its uuid. libvirt writes none of that
/// kind: a virsh that prints one stands in its place.
#[test]
fn other_domain_that_is_not_understood_is_passed_over() {
    let (lab, export) = (Lab::new(), Export::new());
    let odd = Domain::of(&lab, "", "");
    let uuid = lab.virsh(&["domuuid", &odd.name]).trim().to_owned();
    let (real, kept) = (lab.path("/usr/bin/virsh"), lab.path("/usr/bin/virsh.real"));
    fs::rename(&real, &kept).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *dumpxml*{uuid}*) echo '<domain/>'; exit;; esac\n\
         exec /usr/bin/virsh.real \"$@\"\n"
    );
    fs::write(&real, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&real, mode).unwrap();
    let domain = Domain::plain(&lab, &export);
    for words in [
        &["libvirt", "enable", "--yes", &domain.name][..],
        &["libvirt", "status"],
    ] {
        let output = lab.ours(words);
        let told = stderr(&output);
        assert!(output.status.success(), "{told}");
        assert!(told.contains(&uuid), "{told}");
        assert!(stdout(&output).contains(&domain.name));
    }
    fs::rename(&kept, &real).unwrap();
}
