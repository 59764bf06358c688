//! Attacks on the rules: what no policy may permit, and what may not leave its rules.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use virtfs_mediator_core::weak::Wall;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::actor::{Where, act};
use crate::driver::raw::{Body, ROOT, Raw, op};
use crate::driver::start::{LIMIT, Start, View, line_with};
use crate::driver::{CLIENT, OrTell as _, Outcome, Tried, product, verdict, weaker};
use crate::lab::{Lab, Place};

const PLAIN: Arrangement = Arrangement::Other("QEMU's user on a directory of its own");
const NO_CARRY: Arrangement =
    Arrangement::Walls("all but the check that nothing is carried out of its rules");

/// errno, or 0.
fn code(result: rustix::io::Result<()>) -> i32 {
    result.map_or_else(rustix::io::Errno::raw_os_error, |()| 0)
}

fn make_device(dir: &Path) -> i32 {
    let device = dir.join("device");
    let mode = Mode::RUSR | Mode::WUSR;
    code(rustix::fs::mknodat(
        CWD,
        &device,
        FileType::CharacterDevice,
        mode,
        0,
    ))
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> i32 {
    code(rustix::fs::renameat_with(CWD, from, CWD, to, flags))
}

/// Row 6.
pub(super) fn device(lab: &Lab) -> Outcome {
    let way = "mknod c 0 0";
    let place = Place::new().or_tell("a place")?;
    let export = place.export();
    let errno = act(Where::Host, CLIENT, LIMIT, || make_device(&export))?;
    let mut attempts = vec![weaker(
        PLAIN,
        way,
        verdict(errno == 0, format!("errno {errno}")),
    )];

    let place = Place::new().or_tell("a place")?;
    let raw = Raw::start(&place.export(), &[Wall::Floor], "")?;
    let body = Body::new()
        .u32(0o020_644)
        .u32(0)
        .u32(0)
        .u32(0)
        .name(b"device");
    let errno = raw.ask(op::MKNOD, ROOT, &body)?.errno;
    let floorless = Arrangement::Walls("the core, without the policy's floor");
    attempts.push(weaker(
        floorless,
        way,
        verdict(errno == 0, format!("errno {errno}")),
    ));

    let view = Start::product(lab, place.export()).open()?;
    let errno = act(Where::Client(&view), CLIENT, LIMIT, || {
        make_device(&view.export)
    })?;
    let made = place.export().join("device").exists();
    let told = view.told(&["refused", "mknod", "floor"]);
    attempts.push(product(
        way,
        verdict(errno == 0 || made, format!("errno {errno}")),
        told,
    ));
    Ok(attempts)
}

/// Policies that try to permit what none may.
const LIFTERS: [(&str, &str); 8] = [
    (
        "everything allowed, set-id too",
        "default = \"allow\"\nset_id = \"allow\"\n",
    ),
    (
        "every word allowed everywhere",
        "default = \"deny\"\n[[rule]]\npath = \"/**\"\ndo = [\"look\", \"list\", \"read\", \
         \"write\", \"make\", \"link\", \"remove\", \"rename\", \"owner\", \"mode\", \"time\", \
         \"xattr\", \"change\", \"any\"]\naction = \"allow\"\n",
    ),
    (
        "raw operations by name",
        "default = \"deny\"\n[[rule]]\ndo = [\"mknod\", \"rename\", \"link\", \"open\", \
         \"create\", \"lookup\", \"getattr\", \"access\"]\naction = \"allow\"\n[[rule]]\ndo = \
         [\"any\"]\naction = \"allow\"\n",
    ),
    (
        "a condition on devices",
        "default = \"allow\"\n[[rule]]\ndo = [\"mknod\"]\nwhen = { type = \"device\" }\naction = \
         \"allow\"\n",
    ),
    (
        "a forced mode with a device's type",
        "default = \"allow\"\n[[rule]]\ndo = [\"make\"]\naction = \"allow\"\nmode = { force = \
         \"020000\" }\n",
    ),
    (
        "a setting that switches it off",
        "default = \"allow\"\nfloor = false\n",
    ),
    (
        "observing only",
        "default = \"allow\"\nmode = \"observe\"\n",
    ),
    (
        "owners forced to root",
        "default = \"allow\"\nset_id = \"allow\"\n[[rule]]\npath = \"/**\"\ndo = [\"any\"]\n\
         action = \"allow\"\nowner = { uid = 0, gid = 0 }\n",
    ),
];

/// Row 6 too: the floor under every configuration.
pub(super) fn floor(lab: &Lab) -> Outcome {
    let place = Place::new().or_tell("a place")?;
    let export = place.export();
    let plain = act(Where::Host, CLIENT, LIMIT, || tries(&export))?;
    let got = plain.iter().all(|(_, errno)| *errno == 0);
    let mut attempts = vec![weaker(
        PLAIN,
        "no policy at all",
        verdict(got, format!("{plain:?}")),
    )];
    for (way, policy) in LIFTERS {
        attempts.push(lift(lab, way, policy)?);
    }
    Ok(attempts)
}

fn tries(dir: &Path) -> Vec<(String, i32)> {
    let (from, to) = (dir.join("white"), dir.join("out"));
    let made = fs::write(&from, "").is_ok();
    let white = if made {
        rename(&from, &to, RenameFlags::WHITEOUT)
    } else {
        -1
    };
    vec![
        ("mknod c 0 0".to_owned(), make_device(dir)),
        ("rename with WHITEOUT".to_owned(), white),
    ]
}

fn lift(lab: &Lab, way: &str, policy: &str) -> Result<Attempt, String> {
    let place = Place::new().or_tell("a place")?;
    let start = Start::product(lab, place.export()).policy(policy);
    let view = match start.open() {
        Ok(view) => view,
        Err(why) => {
            let told = line_with(&why, &["policy.toml:"]);
            let what = "the policy itself is refused";
            return Ok(match told {
                Some(_) => product(way, Verdict::Refused(what.to_owned()), told),
                None => product(way, Verdict::Untried(why), None),
            });
        }
    };
    let tried = act(Where::Client(&view), CLIENT, LIMIT, || tries(&view.export))?;
    let special = specials(&place.export());
    let got = tried.iter().any(|(_, errno)| *errno == 0) || special;
    let told = view
        .told(&["refused", "mknod", "floor"])
        .filter(|_| view.told(&["refused", "rename", "floor"]).is_some());
    Ok(product(way, verdict(got, format!("{tried:?}")), told))
}

/// Whether there is a device in a directory.
fn specials(dir: &Path) -> bool {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            use std::os::unix::fs::FileTypeExt as _;
            entry
                .file_type()
                .is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
        })
}

