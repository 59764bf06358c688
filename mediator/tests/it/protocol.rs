//! The whole stack against a client that plays the kernel, friendly and hostile.

use std::io::{BufRead, BufReader, Write};

use crate::kernel::{Body, ROOT, View, op};
use virtfs_mediator_core::Cache;
use virtfs_mediator_core::control::Answer;
use virtfs_mediator_core::policy::Policy;

#[test]
fn file_created_written_and_read_is_on_the_host() {
    let view = View::start();
    let (node, handle) = view.create(b"file");
    assert_eq!(view.write(node, handle, 0, b"hello").ok().u32_at(0), 5);
    assert_eq!(view.read(node, handle, 1, 4096).ok().body, b"ello");
    assert_eq!(std::fs::read(view.host("file")).unwrap(), b"hello");
    let size = view.getattr(node).ok().u64_at(16 + 8);
    assert_eq!(size, 5);
    assert_eq!(view.lookup(ROOT, b"file").node(), node);
    let release = Body::new().u64(handle).u32(0).u32(0).u64(0);
    view.ask(op::RELEASE, node, release).ok();
    view.end().unwrap();
}

#[test]
fn bad_name_is_refused_by_every_operation_that_takes_one() {
    let view = View::start();
    let (node, _) = view.create(b"there");
    let long = [b'a'; 256];
    let bad: [(&[u8], i32); 7] = [
        (b"", libc::EINVAL),
        (b".", libc::EINVAL),
        (b"/", libc::EINVAL),
        (b"/etc/passwd", libc::EINVAL),
        (b"../x", libc::EINVAL),
        (b"a/b", libc::EINVAL),
        (&long, libc::ENAMETOOLONG),
    ];
    for (name, errno) in bad.into_iter().chain([(&b".."[..], libc::EINVAL)]) {
        for (what, opcode, body) in named(name, node) {
            // `..` is a name that LOOKUP knows: the parent.
            let expected = if opcode == op::LOOKUP && name == b".." {
                0
            } else {
                errno
            };
            assert_eq!(
                view.ask(opcode, ROOT, body).errno,
                expected,
                "{what} {name:?}"
            );
        }
    }
    let listed: Vec<_> = std::fs::read_dir(view.host("")).unwrap().collect();
    assert_eq!(listed.len(), 1, "nothing was made or removed: {listed:?}");
    view.end().unwrap();
}

/// Each operation that takes a name, with that name in each of its places.
fn named(name: &[u8], node: u64) -> Vec<(&'static str, u32, Body)> {
    let body = Body::new;
    let renamed = |from: &[u8], to: &[u8]| body().u64(ROOT).name(from).name(to);
    let renamed2 = |from: &[u8], to: &[u8]| body().u64(ROOT).u32(0).u32(0).name(from).name(to);
    let create = body().u32(2).u32(0o100_644).u32(0).u32(0).name(name);
    let mknod = body()
        .u32(libc::S_IFIFO | 0o644)
        .u32(0)
        .u32(0)
        .u32(0)
        .name(name);
    vec![
        ("lookup", op::LOOKUP, body().name(name)),
        ("create", op::CREATE, create),
        ("mkdir", op::MKDIR, body().u32(0o755).u32(0).name(name)),
        ("mknod", op::MKNOD, mknod),
        ("symlink", op::SYMLINK, body().name(name).name(b"target")),
        ("link", op::LINK, body().u64(node).name(name)),
        ("unlink", op::UNLINK, body().name(name)),
        ("rmdir", op::RMDIR, body().name(name)),
        ("rename from", op::RENAME, renamed(name, b"new")),
        ("rename to", op::RENAME, renamed(b"there", name)),
        ("rename2 from", op::RENAME2, renamed2(name, b"new")),
        ("rename2 to", op::RENAME2, renamed2(b"there", name)),
    ]
}

#[test]
fn parent_of_the_root_is_the_root() {
    let view = View::start();
    assert_eq!(view.lookup(ROOT, b"..").node(), ROOT);
    view.end().unwrap();
}

