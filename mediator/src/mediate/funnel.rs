//! The funnel itself: what every operation has in common.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use rustix::io::Errno;

use super::asides::Asides;
use super::audit::{Audit, AuditTo, AuditWriter, Names, Record, Verbosity};
use super::counters::{Counters, End, Verdicts};
use super::event::{Decision, Ended, Event};
use super::gate::Gate;
use super::in_force::InForce;
use super::scratch::with_paths;
use super::select::Selection;
use super::turns::{Turn, Turns};
use super::watch::{Watch, Watchers};
use crate::backing::{Backings, DataMode};
use crate::export::{Attr, DescriptorUse, Entry, Export, Fault, Glance, Inode, Pin};
use crate::ids::{FileKind, GuestGid, GuestOwner, GuestUid, HandleId, Mode, NodeId};
use crate::name::Name;
use crate::op::{Op, Words};
use crate::policy::{Judged, Needs, Permit, Policy, Refusal, Requester, Standing};

/// One view: the export, its policy, and the accounts of what was asked. Shared by all workers.
#[derive(Debug)]
pub struct Mediator {
    pub(super) export: Export,
    pub(super) policy: ArcSwap<InForce>,
    /// What the walls around this process were built for.
    pub(super) first: Arc<InForce>,
    /// How often the policy was replaced.
    pub(super) epoch: AtomicU64,
    /// Held while it is.
    pub(super) reloads: Mutex<()>,
    pub(super) turns: Turns,
    pub(super) gate: Gate,
    pub(super) watchers: Watchers,
    started: Instant,
    pub(super) audit: Audit,
    counters: Counters,
    verdicts: Verdicts,
    pub(super) asides: Asides,
    pub(super) backings: Backings,
    /// Many users are served, each by the kernel's own checks of modes and ACLs.
    users: AtomicBool,
}

/// Attributes as the view shows them: the owner in guest ids.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// As on the export; its `owner` is the host's and not to be shown.
    pub attr: Attr,
    /// The owner to show.
    pub owner: GuestOwner,
}

/// A name's node as the view shows it. Each one handed out counts one lookup, which the kernel
/// gives back with FORGET.
#[derive(Clone, Copy, Debug)]
pub struct ShownEntry {
    /// The node.
    pub node: NodeId,
    /// Distinguishes nodes that had the same id one after the other.
    pub generation: u64,
    /// Its attributes.
    pub shown: Shown,
}

/// Why an operation was not performed.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Errno),
    Failed(Errno),
}

pub(super) type Act<T> = Result<T, Stop>;

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.errno)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// One request on its way through the funnel.
pub(super) struct Trail {
    pub(super) op: Op,
    pub(super) who: Requester,
    /// Escaped names, for the log; empty unless the log wants them.
    pub(super) subject: Cell<Names>,
    /// One policy for all of a request, whatever is loaded meanwhile.
    pub(super) policy: RefCell<Guard<Arc<InForce>>>,
    /// Which one.
    pub(super) epoch: Cell<u64>,
    /// What was decided; empty unless somebody watches.
    pub(super) decisions: RefCell<Vec<Decision>>,
}

/// What a request is about.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Node(&'a Pin),
    Name(&'a Pin, &'a Name),
    /// An open file: pinned only if the rules ask about it.
    Handle(HandleId),
}

/// One question to the policy, with the facts that the caller already has; the rest are gathered
/// if the rules ask for them.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) words: Option<Words>,
    pub(super) attr: Option<&'a Attr>,
    /// Which file a name stands for, where `attr` is its.
    pub(super) inode: Option<Inode>,
    /// A name's file lies on another mount than the export's root.
    pub(super) submount: bool,
    /// The type, where it is known without asking; the floor wants it of an open.
    pub(super) kind: Option<FileKind>,
    pub(super) second: Option<(&'a Pin, &'a Name)>,
    pub(super) span: Option<(u64, u64)>,
    /// The span's length is added to the file's size.
    pub(super) adds: bool,
    pub(super) xattr: Option<(&'a [u8], usize)>,
    /// The permission bits that a POSIX ACL gives.
    pub(super) acl_mode: Option<Mode>,
    pub(super) target: Option<&'a [u8]>,
    /// What was decided before about a name's file, by that name.
    pub(super) standing: Standing,
}

