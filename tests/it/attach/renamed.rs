//! Somebody who owns a directory above an export renames it after the view was laid and looked at, before
//! QEMU opens what it shares: the path leads past the view then, in every mount namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use virtfs_p9::{Ids, Launch, Machine, Qemu, Session};

use crate::attach::lab::{Domain, Lab, PROBE, WRAPPER};
use crate::attach::peers::Start;
use crate::common::{Export, LIMIT, await_that, shown, stderr, stdout};

/// poll(2), or ppoll(2), as `/proc/PID/syscall` has it.
const POLL: &str = if cfg!(target_arch = "x86_64") {
    "7 "
} else {
    "73 "
};
/// A local user.
const ATTACKER: u32 = 61_399;

/// An export below a directory of the attacker's, and what they would have QEMU serve.
struct Place {
    lab: Lab,
    top: Export,
    secret: Export,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            lab: Lab::serving(),
            top: Export::new(),
            secret: Export::new(),
        };
        fs::create_dir_all(place.share()).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.top.path(), mode).unwrap();
        chown(place.above(), Some(ATTACKER), None).unwrap();
        fs::write(place.share().join("mine"), "mine").unwrap();
        fs::write(place.secret.path().join("secret"), "the host's").unwrap();
        place
    }

    /// With a comma, which is doubled in QEMU's words.
    fn above(&self) -> PathBuf {
        self.top.path().join("a,bove")
    }

    fn share(&self) -> PathBuf {
        self.above().join("vm/share")
    }

    /// Armed, with this emulator; how it is started.
    fn arm(&self, emulator: &'static str) -> Start {
        let mut domain = Domain::new("renamed", [&self.top]);
        domain.emulator = emulator;
        self.lab.define(&domain);
        let (whole, below) = (shown(self.top.path()), shown(&self.share()));
        let file = domain.file().replace(&whole, &below);
        let path = self.lab.path("/etc/virtfs-mediator/libvirt/renamed.toml");
        fs::write(path, file).unwrap();
        let xml = domain.xml().replace(&whole, &below);
        let armed = self.lab.hook("renamed", "prepare", "begin", &xml);
        assert!(armed.status.success(), "{}", stderr(&armed));
        Start {
            shares: vec![below],
            ..Start::of(&domain)
        }
    }

    /// What the attacker runs: the export's path leads to what is the host's then.
    fn renaming(&self) -> Command {
        let script = format!(
            "mv {0}/vm {0}/moved && mkdir {0}/vm && ln -s {1} {0}/vm/share",
            shown(&self.above()),
            shown(self.secret.path())
        );
        let user = format!("--reuid={ATTACKER}");
        let mut command = self.lab.command("setpriv");
        command.args([user.as_str(), "--clear-groups", "--", "sh", "-c", &script]);
        command
    }

    fn rename(&self) {
        renamed(self.renaming());
    }

    /// An emulator that waits for the attacker, then becomes QEMU with the words that `words` makes.
    fn late(&self, words: &str) -> &'static str {
        let marks = self.lab.path("/run/marks");
        fs::create_dir(&marks).unwrap();
        fs::set_permissions(&marks, fs::Permissions::from_mode(0o777)).unwrap();
        let path = "/run/emulators/late";
        let script = format!(
            "#!/bin/sh\n{words}\n: >/run/marks/looked\n\
             until [ -e /run/marks/go ]; do sleep 0.02; done\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n"
        );
        fs::write(self.lab.path(path), script).unwrap();
        fs::set_permissions(self.lab.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Stock QEMU by way of the wrapper, with the rename in between.
    fn boot(&self, words: &str) -> Machine {
        let start = self.arm(self.late(words));
        let mut wrapper: Vec<String> = vec![
            "nsenter".into(),
            format!("--mount=/proc/{}/ns/mnt", self.lab.inside.pid),
            "--".into(),
            "sh".into(),
        ];
        wrapper.extend(start.words());
        let ids = Ids {
            uid: start.uid,
            gid: start.gid,
        };
        let qemu = Qemu::new()
            .program(WRAPPER)
            .export(virtfs_p9::Export::local("share", self.share()))
            .arg("-sandbox")
            .arg("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        let (looked, go) = (
            self.lab.path("/run/marks/looked"),
            self.lab.path("/run/marks/go"),
        );
        let renaming = self.renaming();
        let attacker = std::thread::spawn(move || {
            await_that(LIMIT, "the wrapper has looked", || looked.exists());
            renamed(renaming);
            fs::write(go, "").unwrap();
        });
        let machine = Machine::boot(&qemu, &Launch::new().wrapper(wrapper, ids)).unwrap();
        attacker.join().unwrap();
        machine
    }

    fn names(session: &mut Session) -> Vec<String> {
        let mut root = session.user(Ids::ROOT).unwrap();
        let entries = root.list("").unwrap().into_iter();
        let mut names: Vec<String> = entries
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        names
    }
}

