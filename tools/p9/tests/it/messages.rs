//! Each family of messages, one at a time.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use virtfs_p9::{AT_REMOVEDIR, Errno, Error, Ids, LockRange, SetAttr, Time};

use crate::common::{ALICE, Bench, exists, refused};

#[test]
fn create_by_a_user_gives_owner_group_and_mode_on_the_host() {
    let mut bench = Bench::new();
    bench
        .session
        .user(ALICE)
        .unwrap()
        .write_all("file", 0o640, b"hello")
        .unwrap();
    assert_eq!(bench.host_owner("file"), (0o100_640, ALICE));
    assert_eq!(fs::read(bench.host("file")).unwrap(), b"hello");
    refused(
        bench.session.user(ALICE).unwrap().create("file", 0o600),
        Errno::EEXIST,
    );
    bench
        .session
        .user(Ids::ROOT)
        .unwrap()
        .write_all("file", 0o600, b"x")
        .unwrap();
    assert_eq!(fs::read(bench.host("file")).unwrap(), b"x");
}

#[test]
fn directory_and_symlink_belong_to_their_maker() {
    let mut bench = Bench::new();
    let mut alice = bench.session.user(ALICE).unwrap();
    alice.mkdir_p("d/e", 0o750).unwrap();
    alice.symlink("d/l", "../elsewhere").unwrap();
    assert_eq!(alice.readlink("d/l").unwrap(), b"../elsewhere");
    refused(alice.mkdir("d", 0o700), Errno::EEXIST);
    assert_eq!(bench.host_owner("d/e"), (0o040_750, ALICE));
    assert_eq!(bench.host_owner("d/l"), (0o120_777, ALICE));
    assert_eq!(
        fs::read_link(bench.host("d/l")).unwrap().to_str(),
        Some("../elsewhere")
    );
}

/// QEMUs with the fix of CVE-2023-2861 make the node, cannot open it to set its owner, and unlink it again: ENXIO.
#[test]
fn special_files_are_made_or_refused_without_a_trace() {
    let mut bench = Bench::new();
    for (name, mode, device) in [("null", 0o020_600, (1, 3)), ("fifo", 0o010_600, (0, 0))] {
        match bench.session.user(ALICE).unwrap().mknod(name, mode, device) {
            Ok(()) => assert_eq!(bench.host_owner(name), (mode, ALICE)),
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::ENXIO), "{error}");
                assert!(!exists(&bench.host(name)));
            }
        }
    }
}

#[test]
fn setattr_changes_what_it_names_and_nothing_else() {
    let mut bench = Bench::new();
    let mut root = bench.session.user(Ids::ROOT).unwrap();
    root.write_all("file", 0o644, b"0123456789").unwrap();
    root.setattr("file", &SetAttr::owner(77, 88)).unwrap();
    root.setattr("file", &SetAttr::mode(0o6755)).unwrap();
    let times = SetAttr {
        atime: Some(Time::At(5, 6)),
        mtime: Some(Time::At(7, 8)),
        ..SetAttr::default()
    };
    root.setattr("file", &times).unwrap();
    let host = fs::metadata(bench.host("file")).unwrap();
    assert_eq!(
        bench.host_owner("file"),
        (0o106_755, Ids { uid: 77, gid: 88 })
    );
    assert_eq!(
        (
            host.atime(),
            host.atime_nsec(),
            host.mtime(),
            host.mtime_nsec()
        ),
        (5, 6, 7, 8)
    );

    let mut root = bench.session.user(Ids::ROOT).unwrap();
    root.setattr(
        "file",
        &SetAttr {
            mtime: Some(Time::Now),
            ..SetAttr::default()
        },
    )
    .unwrap();
    root.setattr(
        "file",
        &SetAttr {
            gid: Some(99),
            ..SetAttr::default()
        },
    )
    .unwrap();
    root.setattr("file", &SetAttr::size(4)).unwrap();
    let host = fs::metadata(bench.host("file")).unwrap();
    assert_eq!(
        (host.uid(), host.gid(), host.size(), host.atime()),
        (77, 99, 4, 5)
    );
    assert!(host.mtime() > 1_000_000_000);
}

