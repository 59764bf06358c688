//! A policy as data: what the engine reads, and what the parser makes.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::areas::{Area, Totals};
pub(super) use super::condition::{Condition, Flags, Number, Whose};
use super::data::DataJudgement;
use super::facts::Needs;
use super::index::Index;
use super::owners::{Bounds, IdSpan, Owners};
use super::paths::{Glob, NameGlob};
use crate::ids::{HostGid, HostOwner, HostUid, Mode};
use crate::op::{Op, Word, Words};

/// The rules of one view. Plain data: shared between threads without a lock.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its own, to tell what it decided from what another did. Never 0.
    pub(super) number: u32,
    pub(super) settings: Settings,
    pub(super) default_allow: bool,
    pub(super) readonly: bool,
    /// What rules and default refuse is told, and let through.
    pub(super) observe: bool,
    /// Reads and writes are judged one by one, whatever the rules ask about.
    pub(super) strict: bool,
    pub(super) set_id: SetId,
    /// Whether a directory may be given set-group-id.
    pub(super) setgid_directories: bool,
    pub(super) owners: Owners,
    /// The view's own `limit.file_size`, in bytes: for what no rule limits further.
    pub(super) file_size: Option<u64>,
    /// The view's own `limit.total` and `limit.entries`.
    pub(super) totals: Totals,
    /// Worked out from `owners` and the rules; `None`: every host id.
    pub(super) bounds: Option<Bounds>,
    pub(super) rules: Vec<Rule>,
    pub(super) xattrs: Vec<XattrRule>,
    /// What is counted.
    pub(super) areas: Vec<Area>,
    /// The paths of rules with `inode = true`, each once.
    pub(super) followed: Vec<Vec<u8>>,
    /// By operation: what is worked out once from the rules.
    pub(super) by_op: Vec<ByOp>,
    /// The rules by place.
    pub(super) index: Index,
    /// Worked out from the rules.
    pub(super) data: DataJudgement,
}

/// What a policy file says of the view as a whole; the caller puts it to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `export`: the shared directory's absolute path.
    pub export: Option<String>,
    /// `client.user`: a host uid.
    pub client_user: Option<HostUid>,
    /// `client.group`: a host gid.
    pub client_group: Option<HostGid>,
    /// `cache`.
    pub cache: Option<CacheWord>,
    /// `submounts`.
    pub submounts: Option<SubmountsWord>,
}

/// `submounts`: what becomes of other file systems that are mounted inside the export at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubmountsWord {
    /// The view does not start.
    #[default]
    Refuse,
    /// Their names are not there.
    Hide,
    /// They are shared too.
    Follow,
}

/// `cache`: how long the client's kernel may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheWord {
    /// Short times: changes on the host are seen within a second.
    Auto,
    /// Nothing is remembered.
    None,
    /// Only this view changes the export.
    Exclusive,
}

/// `set_id`: set-user-id, and set-group-id on anything but a directory, where that is group
/// inheritance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetId {
    Strip,
    Allow,
    Deny,
}

/// A set of operations by raw name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ops(u64);

impl Ops {
    pub(super) fn add(&mut self, op: Op) {
        self.0 |= 1 << op as u32;
    }

    pub(super) fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u32) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One `[[rule]]`.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Where it stands in the file, from 1.
    pub(super) line: usize,
    pub(super) name: Option<String>,
    /// Empty: every path.
    pub(super) paths: Vec<Glob>,
    pub(super) words: Words,
    pub(super) ops: Ops,
    /// All must hold.
    pub(super) when: Vec<Condition>,
    pub(super) action: Action,
    pub(super) log: bool,
    /// `inode`: files found by its paths are judged by them whatever the name they are reached by.
    pub(super) follows: bool,
    /// `limit`, but for its `file_size`: for its paths, whichever rule decides there.
    pub(super) totals: Totals,
}

impl Rule {
    /// Whether the rule may speak of a word of an operation.
    pub(super) fn speaks_of(&self, op: Op, word: Words) -> bool {
        self.words.meets(word) || self.ops.contains(op)
    }

    /// Whether the rule holds for a path, conditions aside.
    pub(super) fn holds_at(&self, path: Option<&[u8]>) -> bool {
        self.paths.is_empty()
            || path.is_some_and(|path| self.paths.iter().any(|glob| glob.matches(path)))
    }

