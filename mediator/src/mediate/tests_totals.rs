//! Totals and entries of areas, on a directory of the test's own.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::tests::World;

use crate::ids::{HandleId, NodeId};
use crate::op::{ChangesAsk, WriteAs};
use crate::policy::tests::Nobody;

/// Long enough for any walk here; a walk that never ends fails the test.
const LIMIT: Duration = Duration::from_secs(20);

impl World {
    fn create(&self, parent: NodeId, name: &[u8]) -> Result<(NodeId, HandleId), Errno> {
        let flags = libc::O_RDWR | libc::O_CREAT;
        let made = self.mediator.create(self.who, parent, name, 0o600, flags);
        made.map(|(entry, opened)| (entry.node, opened.handle))
    }

    fn write(&self, handle: HandleId, offset: u64, len: usize) -> Result<usize, Errno> {
        self.mediator.write(
            self.who,
            handle,
            (offset, WriteAs::Placed),
            &vec![b'x'; len],
        )
    }

    fn resize(&self, node: NodeId, size: u64) -> Result<(), Errno> {
        let ask = ChangesAsk {
            size: Some(size),
            ..ChangesAsk::NOTHING
        };
        let changed = self.mediator.setattr(self.who, node, None, ask);
        changed.map(|_shown| ())
    }

    /// What is told of the view's room: free bytes, free names.
    fn room(&self) -> (u64, u64) {
        let fs = self.mediator.statfs(self.who, NodeId::ROOT).unwrap();
        (fs.bavail * u64::from(fs.frsize), fs.ffree)
    }
}

/// Asks again as a client would, until there is room.
fn in_time<T>(what: &str, mut ask: impl FnMut() -> Result<T, Errno>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(done) => return done,
            Err(Errno::DQUOT) if started.elapsed() < LIMIT => std::thread::yield_now(),
            Err(errno) => panic!("{what}: {errno}"),
        }
    }
}

const K: usize = 1024;

#[test]
fn bytes_are_limited_with_what_was_there_and_given_back_when_it_goes() {
    let world = World::over(
        "default = \"allow\"\nlimit = { total = \"100K\" }\n",
        &[("d/old", &[b'o'; 60 * K])],
    );
    let (node, handle) = world.create(NodeId::ROOT, b"new").unwrap();
    assert_eq!(world.write(handle, 0, 40 * K), Ok(40 * K));
    assert_eq!(
        world.write(handle, 0, 40 * K),
        Ok(40 * K),
        "nothing is added"
    );
    assert_eq!(world.write(handle, 1, 40 * K), Err(Errno::DQUOT));
    assert_eq!(world.resize(node, 41 * K as u64), Err(Errno::DQUOT));
    let allocate = |mode, span| world.mediator.fallocate(world.who, handle, mode, span);
    assert_eq!(allocate(0, (40 * K as u64, 1)), Err(Errno::DQUOT));
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    let behind = allocate(keep, (40 * K as u64, 4096));
    assert_eq!(behind, Err(Errno::OPNOTSUPP), "room that no size tells");
    let old = world.walk("d/old").unwrap();
    let old = world.mediator.open(world.who, old, libc::O_RDONLY);
    let old = old.unwrap().handle;
    let to = (handle, 40 * K as u64);
    let copied = world.mediator.copy_file_range(world.who, (old, 0), to, 10);
    assert_eq!(copied, Err(Errno::DQUOT));
    world.mediator.release(old);

    let d = world.walk("d").unwrap();
    world.mediator.unlink(world.who, d, b"old").unwrap();
    in_time("after unlink", || {
        world.write(handle, 40 * K as u64, 60 * K)
    });
    assert_eq!(world.resize(node, 101 * K as u64), Err(Errno::DQUOT));
    world.resize(node, 0).unwrap();
    in_time("after truncation", || world.write(handle, 0, 90 * K));
}

#[test]
fn entries_are_limited_whatever_they_are_names_of() {
    let world = World::over(
        "default = \"allow\"\nlimit = { entries = 7 }\n",
        &[("a", b"")],
    );
    let (who, root, mediator) = (world.who, NodeId::ROOT, &world.mediator);
    let (node, _) = world.create(root, b"b").unwrap();
    let again = world.create(root, b"b").map(|_opened| ());
    assert_eq!(again, Ok(()), "it is opened, and is no new entry");
    mediator.mkdir(who, root, b"c", 0o700).unwrap();
    mediator.symlink(who, root, b"d", b"a").unwrap();
    mediator
        .mknod(who, root, b"e", libc::S_IFIFO | 0o600)
        .unwrap();
    mediator.link(who, node, root, b"f").unwrap();
    mediator.rename(who, (root, b"f"), (root, b"g"), 0).unwrap();
    let exists = mediator.mkdir(who, root, b"c", 0o700).map(|_made| ());
    assert_eq!(exists, Err(Errno::EXIST), "what fails is not charged");
    world.create(root, b"h").unwrap();
    let full = |made: Result<(), Errno>| assert_eq!(made, Err(Errno::DQUOT));
    full(world.create(root, b"i").map(|_made| ()));
    let there = world.create(root, b"h").map(|_opened| ());
    assert_eq!(there, Ok(()), "what is there already is opened");
    full(mediator.mkdir(who, root, b"i", 0o700).map(|_made| ()));
    full(mediator.symlink(who, root, b"i", b"a").map(|_made| ()));
    full(
        mediator
            .mknod(who, root, b"i", libc::S_IFIFO)
            .map(|_made| ()),
    );
    full(mediator.link(who, node, root, b"i").map(|_made| ()));
    mediator.rmdir(who, root, b"c").unwrap();
    in_time("after rmdir", || mediator.mkdir(who, root, b"c", 0o700));
}

