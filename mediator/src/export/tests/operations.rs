//! Each operation does to the host's directory what it says.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::ids::Timestamp;
use crate::op::{XattrChange, XattrName};

fn mode_of(world: &World, path: &str) -> u32 {
    world.path(path).symlink_metadata().unwrap().mode() & 0o7777
}

#[test]
fn create_gives_owner_and_exact_mode() {
    let w = World::new();
    for mode in [0o640, 0o6755, 0o4711, 0o000, 0o777] {
        let file = format!("f{mode:o}");
        let (entry, _handle) = w.create(&w.root(), &file, mode);
        assert_eq!(entry.attr.mode.bits(), mode);
        assert_eq!(entry.attr.owner, OWNER);
        let host = w.path(&file).metadata().unwrap();
        assert_eq!((host.uid(), host.gid()), (1234, 4321));
        assert_eq!(host.mode() & 0o7777, mode);
        assert_eq!(host.ino(), entry.node.0, "inode numbers are the host's");
    }
}

#[test]
fn create_without_tmpfile_does_the_same() {
    let w = World::new();
    w.export
        .no_tmpfile
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let (entry, handle) = w.create(&w.root(), "f", 0o4750);
    assert_eq!(entry.attr.owner, OWNER);
    assert_eq!(mode_of(&w, "f"), 0o4750);
    assert_eq!(w.write(handle, 0, b"x").unwrap(), 1);
}

#[test]
fn create_of_what_is_there_is_refused_and_changes_nothing() {
    let w = World::new();
    std::fs::write(w.path("f"), "content").unwrap();
    let root = w.root();
    let mut truncating = birth(FileKind::Regular, 0o600);
    truncating.open.truncate = true;
    let made = w
        .export
        .create(Permit::for_test(truncating), &root, &name("f"));
    assert_eq!(errno(made), Errno::EXIST);
    assert_eq!(std::fs::read(w.path("f")).unwrap(), b"content");
}

#[test]
fn create_over_special_is_refused_and_counts_nothing() {
    let w = World::new();
    std::fs::create_dir(w.path("d")).unwrap();
    std::os::unix::fs::symlink("d", w.path("l")).unwrap();
    let known = w.export.known_nodes();
    for what in ["d", "l"] {
        let permit = Permit::for_test(birth(FileKind::Regular, 0o600));
        let result = w.export.create(permit, &w.root(), &name(what));
        assert_eq!(errno(result), Errno::EXIST, "{what}");
    }
    assert_eq!(w.export.known_nodes(), known);
    assert_eq!(w.export.open_handles(), 0);
}

#[test]
fn setgid_directory_hands_its_group_down() {
    let w = World::new();
    let dir = w.mkdir(&w.root(), "d", 0o2775);
    assert_eq!(dir.attr.mode.bits(), 0o2775);
    let dir = w.export.pin(dir.node).unwrap();
    let gid = Some(HostGid(777));
    let changes = Changes { gid, ..NO_CHANGES };
    assert_eq!(w.set(&dir, changes).unwrap().mode.bits(), 0o2775);

    let (file, _handle) = w.create(&dir, "f", 0o664);
    assert_eq!(file.attr.owner.gid, HostGid(777));
    assert_eq!(file.attr.owner.uid, OWNER.uid);
    let below = w.mkdir(&dir, "sub", 0o755);
    assert_eq!(below.attr.owner.gid, HostGid(777));
    assert_eq!(below.attr.mode.bits(), 0o2755);

    let mut forced = birth(FileKind::Regular, 0o644);
    forced.owner_is_forced = true;
    let (file, _handle) = w
        .export
        .create(Permit::for_test(forced), &dir, &name("forced"))
        .unwrap();
    assert_eq!(file.attr.owner, OWNER);
}

