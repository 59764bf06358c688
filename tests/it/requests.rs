//! How many requests a guest's work costs through stock QEMU: those that the client waits for. What
//! nobody waits for and nothing decides (RELEASE, FORGET) is not counted by the mediator either.

use std::collections::BTreeMap;
use std::fs;

use virtfs_p9::{Fid, Machine, Session};

use crate::common::{Export, Start, ours, shown, stderr, stdout};

/// Requests by operation, however they ended.
type Counts = BTreeMap<String, u64>;

fn counts(view: &str) -> Counts {
    let output = ours(["metrics", view]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut counts = Counts::new();
    for line in stdout(&output).lines() {
        let Some(sample) = line.strip_prefix("virtfs_requests_total{") else {
            continue;
        };
        let (_, rest) = sample.split_once("operation=\"").unwrap();
        let (operation, rest) = rest.split_once('"').unwrap();
        let value: u64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
        *counts.entry(operation.to_owned()).or_default() += value;
    }
    counts
}

/// What was asked since `before`.
fn since(view: &str, before: &Counts) -> Counts {
    let mut now = counts(view);
    for (operation, count) in &mut now {
        *count -= before.get(operation).copied().unwrap_or_default();
    }
    now.retain(|_, count| *count > 0);
    now
}

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// What `body` costs.
fn cost(view: &str, body: impl FnOnce()) -> Counts {
    let before = counts(view);
    body();
    since(view, &before)
}

/// The first of some tries that costs at most `bound`, if one does. What is known may be for a second
/// only, and the machine may be slow: some try must lie within.
#[track_caller]
fn within(bound: u64, mut attempt: impl FnMut(usize) -> Counts) -> Counts {
    const TRIES: usize = 20;
    let mut dearer = Vec::new();
    for number in 0..TRIES {
        let spent = attempt(number);
        if total(&spent) <= bound {
            return spent;
        }
        dearer.push(spent);
    }
    panic!("never within {bound} requests: {dearer:?}");
}

/// A view that stock QEMU shares, and a directory of it that the guest and the kernel know.
struct Site {
    start: Start,
    machine: Machine,
}

impl Site {
    fn new(export: &Export, cache: &str) -> Self {
        let start = Start::new(export).option("--cache").option(cache);
        let machine = crate::qemu::boot(export, &start);
        Self { start, machine }
    }

    fn view(&self) -> &str {
        self.start.name()
    }

    fn session(&self) -> (Session, Fid) {
        let mut session = self.machine.session("share").unwrap();
        let root = session.attach(1234).unwrap();
        let directory = session.walk(root, &["dir"]).unwrap();
        (session, directory)
    }
}

fn export() -> Export {
    let export = Export::new();
    fs::create_dir(export.path().join("dir")).unwrap();
    fs::write(export.path().join("dir/known"), "").unwrap();
    export
}

/// Tlcreate alone: QEMU makes the file, gives it its owner and its mode, and opens it once more to
/// ask statfs(2) of it. What each request is for, and why it is not spared:
///
/// * lookup: `fuse_atomic_open` looks before it creates, unless it remembers that the name is missing
/// * create
/// * getxattr: chown(2) of a file asks for `security.capability` each time (`notify_change`)
/// * setattr twice: chown, chmod
/// * getattr of the directory, whose times the new name has changed: QEMU looks at the type of what
///   it opens (7.2.22 and others with the fix of CVE-2023-2861)
/// * open and statfs
#[test]
fn tlcreate_costs_at_most_eight_requests() {
    let export = export();
    for (cache, bound) in [("auto", 8), ("exclusive", 7)] {
        let site = Site::new(&export, cache);
        let (mut session, directory) = site.session();
        let spent = within(bound, |number| {
            let name = format!("new-{cache}-{number}");
            session.walk(directory, &[&name]).unwrap_err();
            let file = session.walk::<&str>(directory, &[]).unwrap();
            cost(site.view(), || {
                session.lcreate(file, &name, 0o101, 0o644, 4321).unwrap();
            })
        });
        assert_eq!(spent["create"], 1, "{spent:?}");
    }
}

/// What a Linux guest sends for creat(2) and close(2) in a directory that it knows (fs/9p,
/// `v9fs_vfs_atomic_open_dotl`). Besides Tlcreate that is a lookup for the first Twalk.
#[test]
fn create_and_close_of_a_guest_cost_at_most_nine_requests() {
    let export = export();
    for (cache, bound) in [("auto", 9), ("exclusive", 8)] {
        let site = Site::new(&export, cache);
        let (mut session, directory) = site.session();
        within(bound, |number| {
            let name = format!("new-{cache}-{number}");
            cost(site.view(), || {
                session.walk(directory, &[&name]).unwrap_err();
                let open = session.walk::<&str>(directory, &[]).unwrap();
                session.lcreate(open, &name, 0o101, 0o644, 4321).unwrap();
                let file = session.walk(directory, &[&name]).unwrap();
                session.getattr(file).unwrap();
                session.clunk(open).unwrap();
                session.clunk(file).unwrap();
            })
        });
    }
}

#[test]
fn getattr_of_a_known_file_costs_no_request() {
    let export = export();
    for cache in ["auto", "exclusive"] {
        let site = Site::new(&export, cache);
        let (mut session, directory) = site.session();
        let known = session.walk(directory, &["known"]).unwrap();
        within(0, |_| {
            session.getattr(known).unwrap();
            cost(site.view(), || {
                for _ in 0..10 {
                    session.getattr(known).unwrap();
                }
            })
        });
    }
}

#[test]
fn walk_open_read_and_clunk_cost_no_opendir_and_no_flush() {
    let export = export();
    let site = Site::new(&export, "auto");
    let (mut session, directory) = site.session();
    let spent = cost(site.view(), || {
        for _ in 0..3 {
            let file = session.walk(directory, &["known"]).unwrap();
            session.lopen(file, 2).unwrap();
            session.write(file, 0, b"data").unwrap();
            assert_eq!(session.read(file, 0, 10).unwrap(), b"data");
            session.clunk(file).unwrap();
        }
    });
    assert_eq!(spent.get("opendir"), None, "{spent:?}");
    assert_eq!(spent.get("flush"), None, "{spent:?}");
    assert!(spent.contains_key("open"), "{spent:?}");
}

/// Each doubling would hold up a request for an RCU grace period (`expand_fdtable`, fs/file.c).
#[test]
fn table_of_descriptors_has_its_size_before_the_first_request() {
    let export = Export::new();
    let running = Start::new(&export).shell_ready("echo ready; exec sleep 1000");
    let mediator = running.family().mediator();
    let limits = fs::read_to_string(format!("/proc/{}/limits", mediator.pid)).unwrap();
    let open = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap();
    let (open, size): (u64, u64) = (
        open.parse().unwrap(),
        mediator.field("FDSize").unwrap().parse().unwrap(),
    );
    assert!(size >= open, "{size} of {open}");
}

/// With 128 KiB, with which the kernel begins, they would be 64.
#[test]
fn sequential_read_of_mediated_data_goes_in_pieces_of_half_a_mebibyte() {
    let export = Export::new();
    let large = export.path().join("large");
    fs::write(&large, vec![b'l'; 8 << 20]).unwrap();
    let script = format!(
        "dd if={} of=/dev/null bs=1M && echo ready; exec sleep 1000",
        shown(&large)
    );
    for isolated in [false, true] {
        let mut start = Start::new(&export).option("--data").option("mediated");
        if isolated {
            start = start.option("--isolate");
        }
        let running = start.shell_ready(&script);
        let reads = counts(&running.name)["read"];
        // The first ones are shorter, until the kernel knows what kind of reader it is.
        assert!((8..=24).contains(&reads), "isolated: {isolated}: {reads}");
    }
}
