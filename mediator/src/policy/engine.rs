//! Which rule decides, and with what.

use std::cell::Cell;

use rustix::io::Errno;

use super::areas::Areas;
use super::facts::Facts;
use super::grant::{Asked, Judged};
use super::index::earliest;
use super::limit::Limit;
use super::model::{
    Action, Condition, Flags, Modify, Number, Policy, Rule, Whose, moves_or_grows, shows_outsiders,
    words_besides,
};
use super::permit::{Permit, Refusal, Trace};
use super::request::Request;
use super::standing::Standing;
use crate::ids::{FileKind, GuestOwner, HostOwner, Mode};
use crate::op::{Op, OpenAs, RenameHow, Word, Words};
use crate::weak;

/// What the rules allow: how the deciding rules change what is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub(super) modify: Modify,
    /// The first rule that decided; `None` for the default.
    pub(super) rule: Option<u32>,
    /// CREATE must not open what is there already.
    pub(super) only_new: bool,
    /// RENAME must not replace what is there already.
    pub(super) keep_target: bool,
    /// What is told as done and must not be.
    pub(super) pretended: Words,
    /// The smallest that holds.
    pub(super) limit: Option<Limit>,
    /// What the request may add to.
    pub(super) areas: Areas,
    /// What would be refused if rules were enforced.
    pub(super) observed: Option<Refusal>,
    /// What of it holds for other requests about the same file.
    pub(super) standing: Standing,
    /// What is opened may only be appended to.
    pub(super) append_only: bool,
}

/// The first rule that holds, or the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow(Option<u32>, Modify),
    Deny(Option<u32>, Option<Errno>),
    Hide(u32),
    Pretend(u32),
}

/// One request, as the rules see it.
pub(super) struct Case<'r, 'f> {
    pub(super) facts: &'r Facts<'f>,
    pub(super) asked: &'r Asked,
    /// The verdict is not plain, or follows from more than the file's names and type: it holds for
    /// this request alone.
    pub(super) varies: Cell<bool>,
}

pub(super) fn refuse(errno: Errno, why: &'static str) -> Refusal {
    Refusal {
        errno,
        rule: None,
        why,
    }
}

impl Policy {
    /// Judges one request.
    ///
    /// Several names are judged each, as is every word that the request needs; the strictest
    /// verdict stands. Under `default = "deny"` the directories above an allowed path may be
    /// looked at and opened, so that the way there exists; nothing else.
    ///
    /// # Errors
    ///
    /// The refusal, with the errno of its class: deny EACCES; owner, mode, mknod and link EPERM;
    /// `readonly` EROFS; hide ENOENT, but EACCES for making or moving something to a hidden name
    /// (so that nothing hidden is replaced); extended attributes ENOTSUP; an id outside of `map`
    /// EPERM, or EOVERFLOW for a new inode's, and EACCES for a file that belongs to such an id. Never ENOSYS, EIO or ENOTCONN.
    pub fn decide<O: Judged>(&self, facts: &Facts<'_>, ask: O::Ask) -> Result<Permit<O>, Refusal> {
        if facts.op != O::OP {
            return Err(refuse(Errno::ACCESS, "floor: facts of another operation"));
        }
        let asked = O::asked(&ask);
        let allowed = self.judge(facts, &asked)?;
        let kind = facts.kind.or(asked.kind);
        let grant = O::grant(self, &allowed, kind, ask)?;
        let logs = allowed.rule.is_some_and(|rule| self.rule_logs(rule));
        Ok(Permit::new(grant, Trace::of(&allowed, logs)))
    }