#[test]
fn default_acl_is_inherited_as_by_plain_creation() {
    // Version 2; user_obj rwx, user 99 rw, group_obj r, mask rw, other none (linux/posix_acl_xattr.h).
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 6, 99),
        (4, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let w = World::new();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(w.dir.path(), c"system.posix_acl_default", &acl, flags).is_err() {
        // A file system without POSIX ACLs has nothing to inherit.
        return;
    }
    let access = |path: &str| {
        let mut buf = [0_u8; 256];
        let len =
            rustix::fs::getxattr(w.path(path), c"system.posix_acl_access", &mut buf[..]).unwrap();
        buf[..len].to_vec()
    };
    std::fs::File::create(w.path("plain")).unwrap();
    let (file, _handle) = w.create(&w.root(), "made", 0o666);
    let (plain, made) = (access("plain"), access("made"));
    assert_eq!(made, plain);
    assert_eq!(file.attr.mode.bits(), mode_of(&w, "plain"));
    let (file, _handle) = w.create(&w.root(), "suid", 0o4666);
    assert_eq!(access("suid"), plain);
    assert_eq!(file.attr.mode.bits(), mode_of(&w, "plain") | 0o4000);
}

#[test]
fn mknod_makes_fifos_sockets_and_files_but_no_devices() {
    let w = World::new();
    let make = |kind, what: &str| {
        let permit = Permit::for_test(birth(kind, 0o660));
        w.export.mknod(permit, &w.root(), &name(what))
    };
    for (kind, what) in [
        (FileKind::Fifo, "fifo"),
        (FileKind::Socket, "sock"),
        (FileKind::Regular, "file"),
    ] {
        let entry = make(kind, what).unwrap();
        assert_eq!(entry.attr.kind, kind);
        assert_eq!(entry.attr.owner, OWNER);
        assert_eq!(entry.attr.mode.bits(), 0o660);
    }
    assert!(w.path("fifo").metadata().unwrap().file_type().is_fifo());
    assert_eq!(errno(make(FileKind::CharDevice, "c")), Errno::PERM);
    assert_eq!(errno(make(FileKind::BlockDevice, "b")), Errno::PERM);
}

#[test]
fn symlink_and_readlink_keep_any_bytes() {
    let w = World::new();
    let target = b"/etc/\xff/../passwd";
    let permit = Permit::for_test(birth(FileKind::Symlink, 0o777));
    let entry = w
        .export
        .symlink(permit, &w.root(), &name("l"), target)
        .unwrap();
    assert_eq!(entry.attr.owner, OWNER);
    let pin = w.export.pin(entry.node).unwrap();
    assert_eq!(w.export.readlink(allow(), &pin).unwrap(), target);

    let mode = Some(Mode::new(0o600));
    let changes = Changes { mode, ..NO_CHANGES };
    assert_eq!(errno(w.set(&pin, changes)), Errno::OPNOTSUPP);
    let uid = Some(HostUid(5));
    let changes = Changes { uid, ..NO_CHANGES };
    assert_eq!(w.set(&pin, changes).unwrap().owner.uid, HostUid(5));
    assert_eq!(errno(w.export.readlink(allow(), &w.root())), Errno::INVAL);
}

#[test]
fn setattr_of_all_at_once_ends_with_the_mode_asked() {
    let w = World::new();
    let (entry, handle) = w.create(&w.root(), "f", 0o644);
    let pin = w.export.pin(entry.node).unwrap();
    let at = Timestamp {
        sec: -5,
        nsec: 123_456_789,
    };
    let changes = Changes {
        uid: Some(HostUid(7)),
        gid: Some(HostGid(8)),
        mode: Some(Mode::new(0o6711)),
        size: Some(100),
        atime: SetTime::To(at),
        mtime: SetTime::Omit,
    };
    let attr = w
        .export
        .setattr(Permit::for_test(changes), &pin, Some(handle))
        .unwrap();
    assert_eq!((attr.owner.uid, attr.owner.gid), (HostUid(7), HostGid(8)));
    assert_eq!((attr.mode.bits(), attr.size, attr.atime), (0o6711, 100, at));
    let before = attr.mtime;
    let changes = Changes {
        mtime: SetTime::Now,
        ..NO_CHANGES
    };
    let attr = w.set(&pin, changes).unwrap();
    assert_eq!(attr.atime, at, "the other time is left alone");
    assert!(attr.mtime >= before);
}

#[test]
fn setattr_refuses_what_is_no_id_and_no_size() {
    let w = World::new();
    let pin = w.export.pin(w.touch(&w.root(), "f").node).unwrap();
    let uid = Some(HostUid(u32::MAX));
    let changes = Changes { uid, ..NO_CHANGES };
    assert_eq!(errno(w.set(&pin, changes)), Errno::INVAL);
    let size = Some(1 << 63);
    let changes = Changes { size, ..NO_CHANGES };
    assert_eq!(errno(w.set(&pin, changes)), Errno::FBIG);
    let size = Some(0);
    let changes = Changes { size, ..NO_CHANGES };
    assert_eq!(errno(w.set(&w.root(), changes)), Errno::ISDIR);
}