    /// Whether the rule goes by name: by its paths, or by a condition on names.
    pub(super) fn goes_by_name(&self) -> bool {
        !self.paths.is_empty() || self.when.iter().any(Condition::needs_path)
    }

    /// Whether the rule holds for a path, conditions on anything but that name aside.
    pub(super) fn holds_by_name(&self, path: &[u8]) -> bool {
        let path = Some(path);
        let named = |condition: &Condition| condition.holds_at(path).unwrap_or(true);
        self.holds_at(path) && self.when.iter().all(named)
    }

    /// Whether the rule may let an open through only because it appends.
    pub(super) fn favours_append(&self) -> bool {
        let appends = !self.restricts();
        self.when.iter().any(|one| one.turns_on_append(appends))
    }

    /// Whether the rule can only take away.
    pub(super) fn restricts(&self) -> bool {
        matches!(self.action, Action::Deny(_) | Action::Hide)
    }

    /// Whether what the rule speaks of can be reached, so that the way there must be open.
    pub(super) fn opens(&self) -> bool {
        matches!(self.action, Action::Allow(_))
    }

    /// Whether the rule allows and does nothing else.
    pub(super) fn plainly_allows(&self) -> bool {
        let plain = self.action == Action::Allow(Modify::default());
        plain && !self.log && self.totals.is_none()
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow(Modify),
    /// With `errno`, if the file gives one.
    Deny(Option<Errno>),
    Hide,
    /// Told as done, and not done. Only for words whose effect no client builds upon.
    Pretend,
}

/// What an allowing rule changes in what is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modify {
    pub(super) uid: Option<HostUid>,
    pub(super) gid: Option<HostGid>,
    pub(super) force: u32,
    pub(super) strip: u32,
    /// The largest size in bytes that a write may give a file.
    pub(super) file_size: Option<u64>,
}

impl Modify {
    /// Both at once: stripping and forcing add up, the first owner stays. Limits are not joined
    /// here: which rule's it is must be told.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            uid: self.uid.or(other.uid),
            gid: self.gid.or(other.gid),
            force: self.force | other.force,
            strip: self.strip | other.strip,
            file_size: None,
        }
    }
}

/// What an `[[xattr]]` rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XattrAction {
    Allow,
    Deny,
    Unsupported,
    /// Kept on the export under [`XattrRule::to`] and the guest's name.
    Rename,
}

/// One `[[xattr]]`.
#[derive(Clone, Debug)]
pub(super) struct XattrRule {
    pub(super) glob: NameGlob,
    pub(super) action: XattrAction,
    /// What a renamed name begins with; empty for other actions.
    pub(super) to: Box<[u8]>,
}

/// What is worked out once for an operation.
#[derive(Clone, Debug)]
pub(super) struct ByOp {
    /// Of the rules that can hold anywhere, those that may speak of it, in order.
    pub(super) anywhere: Vec<u32>,
    pub(super) needs: Needs,
}

/// What may still be done with a file of an owner outside of `map`: to see that it is there, and
/// to be done with it.
pub(super) fn shows_outsiders(op: Op) -> bool {
    matches!(op, Op::Lookup | Op::Getattr | Op::Statfs | Op::Flush)
}

/// What can add to what an area holds, or move it.
pub(super) fn moves_or_grows(op: Op) -> bool {
    op.words().meets(
        Words::of(Word::Write)
            .with(Words::of(Word::Make))
            .with(Words::of(Word::Link))
            .with(Words::of(Word::Rename)),
    )
}

/// The words that an operation may touch beyond those of its row: a file opened by CREATE may be
/// there already, a rename may replace one, and a POSIX ACL holds the permission bits.
pub(super) fn words_besides(op: Op) -> Words {
    match op {
        Op::Create => Words::of(Word::Read).with(Words::of(Word::Write)),
        Op::Rename => Words::of(Word::Remove),
        Op::Setxattr | Op::Removexattr => Words::of(Word::Mode),
        Op::Lookup
        | Op::Getattr
        | Op::Readlink
        | Op::Access
        | Op::Statfs
        | Op::Setattr
        | Op::Mkdir
        | Op::Mknod
        | Op::Symlink
        | Op::Link
        | Op::Unlink
        | Op::Rmdir
        | Op::Open
        | Op::Read
        | Op::Write
        | Op::Fallocate
        | Op::Lseek
        | Op::CopyFileRange
        | Op::Fsync
        | Op::Flush
        | Op::Opendir
        | Op::Readdir
        | Op::Getxattr
        | Op::Listxattr => Words::NONE,
    }
}