    /// What remains of [`Policy::decide`] when a person allows a request in the place of the rules:
    /// the floor, `readonly`, the id map and `[[xattr]]` stand, as does that nothing is carried out of its rules.
    ///
    /// # Errors
    ///
    /// As [`Policy::decide`].
    pub fn decide_by_hand<O: Judged>(
        &self,
        facts: &Facts<'_>,
        ask: O::Ask,
    ) -> Result<Permit<O>, Refusal> {
        let asked = O::asked(&ask);
        self.judge_before_rules(facts, &asked)?;
        self.judge_xattr(facts)?;
        self.judge_carrying(facts, &asked)?;
        let kind = facts.kind.or(asked.kind);
        // Whoever allows it, it takes room.
        let allowed = Allowed {
            areas: self.areas_of(facts),
            // What was allowed was an open that appends.
            append_only: self.favours_append() && asked.open.is_some_and(|open| open.append),
            ..Allowed::default()
        };
        let grant = O::grant(self, &allowed, kind, ask)?;
        Ok(Permit::new(grant, Trace::of(&allowed, false)))
    }

    /// Whether the first rule, in a policy made for it, speaks of a request: by a word of it, at
    /// one of its names, with all conditions.
    pub(crate) fn selects(&self, request: &Request) -> bool {
        let Some(rule) = self.rules.first() else {
            return false;
        };
        request.with_facts(|facts| {
            let asked = request.asked();
            let words = facts.words.with(asked.words).with(asked.open_words);
            let case = Case::new(facts, &asked);
            let speaks = each_word(words).any(|word| rule.speaks_of(facts.op, word));
            let mut places = names(facts).chain(facts.second.map(Some));
            speaks
                && places.any(|path| {
                    let mut conditions = rule.when.iter();
                    rule.holds_at(path)
                        && conditions.all(|condition| case.holds(condition, path) == Some(true))
                })
        })
    }

    /// All that does not depend on the row's types.
    fn judge(&self, facts: &Facts<'_>, asked: &Asked) -> Result<Allowed, Refusal> {
        let op = facts.op;
        let words = self.judge_before_rules(facts, asked)?;
        let case = Case::new(facts, asked);
        let mut allowed = Allowed {
            limit: Limit::smaller(None, self.file_size, None),
            areas: self.areas_of(facts),
            ..Allowed::default()
        };
        let mut worst = None;
        let mut first = true;
        for name in names(facts) {
            self.judge_name(
                &case,
                name,
                words,
                is_new_name(op, false),
                &mut allowed,
                &mut worst,
            );
            if first && op == Op::Create && !asked.open_words.is_empty() {
                allowed.only_new = !self.allows_all(&case, name, asked.open_words);
            }
            first = false;
        }
        if let Some(second) = facts.second {
            let name = Some(second);
            self.judge_name(
                &case,
                name,
                words,
                is_new_name(op, true),
                &mut allowed,
                &mut worst,
            );
            if op == Op::Rename {
                allowed.keep_target = !self.allows_all(&case, name, Words::of(Word::Remove));
            }
        }
        let by_rules = worst.map_or(Ok(()), Err);
        self.unless_observed(by_rules, &mut allowed)?;
        self.unless_observed(self.judge_xattr(facts), &mut allowed)?;
        self.unless_observed(self.judge_carrying(facts, asked), &mut allowed)?;
        let limited = allowed.limit.map_or(Ok(()), |it| it.judge(facts, asked));
        self.unless_observed(limited, &mut allowed)?;
        if self.observe {
            self.observe_conditions(asked, &mut allowed);
        }
        allowed.standing = self.standing(&case, words, &allowed);
        allowed.append_only = self.is_for_appending_alone(facts, asked);
        Ok(allowed)
    }

    /// Whether an open is allowed only because it says that it appends. A client takes that back at
    /// any time (`F_SETFL` of fcntl(2)), and no request tells.
    fn is_for_appending_alone(&self, facts: &Facts<'_>, asked: &Asked) -> bool {
        let Some(open) = asked.open.filter(|open| open.append) else {
            return false;
        };
        let otherwise = Asked {
            open: Some(OpenAs {
                append: false,
                ..open
            }),
            ..*asked
        };
        self.favours_append() && self.judge(facts, &otherwise).is_err()
    }