#[test]
fn forged_node_is_stale_and_forged_handle_bad() {
    let view = View::start();
    let (node, handle) = view.create(b"file");
    for forged in [0, 2, node + 1, u64::MAX, 1 << 63, u64::from(u32::MAX)] {
        if forged == node {
            continue;
        }
        assert_eq!(view.getattr(forged).errno, libc::ESTALE, "node {forged}");
        assert_eq!(
            view.lookup(forged, b"x").errno,
            libc::ESTALE,
            "node {forged}"
        );
    }
    for forged in [0, handle + 1, u64::MAX, 1 << 63] {
        if forged == handle {
            continue;
        }
        assert_eq!(
            view.read(node, forged, 0, 16).errno,
            libc::EBADF,
            "handle {forged}"
        );
        assert_eq!(view.write(node, forged, 0, b"x").errno, libc::EBADF);
        if forged != 0 {
            assert_eq!(
                view.readdir(op::READDIR, forged, 0, 4096).errno,
                libc::EBADF
            );
        }
        let flush = Body::new().u64(forged).u32(0).u32(0).u64(0);
        assert_eq!(view.ask(op::FLUSH, node, flush).errno, libc::EBADF);
        let release = Body::new().u64(forged).u32(0).u32(0).u64(0);
        view.ask(op::RELEASE, node, release).ok();
    }
    assert_eq!(view.write(node, handle, 0, b"x").ok().u32_at(0), 1);
    view.end().unwrap();
}

#[test]
fn handle_of_another_node_does_not_change_it() {
    let view = View::start();
    let (first, _) = view.create(b"first");
    let (_, second) = view.create(b"second");
    // fuse_setattr_in with FATTR_SIZE | FATTR_FH.
    let setattr = Body::new()
        .u32(1 << 3 | 1 << 6)
        .u32(0)
        .u64(second)
        .u64(99)
        .bytes(&[0; 64]);
    assert_eq!(view.ask(op::SETATTR, first, setattr).errno, libc::EBADF);
    assert_eq!(std::fs::metadata(view.host("second")).unwrap().len(), 0);
    view.end().unwrap();
}

#[test]
fn forgets_beyond_what_was_looked_up_do_no_harm() {
    let view = View::start();
    let (node, handle) = view.create(b"file");
    view.forget(node, u64::MAX);
    view.forget(node, u64::MAX);
    view.forget(ROOT, u64::MAX);
    view.forget(12345, 1);
    view.still_serves();
    // Still open: served through its handle.
    assert_eq!(view.write(node, handle, 0, b"x").ok().u32_at(0), 1);
    let again = view.lookup(ROOT, b"file").node();
    view.getattr(again).ok();
    view.end().unwrap();
}

#[test]
fn offsets_at_the_end_of_the_range_are_refused() {
    let view = View::start();
    let (node, handle) = view.create(b"file");
    let last = u64::try_from(i64::MAX).unwrap();
    for offset in [last, last - 3, 1 << 63, u64::MAX] {
        assert_ne!(
            view.write(node, handle, offset, b"hello").errno,
            0,
            "{offset}"
        );
        assert_ne!(view.read(node, handle, offset, 4096).errno, 0, "{offset}");
        let fallocate = Body::new().u64(handle).u64(offset).u64(4096).u32(0).u32(0);
        assert_ne!(
            view.ask(op::FALLOCATE, node, fallocate).errno,
            0,
            "{offset}"
        );
        let copy = Body::new().u64(handle).u64(offset).u64(node).u64(handle);
        let copy = copy.u64(offset).u64(u64::MAX).u64(0);
        assert_ne!(
            view.ask(op::COPY_FILE_RANGE, node, copy).errno,
            0,
            "{offset}"
        );
        let lseek = Body::new().u64(handle).u64(offset).u32(3).u32(0);
        assert_eq!(
            view.ask(op::LSEEK, node, lseek).errno,
            libc::ENXIO,
            "{offset}"
        );
    }
    assert_eq!(std::fs::metadata(view.host("file")).unwrap().len(), 0);
    view.end().unwrap();
}

/// Views whose directories are read through handles, and by their nodes.
fn both_ways() -> [View; 2] {
    let ways = [Cache::None, Cache::Auto].map(|cache| View::with(Policy::parity(), cache));
    assert_eq!(
        ways.each_ref().map(|view| view.open_root() == 0),
        [false, true]
    );
    ways
}

#[test]
fn forged_directory_cookies_do_not_crash() {
    for view in both_ways() {
        view.create(b"file");
        let handle = view.open_root();
        for opcode in [op::READDIR, op::READDIRPLUS] {
            for cookie in [1, 77, 1 << 62, 1 << 63, u64::MAX] {
                let _any = view.readdir(opcode, handle, cookie, 4096);
            }
            assert!(
                names(&view.readdir(opcode, handle, 0, 4096).ok().body, opcode)
                    .contains(&b"file".to_vec())
            );
            assert!(view.readdir(opcode, handle, 0, 0).ok().body.is_empty());
        }
        view.end().unwrap();
    }
}

