//! A tree far larger than the budget of descriptors.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use super::*;

const BUDGET: usize = 64;

#[test]
fn thousands_of_files_under_a_small_budget_are_all_served() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    let mut nodes = Vec::new();
    for d in 0..40 {
        let dir = w.mkdir(&root, &format!("d{d}"), 0o755);
        for f in 0..100 {
            // Pinned anew each time, since a caller keeps a pin for one request only.
            let pin = w.export.pin(dir.node).unwrap();
            nodes.push((d, f, w.touch(&pin, &format!("f{f}")).node));
        }
    }
    let held = w.export.with(|table| table.held_descriptors());
    assert!(held <= BUDGET, "{held}");
    // Ancestors are renamed through the view: what was given up is found by the new name.
    for d in 0..40 {
        let to = format!("moved{d}");
        let from = format!("d{d}");
        w.rename((&root, &from), (&root, &to), RenameHow::Replace)
            .unwrap();
    }
    for (d, f, node) in nodes.iter().rev() {
        let pin = w.export.pin(*node).unwrap();
        let path = format!("moved{d}/f{f}");
        assert_eq!(w.path_of(&pin), format!("/{path}"));
        let ino = w.path(&path).metadata().unwrap().ino();
        assert_eq!(w.export.stat(&pin).unwrap().ino, ino);
    }
    let held = w.export.with(|table| table.held_descriptors());
    assert!(held <= BUDGET, "{held}");
    for (_, _, node) in nodes {
        w.export.forget(node, 1);
    }
    assert_eq!(w.export.known_nodes(), 41);
}

#[test]
fn handles_spend_the_budget_and_never_all_of_it() {
    let w = World::with(BUDGET, Submounts::Refuse);
    w.touch(&w.root(), "f");
    let pin = w.walk("f");
    let mut open = Vec::new();
    let refused = loop {
        match w.open(&pin, READ_WRITE) {
            Ok(handle) => open.push(handle),
            Err(fault) => break fault,
        }
    };
    assert_eq!(refused.errno, Errno::NFILE);
    assert!(open.len() < BUDGET);
    let used = w.export.descriptors();
    assert!(
        used.held >= open.len() && used.held <= used.budget,
        "{used:?}"
    );
    assert!(used.budget < BUDGET, "{used:?}");
    assert!(w.lookup(&w.root(), "f").is_ok(), "names are still served");
    for handle in open {
        w.export.release(handle);
    }
    assert_eq!(w.export.open_handles(), 0);
    assert!(w.open(&pin, READ_WRITE).is_ok());
}

#[test]
fn last_descriptor_of_a_nameless_file_is_not_given_up() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    let lost = w.touch(&root, "lost");
    w.unlink(&root, "lost").unwrap();
    for i in 0..500 {
        std::fs::write(w.path(&format!("f{i}")), "").unwrap();
        w.lookup(&root, &format!("f{i}")).unwrap();
    }
    let pin = w.export.pin(lost.node).unwrap();
    assert_eq!(w.export.stat(&pin).unwrap().nlink, 0);
}

#[test]
fn file_whose_name_went_is_found_by_another() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    std::fs::write(w.path("a"), "x").unwrap();
    std::fs::hard_link(w.path("a"), w.path("b")).unwrap();
    let node = w.lookup(&root, "a").unwrap().node;
    w.lookup(&root, "b").unwrap();
    std::fs::remove_file(w.path("a")).unwrap();
    give_up_all(&w);
    let pin = w.export.pin(node).unwrap();
    assert_eq!(w.export.stat(&pin).unwrap().nlink, 1);
}

#[test]
fn name_that_leads_to_another_inode_is_stale() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    std::fs::write(w.path("f"), "old").unwrap();
    let node = w.lookup(&root, "f").unwrap().node;
    std::fs::write(w.path("new"), "new").unwrap();
    std::fs::rename(w.path("new"), w.path("f")).unwrap();
    give_up_all(&w);
    assert_eq!(errno(w.export.pin(node)), Errno::STALE);
    assert_ne!(w.lookup(&root, "f").unwrap().node, node);
}

/// Fills the ring with other nodes until nothing that may be given up is left of what was there.
fn give_up_all(w: &World) {
    let root = w.root();
    for i in 0..4 * BUDGET {
        let file = format!("filler{i}");
        std::fs::write(w.path(&file), "").unwrap();
        std::fs::hard_link(w.path(&file), w.path(&format!("link{i}"))).unwrap();
        w.lookup(&root, &file).unwrap();
    }
}

