//! POSIX ACLs: honoured, inherited and changed in a `--shared` view as on the export's own file
//! system; their ids mapped; and what a policy says of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, Start, shown, stderr, stdout, within, within_as,
};
use crate::twin::Twin;

const OWNER: u32 = 4001;
const NAMED: u32 = 4002;
const MEMBER: u32 = 4003;
const STRANGER: u32 = 4004;
const GROUP: u32 = 4100;
const OTHER_GROUP: u32 = 4200;

/// Mode, owner and ACL of everything, as the host has them.
const TELL: &str = "find . -mindepth 1 | sort | xargs stat -c '%n %a %u %g %h %s' -- \
                    && getfacl -Rnp . 2>&1";

/// `setfacl` on the host.
#[track_caller]
fn setfacl(arguments: &[&str], path: &Path) {
    let status = Command::new("setfacl").args(arguments).arg(path).status();
    assert!(status.unwrap().success(), "setfacl, of the package acl");
}

/// The ACL as numbers, one entry a line, without comments.
fn getfacl(path: &Path) -> String {
    let output = Command::new("getfacl").args(["-ncp"]).arg(path).output();
    stdout(&output.unwrap())
}

#[test]
fn acl_decides_for_each_user_as_on_the_export() {
    let setup = format!(
        "echo secret > f; chown {OWNER}:{GROUP} f; chmod 600 f
         setfacl -m u:{NAMED}:rw,g:{OTHER_GROUP}:r,m::rw f
         echo masked > m; chown {OWNER}:{GROUP} m; chmod 640 m
         setfacl -m u:{NAMED}:rwx,m::--- m
         echo shut > none; chown {OWNER}:{GROUP} none; chmod 664 none
         setfacl -m u:{NAMED}:---,g::--- none
         mkdir d; chown {OWNER}:{GROUP} d; chmod 700 d; setfacl -m u:{NAMED}:rwx d; echo in > d/in
         printf '#!/bin/sh\\necho ran\\n' > x; chmod 700 x; setfacl -m g:{OTHER_GROUP}:rx x"
    );
    let twin = Twin::new(&[], &setup);
    let users: [(u32, &[u32]); 6] = [
        (OWNER, &[GROUP]),
        (NAMED, &[NAMED]),
        (MEMBER, &[GROUP]),
        (MEMBER, &[MEMBER, OTHER_GROUP]),
        (STRANGER, &[STRANGER]),
        (0, &[0]),
    ];
    let mut outcomes = std::collections::BTreeSet::new();
    for (uid, groups) in users {
        for step in [
            "cat f",
            "echo more >> f",
            "cat m",
            "echo more >> m",
            "cat none",
            "echo >> none",
            "ls d",
            "cat d/in",
            "echo new > d/by-$(id -u)",
            "rm -f d/by-$(id -u)",
            "./x",
            "test -r f; echo $?; test -w f; echo $?; test -x d; echo $?",
        ] {
            let (code, ..) = twin.same(uid, groups, step);
            outcomes.insert((step, code));
        }
    }
    // Neither all open nor all shut: the same step went both ways, by who took it.
    for step in ["cat f", "cat none", "ls d", "./x"] {
        let ends = outcomes.iter().filter(|(its, _)| *its == step).count();
        assert!(ends > 1, "{step}");
    }
    twin.left_the_same(TELL);
}