#[test]
fn birth_ends_when_owner_and_mode_were_given() {
    let w = World::new();
    for owner_first in [true, false] {
        let entry = w.touch(&w.root(), if owner_first { "a" } else { "b" });
        let pin = w.export.pin(entry.node).unwrap();
        let owner = Changes {
            uid: Some(HostUid(1)),
            ..NO_CHANGES
        };
        let mode = Changes {
            mode: Some(Mode::new(0o600)),
            ..NO_CHANGES
        };
        let (first, second) = if owner_first {
            (owner, mode)
        } else {
            (mode, owner)
        };
        assert!(w.export.is_birth(&pin));
        w.set(&pin, first).unwrap();
        assert!(w.export.is_birth(&pin));
        w.set(&pin, second).unwrap();
        assert!(!w.export.is_birth(&pin));
    }
}

const APPENDING: OpenAs = OpenAs {
    append: true,
    ..READ_WRITE
};

#[test]
fn append_writes_at_the_end_whatever_the_offset() {
    let w = World::new();
    std::fs::write(w.path("f"), "one").unwrap();
    let handle = w.open(&w.walk("f"), APPENDING).unwrap();
    w.write_as(handle, (0, WriteAs::Appended), b"two").unwrap();
    assert_eq!(std::fs::read(w.path("f")).unwrap(), b"onetwo");
    // The flag was taken back, or the data is a mapping's.
    w.write(handle, 0, b"O").unwrap();
    w.write_as(handle, (3, WriteAs::Mapped), b"T").unwrap();
    assert_eq!(std::fs::read(w.path("f")).unwrap(), b"OneTwo");
}

#[test]
fn open_that_is_allowed_to_append_does_nothing_else() {
    let w = World::new();
    std::fs::write(w.path("f"), "one").unwrap();
    std::fs::write(w.path("source"), "source").unwrap();
    let pin = w.walk("f");
    let permit = Permit::for_test_append_only(APPENDING);
    let log = w.export.open_file(permit, &pin).unwrap();
    assert!(w.export.is_append_only(log).unwrap());
    w.write(log, 0, b"two").unwrap();
    assert_eq!(std::fs::read(w.path("f")).unwrap(), b"onetwo");
    // There can be no mapping of it: that of another open file is served by that.
    let mapped = |at| w.write_as(log, (at, WriteAs::Mapped), b"MAP");
    assert_eq!(errno(mapped(0)), Errno::PERM);
    let source = w.open(&w.walk("source"), READ_WRITE).unwrap();
    let copy = || {
        let (from, to) = ((source, 0), (log, 0));
        w.export.copy_file_range(allow(), allow(), from, to, 3)
    };
    assert_eq!(errno(copy()), Errno::BADF);
    let other = w.open(&pin, READ_WRITE).unwrap();
    assert_eq!(mapped(0).unwrap(), 3);
    assert_eq!(std::fs::read(w.path("f")).unwrap(), b"MAPtwo");
    w.export.release(other);
    assert_eq!(errno(mapped(0)), Errno::PERM);
}

#[test]
fn handle_is_held_to_what_it_was_opened_for() {
    let w = World::new();
    let root = w.root();
    let mut only_read = birth(FileKind::Regular, 0o600);
    only_read.open.write = false;
    let (_entry, reader) = w
        .export
        .create(Permit::for_test(only_read), &root, &name("f"))
        .unwrap();
    assert_eq!(errno(w.write(reader, 0, b"x")), Errno::BADF);
    let write_only = OpenAs {
        write: true,
        ..OpenAs::default()
    };
    let writer = w.open(&w.walk("f"), write_only).unwrap();
    assert_eq!(errno(w.read(writer, 0, 1)), Errno::BADF);
    let dir = w.export.opendir(allow(), &root).unwrap();
    assert_eq!(errno(w.read(dir, 0, 1)), Errno::ISDIR);
    assert_eq!(errno(w.write(dir, 0, b"x")), Errno::BADF);
}

