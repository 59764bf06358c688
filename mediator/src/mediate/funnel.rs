//! The funnel itself: what every operation has in common.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::asides::Asides;
use super::audit::{Audit, AuditWriter, Record, Refused, Verbosity, escape};
use super::counters::{Counters, End};
use super::ledger::Ledger;
use super::scratch::{Scratch, join, with_paths};
use crate::export::{Attr, Entry, Export, Fault, Inode, Pin, SPELLING};
use crate::ids::{FileKind, GuestGid, GuestOwner, GuestUid, HandleId, NodeId};
use crate::name::Name;
use crate::op::{Op, Words};
use crate::policy::{Facts, Judged, Permit, Policy, Refusal, Requester};

/// One view: the export, its policy, and the accounts of what was asked. Shared by all workers.
#[derive(Debug)]
pub struct Mediator {
    pub(super) export: Export,
    pub(super) policy: Policy,
    pub(super) audit: Audit,
    counters: Counters,
    pub(super) asides: Asides,
    /// Of the areas of `policy`: another policy needs other books.
    pub(super) ledger: Arc<Ledger>,
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
    op: Op,
    pub(super) who: Requester,
    /// Escaped names, for the log; empty unless the log wants them.
    subject: Cell<String>,
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
pub(super) struct Case<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) words: Option<Words>,
    pub(super) attr: Option<&'a Attr>,
    /// Which file a name stands for, where `attr` is its.
    pub(super) inode: Option<Inode>,
    /// The type, where it is known without asking; the floor wants it of an open.
    pub(super) kind: Option<FileKind>,
    pub(super) second: Option<(&'a Pin, &'a Name)>,
    pub(super) span: Option<(u64, u64)>,
    /// The span's length is added to the file's size.
    pub(super) adds: bool,
    pub(super) xattr: Option<(&'a [u8], usize)>,
    pub(super) target: Option<&'a [u8]>,
}

impl<'a> Case<'a> {
    pub(super) fn of(subject: Subject<'a>) -> Self {
        Self {
            subject,
            words: None,
            attr: None,
            inode: None,
            kind: None,
            second: None,
            span: None,
            adds: false,
            xattr: None,
            target: None,
        }
    }

    pub(super) fn node(pin: &'a Pin) -> Self {
        Self::of(Subject::Node(pin))
    }

    pub(super) fn name(parent: &'a Pin, name: &'a Name) -> Self {
        Self::of(Subject::Name(parent, name))
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
    ) -> io::Result<(Self, AuditWriter)> {
        let (audit, writer) = Audit::start(verbosity)?;
        let ledger = Ledger::open(policy.areas(), &export);
        let mediator = Self {
            export,
            policy,
            audit,
            counters: Counters::default(),
            asides: Asides::default(),
            ledger,
        };
        Ok((mediator, writer))
    }

    /// How often each operation was asked, and how it ended.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Log records that were dropped because refusals came faster than they could be written.
    #[must_use]
    pub fn records_dropped(&self) -> u64 {
        self.audit.dropped()
    }

    /// Whether the policy refuses every change.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.policy.readonly()
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

    /// Whether rules ask about a name or its file before it may be seen. If so, whole directories
    /// are not looked up at once (READDIRPLUS): a name that is listed but may not be looked at has
    /// no form in that reply.
    #[must_use]
    pub fn judges_looks(&self) -> bool {
        let needs = self.policy.needs(Op::Lookup);
        needs.path || needs.attr
    }

    /// Runs one operation: counts how it ends and, when asked, logs it with its latency.
    pub(super) fn run<T>(
        &self,
        op: Op,
        who: Requester,
        body: impl FnOnce(&Trail) -> Act<T>,
    ) -> Result<T, Errno> {
        let started = self.audit.is_verbose().then(Instant::now);
        let trail = Trail {
            op,
            who,
            subject: Cell::default(),
        };
        let result = body(&trail);
        let end = match &result {
            Ok(_) => End::Done,
            Err(Stop::Refused(_)) => End::Refused,
            Err(Stop::Failed(_)) => End::Failed,
        };
        self.counters.add(op, end);
        let result = result.map_err(|(Stop::Refused(errno) | Stop::Failed(errno))| errno);
        if let Some(started) = started {
            self.audit.put(Record::Request {
                op,
                requester: who,
                subject: trail.subject.take(),
                verdict: result.as_ref().map(|_done| ()).map_err(|errno| *errno),
                refused: end == End::Refused,
                took: started.elapsed(),
            });
        }
        result
    }