/// A number that no policy of this process has had.
fn another_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

impl Policy {
    /// No rules, everything allowed but the floor; what runs when no policy is named. Unlike in a
    /// file, where `set_id` is `"strip"` unless written, set-id bits are allowed.
    #[must_use]
    pub fn parity() -> Self {
        Self {
            number: 0,
            settings: Settings::default(),
            default_allow: true,
            readonly: false,
            observe: false,
            strict: false,
            set_id: SetId::Allow,
            setgid_directories: true,
            owners: Owners::default(),
            file_size: None,
            totals: Totals::default(),
            areas: Vec::new(),
            bounds: None,
            rules: Vec::new(),
            xattrs: Vec::new(),
            followed: Vec::new(),
            by_op: Vec::new(),
            index: Index::default(),
            data: DataJudgement::default(),
        }
        .compiled()
    }

    /// Works out what depends on the rules as a whole.
    pub(super) fn compiled(mut self) -> Self {
        self.number = another_number();
        self.bounds = self.work_out_bounds();
        self.followed = self.work_out_followed();
        self.areas = self.work_out_areas();
        self.index = Index::new(&self.rules);
        let by_op = Op::ALL.iter().map(|op| self.work_out(*op)).collect();
        self.by_op = by_op;
        self.data = self.work_out_data();
        self
    }

    fn work_out_followed(&self) -> Vec<Vec<u8>> {
        let rules = self.rules.iter().filter(|rule| rule.follows);
        let paths = rules.flat_map(|rule| rule.paths.iter().filter_map(Glob::literal));
        let mut paths: Vec<Vec<u8>> = paths.collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    fn work_out_bounds(&self) -> Option<Bounds> {
        let Bounds { uids, gids } = self.owners.bounds()?;
        let modified = || {
            self.rules.iter().filter_map(|rule| match rule.action {
                Action::Allow(modify) => Some(modify),
                Action::Deny(_) | Action::Hide | Action::Pretend => None,
            })
        };
        let given_uids = modified().filter_map(|modify| Some(IdSpan::one(modify.uid?.0)));
        let given_gids = modified().filter_map(|modify| Some(IdSpan::one(modify.gid?.0)));
        Some(Bounds {
            uids: IdSpan::united(uids.into_iter().chain(given_uids)),
            gids: IdSpan::united(gids.into_iter().chain(given_gids)),
        })
    }

    fn work_out(&self, op: Op) -> ByOp {
        let words = op.words().with(words_besides(op));
        let speaks = |at: &u32| self.rule(*at).is_some_and(|rule| rule.speaks_of(op, words));
        let anywhere = self.index.anywhere().iter().copied().filter(speaks);
        let anywhere = anywhere.collect();
        let mut needs = Needs::default();
        for rule in &self.rules {
            if rule.speaks_of(op, words) {
                needs.path |= rule.goes_by_name();
                needs.attr |= rule.when.iter().any(Condition::needs_attr);
            }
        }
        let by_path = self.rules.iter().any(Rule::goes_by_name);
        // Rules must not be escaped by a new name, whatever words they speak of; and a directory
        // takes all below it along.
        let moves = matches!(op, Op::Rename | Op::Link) && by_path;
        // That only a directory can be the way to something is told by its type, which costs nothing.
        let leads = self.grants_traversal() && op.words().meets(Words::of(Word::Look));
        let bounded = self.bounds.is_some() && !shows_outsiders(op);
        // Whether a file has further links is told by its attributes.
        let follows = !self.followed.is_empty();
        let counted = self.areas.iter().any(|area| !area.is_view()) && moves_or_grows(op);
        needs.path |= moves || leads || follows || counted;
        needs.attr |= follows;
        needs.attr |= (moves && op == Op::Rename) || bounded;
        ByOp { anywhere, needs }
    }

    /// The rule of that index.
    pub(super) fn rule(&self, index: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(index).ok()?)
    }

    /// Whether the way to an allowed path must be opened although the default denies it.
    pub(super) fn grants_traversal(&self) -> bool {
        let opens = |rule: &Rule| !rule.paths.is_empty() && rule.opens();
        !self.default_allow && self.rules.iter().any(opens)
    }

