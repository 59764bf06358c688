//! Root in the guest, through stock QEMU's 9p device.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use virtfs_p9::{Errno, Ids, SetAttr};

use crate::case::{Arrangement, Case, Seat, Verdict};
use crate::driver::guest::Guest;
use crate::driver::process::Spawned;
use crate::driver::start::{LIMIT, Start};
use crate::driver::{OrTell as _, Outcome, STRANGER, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

pub(crate) const CASES: &[Case] = &[
    Case {
        row: 8,
        id: "setgid-inherited",
        seat: Seat::G,
        what: "a set-group-id program for a directory's group, made by a user outside of it",
        stopped_by: "set-id bits are stripped, or refused, unless the policy allows them",
        run: setgid,
    },
    Case {
        row: 9,
        id: "survive",
        seat: Seat::G,
        what: "set-user-id and capabilities that survive another user's write",
        stopped_by: "the kernel clears them: the mediator's power counts in its own user namespace",
        run: survive,
    },
    Case {
        row: 10,
        id: "plant",
        seat: Seat::G,
        what: "a set-user-id root program left on the host for a local user",
        stopped_by: "set-id bits are stripped, or refused, unless the policy allows them",
        run: plant,
    },
    Case {
        row: 19,
        id: "content",
        seat: Seat::G,
        what: "a symbolic link whose content leads a tool of the host outside",
        stopped_by: "a rule on link targets",
        run: content,
    },
];

const AS_ROOT: Arrangement = Arrangement::Other("QEMU as root on the directory itself");
const STRIPS: &str = "default = \"allow\"\nset_id = \"strip\"\n";
const DENIES: &str = "default = \"allow\"\nset_id = \"deny\"\n";
const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};
/// A group that Alice is not in.
const STAFF: u32 = 4242;

/// What an attack through a guest came to.
struct Found {
    got: bool,
    what: String,
}

/// The attack with QEMU as root, and on views under each policy; a word of the log's line is
/// wanted for each.
fn everywhere(
    lab: &Lab,
    way: &str,
    policies: &[(&str, &str, &[&str])],
    prepare: fn(&Place) -> Result<(), String>,
    attack: fn(&Guest, &Place) -> Result<Found, String>,
) -> Outcome {
    let weak = || {
        let place = Place::new().or_tell("a place")?;
        prepare(&place)?;
        let guest = Guest::as_root(&place.export())?;
        let found = attack(&guest, &place)?;
        Ok(weaker(AS_ROOT, way, verdict(found.got, found.what)))
    };
    let mut attempts = vec![or_untried(AS_ROOT, way, weak())];
    for (name, policy, words) in policies {
        let way = format!("{way}, {name}");
        let strong = || {
            let place = Place::new().or_tell("a place")?;
            prepare(&place)?;
            let mut start = Start::product(lab, place.export()).option("--debug");
            if !policy.is_empty() {
                start = start.policy(*policy);
            }
            let guest = Guest::on_view(&start, &place.export())?;
            let found = attack(&guest, &place)?;
            let got = found.got || !place.is_untouched();
            Ok(product(
                way.clone(),
                verdict(got, found.what),
                guest.told(words),
            ))
        };
        attempts.push(or_untried(Arrangement::Product, &way, strong()));
    }
    Ok(attempts)
}

/// An errno that the guest got, or 0.
fn errno(result: virtfs_p9::Result<()>) -> Result<i32, String> {
    match result {
        Ok(()) => Ok(0),
        Err(error) => match error.errno() {
            Some(errno) => Ok(errno as i32),
            None => Err(error.to_string()),
        },
    }
}

fn shown(errno: i32) -> String {
    match errno {
        0 => "done".to_owned(),
        errno => Errno::from_raw(errno).to_string(),
    }
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).map_or(0, |meta| meta.mode() & 0o7777)
}

/// Row 8.
fn setgid(lab: &Lab) -> Outcome {
    fn prepare(place: &Place) -> Result<(), String> {
        let dir = place.export().join("staff");
        fs::create_dir(&dir).or_tell("mkdir")?;
        chown(&dir, Some(0), Some(STAFF)).or_tell("chown")?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777)).or_tell("chmod")
    }
    fn attack(guest: &Guest, place: &Place) -> Result<Found, String> {
        let mut session = guest.machine.session("share").or_tell("9p")?;
        // Alice's, in the directory's group, as a guest's kernel asks for it (v9fs_get_fsgid_for_create).
        let ids = Ids {
            gid: STAFF,
            ..ALICE
        };
        let mut alice = session.user(ids).or_tell("attach")?;
        let made = errno(alice.write_all("staff/program", 0o2775, b"#!/bin/sh\n"))?;
        let moded = errno(alice.setattr("staff/program", &SetAttr::mode(0o2775)))?;
        let path = place.export().join("staff/program");
        let mode = mode_of(&path);
        let group = fs::metadata(&path).map_or(0, |meta| meta.gid());
        let what = format!(
            "create: {}, chmod: {}; on the host mode {mode:o}, group {group}",
            shown(made),
            shown(moded)
        );
        Ok(Found {
            got: mode & 0o2010 == 0o2010 && group == STAFF,
            what,
        })
    }
    let policies: [(&str, &str, &[&str]); 2] = [
        (
            "set_id = strip",
            STRIPS,
            &["op=\"setattr\"", "/staff/program"],
        ),
        ("set_id = deny", DENIES, &["refused", "/staff/program"]),
    ];
    everywhere(lab, "create and chmod 2775", &policies, prepare, attack)
}