    /// Asks the policy. The permit is the only way on.
    pub(super) fn decide<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Permit<O>> {
        if self.audit.is_verbose() {
            trail.subject.set(self.describe(case));
        }
        let verdict = with_paths(|scratch| {
            self.with_facts(O::OP, trail, case, scratch, |facts| {
                self.policy.decide::<O>(facts, ask)
            })
        })?;
        let permit = verdict.map_err(|refusal| self.refuse(O::OP, trail, case, refusal))?;
        self.note_asides(trail, case, &permit);
        if permit.logs() && permit.pretended().is_empty() {
            self.audit.put(Record::Allowed {
                op: O::OP,
                requester: trail.who,
                subject: self.describe(case),
                rule: self.rule_word(permit.rule()),
            });
        }
        Ok(permit)
    }

    /// How a rule is called in the log: by its name, else its number, counted from 1.
    pub(super) fn rule_word(&self, rule: Option<u32>) -> String {
        match rule {
            None => "-".to_owned(),
            Some(index) => match self.policy.rule_name(index) {
                Some(name) => name.to_owned(),
                None => format!("#{}", u64::from(index) + 1),
            },
        }
    }

    /// Logs a refusal and turns it into the client's answer.
    pub(super) fn refuse(&self, op: Op, trail: &Trail, case: &Case<'_>, refusal: Refusal) -> Stop {
        self.audit.put(Record::Refused(Refused {
            op,
            requester: trail.who,
            subject: self.describe(case),
            rule: self.rule_word(refusal.rule),
            why: refusal.why,
            errno: refusal.errno,
        }));
        Stop::Refused(refusal.errno)
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

    /// Tells of a name that its directory spells otherwise; other faults are no refusals.
    pub(super) fn misspelt(
        &self,
        trail: &Trail,
        (parent, name): (&Pin, &Name),
        fault: Fault,
    ) -> Stop {
        if fault.call != SPELLING {
            return fault.into();
        }
        let refusal = Refusal {
            errno: fault.errno,
            rule: None,
            why: "rules go by name, and its directory spells this one otherwise",
        };
        self.refuse(trail.op, trail, &Case::name(parent, name), refusal)
    }

    /// Logs the refusal of what is not even a name.
    pub(super) fn refuse_bytes(
        &self,
        trail: &Trail,
        bytes: &[u8],
        errno: Errno,
        why: &'static str,
    ) -> Stop {
        self.audit.put(Record::Refused(Refused {
            op: trail.op,
            requester: trail.who,
            subject: escape(bytes, None),
            rule: self.rule_word(None),
            why,
            errno,
        }));
        Stop::Refused(errno)
    }

    /// Gathers the facts that rules for `op` ask about, and no others: each costs a system call
    /// or a walk over names.
    fn with_facts<T>(
        &self,
        op: Op,
        trail: &Trail,
        case: &Case<'_>,
        scratch: &mut Scratch,
        body: impl FnOnce(&Facts<'_>) -> T,
    ) -> Act<T> {
        let needs = self.policy.needs(op);
        let mut facts = Facts::of(op, trail.who);
        facts.words = case.words.unwrap_or(op.words());
        facts.offset = case.span.map(|(offset, _)| offset);
        facts.length = case.span.map(|(_, length)| length);
        facts.adds = case.adds;
        facts.xattr = case.xattr;
        facts.target = case.target;

        let pinned;
        let subject = match case.subject {
            Subject::Handle(handle) if needs.path || needs.attr => {
                pinned = self.export.pin_handle(handle)?;
                Subject::Node(&pinned)
            }
            other @ (Subject::Node(_) | Subject::Name(..) | Subject::Handle(_)) => other,
        };
        facts.kind = case.kind;
        if let Subject::Node(pin) = subject {
            facts.birth = self.export.is_birth(pin);
        }
        let attr = match (case.attr, subject) {
            (Some(attr), _) => Some(*attr),
            (None, Subject::Node(pin)) if needs.attr => Some(self.export.stat(pin)?),
            (None, _) => None,
        };
        if let Some(attr) = attr {
            facts.kind = Some(attr.kind);
            facts.mode = Some(attr.mode);
            facts.owner = Some(attr.owner);
            facts.size = Some(attr.size);
            facts.nlink = Some(attr.nlink);
        }
        if self.policy.host_uids().is_some() {
            facts.outside = self.names_outsider(op, subject, case.second)?;
        }
        if !needs.path {
            return Ok(body(&facts));
        }

        let Scratch { first, second } = scratch;
        if let Some((parent, name)) = case.second {
            self.write_name(parent, name, second);
            facts.second = Some(second);
        }
        let mut others = self.write_subject(subject, first);
        if let Some(attr) = attr.filter(|_| !self.policy.followed().is_empty()) {
            self.add_followed((subject, case.inode), &attr, &mut others)?;
        }
        if others.is_empty() {
            let only: [&[u8]; 1] = [first];
            facts.names = &only;
            return Ok(body(&facts));
        }
        let mut names: Vec<&[u8]> = vec![first];
        names.extend(others.iter().map(Vec::as_slice));
        facts.names = &names;
        Ok(body(&facts))
    }

    /// Whether a directory in which something is named, or what a rename would replace, belongs to
    /// someone outside of the policy's `map`. The target itself is judged by its own facts.
    fn names_outsider(
        &self,
        op: Op,
        subject: Subject<'_>,
        second: Option<(&Pin, &Name)>,
    ) -> Act<bool> {
        let parent = match subject {
            Subject::Name(parent, _) => Some(parent),
            Subject::Node(_) | Subject::Handle(_) => None,
        };
        let parents = parent.into_iter().chain(second.map(|(parent, _)| parent));
        for parent in parents {
            if !self.policy.admits(self.export.stat(parent)?.owner) {
                return Ok(true);
            }
        }
        let Some((parent, name)) = second.filter(|_| op == Op::Rename) else {
            return Ok(false);
        };
        match self.export.child(parent, name) {
            Ok(there) => Ok(!self.policy.admits(there.attr().owner)),
            Err(fault) if fault.errno == Errno::NOENT => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    fn write_name(&self, parent: &Pin, name: &Name, out: &mut Vec<u8>) {
        self.export.write_path(parent, out);
        join(out, name.as_bytes());
    }

    /// Writes the subject's first name and returns the further ones.
    fn write_subject(&self, subject: Subject<'_>, out: &mut Vec<u8>) -> Vec<Vec<u8>> {
        match subject {
            Subject::Name(parent, name) => {
                self.write_name(parent, name, out);
                Vec::new()
            }
            Subject::Node(pin) => {
                self.export.write_path(pin, out);
                self.export.other_names(pin)
            }
            Subject::Handle(_) => Vec::new(),
        }
    }

    /// The names in a case, escaped, for the log.
    pub(super) fn describe(&self, case: &Case<'_>) -> String {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        match case.subject {
            Subject::Handle(handle) => match self.export.pin_handle(handle) {
                Ok(pin) => self.export.write_path(&pin, &mut first),
                Err(_) => first.extend_from_slice(b"?"),
            },
            subject @ (Subject::Node(_) | Subject::Name(..)) => {
                self.write_subject(subject, &mut first);
            }
        }
        let second = case.second.map(|(parent, name)| {
            self.write_name(parent, name, &mut second);
            second.as_slice()
        });
        escape(&first, second)
    }

    /// Attributes as the view shows them.
    pub(super) fn show(&self, attr: Attr) -> Shown {
        let owner = self.policy.present(attr.owner);
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