#[test]
fn acl_is_set_inherited_masked_and_copied_as_on_the_export() {
    let setup = format!(
        "chown {OWNER}:{GROUP} .; setfacl -d -m u:{NAMED}:rwx,g::r-x,o::--- .; mkdir plain; setfacl -b plain; setfacl -k plain; chown {OWNER} plain"
    );
    let twin = Twin::new(&[], &setup);
    let own = |script: &str| twin.same(OWNER, &[GROUP], script);
    for step in [
        // Inherited: the umask plays no part, and no chmod comes after.
        "echo > file; mkdir dir; mkfifo fifo; ln -s file link; umask 077; echo > file77; mkdir dir77",
        "getfacl -np . file dir fifo file77 dir77",
        "stat -c '%n %a' . file dir fifo file77 dir77",
        // Without a default ACL it is the umask.
        "umask 027; echo > plain/f; mkdir plain/d; stat -c '%n %a' plain/f plain/d",
        "umask 0; echo > plain/f0; mkdir plain/d0; stat -c '%n %a' plain/f0 plain/d0",
        // Set, and the mode follows; chmod, and the mask follows.
        "setfacl -m u:4005:rwx,g:4006:r-x plain/f; getfacl -np plain/f; stat -c %a plain/f",
        "chmod 640 plain/f; getfacl -np plain/f",
        "chmod g-r plain/f; getfacl -np plain/f",
        "setfacl -m m::r plain/f; stat -c %a plain/f",
        "setfacl -x u:4005 plain/f; getfacl -np plain/f",
        "setfacl -b plain/f; getfacl -np plain/f; stat -c %a plain/f",
        "setfacl -d -m g:4006:rwx plain/d; echo > plain/d/in; mkdir plain/d/sub; getfacl -Rnp plain/d",
        "setfacl -k plain/d; echo > plain/d/later; getfacl -Rnp plain/d",
        "setfacl -m u::rwx,u:4007:rwx,g::r,m::rwx,o::x file; cp -a file copied; getfacl -np copied; stat -c %a copied",
        "cp -a dir dircopied; getfacl -np dircopied",
        "mv copied plain/moved; getfacl -np plain/moved",
        // What is no ACL, and no directory's.
        "setfacl -d -m u:1:r file",
        "getfattr -n system.posix_acl_access plain/f0",
        "setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff plain/f0",
        "setfattr -n system.posix_acl_access -v 0x03 plain/f0",
        "setfacl -R -m u:4008:rX plain; getfacl -Rnp plain",
        "getfattr -d -m - -h -e hex file dir link 2>&1 | sort",
    ] {
        own(step);
    }
    // Who neither owns it nor is root sets none.
    twin.same(NAMED, &[NAMED], "setfacl -m o::rwx file; getfacl -np file");
    twin.same(0, &[0], "setfacl -m u:7:r file; getfacl -np file");
    let told = twin.left_the_same(TELL);
    assert!(told.contains(&format!("user:{NAMED}:rwx")), "{told}");
    assert!(told.contains("default:user:"), "{told}");
}

#[test]
fn set_group_id_goes_when_an_outsider_of_the_group_sets_an_acl() {
    let setup = format!(
        "for f in a b c; do echo > $f; chown {OWNER}:{GROUP} $f; chmod 2750 $f; done; mkdir d; chown {OWNER}:{GROUP} d; chmod 2750 d"
    );
    let twin = Twin::new(&[], &setup);
    twin.same(OWNER, &[OWNER], "setfacl -m u:5:r a d; stat -c '%n %a' a d");
    twin.same(OWNER, &[GROUP], "setfacl -m u:5:r b; stat -c '%n %a' b");
    twin.same(0, &[0], "setfacl -m u:5:r c; stat -c '%n %a' c");
    let told = twin.left_the_same("stat -c '%n %a' a b c d");
    assert_eq!(told, "a 750\nb 2750\nc 2750\nd 750");
}

#[test]
fn acl_changed_on_the_host_is_honoured_within_a_second() {
    let export = Export::new();
    let file = export.path().join("f");
    fs::write(&file, "x").unwrap();
    setfacl(&["-m", "o::---"], &file);
    let view = Start::new(&export).option("--shared").mount();
    let path = shown(&file);
    let reads = || {
        within_as(&view.name, NAMED, NAMED, &["cat", &path])
            .status
            .success()
    };
    assert!(!reads());
    setfacl(&["-m", &format!("u:{NAMED}:r")], &file);
    crate::common::await_that(std::time::Duration::from_secs(3), "let in", reads);
    setfacl(&["-b"], &file);
    crate::common::await_that(std::time::Duration::from_secs(3), "kept out", || !reads());
}

