//! What the host changes beside a view, and when the client sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, Start, await_that, shown, stderr, stdout, within_as,
};
use crate::doctor::elsewhere;

/// What a client finds out about everything, in words.
fn seen(view: &str, at: &str) -> String {
    let script = format!(
        "cd {at} && stat -c '%n %a %s' file moved removed 2>&1; cat file; ls directory; readlink link"
    );
    stdout(&within_as(
        view,
        CLIENT_UID,
        CLIENT_GID,
        &["sh", "-c", &script],
    ))
}

/// Changes everything that [`seen`] tells.
fn change(export: &Export) {
    let at = |name: &str| export.path().join(name);
    fs::write(at("file"), "changed").unwrap();
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(at("old"), at("moved")).unwrap();
    fs::remove_file(at("removed")).unwrap();
    fs::write(at("directory/two"), "").unwrap();
    fs::remove_file(at("directory/one")).unwrap();
    fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", at("link")).unwrap();
}

fn prepared() -> Export {
    let export = Export::new();
    let at = |name: &str| export.path().join(name);
    // As long as what it becomes: nothing but its times tells that it changed.
    fs::write(at("file"), "initial").unwrap();
    for name in ["old", "removed"] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("directory/one"), "").unwrap();
    std::os::unix::fs::symlink("here", at("link")).unwrap();
    export
}

fn check(cache: &str, limit: Duration) {
    let export = prepared();
    let view = Start::new(&export)
        .option(format!("--cache={cache}"))
        .mount();
    let at = shown(export.path());
    let before = seen(&view.name, &at);
    assert!(
        before.contains("initial") && before.contains("removed 6"),
        "{before}"
    );
    // Remembered, as far as it is.
    assert_eq!(seen(&view.name, &at), before);
    change(&export);
    let wanted = |now: &str| {
        now.contains("file 640 7")
            && now.contains("changed")
            && now.contains("moved 644 0")
            && now.contains("cannot statx 'removed'")
            && now.contains("two")
            && !now.contains("one")
            && now.contains("elsewhere")
    };
    if limit.is_zero() {
        let now = seen(&view.name, &at);
        assert!(wanted(&now), "{now}");
    } else {
        let mut now = String::new();
        await_that(limit, "the client sees what the host changed", || {
            now = seen(&view.name, &at);
            wanted(&now)
        });
    }
}

#[test]
fn change_by_the_host_is_seen_at_once_where_nothing_is_remembered() {
    check("none", Duration::ZERO);
}

/// A second is promised; the rest is for a loaded machine.
#[test]
fn change_by_the_host_is_seen_within_a_second_where_the_kernel_remembers() {
    check("auto", Duration::from_secs(3));
}

/// Also where mounts spread from the export's, as they do on hosts.
#[test]
fn mount_that_the_host_makes_later_is_not_shown() {
    elsewhere(|| {
        let export = Export::new();
        let later = export.path().join("later");
        fs::create_dir(&later).unwrap();
        fs::write(later.join("below"), "").unwrap();
        let mount = |words: &[&str]| {
            let output = std::process::Command::new("mount")
                .args(words)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
        };
        let at = shown(export.path());
        mount(&["--bind", &at, &at]);
        mount(&["--make-shared", &at]);
        let view = Start::new(&export).option("--cache=none").mount();
        mount(&["-t", "tmpfs", "it", &shown(&later)]);
        fs::write(later.join("above"), "").unwrap();
        let listed = within_as(&view.name, CLIENT_UID, CLIENT_GID, &["ls", &shown(&later)]);
        assert_eq!(stdout(&listed), "below", "{}", stderr(&listed));
    });
}

/// Nothing tells the client's kernel of it.
#[test]
fn change_in_place_that_keeps_the_times_is_not_seen_by_who_has_read_it() {
    let export = prepared();
    let file = export.path().join("file");
    let at = shown(export.path());
    let script = format!(
        "cd {at}; exec 3<file; read_it() {{ perl -e 'sysseek(STDIN, 0, 0); sysread(STDIN, $b, 7); print \"$b\\n\"' <&3; }}
         read_it; echo ready; until [ -e go ]; do sleep 0.02; done; read_it; exec 3<file; read_it"
    );
    let start = Start::new(&export).option("--cache=none");
    let mut running = start.shell(&script);
    let before = running.stdout.until("ready");
    assert_eq!(before, ["initial"]);
    running.look();
    let meta = fs::metadata(&file).unwrap();
    let mut times = fs::FileTimes::new();
    times = times.set_modified(meta.modified().unwrap());
    let open = fs::File::options().write(true).open(&file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&open, b"changed", 0).unwrap();
    open.set_times(times).unwrap();
    fs::write(export.path().join("go"), "").unwrap();
    let ended = running.end();
    assert_eq!(ended.stdout, ["initial", "changed"], "{:?}", ended.stderr);
}
