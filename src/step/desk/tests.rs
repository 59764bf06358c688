//! The desk against a mediator that is broken into.

use super::*;
use virtfs_mediator_core::op::AnyAsk;
use virtfs_mediator_core::policy::{Facts, Request, Requester};

const REQUESTER: Requester = Requester {
    uid: 1,
    gid: 1,
    pid: 0,
};

/// A desk, the mediator's end of its connection, and where its answers go in.
fn desk() -> (Desk, UnixStream, crossbeam_channel::Sender<Line>) {
    let state = State {
        view: "v".to_owned(),
        export: "/e".into(),
        at: "/e".into(),
        policy: None,
        policy_text: None,
        readonly: false,
        client_uid: 1,
        client_gid: 1,
        client_groups: Vec::new(),
        command: Vec::new(),
        shared: false,
        isolated: false,
        keeper: rundir::Process { pid: 1, started: 0 },
        walls: None,
        peer: None,
        init: None,
        warden: None,
        registrar: None,
        mount: None,
        data: String::new(),
        submounts: Vec::new(),
    };
    let (here, there) = UnixStream::pair().unwrap();
    let (send, answers) = crossbeam_channel::bounded(ANSWERS_MAX);
    let screen = Arc::new(Screen::new(super::super::show::Printer::Out));
    (
        Desk::new(state, 0, here, answers, screen).unwrap(),
        there,
        send,
    )
}

fn held(id: u64, path: &[u8]) -> Told {
    let facts = Facts {
        names: &[path],
        ..Facts::of(Op::Unlink, REQUESTER)
    };
    Told::Held {
        id,
        cause: Cause::Stop,
        decision: Box::new(Decision {
            request: Request::of(&facts, AnyAsk::Nothing),
            verdict: virtfs_mediator_core::mediate::Verdict::Allowed { rule: None },
            by_hand: false,
            epoch: 0,
        }),
        limit_seconds: u64::MAX,
    }
}

#[test]
fn more_held_than_a_mediator_can_hold_ends_the_connection_and_fills_no_memory() {
    use std::io::Read as _;

    let (desk, mut mediator, _answers) = desk();
    for id in 0..1000 {
        desk.hear(held(id, b"/a"));
    }
    assert_eq!(desk.memory().held.len(), REMEMBERED_MAX);
    let patience = Some(Duration::from_secs(10));
    mediator.set_read_timeout(patience).unwrap();
    assert_eq!(mediator.read(&mut [0]).unwrap(), 0);
}

#[test]
fn order_among_endless_answers_to_others_is_given_up() {
    let (desk, _mediator, answers) = desk();
    let flood = std::thread::spawn(move || while answers.send(Line::Done(0)).is_ok() {});
    let began = Instant::now();
    let refused = desk.order(Wanted::Stop(Stop::Next)).unwrap_err();
    assert!(refused.what().contains("does not answer"), "{refused}");
    assert!(began.elapsed() < PATIENCE * 4);
    drop(desk);
    flood.join().unwrap();
}

#[test]
fn path_without_end_is_not_completed_directory_by_directory() {
    let (desk, _mediator, _answers) = desk();
    desk.hear(held(1, &b"/a".repeat(100_000)));
    desk.hear(held(2, b"/b/c"));
    assert_eq!(desk.paths(), ["/b/**", "/b/c"]);
}
