//! What an attacker tries on the export: from the host, and with forged numbers.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn fifo_swapped_in_is_never_opened() {
    let w = World::with(48, Submounts::Refuse);
    let root = w.root();
    std::fs::write(w.path("f"), "x").unwrap();
    let node = w.lookup(&root, "f").unwrap().node;
    let pin = w.export.pin(node).unwrap();
    std::fs::remove_file(w.path("f")).unwrap();
    rustix::fs::mknodat(
        CWD,
        w.path("f"),
        rustix::fs::FileType::Fifo,
        RawMode::from_bits_truncate(0o666),
        0,
    )
    .unwrap();
    // What was looked up is still the file that it was.
    assert!(w.open(&pin, READ_WRITE).is_ok());
    // Looked up again, it is a FIFO, and none is opened (that would wait for ever); nor is it by create.
    let fifo = w.lookup(&root, "f").unwrap();
    assert_ne!(fifo.node, node);
    let fifo = w.export.pin(fifo.node).unwrap();
    assert_eq!(errno(w.open(&fifo, READ_WRITE)), Errno::NXIO);
    let permit = Permit::for_test(birth(FileKind::Regular, 0o600));
    assert_eq!(
        errno(w.export.create(permit, &root, &name("f"))),
        Errno::EXIST
    );
    let size = Some(0);
    let changes = Changes { size, ..NO_CHANGES };
    assert_eq!(errno(w.set(&fifo, changes)), Errno::INVAL);
}

#[test]
fn device_that_the_host_made_is_not_opened() {
    let w = World::new();
    let (dev, mode) = (
        rustix::fs::makedev(1, 3),
        RawMode::from_bits_truncate(0o666),
    );
    let kind = rustix::fs::FileType::CharacterDevice;
    if rustix::fs::mknodat(CWD, w.path("null"), kind, mode, dev).is_err() {
        // Not even root may, in a user namespace.
        return;
    }
    let pin = w.walk("null");
    assert_eq!(w.export.stat(&pin).unwrap().rdev, 0x103);
    assert_eq!(errno(w.open(&pin, READ_WRITE)), Errno::NXIO);
}

#[test]
fn symlink_swapped_in_for_a_directory_leads_nowhere() {
    let (w, outside) = (
        World::with(48, Submounts::Refuse),
        tempfile::tempdir().unwrap(),
    );
    std::fs::write(outside.path().join("file"), "canary").unwrap();
    std::fs::create_dir(w.path("d")).unwrap();
    std::fs::write(w.path("d/file"), "inside").unwrap();
    let file = w.walk("d/file").node();
    let dir = w.walk("d").node();
    std::fs::rename(w.path("d"), w.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(outside.path(), w.path("d")).unwrap();
    for i in 0..300 {
        std::fs::write(w.path(&format!("filler{i}")), "").unwrap();
        w.walk(&format!("filler{i}"));
    }
    assert_eq!(errno(w.export.pin(file)), Errno::STALE);
    assert_eq!(errno(w.export.pin(dir)), Errno::STALE);
    let link = w.walk("d");
    assert_eq!(link.kind(), FileKind::Symlink);
    let through = w.lookup(&link, "file");
    assert_eq!(errno(through), Errno::NOTDIR);
    let canary = std::fs::read(outside.path().join("file")).unwrap();
    assert_eq!(canary, b"canary");
}

#[test]
fn forged_and_stale_handles_are_refused() {
    let w = World::new();
    let (_entry, handle) = w.create(&w.root(), "f", 0o600);
    w.export.release(handle);
    let (_entry, new) = w.create(&w.root(), "g", 0o600);
    assert_eq!(new.0 & 0xffff_ffff, handle.0 & 0xffff_ffff, "a slot again");
    for forged in [handle.0, 0, 1, u64::MAX, new.0 + 1, new.0 ^ (1 << 40)] {
        let forged = HandleId(forged);
        assert_eq!(errno(w.read(forged, 0, 1)), Errno::BADF);
        assert_eq!(errno(w.write(forged, 0, b"x")), Errno::BADF);
        assert_eq!(errno(w.export.pin_handle(forged)), Errno::BADF);
        assert_eq!(errno(w.export.flush(allow(), forged)), Errno::BADF);
        let permit = allow::<rows::Readdir>();
        let read = w.export.readdir(&permit, forged, 0, &mut |_| Handed::Taken);
        assert_eq!(errno(read), Errno::BADF);
        w.export.release(forged);
    }
    assert_eq!(w.export.open_handles(), 1);
    assert!(w.export.pin_handle(new).is_ok());
}

#[test]
fn forged_cookies_stay_in_the_directory() {
    let w = World::new();
    for i in 0..50 {
        std::fs::write(w.path(&format!("f{i}")), "").unwrap();
    }
    let root = w.root();
    let handle = w.export.opendir(allow(), &root).unwrap();
    let permit = allow::<rows::Readdir>();
    for cookie in [
        1,
        2,
        3,
        77,
        1 << 31,
        1 << 62,
        u64::MAX >> 1,
        1 << 63,
        u64::MAX,
    ] {
        let mut each = |entry: DirEntry<'_>| {
            assert!(entry.name.starts_with(b"f") || entry.name.starts_with(b"."));
            Handed::Taken
        };
        match w.export.readdir(&permit, handle, cookie, &mut each) {
            Ok(()) => {}
            Err(fault) => assert_eq!(fault.errno, Errno::INVAL),
        }
    }
    let file = w.open(&w.walk("f1"), READ_WRITE).unwrap();
    let on_file = w.export.readdir(&permit, file, 0, &mut |_| Handed::Taken);
    assert_eq!(errno(on_file), Errno::NOTDIR);
}