#[test]
fn getattr_says_what_the_host_says() {
    let mut bench = Bench::new();
    bench
        .session
        .user(ALICE)
        .unwrap()
        .write_all("file", 0o604, &[1; 9000])
        .unwrap();
    let seen = bench.session.user(ALICE).unwrap().stat("file").unwrap();
    let host = fs::metadata(bench.host("file")).unwrap();
    assert_eq!(
        (seen.mode, seen.uid, seen.gid),
        (host.mode(), host.uid(), host.gid())
    );
    assert_eq!(
        (seen.nlink, seen.size, seen.blocks),
        (host.nlink(), host.size(), host.blocks())
    );
    assert_eq!(i64::try_from(seen.ctime_sec).unwrap(), host.ctime());
    assert_eq!(i64::try_from(seen.mtime_nsec).unwrap(), host.mtime_nsec());
    let statfs = bench
        .session
        .user(ALICE)
        .unwrap()
        .with("", virtfs_p9::Session::statfs)
        .unwrap();
    let host = nix::sys::statvfs::statvfs(&bench.host("")).unwrap();
    // QEMU counts in blocks as large as a message.
    let factor = u64::from(statfs.bsize) / host.block_size();
    assert_eq!(
        (statfs.blocks, u64::from(statfs.namelen)),
        (host.blocks() / factor, host.name_max())
    );
}

