//! What `libvirt enable` refuses, or takes back: no part of it is left.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::domain::{Domain, path};
use super::enable::host;
use super::lab::{LINK, Lab, QEMU};
use crate::common::{Export, shown, stderr};

#[test]
fn what_a_start_would_refuse_is_refused_now() {
    let (lab, export) = (Lab::new(), Export::new());
    let good = path(&export);
    let policy = export.beside("policy.toml");
    fs::write(&policy, "default = \"allow\"\nreadonyl = true\n").unwrap();
    let link = export.beside("link");
    symlink(export.path(), &link).unwrap();
    let inner = export.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let share = |place: &str| vec!["--share".to_owned(), format!("{place}:tag")];
    let domain = Domain::of(&lab, "", "");
    let (before, host_before) = (domain.definition(), host(&lab));
    for (words, status, told) in [
        (share("/"), 78, "root directory"),
        (share("/no/such"), 78, "exists"),
        (share("/proc/sys"), 78, "kernel file systems"),
        (share(&shown(&link)), 78, "symbolic link"),
        (share(""), 64, "--share"),
        (vec!["--share".into(), good.clone()], 64, "no TAG"),
        (
            [share(&good), vec!["--policy".into(), shown(&policy)]].concat(),
            78,
            "policy.toml:2:",
        ),
        (
            [
                share(&good),
                vec!["--share".into(), format!("{}:two", shown(&inner))],
            ]
            .concat(),
            78,
            "cover each other",
        ),
        ([share(&good), share(&good)].concat(), 78, "two shares"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (got, said) = domain.enable_fails(&words);
        assert!(said.contains(told), "{words:?}: {said}");
        assert_eq!(got, status, "{words:?}: {said}");
    }
    let (status, told) = lab.ours_fails(&["libvirt", "enable", "--yes", "no-such-domain"]);
    assert!(status == 78 && told.contains("virsh list --all"), "{told}");
    assert_eq!((domain.definition(), host(&lab)), (before, host_before));
}

/// What an earlier domain of a name left is not taken for the new one's, nor a file for a name that
/// the domain has no more.
#[test]
fn domain_that_was_made_again_or_renamed_is_told() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    let (plain, host_before) = (domain.definition(), host(&lab));
    domain.enable(&[]);
    let enabled = domain.definition();
    let renamed = lab.domain_name();
    lab.virsh(&["domrename", &domain.name, &renamed]);
    let (_, told) = lab.ours_fails(&["libvirt", "enable", "--yes", &renamed]);
    assert!(
        told.contains(&format!("was called '{}'", domain.name)),
        "{told}"
    );
    let told = lab.virsh_fails(&["start", &renamed]);
    assert!(told.contains("there is no"), "{told}");
    lab.virsh(&["domrename", &renamed, &domain.name]);
    assert_eq!(domain.definition(), enabled);

    lab.virsh(&["undefine", &domain.name]);
    let uuid = |xml: &str| {
        let rest = xml.split("<uuid>").nth(1).unwrap().to_owned();
        rest.split("</uuid>").next().unwrap().to_owned()
    };
    let other = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
    lab.define(&plain.replace(&uuid(&plain), other));
    let again = domain.definition();
    let (_, told) = domain.enable_fails(&[]);
    assert!(told.contains("earlier domain"), "{told}");
    let told = domain.start_fails();
    assert!(told.contains("is about"), "{told}");
    domain.disable();
    assert_eq!(host(&lab), host_before);
    assert_eq!(domain.definition(), again);
    domain.enable(&[]);
    domain.start();
}

/// What libvirt refuses to define, and what fails before: all is as it was.
#[test]
fn failed_step_undoes_those_before() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export);
    let (before, host_before) = (domain.definition(), host(&lab));
    let unchanged = |word: &str| {
        let (status, told) = domain.enable_fails(&[]);
        assert!(status != 0 && told.contains(word), "{word}: {told}");
        assert_eq!(domain.definition(), before);
        assert_eq!(host(&lab), host_before);
    };
    // virsh with a `define` that fails, in the place of the real one.
    let real = lab.path("/usr/bin/virsh");
    let kept = lab.path("/usr/bin/virsh.real");
    fs::rename(&real, &kept).unwrap();
    let script = "#!/bin/sh\nfor word; do [ $word != define ] || \
                  { echo 'error: no room for domains' >&2; exit 1; }; done\n\
                  exec /usr/bin/virsh.real \"$@\"\n";
    fs::write(&real, script).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
    unchanged("no room for domains");
    fs::rename(&kept, &real).unwrap();
    // No useradd.
    let (real, kept) = (
        lab.path("/usr/sbin/useradd"),
        lab.path("/usr/sbin/useradd.real"),
    );
    fs::rename(&real, &kept).unwrap();
    unchanged("useradd");
    fs::rename(&kept, &real).unwrap();
    domain.enable(&[]);
}

#[test]
fn host_that_cannot_have_views_is_told_so() {
    let export = Export::new();
    let lab = Lab::with("namespaces = [ ]\n");
    let domain = Domain::plain(&lab, &export);
    let (status, told) = domain.enable_fails(&[]);
    assert!(
        status == 78 && told.contains("namespaces = [ \"mount\" ]"),
        "{told}"
    );
    // Without the link, and with another emulator than libvirt would ask.
    lab.write("/etc/libvirt/qemu.conf", "");
    let link = lab.path(LINK);
    fs::remove_file(&link).unwrap();
    let (_, told) = domain.enable_fails(&[]);
    assert!(
        told.contains("does not lead to") && told.contains("ln -sf"),
        "{told}"
    );
    symlink("/usr/bin/virtfs-mediator-qemu", &link).unwrap();
    let other = lab.path("/opt/qemu-system-x86_64");
    fs::copy(QEMU, &other).unwrap();
    domain.redefine(|xml| xml.replace(QEMU, "/opt/qemu-system-x86_64"));
    let (_, told) = domain.enable_fails(&[]);
    assert!(told.contains("libvirt would be told about"), "{told}");
}

#[test]
fn managed_save_that_holds_the_old_definition_is_told() {
    let (lab, export) = (Lab::new(), Export::new());
    // A 9p device has no memory to be saved: this one has none yet.
    let domain = Domain::of(&lab, "", "");
    domain.start();
    lab.virsh(&["managedsave", &domain.name]);
    let (status, told) = domain.enable_fails(&["--share", &format!("{}:t", path(&export))]);
    assert!(
        status == 78 && told.contains("managedsave-remove"),
        "{told}"
    );
}

#[test]
fn not_root_is_told() {
    let lab = Lab::unstarted("");
    for words in [&["enable", "x"][..], &["disable", "x"], &["status"]] {
        let mut all = vec![
            "setpriv",
            "--reuid=61234",
            "--clear-groups",
            "--",
            "virtfs-mediator",
            "libvirt",
        ];
        all.extend(words);
        let output = lab.run(all);
        assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
    }
}
