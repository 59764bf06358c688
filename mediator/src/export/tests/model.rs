//! Random operations on the export and on a model in memory: both must answer alike, and look
//! alike in the end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One operation; small numbers, so that they meet often.
#[derive(Clone, Debug)]
enum Act {
    Create(u8, u8),
    Mkdir(u8),
    Link(u8, u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8),
    Chmod(u8, u8, u32),
    Chown(u8, u8, u32),
    Write(u8, u8, u16, u8),
    Truncate(u8, u8, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    mode: u32,
    uid: u32,
    nlink: u32,
    data: Option<Vec<u8>>,
}

/// Directories are two deep: `0` is the root, others are known by their name in it.
#[derive(Default)]
struct Model {
    inodes: BTreeMap<usize, File>,
    names: BTreeMap<(u8, u8), usize>,
    next: usize,
    /// Writing clears set-id bits here: as in the mediator, whose CAP_FSETID counts in its own
    /// user namespace only; not for root in the first one.
    writes_clear: bool,
}

/// The root, or one of the three names in it that may be directories.
fn dirs() -> impl Strategy<Value = u8> {
    0..4_u8
}

fn acts() -> impl Strategy<Value = Act> {
    let at = || (dirs(), 1..6_u8);
    let modes = prop_oneof![Just(0o644), Just(0o4755), Just(0o2711), Just(0o600)];
    prop_oneof![
        at().prop_map(|(d, n)| Act::Create(d, n)),
        at().prop_map(|(_root, n)| Act::Mkdir(n)),
        (at(), at()).prop_map(|((d, n), (e, m))| Act::Link(d, n, e, m)),
        at().prop_map(|(d, n)| Act::Unlink(d, n)),
        at().prop_map(|(d, n)| Act::Rmdir(d, n)),
        (at(), at()).prop_map(|((d, n), (e, m))| Act::Rename(d, n, e, m)),
        (at(), modes).prop_map(|((d, n), m)| Act::Chmod(d, n, m)),
        (at(), 1..9_u32).prop_map(|((d, n), u)| Act::Chown(d, n, u)),
        (at(), 0..300_u16, any::<u8>()).prop_map(|((d, n), o, b)| Act::Write(d, n, o, b)),
        (at(), 0..300_u16).prop_map(|((d, n), s)| Act::Truncate(d, n, s)),
    ]
}

impl Model {
    /// Whether `dir` is there: the root, or a directory in it.
    fn dir(&self, dir: u8) -> bool {
        dir == 0 || self.is_dir((0, dir))
    }

    fn is_dir(&self, at: (u8, u8)) -> bool {
        let inode = self.names.get(&at).and_then(|i| self.inodes.get(i));
        inode.is_some_and(|file| file.data.is_none())
    }

    /// Names below a directory: only those in the root have room for any.
    fn is_empty(&self, at: (u8, u8)) -> bool {
        at.0 != 0 || !self.names.keys().any(|(dir, _)| *dir == at.1)
    }

    fn file(&mut self, at: (u8, u8)) -> Option<&mut File> {
        self.inodes.get_mut(self.names.get(&at)?)
    }

    fn add(&mut self, at: (u8, u8), mode: u32, data: Option<Vec<u8>>) {
        self.next += 1;
        let file = File {
            mode,
            uid: 1234,
            nlink: 1,
            data,
        };
        self.inodes.insert(self.next, file);
        self.names.insert(at, self.next);
    }

    fn remove(&mut self, at: (u8, u8)) {
        if let Some(inode) = self.names.remove(&at)
            && let Some(file) = self.inodes.get_mut(&inode)
        {
            file.nlink -= 1;
        }
    }

