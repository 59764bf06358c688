//! virtfs-mediator-proxy-migration(7): QEMU's lines before and after, run as they stand there, by
//! stock QEMU as an ordinary user, with the old helper and on a view.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use virtfs_p9::{Ids, Launch, Machine, ProxyHelper, Qemu, SetAttr};

use crate::common::{CLIENT_GID, CLIENT_UID, Export, Start, assert_nothing_left, shown};

const CLIENT: Ids = Ids {
    uid: CLIENT_UID,
    gid: CLIENT_GID,
};
const ALICE: Ids = Ids {
    uid: 1234,
    gid: 4321,
};

/// The pairs of the page.
fn pairs() -> Vec<(String, String)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/man/virtfs-mediator-proxy-migration.7");
    let page = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = page.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with('-'));
    pairs
        .filter_map(|pair| Some((pair[0], pair[1].strip_prefix(" -> ")?)))
        .map(|(before, after)| (before.to_owned(), after.to_owned()))
        .collect()
}

/// A QEMU with a line of the page.
fn qemu(line: &str, export: &Path, socket: &str) -> Qemu {
    let line = line
        .replace("/srv/share", &shown(export))
        .replace("/run/share.sock", socket);
    // The guest gets memory for the devices that are known; that of the line is one more.
    let spare = |tag| virtfs_p9::Export::local(tag, "/usr/share");
    let qemu = Qemu::new().export(spare("spare")).export(spare("more"));
    line.split(' ').fold(qemu, |qemu, word| qemu.arg(word))
}

/// What a guest's users do, and what comes of it.
fn session(machine: &Machine) -> String {
    let mut told = String::new();
    let mut tell = |what: &str, result: Result<(), virtfs_p9::Error>| {
        let outcome = match result {
            Ok(()) => "done".into(),
            Err(error) => error.to_string(),
        };
        let _infallible = writeln!(told, "{what}: {outcome}");
    };
    let mut session = machine.session("share").unwrap();
    let mut alice = session.user(ALICE).unwrap();
    tell("write", alice.write_all("file", 0o640, b"hello"));
    tell("mkdir", alice.mkdir("directory", 0o750));
    tell("symlink", alice.symlink("link", "/etc/passwd"));
    let mut root = session.user(Ids::ROOT).unwrap();
    tell("write as root", root.write_all("given", 0o600, b"root's"));
    tell("chown", root.setattr("given", &SetAttr::owner(77, 88)));
    tell("chmod", root.setattr("given", &SetAttr::mode(0o6755)));
    tell("rename", root.rename("file", "directory/moved"));
    told
}

/// What the host then sees.
fn left(export: &Path) -> String {
    let mut told = String::new();
    for name in ["given", "directory", "directory/moved", "link"] {
        let Ok(meta) = fs::symlink_metadata(export.join(name)) else {
            continue;
        };
        let _infallible = writeln!(
            told,
            "{name} {:o} {}:{}",
            meta.mode(),
            meta.uid(),
            meta.gid()
        );
    }
    told
}

fn with_the_helper<T>(line: &str, act: impl FnOnce(&Machine, &Path) -> T) -> T {
    let export = Export::new();
    let helper = ProxyHelper::start(export.path(), CLIENT).unwrap();
    let qemu = qemu(line, export.path(), &shown(helper.socket()));
    let machine = Machine::boot(&qemu, &Launch::new().user(CLIENT)).unwrap();
    act(&machine, export.path())
}

fn on_a_view<T>(line: &str, act: impl FnOnce(&Machine, &Path) -> T) -> T {
    let export = Export::new();
    let start = Start::new(&export);
    let qemu = qemu(line, export.path(), "none");
    let machine = Machine::boot(&qemu, &Launch::new().wrapper(start.run_words(), CLIENT)).unwrap();
    assert_eq!(machine.qemu().ids, CLIENT);
    let done = act(&machine, export.path());
    machine.stop().unwrap();
    assert_nothing_left(start.name());
    done
}

#[test]
fn each_line_of_the_page_does_on_a_view_what_it_did_with_the_helper() {
    let pairs = pairs();
    assert_eq!(pairs.len(), 4, "{pairs:?}");
    for (before, after) in pairs {
        let both = |machine: &Machine, export: &Path| session(machine) + &left(export);
        let (old, new) = (with_the_helper(&before, both), on_a_view(&after, both));
        assert_eq!(old, new, "{after}");
        if before.contains("readonly=on") {
            assert!(new.contains("EROFS") && !new.contains("done"), "{new}");
        } else {
            assert!(new.contains("given 106755 77:88"), "{new}");
            assert!(new.contains("directory/moved 100640 1234:4321"), "{new}");
        }
    }
}

/// What the page says that a view does not give.
#[test]
fn device_nodes_are_made_by_the_helper_and_refused_on_a_view() {
    let pairs = pairs();
    let (before, after) = &pairs[0];
    let make = |machine: &Machine, export: &Path| {
        let mut session = machine.session("share").unwrap();
        let mut root = session.user(Ids::ROOT).unwrap();
        let answer = root.mknod("device", 0o020_600, (1, 3));
        let made = fs::symlink_metadata(export.join("device"))
            .is_ok_and(|meta| meta.file_type().is_char_device());
        (answer.map_err(|error| error.to_string()), made)
    };
    let (answer, made) = with_the_helper(before, make);
    assert!(made, "{answer:?}");
    let (answer, made) = on_a_view(after, make);
    assert!(answer.unwrap_err().contains("EPERM"));
    assert!(!made);
}
