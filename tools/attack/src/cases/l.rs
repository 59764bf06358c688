//! Another local user of the host, and whoever prepares what a start is given.

mod hostile;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use virtfs_mediator_core::weak::Wall;
use virtfs_p9::Ids;

use crate::case::{Arrangement, Attempt, Case, Seat, Verdict};
use crate::driver::actor::{Where, act};
use crate::driver::process::{Spawned, scratch};
use crate::driver::start::{LIMIT, Start, line_with};
use crate::driver::weaker::{Bind, Server};
use crate::driver::{CLIENT, OrTell as _, Outcome, STRANGER, or_untried, product, verdict, weaker};
use crate::lab::{Lab, Place};

pub(crate) const CASES: &[Case] = &[
    Case {
        row: 23,
        id: "enter",
        seat: Seat::L,
        what: "other users, and root, enter the view",
        stopped_by: "the kernel's gate on user and group",
        run: enter,
    },
    Case {
        row: 24,
        id: "swap",
        seat: Seat::L,
        what: "the export swapped for a symbolic link before the mount; PATH of the caller",
        stopped_by: "opened once, never followed; no program is called by name",
        run: hostile::before,
    },
    Case {
        row: 25,
        id: "arguments",
        seat: Seat::L,
        what: "hostile view names and arguments",
        stopped_by: "names are letters, digits and `_.-`; no shell",
        run: hostile::arguments,
    },
    Case {
        row: 26,
        id: "unfit",
        seat: Seat::L,
        what: "an export of everything, with mounts inside, or that is a view",
        stopped_by: "refused at start",
        run: unfit,
    },
    Case {
        row: 28,
        id: "spelling",
        seat: Seat::L,
        what: "a rule dodged by another spelling, where the file system ignores case",
        stopped_by: "under rules that go by name, a name is good only as its directory lists it",
        run: spelling,
    },
];

/// Row 23.
fn enter(lab: &Lab) -> Outcome {
    let ready = || -> Result<Place, String> {
        let place = Place::new().or_tell("a place")?;
        let file = place.export().join("open");
        fs::write(&file, "inside").or_tell("write")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).or_tell("chmod")?;
        Ok(place)
    };
    let read =
        |root: &Path| fs::read_to_string(root.join("open")).map_err(|error| error.to_string());
    let turn = |found: Result<String, String>| match found {
        Ok(text) => verdict(text == "inside", "it was read"),
        Err(why) => Verdict::Refused(why),
    };
    let others = [
        ("another user", STRANGER),
        ("root", Ids::ROOT),
        (
            "the client's user in another group",
            Ids {
                uid: CLIENT.uid,
                gid: STRANGER.gid,
            },
        ),
        (
            "another user in the client's group",
            Ids {
                uid: STRANGER.uid,
                gid: CLIENT.gid,
            },
        ),
    ];
    let place = ready()?;
    let shared = Start::product(lab, place.export())
        .option("--shared")
        .open()?;
    let mut attempts = Vec::new();
    for (way, ids) in others {
        let found = act(Where::Mounts(&shared), ids, LIMIT, || read(&shared.export))?;
        attempts.push(weaker(
            Arrangement::Other("a mount for all (--shared)"),
            way,
            turn(found),
        ));
    }
    drop(shared);
    let view = Start::product(lab, place.export())
        .option("--debug")
        .open()?;
    for (way, ids) in others {
        let found = act(Where::Mounts(&view), ids, LIMIT, || read(&view.export))?;
        let asked = view.log().contains(&format!("uid={}", ids.uid)) && ids.uid != CLIENT.uid;
        let told =
            found.as_ref().err().filter(|_| !asked).map(|why| {
                format!("the kernel's own answer, no request reaches the mediator: {why}")
            });
        attempts.push(product(way, turn(found), told));
    }
    Ok(attempts)
}

