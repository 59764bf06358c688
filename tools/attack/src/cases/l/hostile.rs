//! What a start is given by someone hostile: links in place of directories, search paths, names.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::{canary, refused, swappable};
use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::process::{Spawned, scratch};
use crate::driver::start::{LIMIT, Start, line_with};
use crate::driver::weaker::Server;
use crate::driver::{OrTell as _, Outcome, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

/// Row 24.
pub(super) fn before(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    let bindfs = Arrangement::Other("bindfs, as root");
    let way = "the export is a link";
    let place = swappable()?;
    let link = place.export().with_file_name("link");
    let weak = Server::bindfs(&link, &[]).map(|server| {
        weaker(
            bindfs.clone(),
            way,
            canary(&place, &server.path().join("canary")),
        )
    });
    attempts.push(or_untried(bindfs.clone(), way, weak));
    for (way, path) in [
        (way, link.clone()),
        ("the export is a link with a slash behind", link.join("")),
        ("the export is a link with a dot behind", link.join(".")),
    ] {
        attempts.push(refused(
            &Start::product(lab, path),
            way,
            &["symbolic link"],
        )?);
    }
    attempts.push(swapped(lab)?);
    attempts.extend(search_path(lab)?);
    Ok(attempts)
}

/// Starts, while the export and a link to what lies outside are swapped all the time.
fn swapped(lab: &Lab) -> Result<Attempt, String> {
    let way = "the export swapped for a link and back during starts";
    let starts = if lab.short { 15 } else { 150 };
    let place = swappable()?;
    let export = place.export();
    let link = export.with_file_name("link");
    let stop = AtomicBool::new(false);
    let (export_shown, outside_shown) = (
        export.to_string_lossy().into_owned(),
        place.outside().to_string_lossy().into_owned(),
    );
    // The view is seen at the export's path, whichever that was taken to be.
    let script = "cat \"$1/canary\" \"$2/canary\"; echo started";
    let run = || -> Result<Attempt, String> {
        let (mut refusals, mut started, mut told) = (0, 0, None);
        for _ in 0..starts {
            let start = Start::product(lab, &export);
            let ended = start.run(
                &["sh", "-c", script, "sh", &export_shown, &outside_shown],
                LIMIT,
            )?;
            if place.betrays(ended.out.as_bytes()) {
                let what = format!(
                    "a view of what lies outside, after {started} starts and {refusals} refusals"
                );
                return Ok(product(way, Verdict::Succeeded(what), None));
            }
            if ended.out.contains("started") {
                started += 1;
            } else {
                refusals += 1;
                told = told.or(line_with(&ended.err, &["virtfs-mediator: "]));
            }
        }
        let what = format!("{started} starts with the export itself, {refusals} refused");
        Ok(product(way, verdict(!place.is_untouched(), what), told))
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _both_exist =
                    rustix::fs::renameat_with(CWD, &export, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        let done = run();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

/// Programs of these names, in a directory that the caller's PATH names first.
const PROGRAMS: [&str; 8] = [
    "bindfs",
    "fusermount3",
    "fusermount",
    "mount",
    "umount",
    "sh",
    "nsenter",
    "virtfs-mediator",
];

/// A directory of programs that leave a mark.
fn evil(dir: &Path) -> Result<(), String> {
    for name in PROGRAMS {
        let script = format!("#!/bin/sh\nid -u > {}/mark-$$\nexit 1\n", dir.display());
        let path = dir.join(name);
        fs::write(&path, script).or_tell("write")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).or_tell("chmod")?;
    }
    Ok(())
}

/// What was left: the marks' names, and as whom a program was run that left one.
fn marks(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let content = fs::read_to_string(entry.path()).unwrap_or_default();
            let shown = match content.trim() {
                "" => name.clone(),
                uid => format!("run as uid {uid}"),
            };
            name.starts_with("mark-").then_some(shown)
        })
        .collect()
}

fn search_path(lab: &Lab) -> Outcome {
    let way = "programs in the caller's PATH, and FUSERMOUNT_PATH";
    let path = |dir: &Path| format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display());
    let dir = scratch()?;
    evil(dir.path())?;
    let place = Place::new().or_tell("a place")?;
    let target = dir.path().join("target");
    fs::create_dir(&target).or_tell("mkdir")?;
    let mut command = Command::new("/sbin/mount.fuse3");
    command
        .arg(format!("bindfs#{}", place.export().display()))
        .arg(&target)
        .env("PATH", path(dir.path()));
    let helper = Arrangement::Other("mount.fuse3, as root");
    let weak = Spawned::ended(command, LIMIT).map(|ended| {
        let marks = marks(dir.path());
        let what = format!("{marks:?} {}", ended.err.trim());
        weaker(helper.clone(), way, verdict(!marks.is_empty(), what))
    });
    let dir = scratch()?;
    evil(dir.path())?;
    let start = Start::product(lab, place.export()).under(&[
        "/usr/bin/env",
        &format!("PATH={}", path(dir.path())),
        &format!("FUSERMOUNT_PATH={}/fusermount3", dir.path().display()),
    ]);
    let ended = start.run(&["/bin/true"], LIMIT)?;
    let marks = marks(dir.path());
    let what = format!(
        "started and ended with status {:?}, {marks:?}",
        ended.status.code()
    );
    let ran = ended.status.success();
    let told = (ran && marks.is_empty()).then(|| format!("nothing to refuse: {what}"));
    let outcome = if ran {
        verdict(!marks.is_empty(), what)
    } else {
        Verdict::Untried(format!("{what}: {}", ended.err))
    };
    Ok(vec![
        or_untried(helper.clone(), way, weak),
        product(way, outcome, told),
    ])
}

