//! Many requests at a time.

use std::fs;

use virtfs_p9::message::{Tclunk, Tflush, Tgetattr, Tmkdir, Tread, Twalk, Twrite};
use virtfs_p9::{Data, Errno, Error, Export, GETATTR_BASIC, Ids, Launch, Machine, Qemu, RING_SIZE};

use crate::common::{ALICE, Bench, export, needs_root, refused};

#[test]
fn a_full_ring_is_refused_and_then_finished_in_any_order() {
    let mut bench = Bench::new();
    let root = bench.session.attach(ALICE.uid).unwrap();
    let names: Vec<_> = (0..RING_SIZE).map(|n| format!("d{n}")).collect();
    let mut tickets: Vec<_> = names
        .iter()
        .map(|name| Tmkdir {
            dfid: root,
            name: name.as_bytes(),
            mode: 0o711,
            gid: ALICE.gid,
        })
        .map(|request| bench.session.submit(&request).unwrap())
        .collect();
    assert_eq!(bench.session.in_flight(), 128);
    assert!(matches!(
        bench.session.submit(&Tclunk { fid: root }),
        Err(Error::Full)
    ));
    tickets.reverse();
    for ticket in tickets {
        bench.session.finish(ticket).unwrap();
    }
    assert_eq!(bench.session.in_flight(), 0);
    for name in &names {
        assert_eq!(bench.host_owner(name), (0o040_711, ALICE));
    }
}

#[test]
fn pipeline_gives_each_reply_with_its_number() {
    let mut bench = Bench::new();
    let fid = bench
        .session
        .user(ALICE)
        .unwrap()
        .create("file", 0o600)
        .unwrap();
    let blocks: Vec<[u8; 512]> = (0..2000_u32).map(|n| [n.to_le_bytes()[0]; 512]).collect();
    let writes = blocks.iter().zip(0..).map(|(block, n)| Twrite {
        fid,
        offset: 512 * n,
        data: Data(block),
    });
    let mut written = 0;
    bench
        .session
        .pipeline(128, writes, |_, reply| written += reply.unwrap().count)
        .unwrap();
    assert_eq!(written, 2000 * 512);
    assert!(fs::read(bench.host("file")).unwrap() == blocks.concat());

    let fid = bench.session.user(ALICE).unwrap().open("file", 0).unwrap();
    let reads = (0..2000).map(|n| Tread {
        fid,
        offset: 512 * n,
        count: 512,
    });
    let mut seen = vec![false; 2000];
    let each = |n: usize, reply: virtfs_p9::Result<virtfs_p9::message::Rread>| {
        assert_eq!(reply.unwrap().data.0, blocks[n]);
        assert!(!std::mem::replace(&mut seen[n], true));
    };
    bench.session.pipeline(77, reads, each).unwrap();
    assert!(seen.iter().all(|&seen| seen));
}

#[test]
fn pipeline_passes_the_servers_errors_on_and_goes_on() {
    let mut bench = Bench::new();
    let root = bench.session.attach(0).unwrap();
    fs::write(bench.host("there"), b"").unwrap();
    let walks: Vec<_> = (0..300)
        .map(|n| {
            (
                bench.session.new_fid(),
                if n % 3 == 0 { b"there" } else { b"nowhe" },
            )
        })
        .collect();
    let names: Vec<[&[u8]; 1]> = walks.iter().map(|(_, name)| [name.as_slice()]).collect();
    let requests = walks.iter().zip(&names).map(|(&(newfid, _), names)| Twalk {
        fid: root,
        newfid,
        wnames: names,
    });
    let mut found = 0;
    let each = |n: usize, reply: virtfs_p9::Result<virtfs_p9::message::Rwalk>| {
        if n.is_multiple_of(3) {
            found += reply.unwrap().qids.len();
        } else {
            refused(reply, Errno::ENOENT);
        }
    };
    bench.session.pipeline(64, requests, each).unwrap();
    assert_eq!(found, 100);
}