#[track_caller]
fn renamed(mut renaming: Command) {
    let output = renaming.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// QEMU's words with the share's path in them, as the wrapper was given them.
const BY_PATH: &str = "for word; do shift; case $word in local,*) word=\"${word%%path=*}path=$SHARE\";; \
                       esac; set -- \"$@\" \"$word\"; done";

#[test]
fn rename_after_the_look_leaves_stock_qemu_with_the_view() {
    let place = Place::new();
    let machine = place.boot("");
    let mut session = machine.session("share").unwrap();
    assert_eq!(Place::names(&mut session), ["mine"]);
    // It is served by the view: what its guest makes has its owner.
    let alice = Ids {
        uid: 1234,
        gid: 4321,
    };
    let mut user = session.user(alice).unwrap();
    user.write_all("file", 0o640, b"hello").unwrap();
    let moved = place.above().join("moved/share/file");
    let meta = fs::metadata(moved).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), 1234);
    drop(session);
    machine.stop().unwrap();
    place.lab.assert_nothing_left("renamed-0");
}

/// The same, were QEMU given the path: it serves what is the host's, as its user.
#[test]
fn rename_after_the_look_would_lead_a_path_past_the_view() {
    let place = Place::new();
    let share = shown(&place.share()).replace(',', ",,");
    let machine = place.boot(&format!("SHARE={share}\n{BY_PATH}"));
    let mut session = machine.session("share").unwrap();
    assert_eq!(Place::names(&mut session), ["secret"]);
    drop(session);
    machine.stop().unwrap();
}

/// The descriptor is the view's, and nothing else of the wrapper's words changes.
#[test]
fn words_after_a_rename_still_name_the_view() {
    let place = Place::new();
    let mut peer = place.arm(PROBE).spawn(&place.lab);
    peer.ready();
    place.rename();
    let below = shown(&place.share());
    assert_eq!(
        peer.does(&format!("cat {below}/secret && echo")),
        ["the host's"]
    );
    let words = peer.does("printf '%s\\n' \"$@\"");
    let [flag, word] = words.as_slice() else {
        panic!("{words:?}");
    };
    assert_eq!(flag, "-fsdev");
    let pinned = word
        .strip_prefix("local,security_model=passthrough,id=fs,path=")
        .unwrap();
    assert!(pinned.starts_with("/proc/self/fd/"), "{word}");
    // By each program that inherits it.
    assert_eq!(peer.does(&format!("cat {pinned}/mine && echo")), ["mine"]);
    let (status, _) = peer.run(&format!("ls {pinned}/secret 2>&1"));
    assert_ne!(status, 0);
}

/// Renamed when the view lies there and the wrapper has not looked yet: it refuses to go on.
#[test]
fn rename_before_the_look_ends_the_start() {
    let place = Place::new();
    let start = place.arm(PROBE);
    let service = place.lab.service();
    service.kill(Signal::SIGSTOP);
    let mut peer = start.spawn(&place.lab);
    let asked = || {
        let proc = |file: &str| PathBuf::from(format!("/proc/{}/{file}", peer.process.pid));
        let call = fs::read_to_string(proc("syscall")).unwrap_or_default();
        let program = fs::read_link(proc("exe")).unwrap_or_default();
        program.ends_with("virtfs-mediator-qemu") && call.starts_with(POLL)
    };
    await_that(LIMIT, "the wrapper has asked, and waits", asked);
    peer.process.kill(Signal::SIGSTOP);
    service.kill(Signal::SIGCONT);
    place.lab.logged("laid into the mount namespace");
    place.rename();
    peer.process.kill(Signal::SIGCONT);
    let (status, told) = peer.end();
    assert_eq!(status, 78);
    assert!(told.contains("no symlinks"), "{told}");
    place.lab.assert_nothing_left("renamed-0");
}

/// `run` without a root of its own for the client has the path looked up by the client: it says so.
#[test]
fn run_tells_of_directories_that_others_may_rename_in() {
    let place = Place::new();
    let run = |words: &[&str]| {
        let share = shown(&place.share());
        let mut all = vec!["run", "--client", "61301:61302"];
        all.extend(words);
        all.extend([share.as_str(), "--", "true"]);
        let output = place.lab.ours(&all);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let told = run(&[]);
    let above = shown(&place.above());
    assert!(
        told.contains("others than root may rename") && told.contains(&above),
        "{told}"
    );
    let told = run(&["--isolate"]);
    assert!(!told.contains("others than root may rename"), "{told}");
    chown(place.above(), Some(0), None).unwrap();
    let told = run(&[]);
    assert!(!told.contains("others than root may rename"), "{told}");
    assert!(!stdout(&place.lab.ours(&["list"])).contains("share"));
}
