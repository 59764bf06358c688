//! Sequences of FUSE messages, some of them impossible, under one of several policies.
//!
//! Held: no panic and no hang; what lies outside of the export is neither read nor changed; a name
//! that is no component, a node that was never told and a handle that is not open get nothing; no
//! refusal passes for a fault; no answer is longer than asked; what is hidden stays hidden, what is
//! read-only stays as it was, set-id bits are stripped, devices are not made; and when all lookups
//! and handles are given back, the mediator knows nothing but the root.

mod judge;
mod known;
mod request;

use std::cell::RefCell;

use memchr::memmem::Finder;
use virtfs_mediator_core::Cache;
use virtfs_mediator_core::mediate::Verbosity;
use virtfs_mediator_core::policy::Policy;

use crate::export::{self, Found, SECRET};
use crate::input::Input;
use crate::scratch::{Scratch, client};
use crate::users::Nobody;
use crate::view::{Ended, Setup, View};
use crate::wire::{Answer, Body, contradicts_itself, op};
use known::Known;
use request::{Maker, Step};

/// The most steps that are taken: a crash is to be read by people.
const STEPS_MAX: usize = 48;

/// A served view with what its policy promises.
struct Served {
    setup: Setup,
    promises: Promises,
    /// Kept from input to input: each leaves it as it was found, which is checked.
    view: Option<View>,
}

#[derive(Clone, Copy, Default)]
struct Promises {
    hides_keys: bool,
    readonly: bool,
    strips_set_id: bool,
    many: bool,
}

struct World {
    scratch: Scratch,
    served: Vec<Served>,
    secret: Finder<'static>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    WORLD.with_borrow_mut(|world| world.get_or_insert_with(World::new).run(data));
}

impl World {
    fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            served: setups(),
            secret: Finder::new(SECRET).into_owned(),
        }
    }

    fn run(&mut self, data: &[u8]) {
        let mut input = Input::new(data);
        let first = input.byte();
        let which = usize::from(first & 63) % self.served.len();
        let served = &mut self.served[which];
        export::fill(&self.scratch, served.promises.many);
        let before = served
            .promises
            .readonly
            .then(|| export::found(&self.scratch));
        let view = served.view.take();
        let view = view.unwrap_or_else(|| View::start(&self.scratch, served.setup.clone()));
        let mut run = Run {
            scratch: &self.scratch,
            secret: served.promises.hides_keys.then_some(&self.secret),
            view,
            known: Known::default(),
            is_host: false,
        };
        let end = run
            .steps(&mut input, first >= 192)
            .and_then(|()| run.give_back());
        let is_raw = run.known.is_partial();
        let Run { view, is_host, .. } = run;
        match end {
            // What raw bytes have left behind is not known here.
            Ok(()) if is_raw => view.end(),
            Ok(()) => served.view = Some(view),
            Err(Ended) => {
                assert!(is_raw, "the connection ended");
                // DESTROY, or what is no message at all: either is a proper end.
                let _either = view.join();
            }
        }
        self.scratch.check_canary();
        served.promises.check(
            &export::found(&self.scratch),
            before.filter(|_| !is_host).as_deref(),
        );
    }
}

struct Run<'w> {
    scratch: &'w Scratch,
    /// What no answer may hold besides the canary.
    secret: Option<&'w Finder<'static>>,
    view: View,
    known: Known,
    is_host: bool,
}