#[test]
fn acl_that_may_not_be_read_any_more_lets_nobody_in_once_the_policy_is_reloaded() {
    let export = Export::new();
    let file = export.path().join("f");
    fs::write(&file, "x").unwrap();
    setfacl(&["-m", &format!("u:{NAMED}:r,g::---,o::---")], &file);
    let how = policy(&export, "");
    let view = Start::new(&export)
        .option("--shared")
        .option("--cache=exclusive")
        .option(how)
        .mount();
    let path = shown(&file);
    let reads = |uid| {
        let output = within_as(&view.name, uid, uid, &["cat", &path]);
        output.status.success()
    };
    assert!(reads(NAMED) && !reads(MEMBER) && reads(0));
    policy(&export, "[[rule]]\ndo = \"xattr\"\naction = \"deny\"\n");
    let reloaded = crate::common::ours(["reload", &view.name]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert!(!reads(NAMED) && !reads(MEMBER) && reads(0));
    policy(&export, "");
    assert!(crate::common::ours(["reload", &view.name]).status.success());
    assert!(reads(NAMED) && !reads(MEMBER) && reads(0));
}

/// A policy file beside an export.
fn policy(export: &Export, text: &str) -> String {
    let file = export.beside("policy.toml");
    fs::write(&file, format!("default = \"allow\"\n{text}")).unwrap();
    format!("--policy={}", shown(&file))
}

#[test]
fn ids_of_an_acl_are_mapped_both_ways_and_none_is_lost() {
    for shared in [true, false] {
        let export = Export::new();
        std::os::unix::fs::chown(export.path(), Some(100_000), Some(100_000)).unwrap();
        let make = |name: &str| {
            let file = export.path().join(name);
            fs::write(&file, "x").unwrap();
            // In client mode the kernel lets only the owner set an ACL.
            let owner = 100_000 + CLIENT_UID;
            std::os::unix::fs::chown(&file, Some(owner), Some(100_000)).unwrap();
            file
        };
        let (own, foreign) = (make("own"), make("foreign"));
        setfacl(&["-m", "u:100005:rw,g:100006:r,o::---"], &own);
        setfacl(&["-m", "u:100005:rw,u:77:rw,o::---"], &foreign);
        let map = policy(
            &export,
            "map = [{ guest = 0, host = 100000, count = 65536 }]\n",
        );
        let start = Start::new(&export).option(map);
        let start = if shared {
            start.option("--shared")
        } else {
            start
        };
        let view = start.mount();
        let as_owner = |script: &str| {
            let script = format!("cd {}; {script}", shown(export.path()));
            within_as(&view.name, CLIENT_UID, CLIENT_GID, &["sh", "-c", &script])
        };
        let shown_acl = stdout(&as_owner("getfacl -ncp own"));
        assert!(
            shown_acl.contains("user:5:rw-\n") && shown_acl.contains("group:6:r--"),
            "{shown_acl}"
        );
        let set = as_owner("setfacl -m u:9:r own");
        assert!(set.status.success(), "{}", stderr(&set));
        assert!(
            getfacl(&own).contains("user:100009:r--"),
            "{}",
            getfacl(&own)
        );
        let outside = as_owner("setfacl -m u:65536:r own");
        assert!(
            stderr(&outside).contains("Operation not permitted"),
            "{outside:?}"
        );
        // Whom the view cannot name it does not show; and what it does not show stays.
        let shown_acl = stdout(&as_owner("getfacl -ncp foreign"));
        assert!(
            shown_acl.contains("user:5:rw-") && !shown_acl.contains("user:65534"),
            "{shown_acl}"
        );
        let before = getfacl(&foreign);
        for change in ["setfacl -m u:9:r foreign", "setfacl -b foreign"] {
            let refused = as_owner(change);
            assert!(
                stderr(&refused).contains("Operation not permitted"),
                "{refused:?}"
            );
        }
        assert_eq!(getfacl(&foreign), before);
        if shared {
            let five = |what: &str| {
                within_as(
                    &view.name,
                    5,
                    5,
                    &["cat", &shown(&export.path().join(what))],
                )
            };
            assert!(five("own").status.success() && five("foreign").status.success());
            let nobody = within_as(&view.name, 65534, 65534, &["cat", &shown(&foreign)]);
            assert!(!nobody.status.success(), "nobody is not 77");
        }
    }
}

#[test]
fn squashed_ids_of_an_acl_are_stored_as_owners_are() {
    let export = Export::new();
    let file = export.path().join("f");
    fs::write(&file, "x").unwrap();
    let squash = policy(
        &export,
        "squash = { who = \"root\", uid = 990, gid = 991 }\n",
    );
    let view = Start::new(&export)
        .option("--shared")
        .option(squash)
        .mount();
    let set = |entries: &str| within(&view.name, ["setfacl", "-m", entries, &shown(&file)]);
    let done = set("u:0:r,u:5:rw,g:0:rx");
    assert!(done.status.success(), "{done:?}");
    let stored = getfacl(&file);
    for entry in ["user:990:r--", "user:5:rw-", "group:991:r-x"] {
        assert!(stored.contains(entry), "{stored}");
    }
    // The ACL that setfacl(1) read has 990 in it: with another 0 there would be two of them.
    let two = set("u:0:rwx");
    assert!(stderr(&two).contains("Operation not permitted"), "{two:?}");
    assert_eq!(getfacl(&file), stored);
}

#[test]
fn acl_of_another_owner_is_readable_in_a_client_view_and_refused_by_the_kernel() {
    let export = Export::new();
    let file = export.path().join("f");
    fs::write(&file, "x").unwrap();
    setfacl(&["-m", "u:55:rw"], &file);
    let script = format!(
        "cd {}; getfacl -ncp f; setfacl -m u:56:rw f",
        shown(export.path())
    );
    let output = Start::new(&export).output(["sh", "-c", &script]);
    assert!(stdout(&output).contains("user:55:rw-"), "{output:?}");
    assert!(
        stderr(&output).contains("Operation not permitted"),
        "{output:?}"
    );
    assert!(!getfacl(&file).contains("56"));
}

#[test]
fn policy_stays_in_charge_of_acls_and_is_never_milder_than_one() {
    let rule = |text: &str| format!("[[rule]]\nname = \"r\"\n{text}\naction = \"deny\"\n");
    for (text, sets, opens_named, opens_plain) in [
        (String::new(), true, true, true),
        // An ACL holds the permission bits.
        (rule("do = \"mode\""), false, true, true),
        (rule("do = \"setxattr\""), false, true, true),
        // What may not be read is not replaced by the mask: the file is refused to whom it is about.
        (rule("do = \"xattr\""), false, false, true),
        (
            "[[xattr]]\nmatch = \"system.posix_acl_*\"\naction = \"unsupported\"\n".to_owned(),
            false,
            false,
            true,
        ),
        (
            "[[xattr]]\nmatch = \"system.*\"\naction = \"rename\"\nto = \"user.kept.\"\n"
                .to_owned(),
            false,
            false,
            true,
        ),
    ] {
        let export = Export::new();
        let [named, plain] = ["named", "plain"].map(|name| export.path().join(name));
        for file in [&named, &plain] {
            fs::write(file, "x").unwrap();
            std::os::unix::fs::chown(file, Some(OWNER), Some(GROUP)).unwrap();
        }
        // By the mask alone every member of the group would read it.
        setfacl(
            &["-m", &format!("u::rw,g::---,o::---,u:{NAMED}:rw")],
            &named,
        );
        setfacl(&["-m", "u::rw,g::r,o::r"], &plain);
        let view = Start::new(&export)
            .option("--shared")
            .option(policy(&export, &text))
            .mount();
        let reads = |uid, gid, file: &Path| within_as(&view.name, uid, gid, &["cat", &shown(file)]);
        assert!(!reads(MEMBER, GROUP, &named).status.success(), "{text}");
        let output = reads(NAMED, NAMED, &named);
        assert_eq!(output.status.success(), opens_named, "{text}: {output:?}");
        if !opens_named {
            assert!(
                stderr(&output).contains("Permission denied"),
                "{text}: {output:?}"
            );
        }
        assert!(reads(OWNER, OWNER, &named).status.success(), "{text}");
        for (uid, gid) in [(NAMED, NAMED), (MEMBER, GROUP)] {
            let output = reads(uid, gid, &plain);
            assert_eq!(output.status.success(), opens_plain, "{text}: {output:?}");
        }
        let before = getfacl(&named);
        let script = format!("setfacl -m u:{STRANGER}:rw {}", shown(&named));
        let set = within(&view.name, ["sh", "-c", &script]);
        assert_eq!(set.status.success(), sets, "{text}: {set:?}");
        assert_eq!(getfacl(&named) != before, sets, "{text}");
    }
}

#[test]
fn rule_on_a_new_mode_is_not_dodged_by_an_acl() {
    let export = Export::new();
    for name in ["f", "s"] {
        fs::write(export.path().join(name), "x").unwrap();
        std::os::unix::fs::chown(export.path().join(name), Some(OWNER), Some(GROUP)).unwrap();
    }
    let set_gid = std::os::unix::fs::PermissionsExt::from_mode(0o2640);
    fs::set_permissions(export.path().join("s"), set_gid).unwrap();
    let file = policy(
        &export,
        "set_id = \"allow\"\n[[rule]]\ndo = \"mode\"\naction = \"deny\"\nwhen = { new_mode = { any = \"0002\" } }\n\
         [[rule]]\npath = \"/s\"\ndo = \"setattr\"\naction = \"deny\"\nwhen = { new_mode = { none = \"2000\" } }\n",
    );
    let view = Start::new(&export).option("--shared").option(file).mount();
    let path = shown(&export.path().join("f"));
    let as_owner = |words: &[&str]| within_as(&view.name, OWNER, OWNER, words);
    for (words, allowed) in [
        (["chmod", "666"].as_slice(), false),
        (&["setfacl", "-m", "o::rw"], false),
        (&["setfacl", "-m", "u:5:rw,m::rwx,o::-w-"], false),
        (&["setfacl", "-m", "u:5:rw,o::r"], true),
        (&["setfacl", "-b"], true),
        (&["chmod", "664"], true),
    ] {
        let output = as_owner(&[words, &[path.as_str()]].concat());
        assert_eq!(
            output.status.success(),
            allowed,
            "{words:?}: {}",
            stderr(&output)
        );
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o002, 0, "{words:?}");
    }
    // What takes set-group-id along is refused: then the ACL is not set either.
    let path = shown(&export.path().join("s"));
    let output = as_owner(&["setfacl", "-m", "u:5:r", &path]);
    assert!(!output.status.success());
    assert!(!getfacl(Path::new(&path)).contains("user:5"));
}
