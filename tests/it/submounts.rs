//! File systems mounted inside an export: hidden, or shared, and nothing of the host besides. Each
//! start has a mount namespace of its own in the host's place, so that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use crate::common::{Export, Running, Start, assert_nothing_left, ours, shown, stderr, stdout};
use crate::twin::in_namespace;

/// An export with a tmpfs in a tmpfs, an ext4, a directory and a file from elsewhere, and under each
/// of them something that is covered.
const MOUNTS: &str = "
    mkdir mem disk bound plain; echo covered | tee mem/under disk/under bound/under >one
    mkdir ../elsewhere; echo outside >../elsewhere/file; echo outside >../one; chmod -R a+rwX ..
    mount -t tmpfs -o size=1m none mem; mkdir mem/deep mem/dir; echo in-mem >mem/file
    mount -t tmpfs none mem/deep; echo in-deep >mem/deep/file
    truncate -s 16M ../image; mkfs.ext4 -q ../image; mount -o loop ../image disk; echo in-disk >disk/file
    head -c 200000 /dev/zero >disk/large
    mount --bind ../elsewhere bound; mount --bind ../one one; chmod -R a+rwX .";

fn run(export: &Export, options: &[&str], script: &str) -> Output {
    let start = Start::new(export);
    let start = options.iter().fold(start, |start, it| start.option(*it));
    let script = format!("cd {}\n{script}", shown(export.path()));
    in_namespace(MOUNTS, &start, &script).output().unwrap()
}

#[track_caller]
fn says(export: &Export, options: &[&str], script: &str, wanted: &str) {
    let output = run(export, options, script);
    let wanted: Vec<&str> = wanted
        .lines()
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    assert_eq!(
        stdout(&output).lines().collect::<Vec<_>>(),
        wanted,
        "{}",
        stderr(&output)
    );
}

#[test]
fn followed_mounts_are_shared_each_as_its_own_file_system() {
    says(
        &Export::new(),
        &["--submounts=follow"],
        "cat mem/file mem/deep/file disk/file bound/file one
         echo new >mem/new; echo new >disk/new; echo new >bound/new; echo new >plain/new; cat */new
         # No link and no move from one to another, nor between two mounts of one file system.
         for to in disk mem/deep plain bound; do ln mem/file $to/link 2>&1 | grep -o 'Invalid.*'; done
         ln plain/new bound/link 2>&1 | grep -o 'Invalid.*'
         for to in disk/x plain/x mem/deep/x; do perl -e 'rename $ARGV[0], $ARGV[1] or print \"$!\\n\"' mem/file $to; done
         perl -e 'rename $ARGV[0], $ARGV[1] or print \"$!\\n\"' bound/file plain/x
         ln mem/file mem/dir/link && stat -c %h mem/file; mv mem/dir/link mem/moved; mv disk/new disk/moved && echo moved
         # Totals are those of the file system that is asked about.
         stat -f -c %b mem; test $(stat -f -c %b disk) != $(stat -f -c %b .) && echo differs
         # A mount point is not removed, renamed or replaced, and `..` leads back and not beside it.
         rmdir mem/deep 2>&1 | grep -o 'Device.*'; perl -e 'rename \"disk\", \"d\" or print \"$!\\n\"'
         ls disk/..; ls bound/..; ls mem/deep/../..; (cd mem/deep && cd .. && cat file)",
        "in-mem\nin-deep\nin-disk\noutside\noutside
         new\nnew\nnew\nnew
         Invalid cross-device link\nInvalid cross-device link\nInvalid cross-device link\nInvalid cross-device link
         Invalid cross-device link
         Invalid cross-device link\nInvalid cross-device link\nInvalid cross-device link
         Invalid cross-device link
         2\nmoved
         256\ndiffers
         Device or resource busy\nDevice or resource busy
         bound\ndisk\nmem\none\nplain
         bound\ndisk\nmem\none\nplain
         bound\ndisk\nmem\none\nplain
         in-mem",
    );
}

#[test]
fn inode_numbers_are_unique_over_followed_mounts_and_the_same_in_listings() {
    let export = Export::new();
    let script = "find . -mindepth 1 -printf '%i %p\\n'
                  perl -e 'for my $d (\"mem\", \"disk\", \"bound\") { opendir(D, $d); readdir(D) for 1..2; }'
                  for d in mem disk bound; do ls -iU $d | awk -v d=$d '{print $1, \"./\" d \"/\" $2}'; done";
    for cache in ["auto", "none"] {
        let options = ["--submounts=follow", &format!("--cache={cache}")];
        let export = if cache == "auto" {
            &export
        } else {
            &Export::new()
        };
        let output = run(export, &options, script);
        let text = stdout(&output);
        let pairs: BTreeSet<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let numbers: BTreeSet<&str> = pairs.iter().map(|(number, _)| *number).collect();
        let paths: BTreeSet<&str> = pairs.iter().map(|(_, path)| *path).collect();
        // 5 of the root, 3 in mem, 1 in deep, lost+found and two in disk, 1 in bound.
        assert_eq!(paths.len(), 13, "{text}{}", stderr(&output));
        assert_eq!(numbers.len(), 13, "one number for each: {text}");
    }
}