    /// A refusal that follows from the rules alone: only noted where they are not enforced.
    fn unless_observed(
        &self,
        judged: Result<(), Refusal>,
        allowed: &mut Allowed,
    ) -> Result<(), Refusal> {
        let Err(refusal) = judged else { return Ok(()) };
        if !self.observe {
            return Err(refusal);
        }
        allowed.observed.get_or_insert(refusal);
        Ok(())
    }

    /// A permit on condition that nothing is there yet would refuse if something is. What a CREATE
    /// finds instead is opened, and told as an open.
    fn observe_conditions(&self, asked: &Asked, allowed: &mut Allowed) {
        if allowed.keep_target && asked.rename == Some(RenameHow::Replace) {
            allowed.observed.get_or_insert(refuse(
                Errno::EXIST,
                "if there is something by the new name: it may not be removed",
            ));
        }
        allowed.keep_target = false;
        allowed.only_new = false;
    }

    /// What is refused whatever the rules say; hands out the words that they are asked about.
    pub(super) fn judge_before_rules(
        &self,
        facts: &Facts<'_>,
        asked: &Asked,
    ) -> Result<Words, Refusal> {
        let op = facts.op;
        let words = facts.words.with(asked.words);
        floor(op, words, facts, asked)?;
        if self.readonly && changes(op, words) {
            return Err(refuse(Errno::ROFS, "the view is read-only"));
        }
        let stranger = facts.owner.is_some_and(|owner| !self.admits(owner));
        if facts.outside || (stranger && !shows_outsiders(op)) {
            return Err(refuse(
                Errno::ACCESS,
                "it belongs to an id outside of every range of `map`",
            ));
        }
        if self.needs(op).path && facts.names.is_empty() {
            return Err(refuse(
                Errno::ACCESS,
                "floor: rules go by path and no name is known",
            ));
        }
        Ok(words)
    }

    /// Judges every word at one name; keeps the strictest refusal.
    fn judge_name(
        &self,
        case: &Case<'_, '_>,
        path: Option<&[u8]>,
        words: Words,
        is_new: bool,
        allowed: &mut Allowed,
        worst: &mut Option<Refusal>,
    ) {
        let mut hidden = false;
        for word in each_word(words) {
            let verdict = self.verdict(case, path, word);
            if !self.is_plain(verdict) {
                case.varies.set(true);
            }
            match verdict {
                Verdict::Allow(rule, modify) => {
                    if word == Words::of(Word::Write) {
                        allowed.limit = Limit::smaller(allowed.limit, modify.file_size, rule);
                    }
                    allowed.modify = allowed.modify.and(modify);
                    allowed.rule = allowed.rule.or(rule);
                }
                // Stricter than to allow: what one name pretends is not done for another's sake.
                Verdict::Pretend(rule) => {
                    allowed.pretended = allowed.pretended.with(word);
                    allowed.rule = allowed.rule.or(Some(rule));
                }
                Verdict::Deny(rule, errno) => {
                    let errno = errno.unwrap_or(class_errno(case.facts.op, word));
                    let why = if rule.is_some() {
                        "denied by a rule"
                    } else {
                        "denied by default"
                    };
                    worst.get_or_insert(Refusal { errno, rule, why });
                }
                // Hiding is the strictest: another name's refusal must not tell that it is there.
                // The other words count all the same: where rules are only observed, what they
                // change in what is asked holds.
                Verdict::Hide(_) if hidden => {}
                Verdict::Hide(rule) => {
                    hidden = true;
                    let errno = if is_new { Errno::ACCESS } else { Errno::NOENT };
                    let rule = Some(rule);
                    *worst = Some(Refusal {
                        errno,
                        rule,
                        why: "hidden by a rule",
                    });
                }
            }
        }
    }

    /// Whether a verdict allows, and does nothing else.
    fn is_plain(&self, verdict: Verdict) -> bool {
        let Verdict::Allow(rule, modify) = verdict else {
            return false;
        };
        modify == Modify::default() && !rule.is_some_and(|rule| self.rule_logs(rule))
    }