#[test]
fn large_file_is_written_and_read_back_in_pieces() {
    let mut bench = Bench::new();
    let content: Vec<u8> = (0..1_000_003_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    let mut alice = bench.session.user(ALICE).unwrap();
    alice.write_all("file", 0o600, &content).unwrap();
    assert!(alice.read_all("file").unwrap() == content);
    assert!(fs::read(bench.host("file")).unwrap() == content);
    let mut alice = bench.session.user(ALICE).unwrap();
    let fid = alice.open("file", 2).unwrap();
    assert_eq!(bench.session.write(fid, 2_000_000, b"end").unwrap(), 3);
    assert_eq!(bench.session.read(fid, 2_000_001, 10).unwrap(), b"nd");
    bench.session.fsync(fid).unwrap();
    bench.session.clunk(fid).unwrap();
    refused(bench.session.read(fid, 0, 1), Errno::EINVAL);
    assert_eq!(fs::metadata(bench.host("file")).unwrap().len(), 2_000_003);
}

#[test]
fn names_of_any_octets_and_deep_paths_work() {
    let mut bench = Bench::new();
    let odd = std::ffi::OsStr::from_bytes(b"a\xff\n,\x01");
    let deep = (0..40)
        .map(|n| format!("d{n}"))
        .collect::<Vec<_>>()
        .join("/");
    let mut alice = bench.session.user(ALICE).unwrap();
    alice.write_all(odd, 0o600, b"1").unwrap();
    alice.mkdir_p(&deep, 0o755).unwrap();
    alice.write_all(format!("{deep}/f"), 0o600, b"2").unwrap();
    refused(alice.stat(format!("{deep}/none/f")), Errno::ENOENT);
    refused(alice.stat(format!("{deep}/f/g")), Errno::ENOTDIR);
    refused(alice.stat("x".repeat(256)), Errno::ENAMETOOLONG);
    assert_eq!(fs::read(bench.host("").join(odd)).unwrap(), b"1");
    assert_eq!(fs::read(bench.host(&format!("{deep}/f"))).unwrap(), b"2");
    // What was walked on the way was clunked: in flight is nothing, and the root's fid still serves.
    assert_eq!(bench.session.in_flight(), 0);
}

#[test]
fn readdir_of_many_names_lists_each_once() {
    let mut bench = Bench::new();
    let mut wanted: Vec<_> = (0..3000)
        .map(|n| format!("a-name-of-some-length-{n:040}").into_bytes())
        .collect();
    for name in &wanted {
        fs::write(bench.host("").join(std::ffi::OsStr::from_bytes(name)), b"").unwrap();
    }
    fs::create_dir(bench.host("zz")).unwrap();
    wanted.push(b"zz".to_vec());
    let entries = bench.session.user(ALICE).unwrap().list("").unwrap();
    assert_eq!(entries.last().map(|entry| entry.kind), Some(4));
    assert!(entries.into_iter().map(|entry| entry.name).eq(wanted));
}

#[test]
fn link_rename_and_removal_by_every_message() {
    let mut bench = Bench::new();
    let mut alice = bench.session.user(ALICE).unwrap();
    alice.write_all("a", 0o600, b"a").unwrap();
    alice.mkdir("d", 0o700).unwrap();
    alice.link("a", "d/b").unwrap();
    assert_eq!(fs::metadata(bench.host("d/b")).unwrap().nlink(), 2);

    let mut alice = bench.session.user(ALICE).unwrap();
    alice.rename("a", "d/c").unwrap();
    refused(alice.rename("a", "x"), Errno::ENOENT);
    refused(alice.rmdir("d"), Errno::ENOTEMPTY);
    refused(alice.unlink("d"), Errno::EISDIR);
    alice.unlink("d/b").unwrap();
    let (file, directory, root) = (
        alice.walk("d/c").unwrap(),
        alice.walk("d").unwrap(),
        alice.walk("").unwrap(),
    );
    let session = &mut bench.session;
    session.rename(file, root, "e").unwrap();
    session.renameat(root, "e", directory, "f").unwrap();
    session.renameat(directory, "f", root, "g").unwrap();
    session.unlinkat(root, "d", AT_REMOVEDIR).unwrap();
    let again = session.walk(root, &["g"]).unwrap();
    session.remove(again).unwrap();
    refused(session.clunk(again), Errno::ENOENT);
    assert_eq!(fs::read_dir(bench.host("")).unwrap().count(), 0);
}

#[test]
fn extended_attributes_are_set_listed_read_and_removed() {
    let mut bench = Bench::new();
    let mut root = bench.session.user(Ids::ROOT).unwrap();
    root.write_all("file", 0o644, b"").unwrap();
    refused(root.getxattr("file", "user.a"), Errno::ENODATA);
    root.setxattr("file", "user.a", b"one").unwrap();
    root.setxattr("file", "user.b", &[7; 900]).unwrap();
    assert_eq!(root.getxattr("file", "user.a").unwrap(), b"one");
    assert_eq!(root.getxattr("file", "user.b").unwrap(), [7; 900]);
    let names = root.getxattr("file", "").unwrap();
    assert!(
        names
            .split(|&octet| octet == 0)
            .any(|name| name == b"user.b")
    );
    root.setxattr("file", "user.a", b"").unwrap();
    refused(root.getxattr("file", "user.a"), Errno::ENODATA);
    let mut value = [0; 1000];
    let path = bench.host("file");
    assert_eq!(
        rustix::fs::getxattr(&path, "user.b", &mut value).unwrap(),
        900
    );
    assert_eq!(
        rustix::fs::getxattr(&path, "user.a", &mut value).unwrap_err(),
        rustix::io::Errno::NODATA
    );
}

#[test]
fn locks_are_granted_as_qemu_does_it() {
    let mut bench = Bench::new();
    let fid = bench
        .session
        .user(ALICE)
        .unwrap()
        .create("file", 0o600)
        .unwrap();
    let range = LockRange {
        kind: 1,
        start: 0,
        length: 10,
        proc_id: 1,
    };
    assert_eq!(bench.session.lock(fid, range).unwrap(), 0);
    assert_eq!(bench.session.getlock(fid, range).unwrap().kind, 2);
    assert_eq!(
        bench
            .session
            .lock(fid, LockRange { kind: 2, ..range })
            .unwrap(),
        0
    );
}

#[test]
fn errors_carry_message_and_errno() {
    let mut bench = Bench::new();
    let error = bench
        .session
        .walk(virtfs_p9::Fid(999_999), &["a"])
        .unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Remote {
                message: "Twalk",
                errno: Errno::ENOENT
            }
        ),
        "{error:?}"
    );
    let mut root = bench.session.user(Ids::ROOT).unwrap();
    root.symlink("l", "/etc/passwd").unwrap();
    refused(root.read_all("l"), Errno::ELOOP);
    refused(root.stat("l/x"), Errno::ENOTDIR);
    refused(root.list("l"), Errno::ENOTDIR);
    let rooted = root.walk("").unwrap();
    for name in ["..", ".", "a/b", ""] {
        let result = bench.session.mkdir(rooted, name, 0o700, 0);
        assert!(
            result.as_ref().is_err_and(|error| error.errno().is_some()),
            "{name:?}: {result:?}"
        );
    }
}

#[test]
fn version_again_starts_anew() {
    let mut bench = Bench::new();
    let fid = bench.session.attach(0).unwrap();
    bench.session.version().unwrap();
    refused(bench.session.getattr(fid), Errno::ENOENT);
    bench
        .session
        .user(ALICE)
        .unwrap()
        .mkdir("d", 0o700)
        .unwrap();
    assert_eq!(bench.host_owner("d"), (0o040_700, ALICE));
}