#[test]
fn offsets_near_the_end_of_numbers_are_refused() {
    let w = World::new();
    let (_entry, h) = w.create(&w.root(), "f", 0o600);
    let end = u64::MAX >> 1;
    for offset in [end + 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(errno(w.read(h, offset, 8)), Errno::INVAL);
        assert_eq!(errno(w.write(h, offset, b"12345678")), Errno::INVAL);
        let range = w.export.fallocate(allow(), h, 0, offset, 1);
        assert_eq!(errno(range), Errno::INVAL);
        let copy = |from, to| {
            let export = &w.export;
            export.copy_file_range(allow(), allow(), (h, from), (h, to), u64::MAX)
        };
        assert_eq!(errno(copy(offset, 0)), Errno::INVAL);
        assert_eq!(errno(copy(0, offset)), Errno::INVAL);
    }
    assert_eq!(errno(w.write(h, end - 1, b"12345678")), Errno::FBIG);
    assert_eq!(
        errno(w.export.fallocate(allow(), h, 0, 1, u64::MAX)),
        Errno::FBIG
    );
    assert!(w.read(h, end - 1, 8).unwrap().is_empty());
    for mode in [-1, 0x8000, libc::FALLOC_FL_PUNCH_HOLE] {
        let refused = w.export.fallocate(allow(), h, mode, 0, 1);
        assert_eq!(errno(refused), Errno::OPNOTSUPP);
    }
    let seek = |offset, whence| w.export.lseek(allow(), h, offset, whence);
    assert_eq!(errno(seek(-1, libc::SEEK_DATA)), Errno::NXIO);
    assert_eq!(errno(seek(0, libc::SEEK_SET)), Errno::INVAL);
}

#[test]
fn forged_nodes_and_forgets_are_harmless() {
    let w = World::new();
    for forged in [0, 2, 1 << 63, u64::MAX] {
        assert_eq!(errno(w.export.pin(NodeId(forged))), Errno::STALE);
        w.export.forget(NodeId(forged), 1);
    }
    w.export.forget(NodeId::ROOT, u64::MAX);
    assert!(w.export.pin(NodeId::ROOT).is_ok());
    let (entry, handle) = w.create(&w.root(), "f", 0o600);
    w.export.forget(entry.node, u64::MAX);
    assert_eq!(w.write(handle, 0, b"x").unwrap(), 1);
    assert!(w.export.pin(entry.node).is_ok(), "an open handle keeps it");
    w.export.release(handle);
    assert_eq!(w.export.known_nodes(), 1);
}

#[test]
fn one_tree_renamed_walked_and_removed_by_many_threads() {
    let w = World::with(64, Submounts::Refuse);
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let w = &w;
            scope.spawn(move || {
                let mut i = thread;
                while Instant::now() < end {
                    i = i.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    stir(w, i >> 8);
                }
            });
        }
    });
    assert_eq!(w.export.open_handles(), 0);
    assert!(w.export.pin(NodeId::ROOT).is_ok());
}

/// One arbitrary operation on a small tree. Whatever it answers, it must answer.
fn stir(w: &World, dice: usize) {
    let root = w.root();
    let names = ["a", "b", "c"];
    let (one, two) = (names[dice % 3], names[dice / 3 % 3]);
    let top = w.lookup(&root, one).and_then(|e| w.export.pin(e.node));
    let dir = top.unwrap_or(root);
    match dice / 9 % 6 {
        0 => {
            let permit = Permit::for_test(birth(FileKind::Directory, 0o755));
            let _ = w.export.mkdir(permit, &dir, &name(two));
        }
        1 => {
            let permit = Permit::for_test(birth(FileKind::Regular, 0o644));
            if let Ok((entry, handle)) = w.export.create(permit, &dir, &name(two)) {
                let _ = w.write(handle, 0, b"x");
                w.export.release(handle);
                w.export.forget(entry.node, 1);
            }
        }
        2 => drop(w.unlink(&dir, two)),
        3 => drop(w.export.rmdir(allow(), &dir, &name(two))),
        4 => drop(w.rename((&dir, one), (&w.root(), two), RenameHow::Replace)),
        _ => drop(w.rename((&dir, one), (&dir, two), RenameHow::Exchange)),
    }
    let _ = w.path_of(&dir);
    w.export.forget(dir.node(), 1);
}