/// What a server that took it shows of the canary, or why not.
fn canary(place: &Place, path: &Path) -> Verdict {
    match fs::read(path) {
        Ok(bytes) => verdict(place.betrays(&bytes), "the canary was read"),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

/// A start that must be refused with a sentence.
fn refused(start: &Start, way: &str, words: &[&str]) -> Result<Attempt, String> {
    let ended = start.run(&["sh", "-c", "echo started"], LIMIT)?;
    let told = line_with(&ended.err, words);
    let started = ended.out.contains("started") || ended.status.success();
    let what = format!("status {:?}", ended.status.code());
    Ok(product(way, verdict(started, what), told))
}

/// Row 26.
fn unfit(lab: &Lab) -> Outcome {
    let bindfs = Arrangement::Other("bindfs, as root");
    let mut attempts = Vec::new();

    let way = "the root directory as the export";
    let place = Place::new().or_tell("a place")?;
    let outside = place.outside();
    let weak = Server::bindfs(Path::new("/"), &[]).map(|server| {
        let below = outside.strip_prefix("/").unwrap_or(&outside);
        weaker(
            bindfs.clone(),
            way,
            canary(&place, &server.path().join(below).join("canary")),
        )
    });
    attempts.push(or_untried(bindfs.clone(), way, weak));
    attempts.push(refused(
        &Start::product(lab, "/"),
        way,
        &["root directory"],
    )?);

    let way = "another mount inside the export";
    let inner = place.export().join("inner");
    fs::create_dir(&inner).or_tell("mkdir")?;
    let bind = Bind::mount(&place.outside(), &inner)?;
    let weak = Server::bindfs(&place.export(), &[]).map(|server| {
        weaker(
            bindfs.clone(),
            way,
            canary(&place, &server.path().join("inner/canary")),
        )
    });
    attempts.push(or_untried(bindfs.clone(), way, weak));
    attempts.push(refused(
        &Start::product(lab, place.export()),
        way,
        &["mounted inside"],
    )?);
    drop(bind);

    attempts.extend(view_of_a_view(lab, &bindfs)?);
    Ok(attempts)
}

/// A view whose export is a view: what the inner one decides, the outer one would ask for as
/// another user.
fn view_of_a_view(lab: &Lab, bindfs: &Arrangement) -> Outcome {
    let way = "a view of a view";
    let place = Place::new().or_tell("a place")?;
    fs::write(place.export().join("file"), "inside").or_tell("write")?;
    let inner = Start::product(lab, place.export())
        .option("--shared")
        .open()?;
    let within = |words: &[&str]| -> Result<_, String> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", inner.init))
            .args(["--mount", "--pid", "--"])
            .args(words);
        Spawned::ended(command, LIMIT)
    };
    let dir = scratch()?;
    let script = format!(
        "bindfs {} {} && cat {}/file; umount {}",
        inner.export.display(),
        dir.path().display(),
        dir.path().display(),
        dir.path().display()
    );
    let weak = within(&["sh", "-c", &script]).map(|ended| {
        let got = ended.out.contains("inside");
        weaker(
            bindfs.clone(),
            way,
            verdict(got, format!("{} {}", ended.out, ended.err.trim())),
        )
    });
    let outer = Start::product(lab, &inner.export);
    let words = outer.words(dir.path())?;
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let ended = within(&[words.as_slice(), &["echo", "started"]].concat())?;
    let told = line_with(&ended.err, &["itself a view"]);
    let what = format!("status {:?}", ended.status.code());
    let started = ended.out.contains("started");
    Ok(vec![
        or_untried(bindfs.clone(), way, weak),
        product(way, verdict(started, what), told),
    ])
}

const HIDES: &str =
    "default = \"allow\"\n[[rule]]\nname = \"secret\"\npath = \"/secret\"\naction = \"hide\"\n";

/// Row 28. With lowntfs-3g, a file system that can be had everywhere; ext4's and others' case
/// folding needs a kernel that was built with it.
fn spelling(lab: &Lab) -> Outcome {
    let ruled = Arrangement::Walls("all but the check that a name is spelled as it is listed");
    let ways = [
        "/SECRET read where /secret is hidden",
        "a file renamed to /SECRET",
    ];
    let both = |walls: &[Wall]| dodge(lab, walls);
    let weak = both(&[Wall::Spelling])?;
    let strong = both(&[])?;
    let mut attempts = Vec::new();
    for (way, ((weak, _), (strong, told))) in ways.into_iter().zip(weak.into_iter().zip(strong)) {
        attempts.push(weaker(ruled.clone(), way, weak));
        attempts.push(product(way, strong, told));
    }
    Ok(attempts)
}

/// Reads and replaces a hidden file by another spelling of its name.
fn dodge(lab: &Lab, walls: &[Wall]) -> Result<[(Verdict, Option<String>); 2], String> {
    let dir = scratch()?;
    let image = dir.path().join("image");
    let file = fs::File::create(&image).or_tell("create")?;
    file.set_len(16 << 20).or_tell("truncate")?;
    let mut format = Command::new("mkntfs");
    format.args(["-F", "-Q"]).arg(&image);
    let folding = Spawned::ended(format, LIMIT).and_then(|_formatted| {
        let mut command = Command::new("lowntfs-3g");
        command
            .args(["-o", "ignore_case,allow_other,no_detach"])
            .arg(&image);
        Server::start(command)
    });
    let folding = match folding {
        Ok(folding) => folding,
        Err(why) => {
            let why = Verdict::Untried(format!("install ntfs-3g: {why}"));
            return Ok([(why.clone(), None), (why, None)]);
        }
    };
    let export = folding.path().join("share");
    fs::create_dir(&export).or_tell("mkdir")?;
    fs::write(export.join("secret"), "hidden").or_tell("write")?;
    fs::write(export.join("mine"), "mine").or_tell("write")?;
    let start = Start::product(lab, &export).policy(HIDES);
    let start = if walls.is_empty() {
        start
    } else {
        start.without(walls)?
    };
    let view = start.open()?;
    let (read, mine, errno) = act(Where::Client(&view), CLIENT, LIMIT, || {
        let read = fs::read_to_string(view.export.join("SECRET"));
        // As it is listed, a name is as good as ever.
        let mine = fs::read_to_string(view.export.join("mine")).is_ok();
        let (from, to) = (view.export.join("mine"), view.export.join("SECRET"));
        let errno = fs::rename(from, to)
            .err()
            .and_then(|error| error.raw_os_error());
        (read.map_err(|error| error.to_string()), mine, errno)
    })?;
    let told = if walls.is_empty() {
        view.told(&["refused", "lookup", "/SECRET"])
    } else {
        None
    };
    let was_read = read.as_ref().is_ok_and(|text| text == "hidden");
    let is_left = fs::read_to_string(export.join("secret")).is_ok_and(|text| text == "hidden");
    let first = format!("{read:?}; a file by its own name: {mine}");
    let second = format!("errno {errno:?}, the hidden file is there: {is_left}");
    let read = if mine {
        verdict(was_read, first)
    } else {
        Verdict::Untried(first)
    };
    Ok([(read, told.clone()), (verdict(!is_left, second), told)])
}

/// The export and a link to what lies outside, to be swapped.
fn swappable() -> Result<Place, String> {
    let place = Place::new().or_tell("a place")?;
    chown(place.export(), Some(CLIENT.uid), Some(CLIENT.gid)).or_tell("chown")?;
    symlink(place.outside(), place.export().with_file_name("link")).or_tell("symlink")?;
    Ok(place)
}