    /// Moves what lies below a directory of the root along with it.
    fn rename(&mut self, from: (u8, u8), to: (u8, u8)) {
        self.remove(to);
        if let Some(inode) = self.names.remove(&from) {
            self.names.insert(to, inode);
        }
        let moved: Vec<_> = self.names.range((from.1, 0)..=(from.1, 255)).collect();
        if from.0 == 0 && to.0 == 0 && !moved.is_empty() {
            let moved: Vec<_> = moved.into_iter().map(|(k, v)| (*k, *v)).collect();
            for (key, inode) in moved {
                self.names.remove(&key);
                self.names.insert((to.1, key.1), inode);
            }
        }
    }
}

/// What a name is called on disk; every name may be a directory in the root, so that names below
/// it are two deep.
fn called(n: u8) -> String {
    format!("n{n}")
}

fn pin_of(w: &World, dir: u8) -> Result<Pin, Fault> {
    if dir == 0 {
        return Ok(w.root());
    }
    let entry = w.lookup(&w.root(), &called(dir))?;
    w.export.pin(entry.node)
}

fn node_of(w: &World, at: (u8, u8)) -> Result<Pin, Fault> {
    let entry = w.lookup(&pin_of(w, at.0)?, &called(at.1))?;
    w.export.pin(entry.node)
}

/// Does it on both; the two must agree on whether it worked.
fn perform(w: &World, model: &mut Model, act: &Act) -> Result<(), TestCaseError> {
    let (real, expected) = match *act {
        Act::Create(d, n) => (create(w, (d, n)), {
            let ok = model.dir(d) && !model.names.contains_key(&(d, n));
            if ok {
                model.add((d, n), 0o640, Some(Vec::new()));
            }
            ok
        }),
        // Directories only in the root: the model is two deep.
        Act::Mkdir(n) => (mkdir(w, (0, n)), {
            let ok = !model.names.contains_key(&(0, n));
            if ok {
                model.add((0, n), 0o755, None);
            }
            ok
        }),
        Act::Link(d, n, e, m) => (link(w, (d, n), (e, m)), {
            let is_file = model.names.contains_key(&(d, n)) && !model.is_dir((d, n));
            let ok = is_file && model.dir(e) && !model.names.contains_key(&(e, m));
            if ok && let Some(file) = model.file((d, n)) {
                file.nlink += 1;
                let inode = model.names[&(d, n)];
                model.names.insert((e, m), inode);
            }
            ok
        }),
        Act::Unlink(d, n) => (pin_of(w, d).and_then(|dir| w.unlink(&dir, &called(n))), {
            let ok = model.names.contains_key(&(d, n)) && !model.is_dir((d, n));
            if ok {
                model.remove((d, n));
            }
            ok
        }),
        Act::Rmdir(d, n) => (
            pin_of(w, d).and_then(|dir| w.export.rmdir(allow(), &dir, &name(called(n)))),
            {
                let ok = model.is_dir((d, n)) && model.is_empty((d, n));
                if ok {
                    model.remove((d, n));
                }
                ok
            },
        ),
        Act::Rename(d, n, e, m) => {
            // A directory stays in the root.
            let e = if model.is_dir((d, n)) { 0 } else { e };
            (
                rename(w, (d, n), (e, m)),
                model_rename(model, (d, n), (e, m)),
            )
        }
        Act::Chmod(d, n, mode) => (
            change(
                w,
                (d, n),
                Changes {
                    mode: Some(Mode::new(mode)),
                    ..NO_CHANGES
                },
            ),
            model.file((d, n)).map(|file| file.mode = mode).is_some(),
        ),
        Act::Chown(d, n, uid) => (
            change(
                w,
                (d, n),
                Changes {
                    uid: Some(HostUid(uid)),
                    ..NO_CHANGES
                },
            ),
            model.file((d, n)).map(|file| chown(file, uid)).is_some(),
        ),
        Act::Write(d, n, offset, byte) => (
            write(w, (d, n), offset, byte),
            model_data(model, (d, n), |data| {
                let at = usize::from(offset);
                data.resize(data.len().max(at + 1), 0);
                data[at] = byte;
            }),
        ),
        Act::Truncate(d, n, size) => (
            change(
                w,
                (d, n),
                Changes {
                    size: Some(size.into()),
                    ..NO_CHANGES
                },
            ),
            model_data(model, (d, n), |data| data.resize(size.into(), 0)),
        ),
    };
    prop_assert_eq!(real.is_ok(), expected, "{:?}: {:?}", act, real);
    Ok(())
}

/// chown(2) clears set-id bits of files; set-group-id only with group execution.
fn chown(file: &mut File, uid: u32) {
    file.uid = uid;
    if file.data.is_some() {
        clear_set_id(file);
    }
}

fn clear_set_id(file: &mut File) {
    file.mode &= !0o4000;
    if file.mode & 0o010 != 0 {
        file.mode &= !0o2000;
    }
}

fn model_data(model: &mut Model, at: (u8, u8), change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let clear = model.writes_clear;
    let Some(file) = model.file(at) else {
        return false;
    };
    let Some(data) = file.data.as_mut() else {
        return false;
    };
    change(data);
    if clear {
        clear_set_id(file);
    }
    true
}

/// Asks the kernel once, on a file of its own.
fn do_writes_clear() -> bool {
    let w = World::new();
    let (entry, handle) = w.create(&w.root(), "f", 0o4755);
    w.write(handle, 0, b"x").unwrap();
    let attr = w.export.stat(&w.export.pin(entry.node).unwrap()).unwrap();
    !attr.mode.has_set_id()
}

fn model_rename(model: &mut Model, from: (u8, u8), to: (u8, u8)) -> bool {
    let (Some(source), target) = (model.names.get(&from), model.names.get(&to)) else {
        return false;
    };
    if !model.dir(to.0) {
        return false;
    }
    // rename(2): into itself (EINVAL); what is there stays if it is the same inode.
    if model.is_dir(from) && to.0 == from.1 && from.0 == 0 {
        return false;
    }
    if target == Some(source) {
        return true;
    }
    if target.is_some() {
        let fits = match (model.is_dir(from), model.is_dir(to)) {
            (true, true) => model.is_empty(to),
            (false, false) => true,
            (true, false) | (false, true) => false,
        };
        if !fits {
            return false;
        }
    }
    model.rename(from, to);
    true
}

fn create(w: &World, at: (u8, u8)) -> Result<(), Fault> {
    let mut birth = birth(FileKind::Regular, 0o640);
    birth.open.exclusive = true;
    let dir = pin_of(w, at.0)?;
    let (_entry, handle) = w
        .export
        .create(Permit::for_test(birth), &dir, &name(called(at.1)))?;
    w.export.release(handle);
    Ok(())
}

fn mkdir(w: &World, at: (u8, u8)) -> Result<(), Fault> {
    let permit = Permit::for_test(birth(FileKind::Directory, 0o755));
    let dir = pin_of(w, at.0)?;
    w.export.mkdir(permit, &dir, &name(called(at.1))).map(drop)
}

fn link(w: &World, from: (u8, u8), to: (u8, u8)) -> Result<(), Fault> {
    let (pin, dir) = (node_of(w, from)?, pin_of(w, to.0)?);
    w.export
        .link(allow(), &pin, &dir, &name(called(to.1)))
        .map(drop)
}

fn rename(w: &World, from: (u8, u8), to: (u8, u8)) -> Result<(), Fault> {
    let (old, new) = (pin_of(w, from.0)?, pin_of(w, to.0)?);
    let (from, to) = ((&old, &*called(from.1)), (&new, &*called(to.1)));
    w.rename(from, to, RenameHow::Replace)
}

fn change(w: &World, at: (u8, u8), changes: Changes) -> Result<(), Fault> {
    w.set(&node_of(w, at)?, changes).map(drop)
}

fn write(w: &World, at: (u8, u8), offset: u16, byte: u8) -> Result<(), Fault> {
    let handle = w.open(&node_of(w, at)?, READ_WRITE)?;
    let written = w.write(handle, offset.into(), &[byte]).map(drop);
    w.export.release(handle);
    written
}

/// The directory as the host sees it, the inodes by their number.
fn compare(w: &World, model: &Model) -> Result<(), TestCaseError> {
    let mut seen = 0;
    for dir in 0..6_u8 {
        if !model.dir(dir) {
            continue;
        }
        let pin = pin_of(w, dir).unwrap();
        let listed = w.list(&pin).len() - 2;
        let expected = model.names.keys().filter(|(d, _)| *d == dir).count();
        prop_assert_eq!(listed, expected);
        seen += listed;
    }
    prop_assert_eq!(seen, model.names.len());
    for (at, inode) in &model.names {
        let file = &model.inodes[inode];
        let pin = node_of(w, *at).unwrap();
        let attr = w.export.stat(&pin).unwrap();
        prop_assert_eq!(attr.mode.bits(), file.mode, "{:?}", at);
        prop_assert_eq!(attr.owner.uid.0, file.uid);
        let path = match *at {
            (0, n) => format!("/{}", called(n)),
            (d, n) => format!("/{}/{}", called(d), called(n)),
        };
        let mut names = w.export.other_names(&pin);
        names.push(w.path_of(&pin).into_bytes());
        prop_assert!(names.contains(&path.clone().into_bytes()), "{}", path);
        if let Some(data) = &file.data {
            prop_assert_eq!(attr.nlink, file.nlink);
            prop_assert_eq!(names.len(), usize::try_from(file.nlink).unwrap());
            let host = std::fs::read(w.dir.path().join(path.trim_start_matches('/')));
            prop_assert_eq!(&host.unwrap(), data);
        }
    }
    Ok(())
}

proptest! {
    // No file of past failures: the working directory is /proc/self/fd here.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_the_model(acts in prop::collection::vec(acts(), 1..80)) {
        // A small budget, so that nodes are re-opened by the names that the table believes in.
        let w = World::with(48, Submounts::Refuse);
        let mut model = Model {
            writes_clear: do_writes_clear(),
            ..Model::default()
        };
        for act in &acts {
            perform(&w, &mut model, act)?;
        }
        compare(&w, &model)?;
    }
}
