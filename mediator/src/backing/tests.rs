//! The counts that keep all opens of an inode in agreement, with a registrar of the test's own.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::protocol::{Question, answer};
use super::*;

/// A registrar that opens nothing: what it was told, and the ids that are out.
pub(crate) struct Fake {
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) out: Arc<Mutex<Vec<u32>>>,
}

impl Fake {
    /// Answers each question with a new id, or with an errno.
    pub(crate) fn start(refuse: Option<Errno>) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&out);
        std::thread::spawn(move || {
            let mut next = 1;
            let mut bytes = [0; 16];
            while let Ok((length, _)) = recv(&theirs, &mut bytes, rustix::net::RecvFlags::empty()) {
                match Question::parse(&bytes[..length]) {
                    Some(Question::Open) => {
                        let told = match refuse {
                            Some(errno) => Err(errno.raw_os_error()),
                            None => Ok(next),
                        };
                        if refuse.is_none() {
                            held.lock().unwrap().push(next);
                            next += 1;
                        }
                        send(&theirs, &answer(told), SendFlags::NOSIGNAL).unwrap();
                    }
                    Some(Question::Close(id)) => {
                        let mut held = held.lock().unwrap();
                        let at = held.iter().position(|known| *known == id);
                        held.remove(at.expect("an id that is out"));
                    }
                    None => return,
                }
            }
        });
        Self {
            socket: Some(ours),
            out,
        }
    }
}

fn backings(fake: &mut Fake, mode: DataMode) -> Backings {
    let backings = Backings::new(mode, fake.socket.take());
    assert!(backings.can_register() && !backings.counts());
    backings.kernel_agreed(true);
    backings
}

fn file() -> std::fs::File {
    std::fs::File::open("/proc/self/exe").unwrap()
}

fn enter(to: &Backings, node: u64, handle: u64, wish: Wish) -> Result<Way, Busy> {
    let file = file();
    to.enter((NodeId(node), HandleId(handle)), wish, file.as_fd(), true)
}

#[test]
fn opens_of_an_inode_agree_until_all_are_closed() {
    let mut fake = Fake::start(None);
    let to = backings(&mut fake, DataMode::Auto);
    assert_eq!(enter(&to, 7, 1, Wish::Passthrough), Ok(Way::Passthrough(1)));
    assert_eq!(enter(&to, 7, 2, Wish::Either), Ok(Way::Passthrough(1)));
    assert_eq!(enter(&to, 7, 3, Wish::Watched), Ok(Way::Watched(1)));
    assert_eq!(enter(&to, 7, 4, Wish::Judged), Err(Busy));
    // Another inode is another matter.
    assert_eq!(enter(&to, 8, 5, Wish::Judged), Ok(Way::Cached));
    assert_eq!(enter(&to, 8, 6, Wish::Passthrough), Ok(Way::Cached));
    let told = to.usage();
    assert_eq!(
        (told.ids, told.open, told.opened, told.registrations),
        (1, 3, 3, 1)
    );
    for handle in [1, 2, 3] {
        assert_eq!(to.went_past_for_writing(HandleId(handle)), Some(NodeId(7)));
        to.leave(HandleId(handle));
    }
    // Closed once; one that was never entered, not at all.
    to.leave(HandleId(1));
    to.leave(HandleId(99));
    assert_eq!(enter(&to, 7, 7, Wish::Judged), Ok(Way::Cached));
    assert_eq!(enter(&to, 9, 8, Wish::Passthrough), Ok(Way::Passthrough(2)));
    assert_eq!(*fake.out.lock().unwrap(), [2]);
}

#[test]
fn refusal_of_one_file_is_its_own_and_one_of_all_ends_it() {
    let mut fake = Fake::start(Some(Errno::XDEV));
    let to = backings(&mut fake, DataMode::Auto);
    assert_eq!(enter(&to, 7, 1, Wish::Passthrough), Ok(Way::Cached));
    assert!(to.usage().in_force);
    let mut fake = Fake::start(Some(Errno::LOOP));
    let to = backings(&mut fake, DataMode::Auto);
    assert_eq!(enter(&to, 7, 1, Wish::Passthrough), Ok(Way::Cached));
    let told = to.usage();
    assert!(!told.in_force && told.why_not.is_some(), "{told:?}");
    let mut fake = Fake::start(None);
    let to = backings(&mut fake, DataMode::Passthrough);
    to.try_out(file().as_fd());
    assert_eq!((to.usage().ids, to.usage().why_not), (0, None));
}