#[test]
fn limit_of_a_rule_is_for_its_paths_alone() {
    let world = World::over(
        "default = \"allow\"\n[[rule]]\nname = \"tmp\"\npath = \"/tmp/**\"\naction = \"allow\"\n\
         limit = { total = \"10K\", entries = 3 }\n",
        &[("tmp/a", &[0; 4 * K]), ("elsewhere/b", &[0; 50 * K])],
    );
    // A second link of the same file counts once, as bytes.
    std::fs::hard_link(world.path("tmp/a"), world.path("tmp/a2")).unwrap();
    let tmp = world.walk("tmp").unwrap();
    let elsewhere = world.walk("elsewhere").unwrap();
    let (_, free) = world.create(elsewhere, b"c").unwrap();
    assert_eq!(world.write(free, 0, 100 * K), Ok(100 * K));
    // `/tmp/**` is /tmp too: with `a` and `a2` that makes three, if the walk saw the second.
    let a = world.walk("tmp/a").unwrap();
    let a = world.mediator.open(world.who, a, libc::O_RDWR);
    let a = a.unwrap().handle;
    in_time("room for 6 KiB", || world.write(a, 0, 10 * K));
    assert_eq!(world.write(a, 10 * K as u64, 1), Err(Errno::DQUOT));
    std::fs::remove_file(world.path("tmp/a2")).unwrap();
    in_time("what the host removes gives room", || {
        world.create(tmp, b"n")
    });
}

#[test]
fn open_file_without_a_name_stays_on_the_books_until_it_is_closed() {
    let world = World::new("default = \"allow\"\nlimit = { total = \"100K\" }\n");
    let root = NodeId::ROOT;
    let (_, gone) = world.create(root, b"gone").unwrap();
    world.write(gone, 0, 80 * K).unwrap();
    world.mediator.unlink(world.who, root, b"gone").unwrap();
    let (_, other) = world.create(root, b"other").unwrap();
    let ends = Instant::now() + Duration::from_millis(300);
    // Every refusal may have it counted anew.
    while Instant::now() < ends {
        assert_eq!(world.write(other, 0, 30 * K), Err(Errno::DQUOT));
    }
    world.mediator.release(gone);
    in_time("after close", || world.write(other, 0, 30 * K));
}

#[test]
fn tree_that_is_too_deep_to_be_counted_has_no_room() {
    let world = World::new("default = \"allow\"\nlimit = { entries = 100000 }\n");
    // By descriptor: the path is longer than PATH_MAX.
    let mode = rustix::fs::Mode::RWXU;
    let mut at = std::fs::File::open(world.path("")).unwrap();
    for _ in 0..1030 {
        rustix::fs::mkdirat(&at, "deep", mode).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "deep", flags, mode).unwrap().into();
    }
    let deep = World::again(world, "default = \"allow\"\nlimit = { entries = 100000 }\n");
    let made = deep.mediator.mkdir(deep.who, NodeId::ROOT, b"a", 0o700);
    assert_eq!(made.map(|_made| ()), Err(Errno::DQUOT));
    assert_eq!(deep.room().1, 0);
}

#[test]
fn room_that_is_told_is_what_the_limit_leaves() {
    let world = World::over(
        "default = \"allow\"\nlimit = { total = \"1M\", entries = 10 }\n",
        &[("a", &[0; 256 * K])],
    );
    let (_, handle) = world.create(NodeId::ROOT, b"b").unwrap();
    world.write(handle, 0, 256 * K).unwrap();
    assert_eq!(world.room(), (512 * K as u64, 8));
    let fs = world.mediator.statfs(world.who, NodeId::ROOT).unwrap();
    assert_eq!(fs.blocks * u64::from(fs.frsize), 1024 * K as u64);
    assert_eq!(fs.files, 10);
}

#[test]
fn nothing_is_counted_where_rules_are_only_observed() {
    let world = World::new("default = \"allow\"\nmode = \"observe\"\nlimit = { total = 1 }\n");
    let (_, handle) = world.create(NodeId::ROOT, b"a").unwrap();
    assert_eq!(world.write(handle, 0, 10), Ok(10));
}