#[test]
fn handle_zero_reads_and_syncs_directories_and_nothing_else() {
    let view = View::start();
    let (file, _handle) = view.create(b"file");
    let page = Body::new().u64(0).u64(0).u32(4096).u32(0).u64(0).u64(0);
    for opcode in [op::READDIR, op::READDIRPLUS] {
        let read = view.ask(opcode, file, page.clone());
        assert_eq!(read.errno, libc::ENOTDIR);
        let read = view.ask(opcode, 12_345_678, page.clone());
        assert_eq!(read.errno, libc::ESTALE);
    }
    let sync = Body::new().u64(0).u32(0).u32(0);
    view.ask(op::FSYNCDIR, ROOT, sync.clone()).ok();
    assert_eq!(view.ask(op::FSYNCDIR, file, sync).errno, libc::ENOTDIR);
    view.end().unwrap();
}

/// The names in a READDIR or READDIRPLUS reply.
fn names(mut body: &[u8], opcode: u32) -> Vec<Vec<u8>> {
    let before = if opcode == op::READDIRPLUS { 128 } else { 0 };
    let mut names = Vec::new();
    while body.len() >= before + 24 {
        let len = u32::from_ne_bytes(body[before + 16..before + 20].try_into().unwrap());
        let len = usize::try_from(len).unwrap();
        names.push(body[before + 24..before + 24 + len].to_vec());
        body = &body[(before + 24 + len).next_multiple_of(8)..];
    }
    names
}

/// The cookie of the last entry of a reply that has one.
fn last_cookie(body: &[u8], opcode: u32) -> Option<u64> {
    let name = names(body, opcode).pop()?;
    let before = if opcode == op::READDIRPLUS { 128 } else { 0 };
    let entry = (before + 24 + name.len()).next_multiple_of(8);
    let at = body.len() - entry + before + 8;
    Some(u64::from_ne_bytes(body[at..at + 8].try_into().unwrap()))
}

#[test]
fn directory_is_listed_whole_through_small_replies() {
    for view in both_ways() {
        for number in 0..50 {
            std::fs::write(view.host(&format!("file-{number:02}")), "").unwrap();
        }
        for opcode in [op::READDIR, op::READDIRPLUS] {
            let handle = view.open_root();
            let (mut seen, mut cookie) = (Vec::new(), 0);
            loop {
                let reply = view.readdir(opcode, handle, cookie, 512).ok();
                let Some(next) = last_cookie(&reply.body, opcode) else {
                    break;
                };
                cookie = next;
                seen.extend(names(&reply.body, opcode));
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 52, "50 files, . and ..");
        }
        view.end().unwrap();
    }
}

/// What may be listed and not looked at is a name without a file.
#[test]
fn entry_that_may_not_be_looked_at_is_listed_without_its_file() {
    let rule =
        "default = \"allow\"\n[[rule]]\npath = \"/private/**\"\ndo = \"look\"\naction = \"deny\"\n";
    let view = View::with(crate::control::policy(rule), Cache::Auto);
    std::fs::write(view.host("private"), "").unwrap();
    std::fs::write(view.host("public"), "").unwrap();
    let body = view.readdir(op::READDIRPLUS, 0, 0, 4096).ok().body;
    let mut listed = names(&body, op::READDIRPLUS);
    listed.sort();
    assert_eq!(listed, [&b"."[..], b"..", b"private", b"public"]);
    let mut at = 0;
    while at < body.len() {
        let word = |offset: usize| {
            u64::from_ne_bytes(body[at + offset..at + offset + 8].try_into().unwrap())
        };
        let length = usize::try_from(word(128 + 16) & 0xffff_ffff).unwrap();
        let name = &body[at + 152..at + 152 + length];
        // fuse_entry_out: the node first, the attributes' size behind its 40 bytes and the number.
        let (node, size, number) = (word(0), word(48), word(128));
        assert_ne!(
            number,
            0,
            "readers take {} for deleted",
            name.escape_ascii()
        );
        match name {
            b"private" => {
                assert_eq!(size, u64::MAX, "no kernel makes an inode of that");
                // What the kernel gives back is nobody's.
                view.forget(node, 1);
                assert_eq!(view.getattr(node).errno, libc::ESTALE);
            }
            b"public" => {
                view.getattr(node).ok();
            }
            _ => {}
        }
        at += (152 + length).next_multiple_of(8);
    }
    assert_eq!(view.lookup(ROOT, b"private").errno, libc::EACCES);
    view.end().unwrap();
}

