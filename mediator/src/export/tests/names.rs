//! Names come and go, through the view and behind its back.

use super::*;

#[test]
fn unlinked_open_file_stays_usable() {
    let w = World::new();
    let root = w.root();
    let (entry, handle) = w.create(&root, "f", 0o644);
    w.write(handle, 0, b"data").unwrap();
    w.unlink(&root, "f").unwrap();
    let pin = w.export.pin(entry.node).unwrap();
    let mode = Some(Mode::new(0o600));
    let attr = w.set(&pin, Changes { mode, ..NO_CHANGES }).unwrap();
    assert_eq!((attr.mode.bits(), attr.nlink), (0o600, 0));
    let size = Some(2);
    let attr = w.set(&pin, Changes { size, ..NO_CHANGES }).unwrap();
    assert_eq!(attr.size, 2);
    let again = w.open(&pin, READ_WRITE).unwrap();
    assert_eq!(w.read(again, 0, 9).unwrap(), b"da");
    assert_eq!(w.path_of(&pin), "/f", "judged by its last name");

    w.export.release(handle);
    w.export.release(again);
    assert!(w.export.pin(entry.node).is_ok(), "the kernel knows it yet");
    w.export.forget(entry.node, 1);
    assert_eq!(errno(w.export.pin(entry.node)), Errno::STALE);
    assert_eq!(w.export.known_nodes(), 1);
}

#[test]
fn hard_links_are_one_node_with_all_its_names() {
    let w = World::new();
    let root = w.root();
    let dir = w.export.pin(w.mkdir(&root, "d", 0o755).node).unwrap();
    let entry = w.touch(&root, "a");
    let pin = w.export.pin(entry.node).unwrap();
    let link = w.export.link(allow(), &pin, &dir, &name("b")).unwrap();
    assert_eq!((link.node, link.attr.nlink), (entry.node, 2));
    assert_eq!(w.path_of(&pin), "/a");
    assert_eq!(w.export.other_names(&pin), [b"/d/b"]);
    std::fs::hard_link(w.path("a"), w.path("host")).unwrap();
    assert_eq!(w.lookup(&root, "host").unwrap().node, entry.node);
    w.unlink(&root, "a").unwrap();
    let mut names = w.export.other_names(&pin);
    names.push(w.path_of(&pin).into_bytes());
    names.sort();
    assert_eq!(names, [b"/d/b".to_vec(), b"/host".to_vec()]);
    assert_eq!(w.export.stat(&pin).unwrap().nlink, 2);
    w.unlink(&dir, "b").unwrap();
    assert_eq!(w.path_of(&pin), "/host");
    assert!(w.export.other_names(&pin).is_empty());
}

#[test]
fn rename_moves_replaces_refuses_and_exchanges() {
    let w = World::new();
    let root = w.root();
    let dir = w.export.pin(w.mkdir(&root, "d", 0o755).node).unwrap();
    let (a, b) = (w.touch(&root, "a"), w.touch(&dir, "b"));
    let (pin_a, pin_b) = (w.export.pin(a.node).unwrap(), w.export.pin(b.node).unwrap());
    let refused = w.rename((&root, "a"), (&dir, "b"), RenameHow::NoReplace);
    assert_eq!(errno(refused), Errno::EXIST);
    w.rename((&root, "a"), (&dir, "b"), RenameHow::Exchange)
        .unwrap();
    assert_eq!(w.path_of(&pin_a), "/d/b");
    assert_eq!(w.path_of(&pin_b), "/a");
    w.rename((&root, "a"), (&dir, "b"), RenameHow::Replace)
        .unwrap();
    assert_eq!(w.path_of(&pin_b), "/d/b");
    assert_eq!(w.export.stat(&pin_a).unwrap().nlink, 0);
    w.rename((&root, "d"), (&root, "e"), RenameHow::Replace)
        .unwrap();
    assert_eq!(w.path_of(&pin_b), "/e/b");
    let into_itself = w.rename((&root, "e"), (&dir, "x"), RenameHow::Replace);
    assert_eq!(errno(into_itself), Errno::INVAL);
}