#[test]
fn registrar_that_is_gone_leaves_what_is_open_and_nothing_new() {
    let mut fake = Fake::start(None);
    let to = backings(&mut fake, DataMode::Auto);
    assert_eq!(enter(&to, 7, 1, Wish::Passthrough), Ok(Way::Passthrough(1)));
    to.registrar.as_ref().unwrap().dismiss();
    assert_eq!(enter(&to, 8, 2, Wish::Passthrough), Ok(Way::Cached));
    // Still known to the kernel.
    assert_eq!(enter(&to, 7, 3, Wish::Either), Ok(Way::Passthrough(1)));
}

#[test]
fn without_a_kernel_or_registrar_that_can_nothing_goes_past() {
    let mut fake = Fake::start(None);
    let to = Backings::new(DataMode::Passthrough, fake.socket.take());
    to.kernel_agreed(false);
    assert!(!to.counts());
    let why = to.usage().why_not.unwrap();
    assert!(why.contains("Linux 6.9"), "{why}");
    assert!(
        Backings::new(DataMode::Auto, None)
            .usage()
            .why_not
            .is_some()
    );
    let plain = Backings::new(DataMode::Mediated, None).usage();
    assert_eq!((plain.in_force, plain.why_not), (false, None));
}

proptest! {
    /// What the kernel checks at each open (fs/fuse/iomode.c): no cached open while one goes past,
    /// none that goes past while one is cached, and one backing file an inode.
    #[test]
    fn no_sequence_of_opens_and_closes_makes_the_kernel_refuse(
        steps in prop::collection::vec((0..3_u64, 0..5_u8), 1..40),
    ) {
        let mut fake = Fake::start(None);
        let to = backings(&mut fake, DataMode::Auto);
        let mut open: Vec<(u64, u64, Way)> = Vec::new();
        for (handle, (node, what)) in (1_u64..).zip(steps) {
            let wish = match what {
                0 => Wish::Passthrough,
                1 => Wish::Either,
                2 => Wish::Watched,
                3 => Wish::Judged,
                _ => {
                    if let Some(at) = open.iter().position(|(of, ..)| *of == node) {
                        let (_, handle, _) = open.remove(at);
                        to.leave(HandleId(handle));
                    }
                    continue;
                }
            };
            let way = enter(&to, node, handle, wish);
            let past = open.iter().any(|(of, _, way)| *of == node && *way != Way::Cached);
            prop_assert_eq!(way == Err(Busy), wish == Wish::Judged && past);
            let Ok(way) = way else { continue };
            for (_, _, other) in open.iter().filter(|(of, ..)| *of == node) {
                let agree = match (way, *other) {
                    (Way::Cached, Way::Cached) => true,
                    (Way::Passthrough(a) | Way::Watched(a), Way::Passthrough(b) | Way::Watched(b)) => a == b,
                    _ => false,
                };
                prop_assert!(agree, "{way:?} beside {other:?}");
            }
            if matches!(wish, Wish::Watched | Wish::Judged) {
                prop_assert!(!matches!(way, Way::Passthrough(_)));
            }
            open.push((node, handle, way));
        }
        let mut ids: Vec<u32> = open
            .iter()
            .filter_map(|(_, _, way)| match way {
                Way::Cached => None,
                Way::Passthrough(id) | Way::Watched(id) => Some(*id),
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(to.usage().ids, ids.len());
        // Behind the questions that have no answer.
        let last = enter(&to, 1000, 1000, Wish::Passthrough);
        let Ok(Way::Passthrough(last)) = last else { panic!("{last:?}") };
        ids.push(last);
        let mut held = fake.out.lock().unwrap().clone();
        held.sort_unstable();
        prop_assert_eq!(held, ids);
    }
}