#[test]
fn released_handle_is_closed() {
    let w = World::with(BUDGET, Submounts::Refuse);
    w.touch(&w.root(), "f");
    let handle = w.open(&w.walk("f"), READ_WRITE).unwrap();
    let fd = w
        .export
        .with(|table| table.handle(handle))
        .unwrap()
        .fd()
        .as_raw_fd();
    let link = || std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let mine = w.path("f");
    assert_eq!(link().unwrap(), mine);
    w.export.release(handle);
    assert_ne!(link(), Some(mine));
}

#[test]
fn creation_without_a_descriptor_to_spare_leaves_no_file() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    w.touch(&root, "f");
    let pin = w.walk("f");
    while w.open(&pin, READ_WRITE).is_ok() {}
    let before = w.export.known_nodes();
    for _again in 0..2 {
        let permit = Permit::for_test(birth(FileKind::Regular, 0o600));
        let made = w.export.create(permit, &root, &name("new"));
        assert_eq!(errno(made), Errno::NFILE);
        assert!(!w.path("new").exists());
    }
    assert_eq!(w.export.known_nodes(), before);
}

/// Without an open handle their descriptors are all that leads to them.
#[test]
fn removed_files_that_are_still_known_leave_room_for_others() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    let mut known = Vec::new();
    let refused = loop {
        let file = format!("f{}", known.len());
        let entry = w.touch(&root, &file);
        match w.unlink(&root, &file) {
            Ok(()) => known.push(entry.node),
            Err(fault) => break fault,
        }
        assert!(known.len() < BUDGET, "there is an end");
    };
    assert_eq!(refused.errno, Errno::NFILE);
    let last = format!("f{}", known.len());
    assert!(w.path(&last).exists());
    assert!(known.len() >= BUDGET / 4, "{}", known.len());
    // Nor by a rename over it; what the kernel does not know goes as ever.
    w.touch(&root, "over");
    let over = w.rename((&root, "over"), (&root, &last), RenameHow::Replace);
    assert_eq!(errno(over), Errno::NFILE);
    std::fs::write(w.path("unknown"), "").unwrap();
    w.unlink(&root, "unknown").unwrap();
    let used = w.export.descriptors();
    assert!(used.held <= used.budget, "{used:?}");
    assert!(!w.list(&root).is_empty());
    let (_, handle) = w.create(&root, "more", 0o600);
    w.export.release(handle);
    for node in &known {
        let pin = w.export.pin(*node).unwrap();
        assert_eq!(w.export.stat(&pin).unwrap().nlink, 0);
    }
    known.iter().for_each(|node| w.export.forget(*node, 1));
    w.unlink(&root, &last).unwrap();
}

#[test]
fn removed_file_that_was_open_is_counted_once_and_stays_usable() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    let mut open = Vec::new();
    for i in 0..30 {
        let file = format!("f{i}");
        open.push(w.create(&root, &file, 0o600));
        w.unlink(&root, &file).unwrap();
    }
    give_up_all(&w);
    let used = w.export.descriptors();
    assert!(used.held <= used.budget, "{used:?}");
    for (entry, handle) in open {
        w.export.release(handle);
        for i in 0..BUDGET {
            w.lookup(&root, &format!("filler{i}")).unwrap();
            w.lookup(&root, &format!("link{i}")).unwrap();
        }
        let pin = w.export.pin(entry.node).unwrap();
        assert_eq!(w.export.stat(&pin).unwrap().nlink, 0);
        w.export.forget(entry.node, 1);
    }
}

/// They have links left, of which the kernel knows none.
#[test]
fn links_are_removed_without_end_though_their_files_stay_known() {
    let w = World::with(BUDGET, Submounts::Refuse);
    let root = w.root();
    std::fs::create_dir(w.path("other")).unwrap();
    let mut nodes = Vec::new();
    for i in 0..10 * BUDGET {
        let file = format!("l{i}");
        std::fs::write(w.path(&file), file.as_bytes()).unwrap();
        std::fs::hard_link(w.path(&file), w.path(&format!("other/{i}"))).unwrap();
        nodes.push(w.lookup(&root, &file).unwrap().node);
        w.unlink(&root, &file).unwrap();
        let used = w.export.descriptors();
        assert!(used.held <= used.budget, "{used:?}");
    }
    // Found by its other name it is the same.
    let other = w.walk("other");
    for (i, node) in nodes.into_iter().enumerate() {
        let entry = w.lookup(&other, &i.to_string()).unwrap();
        assert_eq!(entry.node, node);
        let pin = w.export.pin(node).unwrap();
        assert_eq!(
            w.export.stat(&pin).unwrap().size,
            format!("l{i}").len() as u64
        );
    }
}