/// Names that a VM's owner might choose.
fn hostile_names(dir: &Path) -> Vec<String> {
    let dir = dir.display();
    vec![
        format!("../../..{dir}/mark-up"),
        format!("$(touch {dir}/mark-command)"),
        format!("`touch {dir}/mark-tick`"),
        format!("x; touch {dir}/mark-semicolon"),
        format!("{dir}/mark-absolute"),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
        "a b".to_owned(),
        "a\nb".to_owned(),
        "a\u{1b}[2J".to_owned(),
        "x".repeat(65),
    ]
}

/// Row 25.
pub(super) fn arguments(lab: &Lab) -> Outcome {
    let dir = scratch()?;
    let hook = Arrangement::Other("a hook in shell that puts the name into a command");
    let mut command = Command::new("sh");
    let names = hostile_names(dir.path());
    let script = "for name in \"$@\"; do eval \"mkdir -p /run/virtfs-attack/$name\"; done; rm -rf /run/virtfs-attack";
    command.args(["-c", script, "sh"]).args(&names);
    // A name with a blank makes two directories, one of them here.
    command.current_dir(dir.path());
    let weak = Spawned::ended(command, LIMIT).map(|_ended| {
        let made = marks(dir.path());
        weaker(
            hook.clone(),
            "view names",
            verdict(!made.is_empty(), format!("{made:?}")),
        )
    });
    let mut attempts = vec![or_untried(hook.clone(), "view names", weak)];

    let place = Place::new().or_tell("a place")?;
    let dir = scratch()?;
    for name in hostile_names(dir.path()) {
        let way = format!("--name {}", name.escape_debug());
        let start = Start::product(lab, place.export()).name(&name);
        let mut attempt = refused(&start, &way, &["virtfs-mediator: ", "name"])?;
        if !marks(dir.path()).is_empty() {
            attempt.verdict = Verdict::Succeeded(format!("{:?}", marks(dir.path())));
        }
        attempts.push(attempt);
    }
    for verb in ["status", "unmount", "enter"] {
        let name = format!("../../..{}", dir.path().display());
        let mut command = Command::new(&lab.mediator);
        command.args([verb, &name]);
        if verb == "enter" {
            command.args(["--", "true"]);
        }
        let ended = Spawned::ended(command, LIMIT)?;
        let told = line_with(&ended.err, &["virtfs-mediator: "]);
        let what = format!("status {:?}", ended.status.code());
        let way = format!("{verb} of a name that leads elsewhere");
        attempts.push(product(way, verdict(ended.status.success(), what), told));
    }
    Ok(attempts)
}