#[test]
fn readers_of_one_directory_go_on_each_at_its_own_place() {
    // More than streams are kept, so that some are evicted between two pages.
    const READERS: usize = 40;
    let view = View::start();
    for number in 0..200 {
        std::fs::write(view.host(&format!("file-{number:03}")), "").unwrap();
    }
    let mut readers = vec![(0, Vec::new(), false); READERS];
    let mut round: usize = 0;
    while readers.iter().any(|(.., ended)| !ended) {
        for (at, (cookie, seen, ended)) in readers.iter_mut().enumerate() {
            // Each at another pace, with pages of another size, by either opcode.
            if *ended || !round.is_multiple_of(at % 3 + 1) {
                continue;
            }
            let opcode = [op::READDIR, op::READDIRPLUS][at % 2];
            let size = 512 + 64 * u32::try_from(at).unwrap();
            let reply = view.readdir(opcode, 0, *cookie, size).ok();
            seen.extend(names(&reply.body, opcode));
            match last_cookie(&reply.body, opcode) {
                Some(next) => *cookie = next,
                None => *ended = true,
            }
        }
        round += 1;
    }
    for (_, seen, _) in &readers {
        assert_eq!(seen.len(), 202, "each once");
        assert_eq!(seen, &readers[0].1, "in the same order");
    }
    view.end().unwrap();
}

/// Of an open for writing, on a file system where close(2) never fails and on one that is not known
/// for that.
#[test]
fn close_is_asked_only_where_it_may_tell_something() {
    const FOPEN_NOFLUSH: u32 = 1 << 5;
    let flags = u32::try_from(libc::O_WRONLY).unwrap();
    let open = |view: &View, node| {
        let reply = view.ask(op::OPEN, node, Body::new().u32(flags).u32(0)).ok();
        reply.u32_at(8) & FOPEN_NOFLUSH != 0
    };
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(memory.path().join("file"), "").unwrap();
    let view = View::over(memory.path());
    let file = view.lookup(ROOT, b"file").node();
    assert!(open(&view, file));
    view.end().unwrap();

    let own = format!("/proc/{}", std::process::id());
    let view = View::over(std::path::Path::new(&own));
    let file = view.lookup(ROOT, b"comm").node();
    assert!(!open(&view, file));
    view.end().unwrap();
}

#[test]
fn device_is_never_made() {
    let view = View::start();
    for (kind, rdev) in [
        (libc::S_IFCHR, 0),
        (libc::S_IFCHR, 0x103),
        (libc::S_IFBLK, 0x700),
    ] {
        let mknod = Body::new()
            .u32(kind | 0o600)
            .u32(rdev)
            .u32(0)
            .u32(0)
            .name(b"dev");
        assert_eq!(view.ask(op::MKNOD, ROOT, mknod).errno, libc::EPERM);
    }
    view.end().unwrap();
}

#[test]
fn fifo_is_made_and_never_opened() {
    let view = View::start();
    let mknod = Body::new()
        .u32(libc::S_IFIFO | 0o600)
        .u32(0)
        .u32(0)
        .u32(0)
        .name(b"fifo");
    let node = view.ask(op::MKNOD, ROOT, mknod).node();
    assert_ne!(view.ask(op::OPEN, node, Body::new().u32(0).u32(0)).errno, 0);
    view.end().unwrap();
}

#[test]
fn xattr_reply_follows_the_size_asked() {
    let view = View::start();
    let (node, _) = view.create(b"file");
    let asked = |size| Body::new().u32(size).u32(0).name(b"user.none");
    assert_eq!(view.ask(op::GETXATTR, node, asked(0)).errno, libc::ENODATA);
    let list = view.ask(op::LISTXATTR, node, Body::new().u32(0).u32(0));
    assert_eq!(list.errno, 0);
    let long = Body::new().u32(0).u32(0).name(&[b'u'; 256]);
    assert_eq!(view.ask(op::GETXATTR, node, long).errno, libc::ERANGE);
    view.end().unwrap();
}

#[test]
fn operation_that_is_not_served_is_refused_and_not_enosys() {
    let view = View::start();
    let (node, handle) = view.create(b"file");
    let ioctl = Body::new()
        .u64(handle)
        .u32(0)
        .u32(0x5401)
        .u64(0)
        .u32(0)
        .u32(0);
    assert_eq!(view.ask(op::IOCTL, node, ioctl).errno, libc::ENOTTY);
    assert_eq!(
        view.ask(op::BMAP, node, Body::new().u64(0).u32(512).u32(0))
            .errno,
        libc::ENOTTY
    );
    view.end().unwrap();
}