#[test]
fn forgotten_directory_goes_when_the_last_name_below_it_does() {
    let w = World::new();
    let root = w.root();
    let forgotten = |child: &str| {
        let dir = w.export.pin(w.mkdir(&root, child, 0o755).node).unwrap();
        let file = w.touch(&dir, "f");
        w.export.forget(dir.node(), 1);
        (dir, file.node)
    };
    // The view moves the name away.
    let (dir, moved) = forgotten("a");
    w.rename((&dir, "f"), (&root, "moved"), RenameHow::Replace)
        .unwrap();
    assert_eq!(w.export.known_nodes(), 2, "the root and the file");
    // The host does, and the file is met under its new name.
    let (_dir, met) = forgotten("b");
    std::fs::rename(w.path("b/f"), w.path("met")).unwrap();
    assert_eq!(w.lookup(&root, "met").unwrap().node, met);
    assert_eq!(w.export.known_nodes(), 3);
    // It keeps another name.
    let (dir, linked) = forgotten("c");
    let pin = w.export.pin(linked).unwrap();
    w.export.link(allow(), &pin, &root, &name("l")).unwrap();
    w.unlink(&dir, "f").unwrap();
    assert_eq!(w.export.known_nodes(), 4);
    for (node, lookups) in [(moved, 1), (met, 2), (linked, 2)] {
        w.export.forget(node, lookups);
    }
    assert_eq!(w.export.known_nodes(), 1);
}

#[test]
fn rename_onto_a_link_of_itself_changes_nothing() {
    let w = World::new();
    let root = w.root();
    let pin = w.export.pin(w.touch(&root, "a").node).unwrap();
    w.export.link(allow(), &pin, &root, &name("b")).unwrap();
    w.rename((&root, "a"), (&root, "b"), RenameHow::Replace)
        .unwrap();
    assert_eq!(w.path_of(&pin), "/a");
    assert_eq!(w.export.other_names(&pin), [b"/b"]);
}

#[test]
fn parent_of_the_root_is_the_root() {
    let w = World::new();
    let root = w.root();
    let dir = w.export.pin(w.mkdir(&root, "d", 0o755).node).unwrap();
    let up = w.export.lookup_parent(allow(), &root).unwrap();
    assert_eq!(up.node, NodeId::ROOT);
    let up = w.export.lookup_parent(allow(), &dir).unwrap();
    assert_eq!(up.node, NodeId::ROOT);
}

#[test]
fn parent_that_the_host_moved_outside_is_not_shown() {
    let (w, outside) = (World::new(), tempfile::tempdir().unwrap());
    let root = w.root();
    let dir = w.export.pin(w.mkdir(&root, "d", 0o755).node).unwrap();
    std::fs::rename(w.path("d"), outside.path().join("d")).unwrap();
    let up = w.export.lookup_parent(allow(), &dir);
    assert_eq!(errno(up), Errno::STALE);
}

#[test]
fn rmdir_removes_empty_directories_only() {
    let w = World::new();
    let root = w.root();
    let dir = w.mkdir(&root, "d", 0o755);
    let pin = w.export.pin(dir.node).unwrap();
    w.touch(&pin, "f");
    let rmdir = |what: &str| w.export.rmdir(allow(), &root, &name(what));
    assert_eq!(errno(rmdir("d")), Errno::NOTEMPTY);
    assert_eq!(errno(w.unlink(&root, "d")), Errno::ISDIR);
    w.unlink(&pin, "f").unwrap();
    rmdir("d").unwrap();
    assert_eq!(errno(w.lookup(&root, "d")), Errno::NOENT);
    assert_eq!(w.export.stat(&pin).unwrap().nlink, 0);
}

#[test]
fn directories_that_the_host_turned_around_never_make_a_loop() {
    let w = World::new();
    std::fs::create_dir_all(w.path("a/b")).unwrap();
    let b = w.walk("a/b");
    // a/b becomes b/a, and the client still holds b as it was.
    std::fs::rename(w.path("a/b"), w.path("b")).unwrap();
    std::fs::rename(w.path("a"), w.path("b/a")).unwrap();
    assert_eq!(errno(w.lookup(&b, "a")), Errno::STALE);
    assert_eq!(w.path_of(&b), "/a/b");
    // Looked up from the top, all is right again.
    let a = w.walk("b/a");
    assert_eq!(w.path_of(&a), "/b/a");
}

#[test]
fn forgotten_parent_stays_while_something_hangs_below() {
    let w = World::new();
    let deep = std::path::Path::new("a").join("b").join("n".repeat(200));
    std::fs::create_dir_all(w.dir.path().join(&deep)).unwrap();
    let pin = w.walk(deep.to_str().unwrap());
    assert_eq!(w.export.known_nodes(), 4);
    for above in ["a/b", "a"] {
        let node = w.walk(above).node();
        w.export.forget(node, u64::MAX);
    }
    assert_eq!(w.path_of(&pin), format!("/{}", deep.display()));
    w.export.forget(pin.node(), 1);
    assert_eq!(w.export.known_nodes(), 1);
}