    /// What a request may add to, whoever allows it.
    fn areas_of(&self, facts: &Facts<'_>) -> Areas {
        if self.areas().is_empty() || !moves_or_grows(facts.op) {
            return Areas::default();
        }
        let all = names(facts).chain(facts.second.map(Some));
        all.fold(Areas::default(), |areas, name| {
            areas.with(self.areas_at(name))
        })
    }

    fn allows_all(&self, case: &Case<'_, '_>, path: Option<&[u8]>, words: Words) -> bool {
        each_word(words).all(|word| matches!(self.verdict(case, path, word), Verdict::Allow(..)))
    }

    /// The first rule that holds for one word at one name.
    pub(super) fn verdict(&self, case: &Case<'_, '_>, path: Option<&[u8]>, word: Words) -> Verdict {
        let op = case.facts.op;
        let anywhere = self.by_op.get(op as usize).map(|by| by.anywhere.as_slice());
        let placed = path
            .into_iter()
            .flat_map(|path| self.index.at(path).skip(1));
        let first = earliest(anywhere.into_iter().chain(placed), |index| {
            self.rule(index).is_some_and(|rule| {
                rule.speaks_of(op, word) && rule.holds_at(path) && case.conditions_hold(rule, path)
            })
        });
        if let Some((index, rule)) = first.and_then(|index| Some((index, self.rule(index)?))) {
            return match rule.action {
                Action::Allow(modify) => Verdict::Allow(Some(index), modify),
                Action::Deny(errno) => Verdict::Deny(Some(index), errno),
                Action::Hide => Verdict::Hide(index),
                Action::Pretend => Verdict::Pretend(index),
            };
        }
        // What needs no word (flush, fsync) only a rule that names it can refuse.
        if self.default_allow || word.is_empty() || self.leads_to_allowed(case, path, word) {
            Verdict::Allow(None, Modify::default())
        } else {
            Verdict::Deny(None, None)
        }
    }

    /// Whether this is the way to something that a rule allows, and only looked at.
    fn leads_to_allowed(&self, case: &Case<'_, '_>, path: Option<&[u8]>, word: Words) -> bool {
        let may_be_directory = case
            .facts
            .kind
            .is_none_or(|kind| kind == FileKind::Directory);
        let Some(path) = path else { return false };
        word == Words::of(Word::Look)
            && may_be_directory
            && (self.index.opens_below(path) || self.reaches_below(path))
    }

    /// Whether an allowing rule that can hold at a path can hold below it.
    fn reaches_below(&self, path: &[u8]) -> bool {
        let rules = self.index.at(path).flatten();
        let mut rules = rules.filter_map(|index| self.rule(*index));
        rules.any(|rule| {
            let mut globs = rule.paths.iter();
            rule.opens() && globs.any(|glob| glob.reaches_below(glob.after(path)))
        })
    }

    /// What the view shows for a stored owner; ids that `map` does not reach show as 65534.
    #[must_use]
    pub fn present(&self, owner: HostOwner) -> GuestOwner {
        self.owners.shown(owner)
    }

    /// Whether a listing must leave this path out. Only the path is asked: `hide` takes no
    /// conditions, and an allowing rule before it counts only if it has none either.
    #[must_use]
    pub fn is_hidden(&self, path: &[u8]) -> bool {
        if self.observe {
            return false;
        }
        let look = Words::of(Word::Look);
        let holds = |rule: &Rule| {
            rule.when.is_empty()
                && (rule.words.meets(look) || rule.ops.contains(Op::Lookup))
                && rule.holds_at(Some(path))
        };
        let first = earliest(self.index.at(path), |index| {
            self.rule(index).is_some_and(holds)
        });
        let first = first.and_then(|index| self.rule(index));
        first.is_some_and(|rule| rule.action == Action::Hide)
    }
}