#[test]
fn missing_name_is_remembered_only_where_the_view_is_alone() {
    let view = View::with(Policy::parity(), Cache::Auto);
    assert_eq!(view.lookup(ROOT, b"none").errno, libc::ENOENT);
    view.end().unwrap();
    let view = View::with(Policy::parity(), Cache::Exclusive);
    let reply = view.lookup(ROOT, b"none").ok();
    assert_eq!(reply.u64_at(0), 0, "a negative entry");
    assert!(reply.u64_at(16) > 0, "with a lifetime");
    view.end().unwrap();
}

#[test]
fn attributes_of_a_set_id_file_are_not_remembered() {
    let view = View::start();
    let (node, _) = view.create(b"file");
    // fuse_attr_out: attr_valid comes first.
    assert_eq!(view.getattr(node).ok().u64_at(0), 1);
    let chmod = Body::new()
        .u32(1)
        .u32(0)
        .bytes(&[0; 60])
        .u32(0o104_755)
        .bytes(&[0; 16]);
    view.ask(op::SETATTR, node, chmod).ok();
    let reply = view.getattr(node).ok();
    assert_eq!(reply.u64_at(0), 0);
    view.end().unwrap();
}

#[test]
fn readonly_view_refuses_changes_with_erofs() {
    let mut policy = Policy::parity();
    policy.set_readonly();
    let view = View::with(policy, Cache::Auto);
    let mkdir = Body::new().u32(0o755).u32(0).name(b"dir");
    assert_eq!(view.ask(op::MKDIR, ROOT, mkdir).errno, libc::EROFS);
    view.still_serves();
    view.end().unwrap();
}

#[test]
fn control_socket_tells_what_was_done_and_refused() {
    let mut policy = Policy::parity();
    policy.set_readonly();
    let view = View::with(policy, Cache::None);
    let mkdir = Body::new().u32(0o755).u32(0).name(b"dir");
    assert_eq!(view.ask(op::MKDIR, ROOT, mkdir).errno, libc::EROFS);
    view.still_serves();

    let mut control = view.control();
    control.write_all(b"{\"ask\":\"status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(control).read_line(&mut line).unwrap();
    let Answer::Status(status) = serde_json::from_str(&line).unwrap() else {
        panic!("{line}");
    };
    assert_eq!(
        (status.view.as_str(), status.cache.as_str()),
        ("test", "none")
    );
    assert!(status.readonly);
    let count = |name: &str| {
        let found = status.operations.iter().find(|row| row.operation == name);
        found.map(|row| (row.done, row.refused, row.failed))
    };
    assert_eq!(count("mkdir"), Some((0, 1, 0)));
    assert_eq!(count("getattr"), Some((1, 0, 0)));
    assert_eq!(count("write"), None);
    view.end().unwrap();
}

#[test]
fn names_and_flags_that_no_kernel_sends_count_as_refusals() {
    let view = View::start();
    assert_eq!(view.lookup(ROOT, b"a/b").errno, libc::EINVAL);
    let whiteout = Body::new()
        .u64(ROOT)
        .u32(libc::RENAME_WHITEOUT)
        .u32(0)
        .name(b"a")
        .name(b"b");
    assert_eq!(view.ask(op::RENAME2, ROOT, whiteout).errno, libc::EINVAL);
    // Long names do come from kernels: an ordinary failure.
    assert_eq!(view.lookup(ROOT, &[b'a'; 256]).errno, libc::ENAMETOOLONG);
    let fifo = view.host("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let node = view.lookup(ROOT, b"fifo").node();
    let open = view.ask(op::OPEN, node, Body::new().u32(0).u32(0));
    assert_eq!(open.errno, libc::EACCES);

    let mut control = view.control();
    control.write_all(b"{\"ask\":\"status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(control).read_line(&mut line).unwrap();
    let Answer::Status(status) = serde_json::from_str(&line).unwrap() else {
        panic!("{line}");
    };
    let count = |name: &str| {
        let found = status.operations.iter().find(|row| row.operation == name);
        found.map(|row| (row.done, row.refused, row.failed))
    };
    assert_eq!(count("lookup"), Some((1, 1, 1)));
    assert_eq!(count("rename"), Some((0, 1, 0)));
    assert_eq!(count("open"), Some((0, 1, 0)));
    view.end().unwrap();
}