#[test]
fn directory_bound_to_another_place_of_the_export_is_another_one_there() {
    let export = Export::new();
    let setup = "mkdir -p real/dir again loop; echo one >real/dir/file; chmod -R a+rwX .
                 mount --bind real again; mount --bind . loop";
    let script = format!(
        "cd {}; cat again/dir/file real/dir/file loop/real/dir/file; ls loop/loop
         echo two >again/dir/file; sleep 1.1; cat real/dir/file
         find . -name file | sort; mv real/dir real/moved; ls again; (cd loop/real/moved; ls; ls ../../..)",
        shown(export.path())
    );
    let start = Start::new(&export).option("--submounts=follow");
    let output = in_namespace(setup, &start, &script).output().unwrap();
    let wanted = "one\none\none\ntwo\n./again/dir/file\n./loop/real/dir/file\n./real/dir/file\n\
                  moved\nfile\nagain\nloop\nreal";
    assert_eq!(stdout(&output), wanted, "{}", stderr(&output));
}

#[test]
fn hidden_mounts_are_not_there_nor_what_they_cover() {
    says(
        &Export::new(),
        &["--submounts=hide"],
        "ls -A; ls -A; stat mem 2>&1 | grep -o 'No such.*'; cat mem/under disk/under bound/under one 2>/dev/null
         test -e mem/file || echo none; mkdir mem 2>&1 | grep -o 'File exists'
         (echo >one) 2>&1 | grep -o 'Permission denied'; perl -MFcntl -e 'sysopen(F, \"one\", O_CREAT|O_EXCL|O_WRONLY) or print \"$!\\n\"'
         ln plain/f disk 2>/dev/null; touch plain/f; ln plain/f disk 2>&1 | grep -o 'File exists'
         perl -e 'rename \"plain/f\", \"one\" or print \"$!\\n\"'
         rmdir mem 2>&1 | grep -o 'No such.*'; rm one 2>&1 | grep -o 'No such.*'; ls -A
         cd plain; ls -A ..",
        "plain\nplain\nNo such file or directory
         none\nFile exists
         Permission denied
         File exists
         File exists
         Device or resource busy
         No such file or directory\nNo such file or directory\nplain
         plain",
    );
}

/// Runs until the script has said `ready`.
fn running(export: &Export, start: &Start) -> Running {
    let script = format!("cd {}; echo ready; exec sleep 1000", shown(export.path()));
    let mut running = Running::spawn(
        in_namespace(MOUNTS, start, &script),
        start.name().to_owned(),
    );
    running.ready();
    running
}

/// The wall that tells of the mediator's mounts, and the mediator's number.
fn root_wall(view: &str) -> (bool, String, i64) {
    let output = ours(["status", view, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mediator = &status["processes"]["mediator"];
    let walls = mediator["walls"].as_array().unwrap();
    let wall = walls
        .iter()
        .find(|wall| wall["wall"] == "root directory is the export")
        .unwrap_or_else(|| panic!("{status:#}"));
    let found = wall["found"].as_str().unwrap().to_owned();
    let pid = mediator["pid"].as_i64();
    let pid = pid.unwrap_or_else(|| panic!("{mediator:#}"));
    (wall["stands"].as_bool().unwrap(), found, pid)
}

#[test]
fn mediator_has_the_followed_mounts_alone_without_set_id_devices_programs_and_news() {
    for (options, points, readonly) in [
        (&["--submounts=follow"][..], 6, false),
        (&["--submounts=follow", "--readonly"], 6, true),
        (&["--submounts=hide"], 5, false),
    ] {
        let export = Export::new();
        let start = Start::new(&export);
        let start = options.iter().fold(start, |start, it| start.option(*it));
        let mut running = running(&export, &start);
        crate::common::await_that(crate::common::LIMIT, "the view is on record", || {
            ours(["status", start.name()]).status.success()
        });
        let (stands, found, pid) = root_wall(start.name());
        assert!(stands, "{found}");
        assert!(
            found.starts_with(&format!("{points} mounts: /, ")),
            "{found}"
        );
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), points);
        for line in mounts.lines() {
            let options = line.split(' ').nth(5).unwrap();
            for wanted in ["nosuid", "nodev", "noexec"] {
                assert!(options.contains(wanted), "{line}");
            }
            assert!(
                !line.contains("shared:") && !line.contains("master:"),
                "{line}"
            );
            let cover = options.contains("ro,") && !readonly;
            assert_eq!(options.starts_with("ro"), readonly || cover, "{line}");
        }
        if !found.contains("/mem/deep") {
            // What a broken-into mediator finds there.
            let root = format!("/proc/{pid}/root");
            for place in ["mem", "disk", "bound"] {
                let listed = fs::read_dir(format!("{root}/{place}")).unwrap().count();
                assert_eq!(listed, 0, "{place}");
            }
            assert_eq!(fs::read(format!("{root}/one")).unwrap(), b"");
        }
        // Something more comes to lie under the export, where the launcher is: it is in no copy.
        let late = shown(&export.path().join("plain"));
        let launcher = running.launcher.pid.to_string();
        let script = format!("mount -t tmpfs none {late} && echo >{late}/late");
        let done = Command::new("nsenter")
            .args(["-t", &launcher, "-m", "sh", "-c", &script])
            .status();
        assert!(done.unwrap().success());
        let seen = ours(["enter", start.name(), "--", "ls", &late]);
        assert_eq!(stdout(&seen), "", "{}", stderr(&seen));
        assert!(seen.status.success());
        assert_eq!(
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap(),
            mounts
        );
        running.signal(nix::sys::signal::Signal::SIGTERM);
        running.end();
        assert_nothing_left(start.name());
    }
}