impl<'a> Case<'a> {
    pub(super) fn of(subject: Subject<'a>) -> Self {
        Self {
            subject,
            words: None,
            attr: None,
            inode: None,
            submount: false,
            kind: None,
            second: None,
            span: None,
            adds: false,
            xattr: None,
            acl_mode: None,
            target: None,
            standing: Standing::NONE,
        }
    }

    pub(super) fn node(pin: &'a Pin) -> Self {
        Self::of(Subject::Node(pin))
    }

    pub(super) fn name(parent: &'a Pin, name: &'a Name) -> Self {
        Self::of(Subject::Name(parent, name))
    }

    /// A name, with all that a look at it told.
    pub(super) fn glance(parent: &'a Pin, name: &'a Name, glance: &'a Glance) -> Self {
        Self {
            attr: Some(glance.attr()),
            inode: Some(glance.inode()),
            submount: glance.is_submount(),
            standing: glance.standing(),
            ..Self::name(parent, name)
        }
    }

    pub(super) fn handle(handle: HandleId) -> Self {
        Self::of(Subject::Handle(handle))
    }
}

impl Mediator {
    /// A view of `export` under `policy`, and the writer of its log.
    ///
    /// # Errors
    ///
    /// The writer's thread could not be started.
    pub fn new(
        export: Export,
        policy: Policy,
        verbosity: Verbosity,
        audit: AuditTo,
    ) -> io::Result<(Self, AuditWriter)> {
        let (audit, writer) = Audit::start(verbosity, audit)?;
        let policy = Arc::new(InForce::new(policy, &export));
        let mediator = Self {
            export,
            first: Arc::clone(&policy),
            policy: ArcSwap::new(policy),
            epoch: AtomicU64::new(0),
            reloads: Mutex::default(),
            turns: Turns::default(),
            gate: Gate::default(),
            watchers: Watchers::default(),
            started: Instant::now(),
            audit,
            counters: Counters::default(),
            verdicts: Verdicts::default(),
            asides: Asides::default(),
            backings: Backings::new(DataMode::Mediated, None),
            users: AtomicBool::new(false),
        };
        Ok((mediator, writer))
    }

    /// From now on requests are many users', and the kernel enforces modes and ACLs among them.
    pub fn serve_users(&self) {
        self.users.store(true, Ordering::Relaxed);
    }

    pub(super) fn serves_users(&self) -> bool {
        self.users.load(Ordering::Relaxed)
    }

    /// How often each operation was asked, and how it ended.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How decisions came about.
    #[must_use]
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Records of decisions that were written since the view started.
    #[must_use]
    pub fn records_written(&self) -> u64 {
        self.audit.written()
    }

    /// Log records that were dropped because refusals came faster than they could be written.
    #[must_use]
    pub fn records_dropped(&self) -> u64 {
        self.audit.dropped()
    }

