//! A view's control socket while the view is in use: reload, trace, stepping console.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::kernel::{Body, ROOT, View, op};
use virtfs_mediator_core::Cache;
use virtfs_mediator_core::control::protocol::QUESTION_MAX;
use virtfs_mediator_core::control::{Answer, By, Line, Names, Order, Question, Wanted};
use virtfs_mediator_core::mediate::{Ended, Release, Selector, Stop, Told, Verdict};
use virtfs_mediator_core::policy::Policy;

const INVAL_ENTRY: i32 = 3;
const INVAL_INODE: i32 = 2;
const INC_EPOCH: i32 = 8;

pub(crate) fn policy(text: &str) -> Policy {
    Policy::parse("test", text, &Names::default()).unwrap()
}

/// A connection to the control socket, line by line.
struct Caller {
    to: UnixStream,
    from: BufReader<UnixStream>,
    orders: u64,
    /// Told while an order's own answer was waited for: either may come first.
    early: VecDeque<Told>,
}

impl Caller {
    fn new(view: &View) -> Self {
        let to = view.control();
        to.set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        let from = BufReader::new(to.try_clone().unwrap());
        Self {
            to,
            from,
            orders: 0,
            early: VecDeque::new(),
        }
    }

    fn ask(&mut self, question: &Question) -> Answer {
        self.say(&serde_json::to_vec(question).unwrap());
        serde_json::from_str(&self.line()).unwrap()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).unwrap();
        self.to.write_all(b"\n").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }

    fn told(&mut self) -> Line {
        match self.early.pop_front() {
            Some(told) => Line::Told(told),
            None => serde_json::from_str(&self.line()).unwrap(),
        }
    }

    /// Gives an order, and waits until it is done.
    #[track_caller]
    fn order(&mut self, order: Wanted) {
        self.orders += 1;
        let number = self.orders;
        self.say(&serde_json::to_vec(&Order { number, order }).unwrap());
        loop {
            match serde_json::from_str(&self.line()).unwrap() {
                Line::Done(done) => return assert_eq!(done, number),
                Line::Told(told) => self.early.push_back(told),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next request that is held: its number, and what the policy says.
    #[track_caller]
    fn held(&mut self) -> (u64, Verdict, Vec<Vec<u8>>) {
        match self.told() {
            Line::Told(Told::Held { id, decision, .. }) => {
                (id, decision.verdict, decision.request.names)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn step(view: &View, stop: Stop) -> Caller {
    let mut console = Caller::new(view);
    let question = Question::Step {
        limit_seconds: 60,
        stop,
    };
    assert!(matches!(console.ask(&question), Answer::Begun { .. }));
    console
}

fn reload(view: &View, text: &str) -> Answer {
    Caller::new(view).ask(&Question::Reload {
        policy: text.to_owned(),
        names: Names::default(),
        readonly: false,
        dry_run: false,
    })
}

fn reloaded(epoch: u64, nodes: u64) -> Answer {
    Answer::Reloaded {
        epoch,
        nodes,
        past: 0,
        past_files: Vec::new(),
        unfinished: None,
    }
}

fn breakpoint(rule: &str) -> Wanted {
    Wanted::Break {
        breakpoint: 1,
        select: Selector {
            rule: Some(rule.to_owned()),
            ..Selector::default()
        },
    }
}

fn create(view: &View, name: &[u8]) -> u64 {
    let flags = u32::try_from(libc::O_WRONLY | libc::O_CREAT).unwrap();
    let body = Body::new().u32(flags).u32(0o644).u32(0).u32(0).name(name);
    view.send(op::CREATE, ROOT, &body)
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn garbage_is_answered_with_an_error() {
    let view = View::start();
    let too_long = vec![b'['; QUESTION_MAX];
    for garbage in [
        &b"\n"[..],
        b"\xff\xfe\n",
        b"{}\n",
        b"[]\n",
        b"{\"ask\":\"quit\"}\n",
        b"{\"ask\":\"status\",\"x\":1}\n",
        b"{\"ask\":\"status\"}",
        b"",
        &too_long,
    ] {
        let mut caller = Caller::new(&view);
        // The last is cut off before all of it is read.
        let _closed = caller.to.write_all(garbage);
        let _closed = caller.to.shutdown(std::net::Shutdown::Write);
        let answer: Answer = serde_json::from_str(&caller.line()).unwrap();
        assert!(matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    view.still_serves();
    view.end().unwrap();
}

#[test]
fn reload_puts_another_policy_in_force_and_makes_the_kernel_forget() {
    let view = View::start();
    std::fs::write(view.host("a"), "data").unwrap();
    let node = view.lookup(ROOT, b"a").node();
    let flags = Body::new().u32(0).u32(0);
    let open = view.ask(op::OPEN, node, flags.clone()).ok().u64_at(0);
    let read = || {
        let body = Body::new().u64(open).u64(0).u32(4).u32(0);
        view.ask(op::READ, node, body.u64(0).u32(0).u32(0))
    };
    assert_eq!(read().ok().body, b"data");
    view.notices.borrow_mut().clear();

    let denied = "default = \"allow\"\n[[rule]]\npath = \"/a\"\ndo = \"read\"\naction = \"deny\"\n";
    let answer = reload(&view, denied);
    assert_eq!(answer, reloaded(1, 2));
    assert_eq!(view.ask(op::OPEN, node, flags).errno, libc::EACCES);
    assert_eq!(read().errno, libc::EACCES, "an open file too");

    let notices = view.notices.take();
    let codes: Vec<i32> = notices.iter().map(|(code, _)| *code).collect();
    // What is still on its way into a directory's cache is waited for before anything is dropped.
    assert_eq!(
        codes,
        [INC_EPOCH, INVAL_ENTRY, INVAL_INODE, INVAL_INODE],
        "{notices:?}"
    );
    let mut nodes: Vec<u64> = notices[2..]
        .iter()
        .map(|(_, body)| u64::from_ne_bytes(body[..8].try_into().unwrap()))
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [ROOT, node]);
    view.end().unwrap();
}

#[test]
fn reload_with_a_mistake_or_without_the_walls_for_it_changes_nothing() {
    let view = View::with(policy("default = \"allow\"\n"), Cache::Auto);
    std::fs::write(view.host("a"), "").unwrap();
    for (text, part) in [
        ("default = 3\n", "policy:1:11"),
        ("default = \"deny\"\nset_id = \"allow\"\n", "set-id"),
        ("default = \"deny\"\ncache = \"none\"\n", "cache"),
    ] {
        let Answer::Error(why) = reload(&view, text) else {
            panic!("{text}")
        };
        assert!(why.contains(part), "{why}");
        view.lookup(ROOT, b"a").ok();
    }
    let dry = Caller::new(&view).ask(&Question::Reload {
        policy: "default = \"deny\"\n".to_owned(),
        names: Names::default(),
        readonly: false,
        dry_run: true,
    });
    assert_eq!(dry, reloaded(0, 0));
    view.lookup(ROOT, b"a").ok();
    assert_eq!(
        view.notices
            .borrow()
            .iter()
            .filter(|(code, _)| *code == INVAL_INODE)
            .count(),
        0
    );
    view.end().unwrap();
}

#[test]
fn held_request_stops_only_itself_and_is_decided_as_the_console_says() {
    let view = View::start();
    std::fs::write(view.host("other"), "").unwrap();
    let mut console = step(&view, Stop::Nowhere);
    console.order(breakpoint("path = \"/held*\"\ndo = \"make\""));

    for (name, by, errno) in [
        (&b"held1"[..], By::Policy, 0),
        (b"held2", By::Allow, 0),
        (b"held3", By::Refuse(libc::EPERM), libc::EPERM),
    ] {
        let made = create(&view, name);
        let (id, verdict, names) = console.held();
        assert_eq!(verdict, Verdict::Allowed { rule: None });
        assert_eq!(names, [[b"/", name].concat()]);
        // One worker, and it goes on.
        view.lookup(ROOT, b"other").ok();
        assert!(!view.host(std::str::from_utf8(name).unwrap()).exists());
        console.order(Wanted::Answer { id, by });
        let (answered, reply) = view.receive();
        assert_eq!((answered, reply.errno), (made, errno), "{by:?}");
        assert!(matches!(
            console.told(),
            Line::Told(Told::Released {
                how: Release::Answered,
                ..
            })
        ));
    }
    view.end().unwrap();
}

#[test]
fn floor_is_not_lifted_by_hand() {
    let view = View::with(
        policy("default = \"allow\"\nreadonly = true\n"),
        Cache::Auto,
    );
    let mut console = step(&view, Stop::Refusal);
    let made = create(&view, b"x");
    let (id, verdict, _) = console.held();
    assert!(
        matches!(
            verdict,
            Verdict::Refused {
                errno: libc::EROFS,
                ..
            }
        ),
        "{verdict:?}"
    );
    console.order(Wanted::Answer { id, by: By::Allow });
    let (answered, reply) = view.receive();
    assert_eq!((answered, reply.errno), (made, libc::EROFS));
    // A device node, after a read-only view.
    let view = View::start();
    let mut console = step(&view, Stop::Refusal);
    let device = Body::new().u32(libc::S_IFCHR | 0o666).u32(0).u32(0).u32(0);
    view.send(op::MKNOD, ROOT, &device.name(b"null"));
    let (id, ..) = console.held();
    console.order(Wanted::Answer { id, by: By::Allow });
    assert_eq!(view.receive().1.errno, libc::EPERM);
}

#[test]
fn refusal_is_allowed_by_hand_once() {
    let deny = policy("default = \"allow\"\n[[rule]]\ndo = \"make\"\naction = \"deny\"\n");
    let view = View::with(deny, Cache::Auto);
    let mut console = step(&view, Stop::Refusal);
    create(&view, b"x");
    let (id, verdict, _) = console.held();
    assert!(
        matches!(verdict, Verdict::Refused { rule: Some(0), .. }),
        "{verdict:?}"
    );
    console.order(Wanted::Answer { id, by: By::Allow });
    assert_eq!(view.receive().1.errno, 0);
    create(&view, b"y");
    assert_eq!(view.receive().1.errno, libc::EACCES, "only once");
}

#[test]
fn errno_that_means_a_fault_is_not_given_by_hand() {
    let view = View::start();
    let mut console = step(&view, Stop::Next);
    create(&view, b"x");
    let (id, ..) = console.held();
    for errno in [libc::EIO, libc::ENOSYS, libc::ENOTCONN, 0, -1, 4096] {
        console.orders += 1;
        let order = Order {
            number: console.orders,
            order: Wanted::Answer {
                id,
                by: By::Refuse(errno),
            },
        };
        console.say(&serde_json::to_vec(&order).unwrap());
        let told = console.told();
        assert!(matches!(told, Line::NotDone { .. }), "{errno}: {told:?}");
    }
    drop(console);
    assert_eq!(view.receive().1.errno, 0);
}

#[test]
fn console_that_goes_leaves_everything_to_the_policy_at_once() {
    let view = View::start();
    let mut console = step(&view, Stop::Nowhere);
    console.order(breakpoint("do = \"make\""));
    let made: Vec<u64> = [b"a", b"b", b"c"].map(|name| create(&view, name)).into();
    for _ in &made {
        console.held();
    }
    drop(console);
    let mut answered: Vec<u64> = made
        .iter()
        .map(|_| {
            let (answered, reply) = view.receive();
            assert_eq!(reply.errno, 0);
            answered
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, made);
    // And nothing is held any more.
    create(&view, b"d");
    assert_eq!(view.receive().1.errno, 0);
    view.end().unwrap();
}

#[test]
fn request_that_nobody_answers_for_is_refused_when_its_time_is_over() {
    let view = View::start();
    let mut console = Caller::new(&view);
    let question = Question::Step {
        limit_seconds: 1,
        stop: Stop::Next,
    };
    console.ask(&question);
    create(&view, b"x");
    let (id, ..) = console.held();
    assert_eq!(view.receive().1.errno, libc::EACCES);
    let how = Release::TooLate;
    assert_eq!(console.told(), Line::Told(Told::Released { id, how }));
    assert!(!view.host("x").exists());
}

#[test]
fn more_than_may_be_held_is_decided_by_the_policy() {
    let view = View::start();
    let mut console = step(&view, Stop::Nowhere);
    console.order(breakpoint("do = \"make\""));
    let most = virtfs_mediator_core::mediate::HELD_MAX;
    for number in 0..most {
        create(&view, format!("held{number}").as_bytes());
        console.held();
    }
    let further = create(&view, b"further");
    let (answered, reply) = view.receive();
    assert_eq!((answered, reply.errno), (further, 0));
    assert!(matches!(console.told(), Line::Told(Told::NotHeld { .. })));
    drop(console);
    for _ in 0..most {
        assert_eq!(view.receive().1.errno, 0);
    }
}

#[test]
fn second_console_is_refused() {
    let view = View::start();
    let first = step(&view, Stop::Nowhere);
    let question = Question::Step {
        limit_seconds: 9,
        stop: Stop::Nowhere,
    };
    let answer = Caller::new(&view).ask(&question);
    assert!(matches!(answer, Answer::Error(_)), "{answer:?}");
    drop(first);
    await_that("the first console is gone", || {
        matches!(Caller::new(&view).ask(&question), Answer::Begun { .. })
    });
}

#[test]
fn reload_with_a_create_held_in_the_same_directory_decides_it_anew() {
    let view = View::start();
    let mut console = step(&view, Stop::Nowhere);
    console.order(breakpoint("do = \"make\""));
    let made = create(&view, b"x");
    let (id, verdict, _) = console.held();
    assert_eq!(verdict, Verdict::Allowed { rule: None });
    let deny =
        "default = \"allow\"\n[[rule]]\ndo = \"make\"\naction = \"deny\"\nerrno = \"EPERM\"\n";
    assert_eq!(reload(&view, deny), reloaded(1, 1));
    let (answered, reply) = view.receive();
    assert_eq!((answered, reply.errno), (made, libc::EPERM));
    let how = Release::Reloaded;
    assert_eq!(console.told(), Line::Told(Told::Released { id, how }));
    // What comes after is held again.
    create(&view, b"y");
    let (_, verdict, _) = console.held();
    assert!(verdict.is_refused());
}

#[test]
fn view_that_ends_lets_go_of_what_is_held() {
    let view = View::start();
    let mut console = step(&view, Stop::Next);
    create(&view, b"x");
    console.held();
    view.end().unwrap();
}

#[test]
fn watcher_sees_each_decision_with_its_end_and_nothing_that_it_did_not_select() {
    let deny = policy("default = \"allow\"\n[[rule]]\npath = \"/no\"\naction = \"deny\"\n");
    let view = View::with(deny, Cache::Auto);
    std::fs::write(view.host("no"), "").unwrap();
    std::fs::write(view.host("yes"), "").unwrap();
    let watch = |select| {
        let mut caller = Caller::new(&view);
        assert_eq!(
            caller.ask(&Question::Watch { select }),
            Answer::Begun { epoch: 0 }
        );
        caller
    };
    let mut all = watch(Selector::default());
    let mut refused = watch(Selector {
        refused: true,
        ..Selector::default()
    });
    view.lookup(ROOT, b"yes").ok();
    view.lookup(ROOT, b"gone");
    view.lookup(ROOT, b"no");
    let mut event = || match all.told() {
        Line::Event(event) => event,
        other => panic!("{other:?}"),
    };
    let first = event();
    assert_eq!(first.decision.request.names, [b"/yes"]);
    assert_eq!((first.ended, first.decision.by_hand), (Ended::Done, false));
    assert!(
        first.decision.request.owner.is_some(),
        "every fact, though no rule asks"
    );
    // Of what is not there nothing was decided.
    let last = event();
    assert_eq!(last.ended, Ended::Refused);
    assert_eq!(last.decision.verdict.rule(), Some(0));
    assert_eq!(refused.told(), Line::Event(last));
    view.end().unwrap();
}

#[test]
fn path_of_a_selector_is_read_as_in_a_policy() {
    let view = View::start();
    let mut caller = Caller::new(&view);
    let rule = Some("path = \"no-slash\"".to_owned());
    let select = Selector {
        rule,
        ..Selector::default()
    };
    let Answer::Error(why) = caller.ask(&Question::Watch { select }) else {
        panic!()
    };
    assert!(why.contains("no-slash"), "{why}");
    view.end().unwrap();
}