#[test]
fn books_never_tell_less_than_there_is_while_many_write_cut_move_and_remove() {
    const TOTAL: u64 = 256 * 1024;
    const THREADS: u64 = 4;
    let world = World::new("default = \"allow\"\nlimit = { total = \"256K\", entries = 40 }\n");
    let grown = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    let quiet = Barrier::new(usize::try_from(THREADS).unwrap());
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let (world, grown, quiet, wrong) = (&world, &grown, &quiet, &wrong);
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ thread);
                for _ in 0..60 {
                    for _ in 0..8 {
                        grown.fetch_add(u64::from(dance(world, &mut dice)), Relaxed);
                    }
                    quiet.wait();
                    if thread == 1 {
                        let (bytes, names) = there_is(world);
                        let told = world.mediator.policy.load().ledger.used(0);
                        let honest =
                            told.is_none_or(|told| told.bytes >= bytes && told.entries >= names);
                        if !honest || bytes > TOTAL || names > 40 {
                            // Told once all are through: the others wait for this thread.
                            let line = format!("{bytes} bytes, {names} names, books: {told:?}");
                            wrong.lock().unwrap().push(line);
                        }
                    }
                    quiet.wait();
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let grown = grown.into_inner();
    assert!(grown > 20, "only {grown} writes found room");
}

/// A xorshift: the same throws each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Writes somewhere and does something else to the file; whether the write found room.
fn dance(world: &World, dice: &mut Dice) -> bool {
    let (mediator, who, root) = (&world.mediator, world.who, NodeId::ROOT);
    let dirs = [&b"one"[..], b"two"];
    let dir = |which: u64| {
        let name = dirs[usize::from(which == 1)];
        let made = mediator
            .mkdir(who, root, name, 0o700)
            .map(|entry| entry.node);
        made.or_else(|_there| mediator.lookup(who, root, name).map(|entry| entry.node))
    };
    let (Ok(from), Ok(to)) = (dir(dice.below(2)), dir(dice.below(2))) else {
        return false;
    };
    let (name, new) = (format!("f{}", dice.below(8)), format!("f{}", dice.below(8)));
    let (name, new) = (name.as_bytes(), new.as_bytes());
    let Ok((node, handle)) = world.create(from, name) else {
        let _outcome = mediator.unlink(who, from, name);
        return false;
    };
    let len = usize::try_from(dice.below(48 * 1024)).unwrap();
    let wrote = world.write(handle, dice.below(16 * 1024), len).is_ok();
    // Each may find that another thread was first.
    let _outcome = match dice.below(5) {
        0 => world.resize(node, dice.below(32 * 1024)),
        1 => mediator.unlink(who, from, name),
        2 => mediator.rename(who, (from, name), (to, new), 0),
        3 => mediator.link(who, node, to, new).map(|_entry| ()),
        _ => Ok(()),
    };
    mediator.release(handle);
    wrote
}

/// Bytes of all files, each once, and the number of names.
fn there_is(world: &World) -> (u64, u64) {
    let (mut todo, mut names) = (vec![world.path("")], 0);
    let mut sizes = HashMap::new();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            names += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                sizes.insert(meta.ino(), meta.len());
            }
        }
    }
    (sizes.values().sum(), names)
}

/// The kernel of a client that nothing is remembered for.
struct NoKernel;

impl super::KernelCaches for NoKernel {
    fn forget_names(&self) -> std::io::Result<bool> {
        Ok(true)
    }

    fn forget_name(&self, _: NodeId, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn wait_for_listings(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }

    fn forget_node(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn limit_that_is_loaded_later_counts_what_is_there_and_replaces_the_one_before() {
    let world = World::over("default = \"allow\"\n", &[("old", &[b'o'; 60 * K])]);
    let (_, handle) = world.create(NodeId::ROOT, b"new").unwrap();
    assert_eq!(world.write(handle, 0, 50 * K), Ok(50 * K), "no limit yet");
    let load = |total: &str| {
        let text = format!("default = \"allow\"\nlimit = {{ total = \"{total}\" }}\n");
        let policy = crate::policy::Policy::parse("test", &text, &Nobody).unwrap();
        world.mediator.reload(policy, &NoKernel).unwrap();
    };
    load("120K");
    // Whoever comes before it is counted waits.
    assert_eq!(world.write(handle, 50 * K as u64, 10 * K), Ok(10 * K));
    assert_eq!(world.write(handle, 60 * K as u64, 1), Err(Errno::DQUOT));
    load("121K");
    assert_eq!(world.write(handle, 60 * K as u64, K), Ok(K));
    assert_eq!(world.write(handle, 61 * K as u64, 1), Err(Errno::DQUOT));
}