/// What no rule can permit.
fn floor(op: Op, words: Words, facts: &Facts<'_>, asked: &Asked) -> Result<(), Refusal> {
    if !weak::stands(weak::Wall::Floor) {
        return Ok(());
    }
    if words.0 & !op.words().with(asked.words).0 != 0 {
        return Err(refuse(
            Errno::ACCESS,
            "floor: a word that is not the operation's",
        ));
    }
    if words.is_empty() && !op.words().is_empty() && op != Op::Setattr {
        return Err(refuse(Errno::ACCESS, "floor: a request without its word"));
    }
    match asked.kind {
        Some(FileKind::CharDevice | FileKind::BlockDevice) => {
            return Err(refuse(Errno::PERM, "floor: no device nodes, not even 0:0"));
        }
        Some(kind) if !makes(op, kind) => {
            return Err(refuse(
                Errno::PERM,
                "floor: this operation does not make that type",
            ));
        }
        Some(_) | None => {}
    }
    let special = facts.kind.is_some_and(|kind| kind != FileKind::Regular);
    if op == Op::Open && special {
        return Err(refuse(
            Errno::ACCESS,
            "floor: only regular files are opened",
        ));
    }
    let both = facts.names.is_empty() || facts.second.is_some();
    if matches!(op, Op::Rename | Op::Link) && !both {
        return Err(refuse(Errno::ACCESS, "floor: the new name is not known"));
    }
    Ok(())
}

fn makes(op: Op, kind: FileKind) -> bool {
    match kind {
        FileKind::Regular => matches!(op, Op::Create | Op::Mknod),
        FileKind::Directory => op == Op::Mkdir,
        FileKind::Symlink => op == Op::Symlink,
        FileKind::Fifo | FileKind::Socket => op == Op::Mknod,
        FileKind::CharDevice | FileKind::BlockDevice => false,
    }
}

/// Whether a request changes the export.
pub(super) fn changes(op: Op, words: Words) -> bool {
    words.meets(Words::CHANGE) || matches!(op, Op::Setxattr | Op::Removexattr)
}

/// Whether the name is one that the operation gives to something.
pub(super) fn is_new_name(op: Op, second: bool) -> bool {
    second || matches!(op, Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink)
}

/// Every name, or "unknown" once, where rules do not go by path.
pub(super) fn names<'f>(facts: &Facts<'f>) -> impl Iterator<Item = Option<&'f [u8]>> {
    let unknown = facts.names.is_empty().then_some(None);
    facts.names.iter().map(|name| Some(*name)).chain(unknown)
}

/// The words one by one; the empty set once, for what needs no word.
pub(super) fn each_word(words: Words) -> impl Iterator<Item = Words> {
    let none = words.is_empty().then_some(Words::NONE);
    let bits = (0..16).map(|bit| Words(1 << bit));
    bits.filter(move |word| words.meets(*word)).chain(none)
}

fn class_errno(op: Op, word: Words) -> Errno {
    let is = |other| word == Words::of(other);
    if is(Word::Owner) || is(Word::Mode) || is(Word::Link) || op == Op::Mknod {
        Errno::PERM
    } else if is(Word::Xattr) {
        Errno::NOTSUP
    } else {
        Errno::ACCESS
    }
}

impl<'r, 'f> Case<'r, 'f> {
    pub(super) fn new(facts: &'r Facts<'f>, asked: &'r Asked) -> Self {
        Self {
            facts,
            asked,
            varies: Cell::new(false),
        }
    }
}

impl Case<'_, '_> {
    /// A condition on a fact that the request does not have does not hold; but where the target
    /// exists and the fact was merely not gathered, a restricting rule holds: it fails closed.
    fn conditions_hold(&self, rule: &Rule, path: Option<&[u8]>) -> bool {
        let mut conditions = rule.when.iter();
        conditions.all(|one| self.condition_holds(rule, one, path))
    }