#[test]
fn data_operations_do_what_they_say() {
    let w = World::new();
    let root = w.root();
    let (_a, a) = w.create(&root, "a", 0o600);
    let (_b, b) = w.create(&root, "b", 0o600);
    w.export.fallocate(allow(), a, 0, 0, 65_536).unwrap();
    assert_eq!(w.path("a").metadata().unwrap().len(), 65_536);
    w.write(a, 0, &[7; 65_536]).unwrap();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    w.export.fallocate(allow(), a, punch, 0, 8192).unwrap();
    assert_eq!(w.read(a, 8190, 4).unwrap(), [0, 0, 7, 7]);
    let data = w.export.lseek(allow(), a, 0, libc::SEEK_DATA).unwrap();
    assert_eq!(data, 8192);
    let n = w
        .export
        .copy_file_range(allow(), allow(), (a, 8192), (b, 0), 4096)
        .unwrap();
    assert_eq!(w.read(b, 0, 8192).unwrap(), vec![7; n]);
    w.export.fsync(allow(), a, true).unwrap();
    w.export.fsync(allow(), a, false).unwrap();
    w.export.flush(allow(), a).unwrap();
    let dir = w.export.opendir(allow(), &root).unwrap();
    w.export.fsync(allow(), dir, false).unwrap();
    assert!(w.export.statfs(allow(), &root).unwrap().namelen >= 255);
}

#[test]
fn extended_attributes_work_on_files_links_and_unlinked_files() {
    let w = World::new();
    let root = w.root();
    let (entry, _handle) = w.create(&root, "f", 0o600);
    let pin = w.export.pin(entry.node).unwrap();
    let key = |name: &str| XattrName::new(name.as_bytes()).unwrap();
    let set = |pin: &Pin, value: &[u8], flags| {
        let permit = Permit::for_test(XattrChange::Act(key("user.k")));
        w.export.setxattr(permit, pin, value, flags)
    };
    let get = |pin: &Pin| w.export.getxattr(Permit::for_test(key("user.k")), pin);
    w.unlink(&root, "f").unwrap();
    set(&pin, &[9; 1000], 0).unwrap();
    assert_eq!(get(&pin).unwrap(), [9; 1000]);
    assert_eq!(errno(set(&pin, b"", libc::XATTR_CREATE)), Errno::EXIST);
    assert_eq!(errno(set(&pin, b"", 99)), Errno::INVAL);
    assert_eq!(errno(set(&pin, &[0; 65_537], 0)), Errno::TOOBIG);
    let list = w.export.listxattr(allow(), &pin).unwrap();
    assert!(list.windows(7).any(|w| w == b"user.k\0"));
    w.export
        .removexattr(Permit::for_test(XattrChange::Pretend), &pin)
        .unwrap();
    assert_eq!(get(&pin).unwrap(), [9; 1000], "nothing was done");
    let permit = Permit::for_test(XattrChange::Act(key("user.k")));
    w.export.removexattr(permit, &pin).unwrap();
    assert_eq!(errno(get(&pin)), Errno::NODATA);
    let pretended = || Permit::for_test(XattrChange::Pretend);
    w.export.setxattr(pretended(), &pin, b"v", 0).unwrap();
    assert_eq!(errno(get(&pin)), Errno::NODATA, "nothing was done");
    let odd = w.export.setxattr(pretended(), &pin, b"v", 99);
    assert_eq!(errno(odd), Errno::INVAL, "nonsense is not pretended");

    std::os::unix::fs::symlink("f", w.path("l")).unwrap();
    let link = w.walk("l");
    // A symbolic link can have `trusted.*` only (xattr(7)), and that is root's alone.
    let permit = Permit::for_test(XattrChange::Act(key("trusted.k")));
    match w.export.setxattr(permit, &link, b"v", 0) {
        Err(fault) if !rustix::process::geteuid().is_root() => {
            assert_eq!(fault.errno, Errno::PERM);
            return;
        }
        result => result.unwrap(),
    }
    let permit = Permit::for_test(key("trusted.k"));
    assert_eq!(w.export.getxattr(permit, &link).unwrap(), b"v");
}