/// Row 9.
fn survive(lab: &Lab) -> Outcome {
    fn prepare(place: &Place) -> Result<(), String> {
        let program = place.export().join("program");
        fs::write(&program, "#!/bin/sh\n").or_tell("write")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4777)).or_tell("chmod")
    }
    fn attack(guest: &Guest, place: &Place) -> Result<Found, String> {
        let mut session = guest.machine.session("share").or_tell("9p")?;
        let mut alice = session.user(ALICE).or_tell("attach")?;
        let flags = u32::try_from(libc::O_WRONLY).or_tell("flags")?;
        let fid = alice.open("program", flags).or_tell("open")?;
        let written = errno(session.write(fid, 0, b"#!/evil\n").map(|_count| ()))?;
        session.clunk(fid).or_tell("clunk")?;
        let mode = mode_of(&place.export().join("program"));
        let what = format!("write: {}; on the host mode {mode:o}", shown(written));
        Ok(Found {
            got: written == 0 && mode & 0o4000 != 0,
            what,
        })
    }
    let policies: [(&str, &str, &[&str]); 2] = [
        ("no policy", "", &["op=\"write\"", "/program"]),
        ("set_id = strip", STRIPS, &["op=\"write\"", "/program"]),
    ];
    everywhere(
        lab,
        "write as another user to a file of mode 4777",
        &policies,
        prepare,
        attack,
    )
}

/// Row 10. The proof is a local user of the host who runs it.
fn plant(lab: &Lab) -> Outcome {
    fn attack(guest: &Guest, place: &Place) -> Result<Found, String> {
        let mut session = guest.machine.session("share").or_tell("9p")?;
        let mut root = session.user(Ids::ROOT).or_tell("attach")?;
        let program = fs::read("/usr/bin/id").or_tell("/usr/bin/id")?;
        root.write_all("id", 0o755, &program).or_tell("write")?;
        let owned = errno(root.setattr("id", &SetAttr::owner(0, 0)))?;
        let moded = errno(root.setattr("id", &SetAttr::mode(0o4755)))?;
        let path = place.export().join("id");
        let mode = mode_of(&path);
        let mut command = Command::new(&path);
        command.arg("-u").uid(STRANGER.uid).gid(STRANGER.gid);
        let ended = Spawned::ended(command, LIMIT)?;
        let what = format!(
            "chown: {}, chmod: {}; on the host mode {mode:o}, run by a local user as uid {}",
            shown(owned),
            shown(moded),
            ended.out.trim()
        );
        Ok(Found {
            got: ended.out.trim() == "0",
            what,
        })
    }
    let policies: [(&str, &str, &[&str]); 2] = [
        ("set_id = strip", STRIPS, &["op=\"setattr\"", "/id"]),
        ("set_id = deny", DENIES, &["refused", "/id"]),
    ];
    everywhere(
        lab,
        "chown 0, chmod 4755",
        &policies,
        |_place| Ok(()),
        attack,
    )
}

const NO_WAY_OUT: &str = r#"
default = "allow"
[[rule]]
name = "no-way-out"
do = ["make"]
when = { target = ["/**", "**/../**", "../**"] }
action = "deny"
"#;

/// Row 19. The tool is root's `cat`.
fn content(lab: &Lab) -> Outcome {
    fn attack(guest: &Guest, place: &Place) -> Result<Found, String> {
        let mut session = guest.machine.session("share").or_tell("9p")?;
        let mut root = session.user(Ids::ROOT).or_tell("attach")?;
        let mut answers = Vec::new();
        let absolute = place.outside().join("canary");
        for (name, target) in [
            ("absolute", absolute.as_path()),
            ("relative", Path::new("../outside/canary")),
            ("deep", Path::new("x/../../outside/canary")),
        ] {
            let made = errno(root.symlink(name, target))?;
            answers.push(format!("{name}: {}", shown(made)));
        }
        let read = ["absolute", "relative"]
            .into_iter()
            .filter_map(|name| fs::read(place.export().join(name)).ok());
        let got = read.into_iter().any(|bytes| place.betrays(&bytes));
        let left = fs::read_dir(place.export()).map_or(0, Iterator::count);
        Ok(Found {
            got,
            what: format!("{}; {left} links on the host", answers.join(", ")),
        })
    }
    let way = "symlink, then cat on the host";
    let policies: [(&str, &str, &[&str]); 1] = [(
        "a rule on targets",
        NO_WAY_OUT,
        &["refused", "symlink", "no-way-out"],
    )];
    let mut attempts = everywhere(lab, way, &policies, |_place| Ok(()), attack)?;
    // Without the rule a link is content, as on any file system: told, so that nobody relies on it.
    let place = Place::new().or_tell("a place")?;
    let guest = Guest::on_view(&Start::product(lab, place.export()), &place.export())?;
    let found = attack(&guest, &place)?;
    let ruleless = Arrangement::Walls("all but a rule on targets");
    let outcome: Verdict = verdict(found.got, found.what);
    attempts.insert(1, weaker(ruleless, way, outcome));
    Ok(attempts)
}