impl Run<'_> {
    fn steps(&mut self, input: &mut Input<'_>, with_raw: bool) -> Result<(), Ended> {
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            let mut maker = Maker {
                input,
                known: &self.known,
                scratch: self.scratch,
                with_raw,
            };
            match maker.step() {
                Step::Ask(request) => {
                    let answer =
                        self.view
                            .ask(request.opcode, request.node, request.body.as_bytes())?;
                    self.check_content(&answer);
                    if self.secret.is_some() {
                        check_hidden(&request, &answer);
                    }
                    judge::judge(&request, &answer, &mut self.known);
                }
                Step::Forget(nodes, in_batch) => self.forget(&nodes, in_batch)?,
                Step::Raw(bytes) if contradicts_itself(&bytes) => {}
                Step::Raw(bytes) => {
                    self.known.is_partial_from_now_on();
                    for answer in self.view.raw(&bytes)? {
                        self.check_content(&answer);
                    }
                }
                Step::Host(act, first, second) => {
                    self.is_host = true;
                    export::act(self.scratch, act, first, second);
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, nodes: &[(u64, u64)], in_batch: bool) -> Result<(), Ended> {
        for (node, count) in nodes {
            self.known.forget(*node, *count);
        }
        if !in_batch {
            for (node, count) in nodes {
                self.view
                    .tell(op::FORGET, *node, Body::new().u64(*count).as_bytes())?;
            }
            return Ok(());
        }
        let head = Body::new()
            .u32(u32::try_from(nodes.len()).unwrap_or(0))
            .u32(0);
        let body = nodes
            .iter()
            .fold(head, |body, (node, count)| body.u64(*node).u64(*count));
        self.view
            .tell(op::BATCH_FORGET, 0, body.as_bytes())
            .map(|_unique| ())
    }

    /// Closes and forgets all: then nothing may be left.
    fn give_back(&mut self) -> Result<(), Ended> {
        for open in std::mem::take(&mut self.known.open) {
            let body = Body::new().u64(open.handle).u64(0).u64(0);
            let answer = self.view.ask(op::RELEASE, open.node, body.as_bytes())?;
            assert!(answer.is_ok(), "RELEASE failed");
        }
        let lookups: Vec<_> = self.known.lookups().collect();
        self.forget(&lookups, true)?;
        // FORGET has no answer; this has, and comes after it.
        let answer = self.view.ask(op::GETATTR, crate::wire::ROOT, &[0; 16])?;
        assert!(answer.is_ok(), "the root is gone");
        if !self.known.is_partial() {
            let mediator = &self.view.mediator;
            assert_eq!(mediator.open_handles(), 0, "handles are left");
            assert_eq!(mediator.known_nodes(), 1, "nodes are left");
        }
        Ok(())
    }

    fn check_content(&self, answer: &Answer) {
        let holds = |finder: &Finder<'_>| finder.find(&answer.body).is_some();
        assert!(!holds(self.scratch.canary()), "the canary was read");
        assert!(!self.secret.is_some_and(holds), "the secret was read");
    }
}

/// A hidden name is neither found nor listed.
fn check_hidden(request: &request::Request, answer: &Answer) {
    let is_hidden = |name: &[u8]| name.ends_with(b".key");
    let found = request.opcode == op::LOOKUP && answer.is_ok();
    assert!(
        !(found && request.names.iter().any(|name| is_hidden(name))),
        "a hidden name was found"
    );
    if matches!(request.opcode, op::READDIR | op::READDIRPLUS) {
        let listed = crate::wire::entries(&answer.body, request.opcode == op::READDIRPLUS);
        let hidden = listed.iter().find(|entry| is_hidden(&entry.name));
        assert!(hidden.is_none(), "a hidden name was listed");
    }
}

impl Promises {
    fn check(self, after: &[Found], before: Option<&[Found]>) {
        for file in after {
            let kind = file.mode & 0o170_000;
            assert!(
                !matches!(kind, 0o020_000 | 0o060_000),
                "a device was made: {file:?}"
            );
            let set_id = kind != 0o040_000 && file.mode & 0o6000 != 0;
            assert!(
                !(self.strips_set_id && set_id),
                "a set-id bit was not stripped: {file:?}"
            );
        }
        if let Some(before) = before {
            assert_eq!(after, before, "a read-only view changed the export");
        }
    }
}

fn setups() -> Vec<Served> {
    let id = client().uid;
    let parse = |text: &str| Policy::parse("policy", text, &Nobody).expect("a policy of ours");
    let served = |policy, cache, promises| Served {
        setup: Setup {
            policy,
            cache,
            verbosity: Verbosity::Refusals,
            max_descriptors: 48,
        },
        promises,
        view: None,
    };
    let mut readonly = Policy::parity();
    readonly.set_readonly();
    let hiding = "default = \"allow\"\n\
         [[rule]]\npath = \"/**/*.key\"\naction = \"hide\"\n\
         [[rule]]\npath = \"/d/e/**\"\ndo = \"change\"\naction = \"deny\"\nerrno = \"EDQUOT\"\n\
         [[xattr]]\nmatch = \"user.b\"\naction = \"unsupported\"\n";
    let rules = "default = \"deny\"\n\
         [[rule]]\npath = \"/d/**\"\naction = \"allow\"\nmode = { strip = \"0022\" }\nlog = \"all\"\n\
         [[rule]]\npath = \"/new*\"\nwhen = { type = \"file\", size = { max = 4096 } }\naction = \"allow\"\n\
         [[rule]]\npath = [\"/f\", \"/out\"]\ndo = [\"look\", \"read\", \"rename\", \"link\"]\naction = \"allow\"\n\
         [[rule]]\npath = \"/\"\ndo = [\"list\", \"look\"]\naction = \"allow\"\n";
    let map = format!(
        "default = \"allow\"\nset_id = \"deny\"\nsquash = {{ who = \"root\", uid = {id}, gid = {id} }}\n\
         map = [{{ guest = 0, host = {id}, count = 1 }}, {{ guest = 7, host = 100000, count = 9 }}]\n"
    );
    let strips = Promises {
        strips_set_id: true,
        ..Promises::default()
    };
    let mut all = vec![
        served(Policy::parity(), Cache::Auto, Promises::default()),
        served(
            Policy::parity(),
            Cache::Exclusive,
            Promises {
                many: true,
                ..Promises::default()
            },
        ),
        served(
            readonly,
            Cache::Auto,
            Promises {
                readonly: true,
                ..Promises::default()
            },
        ),
        served(
            parse(hiding),
            Cache::Auto,
            Promises {
                hides_keys: true,
                ..strips
            },
        ),
        served(parse(rules), Cache::None, strips),
        served(parse(&map), Cache::Auto, strips),
    ];
    // Whatever is said of every request, too.
    all[4].setup.verbosity = Verbosity::EveryRequest;
    all
}