#[test]
fn readdir_resumes_at_any_cookie_and_hides_what_is_above() {
    let w = World::new();
    for i in 0..500 {
        std::fs::write(w.path(&format!("file-{i:03}")), "").unwrap();
    }
    let root = w.root();
    let all = w.list(&root);
    assert_eq!(all.len(), 502);
    let own = w.dir.path().metadata().unwrap().ino();
    for (name, ino, _cookie) in &all {
        if name == "." || name == ".." {
            assert_eq!(*ino, own, "{name}");
        } else {
            assert_eq!(*ino, w.lookup(&root, name).unwrap().attr.ino);
        }
    }
    // One entry a reply, as a client with the smallest buffer.
    let handle = w.export.opendir(allow(), &root).unwrap();
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let mut taken = None;
        let mut each = |entry: DirEntry<'_>| {
            let first = taken.is_none();
            if first {
                taken = Some((entry.name.to_vec(), entry.cookie));
                return Handed::Taken;
            }
            Handed::Full
        };
        let permit = allow::<rows::Readdir>();
        w.export
            .readdir(&permit, handle, cookie, &mut each)
            .unwrap();
        let Some((name, next)) = taken else { break };
        seen.push(String::from_utf8(name).unwrap());
        cookie = next;
    }
    let names: Vec<_> = all.iter().map(|(name, ..)| name.clone()).collect();
    assert_eq!(seen, names);
    // seekdir(3): from the middle, on the same handle.
    let mut rest = 0;
    let mut count = |_: DirEntry<'_>| {
        rest += 1;
        Handed::Taken
    };
    let permit = allow::<rows::Readdir>();
    w.export
        .readdir(&permit, handle, all[250].2, &mut count)
        .unwrap();
    assert_eq!(rest, 502 - 251);
}

#[test]
fn walk_goes_on_behind_entries_that_were_left_out() {
    let w = World::new();
    for i in 0..20 {
        std::fs::write(w.path(&format!("f{i}")), "").unwrap();
    }
    let handle = w.export.opendir(allow(), &w.root()).unwrap();
    let permit = allow::<rows::Readdir>();
    // As a policy that hides all but the first entry: the client comes back with that one's cookie.
    let (mut cookie, mut offered) = (0, Vec::new());
    for _page in 0..2 {
        let mut next = None;
        let mut each = |entry: DirEntry<'_>| {
            offered.push(entry.name.to_vec());
            if offered.len() == 1 {
                next = Some(entry.cookie);
                return Handed::Taken;
            }
            Handed::LeftOut
        };
        let read = w.export.readdir(&permit, handle, cookie, &mut each);
        read.unwrap();
        cookie = next.unwrap_or(cookie);
    }
    assert_eq!(offered.len(), 22, "none twice: {offered:?}");
}

#[test]
fn creation_that_cannot_be_finished_leaves_nothing() {
    let w = World::new();
    let root = w.root();
    // An owner that no inode can have: the step after the making fails.
    let unfinished = |kind| Birth {
        owner: HostOwner {
            uid: HostUid(u32::MAX),
            ..OWNER
        },
        ..birth(kind, 0o755)
    };
    let n = name("x");
    for no_tmpfile in [false, true] {
        w.export
            .no_tmpfile
            .store(no_tmpfile, std::sync::atomic::Ordering::Relaxed);
        let permit = Permit::for_test(unfinished(FileKind::Regular));
        assert_eq!(errno(w.export.create(permit, &root, &n)), Errno::INVAL);
        let permit = Permit::for_test(unfinished(FileKind::Regular));
        assert_eq!(errno(w.export.mknod(permit, &root, &n)), Errno::INVAL);
    }
    let permit = Permit::for_test(unfinished(FileKind::Directory));
    assert_eq!(errno(w.export.mkdir(permit, &root, &n)), Errno::INVAL);
    let permit = Permit::for_test(unfinished(FileKind::Fifo));
    assert_eq!(errno(w.export.mknod(permit, &root, &n)), Errno::INVAL);
    let permit = Permit::for_test(unfinished(FileKind::Symlink));
    let link = w.export.symlink(permit, &root, &n, b"target");
    assert_eq!(errno(link), Errno::INVAL);
    assert_eq!(std::fs::read_dir(w.dir.path()).unwrap().count(), 0);
    assert_eq!((w.export.known_nodes(), w.export.open_handles()), (1, 0));
}