    /// One of them.
    pub(super) fn condition_holds(
        &self,
        rule: &Rule,
        condition: &Condition,
        path: Option<&[u8]>,
    ) -> bool {
        if !condition.follows_from_names() {
            self.varies.set(true);
        }
        let has_target = !is_new_name(self.facts.op, false);
        // Permission bits are set, and were not worked out (a POSIX ACL's).
        let sets_mode =
            condition.is_about_new_mode() && self.asked.words.meets(Words::of(Word::Mode));
        let could_be_known =
            condition.needs_path() || (has_target && condition.needs_attr()) || sets_mode;
        let missing = rule.restricts() && could_be_known;
        self.holds(condition, path).unwrap_or(missing)
    }

    fn holds(&self, condition: &Condition, path: Option<&[u8]>) -> Option<bool> {
        let facts = self.facts;
        match condition {
            Condition::Kind(kinds) => {
                let kind = facts.kind.or(self.asked.kind)?;
                Some(kinds.contains(&kind))
            }
            Condition::Mode {
                asked,
                any,
                all,
                none,
            } => {
                let mode = if *asked { self.new_mode() } else { facts.mode };
                let bits = mode?.bits();
                Some((*any == 0 || bits & any != 0) && bits & all == *all && bits & none == 0)
            }
            Condition::Owner { whose, uids, gids } => self.owner_holds(*whose, uids, gids),
            Condition::Within { what, min, max } => {
                let number = match what {
                    Number::Size => facts.size,
                    Number::NewSize => self.asked.size,
                    Number::Nlink => facts.nlink.map(u64::from),
                    Number::Offset => facts.offset,
                    Number::Length => facts.length,
                    Number::XattrSize => facts.xattr.map(|(_, size)| size as u64),
                };
                number.map(|number| (*min..=*max).contains(&number))
            }
            Condition::Xattr(globs) => {
                let (name, _size) = facts.xattr?;
                Some(globs.iter().any(|glob| glob.matches(name)))
            }
            Condition::Target(globs) => {
                let target = facts.target?;
                Some(globs.iter().any(|glob| glob.matches_target(target)))
            }
            Condition::Birth(birth) => Some(facts.birth == *birth),
            Condition::Submount(submount) => Some(facts.submount == *submount),
            Condition::Flags { any, all, none } => {
                let flags = Flags::from(self.asked.open?);
                let meets_any = any.is_empty() || flags.meets(*any);
                Some(meets_any && flags.holds(*all) && !flags.meets(*none))
            }
            Condition::Rename(how) => Some(how.contains(&self.asked.rename?)),
            Condition::Name(_) => condition.holds_at(path),
            // A request without a second name is no rename or link: nothing could be known.
            Condition::Second(globs) => Some(
                facts
                    .second
                    .is_some_and(|second| globs.iter().any(|glob| glob.matches(second))),
            ),
        }
    }

    /// The permission bits that are asked for.
    pub(super) fn new_mode(&self) -> Option<Mode> {
        self.asked.mode.or(self.facts.acl_mode)
    }

    fn owner_holds(&self, whose: Whose, uids: &[u32], gids: &[u32]) -> Option<bool> {
        let facts = self.facts;
        let (uid, gid) = match whose {
            Whose::Now => (
                facts.owner.map(|of| of.uid.0),
                facts.owner.map(|of| of.gid.0),
            ),
            Whose::Asked => (self.asked.uid, self.asked.gid),
            Whose::Requester => (Some(facts.requester.uid), Some(facts.requester.gid)),
        };
        let within = |wanted: &[u32], id: Option<u32>| match wanted {
            [] => Some(true),
            wanted => id.map(|id| wanted.contains(&id)),
        };
        Some(within(uids, uid)? && within(gids, gid)?)
    }
}

/// The words that a request of this operation may need, beside-words included.
pub(super) fn possible_words(op: Op) -> Words {
    op.words().with(words_besides(op))
}