fn given(path: &Path, content: &str, mode: u32) -> Result<(), String> {
    fs::write(path, content).or_tell("write")?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).or_tell("chmod")?;
    chown(path, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")
}

const PROTECTED: &str = r#"
default = "allow"
[[rule]]
name = "protected"
path = "/protected/**"
do = ["mode"]
action = "deny"
"#;

/// Row 17. In two clients, one after the other: the second knows the file by its new name only.
pub(super) fn link(lab: &Lab) -> Outcome {
    let way = "link, then chmod by the new name";
    let attack = |walls: &[Wall]| -> Result<Tried, String> {
        let place = Place::new().or_tell("a place")?;
        for dir in ["protected", "open"] {
            let dir = place.export().join(dir);
            fs::create_dir(&dir).or_tell("mkdir")?;
            chown(&dir, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
        }
        let file = place.export().join("protected/file");
        given(&file, "protected", 0o600)?;
        let start = || -> Result<View, String> {
            let start = Start::product(lab, place.export()).policy(PROTECTED);
            let start = if walls.is_empty() {
                start
            } else {
                start.without(walls)?
            };
            start.open()
        };
        let view = start()?;
        let alias = place.export().join("open/alias");
        let linked = act(Where::Client(&view), CLIENT, LIMIT, || {
            code(rustix::fs::link(&file, &alias))
        })?;
        let told = told_on_product(walls, &view, &["refused", "link", "protected"]);
        drop(view);
        let view = start()?;
        let moded = act(Where::Client(&view), CLIENT, LIMIT, || {
            code(rustix::fs::chmod(&alias, Mode::from_raw_mode(0o666)))
        })?;
        let mode = fs::metadata(&file).or_tell("stat")?.mode() & 0o777;
        let what =
            format!("link: errno {linked}; chmod: errno {moded}; the file's mode is {mode:o}");
        Ok(Tried {
            got: mode != 0o600,
            what,
            told,
        })
    };
    both(&attack, way)
}

/// Where a wall is missing nothing is told, and nothing is waited for.
fn told_on_product(walls: &[Wall], view: &View, words: &[&str]) -> Option<String> {
    walls.is_empty().then(|| view.told(words)).flatten()
}

fn both(attack: &dyn Fn(&[Wall]) -> Result<Tried, String>, way: &str) -> Outcome {
    Ok(vec![
        attack(&[Wall::Carry])?.weaker(NO_CARRY, way),
        attack(&[])?.product(way),
    ])
}

const VAULT: &str = r#"
default = "allow"
[[rule]]
name = "vault"
path = "/vault/**"
do = ["read"]
action = "deny"
"#;

/// Row 18.
pub(super) fn carry(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for (way, flags) in [
        (
            "rename of a directory out of its rules",
            RenameFlags::empty(),
        ),
        (
            "RENAME_EXCHANGE with an open directory",
            RenameFlags::EXCHANGE,
        ),
    ] {
        let attack = |walls: &[Wall]| -> Result<Tried, String> {
            let place = Place::new().or_tell("a place")?;
            for dir in ["vault", "open", "vault/box", "open/box"] {
                let dir = place.export().join(dir);
                fs::create_dir(&dir).or_tell("mkdir")?;
                chown(&dir, Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
            }
            given(
                &place.export().join("vault/box/secret"),
                "in the vault",
                0o600,
            )?;
            let start = Start::product(lab, place.export()).policy(VAULT);
            let start = if walls.is_empty() {
                start
            } else {
                start.without(walls)?
            };
            let view = start.open()?;
            let (from, to) = (
                place.export().join("vault/box"),
                place.export().join("open/box"),
            );
            let (errno, read) = act(Where::Client(&view), CLIENT, LIMIT, || {
                let errno = rename(&from, &to, flags);
                (
                    errno,
                    fs::read_to_string(to.join("secret")).unwrap_or_default(),
                )
            })?;
            let told = told_on_product(walls, &view, &["refused", "rename", "vault"]);
            Ok(Tried {
                got: read == "in the vault",
                what: format!("rename: errno {errno}; read: '{read}'"),
                told,
            })
        };
        attempts.extend(both(&attack, way)?);
    }
    attempts.extend(whiteout(lab)?);
    Ok(attempts)
}

fn whiteout(lab: &Lab) -> Outcome {
    let way = "RENAME_WHITEOUT, which leaves a device node";
    let white = |dir: &Path| {
        let from = dir.join("from");
        match fs::write(&from, "") {
            Ok(()) => rename(&from, &dir.join("to"), RenameFlags::WHITEOUT),
            Err(_) => -1,
        }
    };
    let place = Place::new().or_tell("a place")?;
    let export = place.export();
    let errno = act(Where::Host, CLIENT, LIMIT, || white(&export))?;
    let weak = weaker(
        PLAIN,
        way,
        verdict(specials(&export), format!("errno {errno}")),
    );
    let place = Place::new().or_tell("a place")?;
    let view = Start::product(lab, place.export()).open()?;
    let errno = act(Where::Client(&view), CLIENT, LIMIT, || white(&view.export))?;
    let told = view.told(&["refused", "rename", "floor"]);
    let got = errno == 0 || specials(&place.export());
    Ok(vec![
        weak,
        product(way, verdict(got, format!("errno {errno}")), told),
    ])
}
