//! What the hook refuses, and that virsh shows why: a domain of ours starts with its views, or not.

use super::domain::Domain;
use super::lab::Lab;
use crate::common::{Export, shown};

/// Each start fails, with `word` in virsh's error, and works once it is undone.
#[track_caller]
fn refused(domain: &Domain<'_>, words: &[&str]) {
    let told = domain.start_fails();
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(domain.state(), "shut off");
}

#[test]
fn refusals_land_in_virshs_error() {
    let (lab, export, other) = (Lab::new(), Export::new(), Export::new());
    let domain = Domain::plain(&lab, &export).enabled();
    let good = domain.definition();
    let file = lab.read(&domain.file());
    let ids = domain.ids();

    // Another user than the file's.
    domain.redefine(|xml| xml.replace(&format!("+{}:", ids.uid), "+61234:"));
    refused(&domain, &["DAC label", "61234"]);
    lab.define(&good);
    // Another directory than the file's.
    domain.redefine(|xml| xml.replace(&shown(export.path()), &shown(other.path())));
    refused(&domain, &["no view", &shown(other.path())]);
    lab.define(&good);
    // A file that somebody else may write.
    let path = lab.path(&domain.file());
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o666);
    refused(&domain, &["others than root may write"]);
    mode(0o644);
    // A mistake in it.
    lab.write(&domain.file(), &file.replace("export", "exprot"));
    refused(&domain, &["unknown field `exprot`", "line"]);
    // None.
    std::fs::remove_file(&path).unwrap();
    refused(&domain, &["there is no", &domain.file()]);
    // Nobody to lay views.
    lab.write(&domain.file(), &file);
    lab.crash_service();
    refused(&domain, &[super::lab::SOCKET]);
    lab.start_service();
    domain.start();
    domain.destroy();
}

#[test]
fn hostile_name_of_a_domain_of_ours_is_refused() {
    let (lab, export) = (Lab::new(), Export::new());
    let domain = Domain::plain(&lab, &export).enabled();
    let enabled = domain.definition();
    domain.disable();
    lab.virsh(&["undefine", &domain.name]);
    // libvirt itself refuses a slash.
    for name in ["$(reboot)", "a b;c", "..a", "-x"] {
        let uuid = enabled.split("<uuid>").nth(1).unwrap();
        let uuid = uuid.split("</uuid>").next().unwrap();
        let named = format!("<name>{}</name>", domain.name);
        lab.define(&enabled.replace(&named, &format!("<name>{name}</name>")));
        let told = lab.virsh_fails(&["start", uuid]);
        assert!(told.contains("cannot be used"), "{name}: {told}");
        let (_, told) = lab.ours_fails(&["libvirt", "enable", "--yes", uuid]);
        assert!(told.contains("cannot be used"), "{name}: {told}");
        lab.virsh(&["undefine", uuid]);
    }
}