#[test]
fn readonly_holds_on_followed_mounts() {
    says(
        &Export::new(),
        &["--submounts=follow", "--readonly"],
        "for at in . mem mem/deep disk bound; do touch $at/new 2>&1 | grep -o 'Read-only.*'; done; cat mem/file",
        "Read-only file system\nRead-only file system\nRead-only file system\nRead-only file system
         Read-only file system\nin-mem",
    );
}

#[test]
fn rule_knows_what_lies_on_another_mount() {
    let export = Export::new();
    let file = export.beside("policy.toml");
    let policy = "default = \"allow\"\nsubmounts = \"follow\"\n[[rule]]\nname = \"there\"\n\
                  do = [\"write\", \"make\"]\nwhen = { submount = true }\naction = \"deny\"\n\
                  [[rule]]\nname = \"here\"\ndo = \"mode\"\nwhen = { submount = false }\n\
                  action = \"deny\"\n";
    fs::write(&file, policy).unwrap();
    says(
        &export,
        &[&format!("--policy={}", shown(&file))],
        "for at in mem mem/deep disk bound plain; do
           touch $at/new 2>/dev/null && echo made in $at; echo x 2>/dev/null >>$at/file && echo wrote in $at
           chmod 700 $at && echo changed $at
         done 2>/dev/null",
        "changed mem\nchanged mem/deep\nchanged disk\nchanged bound\nmade in plain\nwrote in plain",
    );
    for (request, submount, allowed) in [
        ("write /mem/file", true, false),
        ("write /plain/file", false, true),
        ("chmod /mem 0700", true, true),
        ("chmod /plain 0700", false, false),
    ] {
        let mut words = vec!["policy".to_owned(), "explain".into(), shown(&file)];
        words.extend(request.split(' ').map(str::to_owned));
        words.extend(submount.then(|| "--submount".to_owned()));
        words.push("--json".into());
        let output = ours(&words);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["answer"]["allowed"], allowed, "{request}: {told:#}");
    }
}

#[test]
fn data_of_followed_mounts_goes_through_the_mediator_and_is_the_same() {
    for data in ["auto", "passthrough"] {
        says(
            &Export::new(),
            &["--submounts=follow", &format!("--data={data}")],
            "cmp -n 200000 disk/large /dev/zero && echo same
             head -c 100000 /dev/urandom >plain/large; cp plain/large disk/copy; cp disk/copy mem/copy
             cmp plain/large disk/copy && cmp plain/large mem/copy && echo same
             cp -r disk/copy bound/; cmp plain/large bound/copy && echo same",
            "same\nsame\nsame",
        );
    }
}

#[test]
fn kernel_file_systems_inside_are_refused_whatever_is_chosen() {
    for choice in ["refuse", "hide", "follow"] {
        let export = Export::new();
        let start = Start::new(&export).option(format!("--submounts={choice}"));
        let setup = "mkdir -p a/proc; mount -t proc none a/proc";
        let output = in_namespace(setup, &start, "true").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let told = stderr(&output);
        assert!(told.contains("a/proc, a proc mount"), "{told}");
    }
}

#[test]
fn bound_source_of_a_followed_mount_is_not_shown_beside_the_view() {
    let export = Export::new();
    let elsewhere = shown(&export.beside("elsewhere"));
    let options = [
        "--submounts=follow",
        "--isolate",
        &format!("--bind={elsewhere}"),
    ];
    let output = run(&export, &options, "true");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("would show export"), "{output:?}");
}