#[test]
fn largest_messages_in_every_place_of_the_ring_keep_their_content() {
    needs_root();
    let directory = export();
    let qemu = Qemu::new()
        .msize(512 << 10)
        .export(Export::local("share", directory.path()));
    let machine = Machine::boot(&qemu, &Launch::new()).unwrap();
    let mut session = machine.session("share").unwrap();
    assert_eq!(session.msize(), 512 << 10);
    let fid = session
        .user(Ids::ROOT)
        .unwrap()
        .create("file", 0o600)
        .unwrap();
    let size = (512 << 10) - 24;
    let block: Vec<u8> = (0..size)
        .map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[2])
        .collect();
    let writes = (0..128).map(|n| Twrite {
        fid,
        offset: n * u64::from(size),
        data: Data(&block),
    });
    session
        .pipeline(128, writes, |_, reply| {
            assert_eq!(reply.unwrap().count, size)
        })
        .unwrap();
    let fid = session.user(Ids::ROOT).unwrap().open("file", 0).unwrap();
    let reads = (0..128).map(|n| Tread {
        fid,
        offset: n * u64::from(size),
        count: size,
    });
    session
        .pipeline(128, reads, |_, reply| {
            assert!(reply.unwrap().data.0 == block)
        })
        .unwrap();
    assert!(
        session
            .write(fid, 0, b"x")
            .is_err_and(|error| error.errno() == Some(Errno::EBADF))
    );
}

#[test]
fn flush_answers_and_the_flushed_request_is_done_or_cancelled() {
    let mut bench = Bench::new();
    let root = bench.session.attach(0).unwrap();
    for _ in 0..200 {
        let slow = bench
            .session
            .submit(&Tgetattr {
                fid: root,
                request_mask: GETATTR_BASIC,
            })
            .unwrap();
        let flush = bench
            .session
            .submit(&Tflush { oldtag: slow.tag() })
            .unwrap();
        bench.session.finish(flush).unwrap();
        match bench.session.finish(slow) {
            Ok(_) | Err(Error::Flushed("Tgetattr")) => {}
            Err(error) => panic!("{error}"),
        }
    }
    bench.session.flush(100).unwrap();
    assert_eq!(bench.session.in_flight(), 0);
}

#[test]
fn several_devices_of_one_machine_work_at_a_time() {
    needs_root();
    let directories: Vec<_> = (0..3).map(|_| export()).collect();
    let tags = ["zero", "one", "two"];
    let qemu = tags
        .iter()
        .zip(&directories)
        .fold(Qemu::new(), |q, (&tag, at)| {
            q.export(Export::local(tag, at.path()))
        });
    let machine = Machine::boot(&qemu, &Launch::new()).unwrap();
    let mut sessions: Vec<_> = tags
        .iter()
        .map(|tag| machine.session(tag).unwrap())
        .collect();
    assert!(matches!(machine.session("one"), Err(Error::NoSuchTag(_))));
    assert!(machine.tags().is_empty());
    let roots: Vec<_> = sessions
        .iter_mut()
        .map(|session| session.attach(5).unwrap())
        .collect();
    for round in 0..300 {
        let name = format!("d{round}");
        let mut tickets = Vec::new();
        for (session, &dfid) in sessions.iter_mut().zip(&roots) {
            tickets.push(
                session
                    .submit(&Tmkdir {
                        dfid,
                        name: name.as_bytes(),
                        mode: 0o700,
                        gid: 6,
                    })
                    .unwrap(),
            );
            session.kick().unwrap();
        }
        // Turn by turn another is waited for first: all share one interrupt line.
        let mut pairs: Vec<_> = sessions.iter_mut().zip(tickets).collect();
        pairs.rotate_left(round % 3);
        for (session, ticket) in pairs {
            session.finish(ticket).unwrap();
        }
    }
    assert!(
        directories
            .iter()
            .all(|at| fs::read_dir(at.path()).unwrap().count() == 300)
    );
}