    /// What the file says of the view as a whole.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether nothing may be changed.
    #[must_use]
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// The host uids that can be stored, in order; `None`: all. Under a `map` a file that belongs
    /// to anyone else is refused (EACCES).
    #[must_use]
    pub fn host_uids(&self) -> Option<&[IdSpan]> {
        self.bounds.as_ref().map(|bounds| bounds.uids.as_slice())
    }

    /// As [`Policy::host_uids`], for groups.
    #[must_use]
    pub fn host_gids(&self) -> Option<&[IdSpan]> {
        self.bounds.as_ref().map(|bounds| bounds.gids.as_slice())
    }

    /// Whether owner and group are among the ids that can be stored.
    #[must_use]
    pub fn admits(&self, owner: HostOwner) -> bool {
        let among = |spans: &[IdSpan], id| spans.iter().any(|span| span.holds(id));
        self.bounds.as_ref().is_none_or(|bounds| {
            among(&bounds.uids, owner.uid.0) && among(&bounds.gids, owner.gid.0)
        })
    }

    /// The set-id bits that can be given to anything at all, of `S_ISUID` and `S_ISGID`: a process
    /// that acts on the export needs FSETID only if there is one, and has no reason to pass any
    /// other to the kernel.
    #[must_use]
    pub fn set_id_bits(&self) -> Mode {
        let mut bits = 0;
        if self.set_id == SetId::Allow {
            bits |= Mode::SET_UID | Mode::SET_GID;
        }
        if self.setgid_directories {
            bits |= Mode::SET_GID;
        }
        for rule in &self.rules {
            if let Action::Allow(modify) = rule.action {
                bits |= modify.force & (Mode::SET_UID | Mode::SET_GID);
            }
        }
        Mode::new(bits)
    }

    /// Whether what rules, default and `[[xattr]]` refuse is let through and only told
    /// (`mode = "observe"`). The floor, `readonly`, `map` and set-id settings are enforced all the
    /// same.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.observe
    }

    /// The policy as it would be without `mode = "observe"`: what tools compare verdicts by.
    #[must_use]
    pub fn enforced(mut self) -> Self {
        self.observe = false;
        // What has to be gathered depends on it.
        self.compiled()
    }

    /// Refuses every change from now on, whatever the rules say.
    pub fn set_readonly(&mut self) {
        self.number = another_number();
        self.readonly = true;
    }

    /// A rule's `name`, by its index in the file ([`super::Refusal::rule`]).
    #[must_use]
    pub fn rule_name(&self, index: u32) -> Option<&str> {
        let rule = self.rules.get(usize::try_from(index).ok()?)?;
        rule.name.as_deref()
    }

    /// The line of the policy file, from 1, on which a rule begins.
    #[must_use]
    pub fn rule_line(&self, index: u32) -> Option<usize> {
        let rule = self.rules.get(usize::try_from(index).ok()?)?;
        Some(rule.line)
    }

    /// Whether a rule says `log = "all"`.
    #[must_use]
    pub fn rule_logs(&self, index: u32) -> bool {
        let rule = usize::try_from(index)
            .ok()
            .and_then(|at| self.rules.get(at));
        rule.is_some_and(|rule| rule.log)
    }

    /// Whether a file's size is limited anywhere: then the size of a file to whose end a request
    /// adds must be known ([`super::Facts::adds`]).
    #[must_use]
    pub fn limits_file_size(&self) -> bool {
        let limits = |rule: &Rule| matches!(rule.action, Action::Allow(modify) if modify.file_size.is_some());
        self.file_size.is_some() || self.rules.iter().any(limits)
    }

    /// Whether any open may be let through only because it appends.
    pub(super) fn favours_append(&self) -> bool {
        !self.observe && self.rules.iter().any(Rule::favours_append)
    }

    /// The paths that a file with several links must be sought by, and if it is there, be judged
    /// by too: those of rules with `inode = true`.
    #[must_use]
    pub fn followed(&self) -> &[Vec<u8>] {
        &self.followed
    }

    /// How many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Whether any rule that is enforced goes by name, so that a name is good only as its directory
    /// spells it.
    #[must_use]
    pub fn goes_by_name(&self) -> bool {
        !self.observe && Op::ALL.iter().any(|op| self.needs(*op).path)
    }

    /// What must be gathered before [`Policy::decide`] is asked about this operation.
    #[must_use]
    pub fn needs(&self, op: Op) -> Needs {
        let everything = Needs {
            path: true,
            attr: true,
        };
        self.by_op
            .get(op as usize)
            .map_or(everything, |by| by.needs)
    }
}
