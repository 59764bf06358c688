//! Who may use a view: the kernel lets in the client's user and group, and nobody else.

use std::process::Output;

use crate::common::{CLIENT_GID, CLIENT_UID, Export, Start, shown, stderr, within, within_as};

#[track_caller]
fn kept_out(output: &Output) {
    assert!(!output.status.success(), "{output:?}");
    let told = stderr(output);
    assert!(told.contains("Permission denied"), "{told}");
}

#[test]
fn view_lets_in_nobody_but_the_client() {
    let export = Export::new();
    std::fs::write(export.path().join("file"), "inside").unwrap();
    let view = Start::new(&export).mount();
    let path = shown(export.path());
    let file = format!("{path}/file");
    // The kernel refuses, so that host root cannot be led astray by what a guest put there.
    kept_out(&within(&view.name, ["ls", &path]));
    kept_out(&within(&view.name, ["cat", &file]));
    kept_out(&within_as(
        &view.name,
        CLIENT_UID + 7,
        CLIENT_GID,
        &["ls", &path],
    ));
    kept_out(&within_as(
        &view.name,
        CLIENT_UID,
        CLIENT_GID + 7,
        &["ls", &path],
    ));
    // The mediator's own user neither.
    let mediator: u32 = view
        .family
        .mediator()
        .field("Uid")
        .and_then(|ids| ids.split(' ').next()?.parse().ok())
        .unwrap();
    kept_out(&within_as(&view.name, mediator, mediator, &["ls", &path]));
    let output = within_as(&view.name, CLIENT_UID, CLIENT_GID, &["cat", &file]);
    assert_eq!(crate::common::stdout(&output), "inside", "{output:?}");
}

#[test]
fn shared_view_lets_others_in_by_the_modes_of_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let export = Export::new();
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        let path = export.path().join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let view = Start::new(&export).option("--shared").mount();
    let [open, closed] = ["open", "closed"].map(|name| shown(&export.path().join(name)));
    for (uid, gid) in [
        (0, 0),
        (CLIENT_UID, CLIENT_GID),
        (CLIENT_UID + 7, CLIENT_GID + 7),
    ] {
        let output = within_as(&view.name, uid, gid, &["cat", &open]);
        assert_eq!(crate::common::stdout(&output), "open", "{uid}: {output:?}");
    }
    kept_out(&within_as(
        &view.name,
        CLIENT_UID,
        CLIENT_GID,
        &["cat", &closed],
    ));
    let output = within(&view.name, ["cat", &closed]);
    assert_eq!(crate::common::stdout(&output), "closed", "{output:?}");
}

#[test]
fn host_sees_the_export_itself_not_the_view() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    std::fs::write(export.path().join("made-on-the-host"), "").unwrap();
    let path = shown(export.path());
    let output = within_as(&view.name, CLIENT_UID, CLIENT_GID, &["ls", &path]);
    assert_eq!(
        crate::common::stdout(&output),
        "made-on-the-host",
        "{output:?}"
    );
}