    /// Whether the policy refuses every change.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.policy.load().readonly()
    }

    /// Whether the policy's rules are only told, not enforced.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.policy.load().observes()
    }

    /// Number of rules.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.policy.load().rule_count()
    }

    /// How often the policy was replaced.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The stepping console's gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Watches the decisions that `selection` takes, from now on.
    pub fn watch(&self, selection: Selection) -> Watch {
        self.watchers.add(selection)
    }

    /// The view has ended: nothing is held and nobody watches any more.
    pub fn close(&self) {
        self.gate.close();
        self.watchers.close();
    }

    /// A request begins; it is over when the turn is dropped, behind its answer.
    pub fn enter(&self) -> Turn {
        self.turns.enter()
    }

    /// Whether every fact is wanted, not only those that rules ask about.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.any() || self.gate.is_armed()
    }

    /// What must be gathered for a decision.
    pub(super) fn needs(&self, trail: &Trail, op: Op) -> Needs {
        if self.is_watched() {
            Needs {
                path: true,
                attr: true,
            }
        } else {
            trail.policy.borrow().needs(op)
        }
    }

    /// Nodes that the kernel knows.
    #[must_use]
    pub fn known_nodes(&self) -> usize {
        self.export.known_nodes()
    }

    /// Open files and directories.
    #[must_use]
    pub fn open_handles(&self) -> usize {
        self.export.open_handles()
    }

    /// How much of the budget of descriptors is in use.
    #[must_use]
    pub fn descriptors(&self) -> DescriptorUse {
        self.export.descriptors()
    }

    /// Runs one operation: counts how it ends and how long it takes; tells that when asked.
    pub(super) fn run<T>(
        &self,
        op: Op,
        who: Requester,
        body: impl FnOnce(&Trail) -> Act<T>,
    ) -> Result<T, Errno> {
        let started = Instant::now();
        let trail = self.trail(op, who);
        let result = body(&trail);
        let end = match &result {
            Ok(_) => End::Done,
            Err(Stop::Refused(_)) => End::Refused,
            Err(Stop::Failed(_)) => End::Failed,
        };
        // The second and last look at the clock.
        let took = started.elapsed();
        self.counters.add(op, end, took);
        self.tell_watchers(&trail, &result, started, took);
        let result = result.map_err(|(Stop::Refused(errno) | Stop::Failed(errno))| errno);
        if self.audit.is_verbose() {
            self.audit.put(Record::Request {
                op,
                requester: who,
                subject: trail.subject.take(),
                verdict: result.as_ref().map(|_done| ()).map_err(|errno| *errno),
                refused: end == End::Refused,
                took,
            });
        }
        result
    }

    fn trail(&self, op: Op, who: Requester) -> Trail {
        Trail {
            op,
            who,
            subject: Cell::default(),
            // Before the policy: a request that is just too early is told as of the older one.
            epoch: Cell::new(self.epoch()),
            policy: RefCell::new(self.policy.load()),
            decisions: RefCell::default(),
        }
    }

    fn tell_watchers<T>(&self, trail: &Trail, result: &Act<T>, started: Instant, took: Duration) {
        if trail.decisions.borrow().is_empty() {
            return;
        }
        let ended = match result {
            Ok(_) => Ended::Done,
            Err(Stop::Refused(_)) => Ended::Refused,
            Err(Stop::Failed(errno)) => Ended::Failed(errno.raw_os_error()),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        for decision in trail.decisions.take() {
            self.watchers.tell(&Event {
                at_us: micros(started.duration_since(self.started)),
                decision,
                ended,
                took_us: micros(took),
            });
        }
    }

    /// Asks the policy. The permit is the only way on.
    pub(super) fn decide<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Permit<O>> {
        if self.audit.is_verbose() {
            trail.subject.set(self.describe(case).0);
        }
        let pinned;
        let case = match case.subject {
            Subject::Handle(handle) if self.needs(trail, O::OP).any() => {
                pinned = self.export.pin_handle(handle)?;
                &Case {
                    subject: Subject::Node(&pinned),
                    ..*case
                }
            }
            Subject::Node(_) | Subject::Name(..) | Subject::Handle(_) => case,
        };
        let verdict = self.verdict::<O>(trail, case, ask)?;
        let permit = verdict.map_err(|refusal| self.refuse(O::OP, trail, case, refusal))?;
        self.note_asides(trail, case, &permit);
        if permit.logs() && permit.pretended().is_empty() {
            let decided = self.decided(O::OP, trail, case, permit.rule());
            self.audit.put(Record::Allowed(decided));
        }
        Ok(permit)
    }

    /// Asks the policy by the first of two cases if it allows that, else by the second.
    pub(super) fn decide_either<O: Judged>(
        &self,
        trail: &Trail,
        [first, second]: &[Case<'_>; 2],
        ask: O::Ask,
    ) -> Act<Permit<O>> {
        let before = trail.decisions.borrow().len();
        let allowed = self.verdict::<O>(trail, first, ask)?.is_ok();
        trail.decisions.borrow_mut().truncate(before);
        self.decide::<O>(trail, if allowed { first } else { second }, ask)
    }

    /// Asks the policy about what nobody has asked for yet. A refusal is nobody's answer: it is not
    /// told, nor is anything given that would have to be told.
    pub(super) fn offer<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Option<Permit<O>>> {
        let before = trail.decisions.borrow().len();
        let verdict = self.verdict::<O>(trail, case, ask)?;
        let untold = |permit: &Permit<O>| {
            !permit.logs() && permit.observed().is_none() && permit.pretended().is_empty()
        };
        let offered = verdict.ok().filter(untold);
        if offered.is_none() {
            trail.decisions.borrow_mut().truncate(before);
        }
        Ok(offered)
    }

    fn verdict<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Result<Permit<O>, Refusal>> {
        let watched = self.is_watched();
        if !watched && let Some(verdict) = Self::decide_again::<O>(trail, case, ask) {
            self.verdicts.count_remembered();
            return Ok(verdict);
        }
        self.verdicts.count_judged();
        if watched {
            self.decide_watched::<O>(trail, case, ask)
        } else {
            self.decide_anew::<O>(trail, case, ask)
        }
    }

    /// By what was decided before about the same file.
    fn decide_again<O: Judged>(
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Option<Result<Permit<O>, Refusal>> {
        let (standing, kind) = match case.subject {
            Subject::Node(pin) => (pin.standing(), Some(pin.kind())),
            Subject::Name(..) => (case.standing, case.attr.map(|attr| attr.kind)),
            Subject::Handle(_) => return None,
        };
        let words = case.words.unwrap_or(O::OP.words());
        let policy = trail.policy.borrow();
        policy.decide_again::<O>(standing, words, kind, ask)
    }

    /// By the rules. What stands beyond this request is remembered.
    fn decide_anew<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Result<Permit<O>, Refusal>> {
        let verdict = with_paths(|scratch| {
            self.with_facts(O::OP, trail, case, scratch, |facts| {
                trail.policy.borrow().decide::<O>(facts, ask)
            })
        })?;
        if let (Ok(permit), Subject::Node(pin)) = (&verdict, case.subject) {
            self.export.remember(pin, permit.standing());
        }
        Ok(verdict)
    }

    /// A name as it came. One that could lead out of its directory is told: no kernel that keeps
    /// to the protocol sends it.
    pub(super) fn name(&self, trail: &Trail, bytes: &[u8]) -> Act<Name> {
        Name::new(bytes).map_err(|errno| match errno {
            Errno::INVAL => {
                let why = "floor: a name must be one component";
                self.refuse_bytes(trail, bytes, errno, why)
            }
            other => other.into(),
        })
    }

    /// Attributes as the view shows them.
    pub(super) fn show(&self, attr: Attr) -> Shown {
        let owner = self.policy.load().present(attr.owner);
        Shown { attr, owner }
    }

    /// An entry as the view shows it.
    pub(super) fn show_entry(&self, entry: Entry) -> ShownEntry {
        ShownEntry {
            node: entry.node,
            generation: entry.generation,
            shown: self.show(entry.attr),
        }
    }
}

impl Shown {
    /// Whether a write may change the mode behind the kernel's back: with HANDLE_KILLPRIV_V2 it
    /// leaves the clearing of set-user-id and set-group-id to us (fuse_setattr, fs/fuse/dir.c).
    #[must_use]
    pub fn mode_may_change_on_write(&self) -> bool {
        self.attr.kind == FileKind::Regular && self.attr.mode.has_set_id()
    }
}

/// The requester as a guest owner: what a new inode belongs to. The policy squashes and maps it.
pub(super) fn as_owner(who: Requester) -> GuestOwner {
    GuestOwner {
        uid: GuestUid(who.uid),
        gid: GuestGid(who.gid),
    }
}
