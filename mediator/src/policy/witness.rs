//! Requests that stand for all that policies tell apart: what `policy diff` asks without a
//! recording.
//!
//! Each glob has its witnesses, as have "everything else" and each condition's two sides. They are
//! many, not all: two policies that agree on them may still differ (two globs that meet in names
//! that neither shows alone, say).

use std::collections::BTreeSet;

use super::condition::Flags;
use super::facts::Requester;
use super::model::{Condition, Number, Policy, Rule, Whose};
use super::parse::{Circumstances, escaped};
use super::request::Request;
use crate::ids::{FileKind, GuestGid, GuestUid, HostGid, HostOwner, HostUid, Mode};
use crate::op::{AnyAsk, Op, RenameHow, Word, Words, XattrName};

/// A name that no rule is likely to name.
const ELSEWHERE: &[u8] = b"~elsewhere~";
/// Names are combined two by two for renames; beyond so many, only the first are.
const PAIRED_MAX: usize = 32;

/// Requests to compare policies by, each once.
#[must_use]
pub fn witnesses(policies: &[&Policy], requester: Requester) -> Vec<Request> {
    let paths = paths(policies);
    let mut found = Found::default();
    let usual = Circumstances::of(requester);
    for path in &paths {
        for kind in [FileKind::Regular, FileKind::Directory] {
            let around = Circumstances {
                kind: Some(kind),
                ..usual.clone()
            };
            found.single(path, &around);
            found.xattrs(policies, path, &around);
        }
    }
    let mut paired: Vec<&[u8]> = paths.iter().map(Vec::as_slice).take(PAIRED_MAX).collect();
    // Rules without a path speak of renames too.
    let another = [b"/", ELSEWHERE, b"2"].concat();
    if paired.iter().filter(|path| **path != b"/").count() < 2 {
        paired.push(&another);
    }
    for old in &paired {
        for new in paired.iter().filter(|new| *new != old) {
            for kind in [FileKind::Regular, FileKind::Directory] {
                let around = Circumstances {
                    kind: Some(kind),
                    ..usual.clone()
                };
                found.pair(old, new, &around);
            }
        }
    }
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        found.conditional(rule, &paths, &usual);
    }
    found.requests
}

/// Witnesses of every glob, the directories above them, and a path that no glob names.
fn paths(policies: &[&Policy]) -> Vec<Vec<u8>> {
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    let globs = rules.flat_map(|rule| &rule.paths);
    let mut paths: BTreeSet<Vec<u8>> = globs.flat_map(|glob| glob.witnesses(b"x")).collect();
    let above: Vec<Vec<u8>> = paths.iter().flat_map(|path| above(path)).collect();
    paths.extend(above);
    paths.insert([b"/", ELSEWHERE].concat());
    paths.insert(b"/".to_vec());
    paths.into_iter().collect()
}

fn above(path: &[u8]) -> Vec<Vec<u8>> {
    let slashes = (1..path.len()).filter(|at| path.get(*at) == Some(&b'/'));
    slashes
        .filter_map(|at| path.get(..at).map(<[u8]>::to_vec))
        .collect()
}

/// Requests on one name, without it: what follows the verb after `PATH`.
const SINGLE: &[(&str, &str)] = &[
    ("lookup", ""),
    ("getattr", ""),
    ("readlink", ""),
    ("access", ""),
    ("statfs", ""),
    ("chmod", "0644"),
    ("chmod", "2755"),
    ("chmod", "4755"),
    ("chown", "0:0"),
    ("chown", "1000:1000"),
    ("truncate", "0"),
    ("utimes", ""),
    ("create", "0644 rw"),
    ("create", "4755 rw"),
    ("mkdir", "0755"),
    ("mkdir", "2755"),
    ("mknod", "0644"),
    ("mknod", "0644 fifo"),
    ("mknod", "0644 socket"),
    ("symlink", "target"),
    ("unlink", ""),
    ("rmdir", ""),
    ("open", "r"),
    ("open", "w"),
    ("open", "rw"),
    ("read", "0 4096"),
    ("write", "0 4096"),
    ("fallocate", "0 4096"),
    ("lseek", ""),
    ("copy_file_range", "read 0 4096"),
    ("copy_file_range", "write 0 4096"),
    ("fsync", ""),
    ("flush", ""),
    ("opendir", ""),
    ("readdir", ""),
    ("setxattr", "user.x 1"),
    ("getxattr", "user.x"),
    ("listxattr", ""),
    ("removexattr", "user.x"),
];

/// Requests on two names.
const PAIR: &[(&str, &str)] = &[
    ("rename", ""),
    ("rename", "noreplace"),
    ("rename", "exchange"),
    ("link", ""),
];

#[derive(Default)]
struct Found {
    requests: Vec<Request>,
    known: BTreeSet<(String, String)>,
}

impl Found {
    /// Adds a request in words, if it is one that the kernel sends for such a target.
    fn add(&mut self, phrase: &str, around: &Circumstances) {
        let Ok(request) = Request::from_phrase(phrase, around) else {
            return;
        };
        self.add_request(request);
    }

    fn add_request(&mut self, request: Request) {
        if !is_asked(&request) {
            return;
        }
        let key = (request.phrase(), request.circumstances());
        if self.known.insert(key) {
            self.requests.push(request);
        }
    }

    fn single(&mut self, path: &[u8], around: &Circumstances) {
        for (verb, rest) in SINGLE {
            self.add(&format!("{verb} {} {rest}", escaped(path)), around);
        }
    }

    fn pair(&mut self, old: &[u8], new: &[u8], around: &Circumstances) {
        for (verb, rest) in PAIR {
            let (old, new) = (escaped(old), escaped(new));
            self.add(&format!("{verb} {old} {new} {rest}"), around);
        }
    }

    fn xattrs(&mut self, policies: &[&Policy], path: &[u8], around: &Circumstances) {
        let globs = policies.iter().flat_map(|policy| &policy.xattrs);
        for name in globs.filter_map(|rule| rule.glob.witness()) {
            self.xattr(path, &name, around);
        }
    }

    fn xattr(&mut self, path: &[u8], name: &[u8], around: &Circumstances) {
        let (path, name) = (escaped(path), escaped(name));
        for verb in ["setxattr", "getxattr", "removexattr"] {
            self.add(&format!("{verb} {path} {name}"), around);
        }
    }

    /// Requests that meet a rule's conditions, all and all but one.
    fn conditional(&mut self, rule: &Rule, paths: &[Vec<u8>], usual: &Circumstances) {
        if rule.when.is_empty() {
            return;
        }
        let here = paths.iter().filter(|path| rule.holds_at(Some(path)));
        let base: Vec<Request> = here
            .take(4)
            .flat_map(|path| {
                let mut of_path = Self::default();
                of_path.single(path, usual);
                of_path.requests
            })
            .filter(|request| {
                let words = request.needed_words();
                rule.speaks_of(request.op, words) || words.is_empty()
            })
            .collect();
        for request in base {
            let mut all = request.clone();
            for condition in &rule.when {
                meet(condition, &mut all);
            }
            for missed in 0..rule.when.len() {
                let mut all_but_one = all.clone();
                if let Some(condition) = rule.when.get(missed) {
                    miss(condition, &mut all_but_one);
                }
                self.add_request(all_but_one);
            }
            self.add_request(all);
        }
    }
}

/// Whether a kernel asks such a thing of such a target.
fn is_asked(request: &Request) -> bool {
    let root = request.names.first().is_some_and(|name| name == b"/");
    let directory = request.kind == Some(FileKind::Directory);
    let below_itself = |new: &Vec<u8>| {
        let below = |name: &Vec<u8>| new.starts_with(&[name.as_slice(), b"/"].concat());
        request.names.iter().any(below)
    };
    if root && (names_something(request.op) || !directory) {
        return false;
    }
    if request
        .second
        .as_ref()
        .is_some_and(|new| new == b"/" || below_itself(new))
    {
        return false;
    }
    match request.op {
        Op::Readdir | Op::Opendir | Op::Rmdir => directory,
        Op::Readlink => request.kind == Some(FileKind::Symlink),
        Op::Open
        | Op::Read
        | Op::Write
        | Op::Fallocate
        | Op::Lseek
        | Op::CopyFileRange
        | Op::Unlink
        | Op::Link => !directory,
        Op::Setattr => !directory || !request.needed_words().meets(Words::of(Word::Write)),
        Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink => {
            // What is to be made has no type yet: one of the two stands for both.
            request.kind.is_none() || request.kind == Some(FileKind::Regular)
        }
        Op::Lookup
        | Op::Getattr
        | Op::Access
        | Op::Statfs
        | Op::Rename
        | Op::Fsync
        | Op::Flush
        | Op::Setxattr
        | Op::Getxattr
        | Op::Listxattr
        | Op::Removexattr => true,
    }
}

/// Operations on a name in a directory; the root has none.
fn names_something(op: Op) -> bool {
    matches!(
        op,
        Op::Lookup
            | Op::Create
            | Op::Mkdir
            | Op::Mknod
            | Op::Symlink
            | Op::Unlink
            | Op::Rmdir
            | Op::Rename
            | Op::Link
    )
}

/// Makes a condition hold.
fn meet(condition: &Condition, request: &mut Request) {
    match condition {
        Condition::Kind(kinds) => request.kind = kinds.first().copied().or(request.kind),
        Condition::Mode {
            asked: false,
            any,
            all,
            none,
        } => request.mode = Some(Mode::new((any | all) & !none)),
        Condition::Mode {
            asked: true,
            any,
            all,
            none,
        } => set_asked_mode((any | all) & !none, request),
        Condition::Owner { whose, uids, gids } => {
            set_owner(*whose, request, |(uid, gid)| {
                (
                    uids.first().copied().unwrap_or(uid),
                    gids.first().copied().unwrap_or(gid),
                )
            });
        }
        Condition::Within { what, min, .. } => set_number(*what, *min, request),
        Condition::Xattr(globs) => {
            let name = globs.first().and_then(super::paths::NameGlob::witness);
            set_xattr(name, request);
        }
        Condition::Target(globs) => {
            let target = globs.first().and_then(super::paths::Glob::target_witness);
            if request.op == Op::Symlink {
                request.target = target.or(request.target.take());
            }
        }
        Condition::Birth(birth) => request.birth = *birth,
        Condition::Submount(submount) => request.submount = *submount,
        Condition::Flags { any, all, none } => set_flags(any.with(*all).without(*none), request),
        Condition::Rename(hows) => set_how(hows.first().copied(), request),
        Condition::Name(globs) => {
            let name = globs.first().and_then(super::paths::NameGlob::witness);
            set_last_name(name, request);
        }
        Condition::Second(globs) => {
            let second = globs
                .first()
                .and_then(|glob| glob.witnesses(b"x").into_iter().next());
            set_second(second, request);
        }
    }
}

/// Makes a condition not hold.
fn miss(condition: &Condition, request: &mut Request) {
    match condition {
        Condition::Kind(kinds) => {
            let others = [FileKind::Regular, FileKind::Directory, FileKind::Symlink];
            request.kind = others.into_iter().find(|kind| !kinds.contains(kind));
        }
        Condition::Mode {
            asked: false,
            any,
            all,
            none,
        } => {
            let wanted = any | all;
            request.mode = Some(Mode::new(if wanted == 0 { *none } else { 0 }));
        }
        Condition::Mode {
            asked: true,
            any,
            all,
            none,
        } => {
            let wanted = any | all;
            set_asked_mode(if wanted == 0 { *none } else { 0 }, request);
        }
        Condition::Owner { whose, uids, gids } => set_owner(*whose, request, |_now| {
            let free = |ids: &[u32]| (4_000_000_000..).find(|id| !ids.contains(id)).unwrap_or(0);
            (free(uids), free(gids))
        }),
        Condition::Within { what, min, max } => {
            let outside = max.checked_add(1).or_else(|| min.checked_sub(1));
            if let Some(outside) = outside {
                set_number(*what, outside, request);
            }
        }
        Condition::Xattr(_) => set_xattr(Some(ELSEWHERE.to_vec()), request),
        Condition::Target(_) => {
            if request.op == Op::Symlink {
                request.target = Some(ELSEWHERE.to_vec());
            }
        }
        Condition::Birth(birth) => request.birth = !birth,
        Condition::Submount(submount) => request.submount = !submount,
        Condition::Flags { any, all, none } => {
            let wanted = any.with(*all);
            set_flags(
                if wanted.is_empty() {
                    *none
                } else {
                    Flags::default()
                },
                request,
            );
        }
        Condition::Rename(hows) => {
            let all = [
                RenameHow::Replace,
                RenameHow::NoReplace,
                RenameHow::Exchange,
            ];
            set_how(all.into_iter().find(|how| !hows.contains(how)), request);
        }
        Condition::Name(_) => set_last_name(Some(ELSEWHERE.to_vec()), request),
        Condition::Second(_) => set_second(Some([b"/", ELSEWHERE].concat()), request),
    }
}

fn set_owner(whose: Whose, request: &mut Request, ids: impl Fn((u32, u32)) -> (u32, u32)) {
    match whose {
        Whose::Now => {
            let (uid, gid) = ids((0, 0));
            request.owner = Some(HostOwner {
                uid: HostUid(uid),
                gid: HostGid(gid),
            });
        }
        Whose::Asked => {
            if let AnyAsk::Changes(asked) = &mut request.ask {
                let now = (asked.uid.map(|id| id.0), asked.gid.map(|id| id.0));
                let (uid, gid) = ids((now.0.unwrap_or(0), now.1.unwrap_or(0)));
                asked.uid = now.0.map(|_| GuestUid(uid));
                asked.gid = now.1.map(|_| GuestGid(gid));
            }
        }
        Whose::Requester => {
            let (uid, gid) = ids((request.requester.uid, request.requester.gid));
            request.requester = Requester { uid, gid, pid: 0 };
        }
    }
}

fn set_asked_mode(bits: u32, request: &mut Request) {
    let mode = Mode::new(bits);
    match &mut request.ask {
        AnyAsk::Changes(asked) => asked.mode = asked.mode.map(|_| mode),
        AnyAsk::Birth(birth) if birth.kind != FileKind::Symlink => birth.mode = mode,
        AnyAsk::Birth(_)
        | AnyAsk::Nothing
        | AnyAsk::Open(_)
        | AnyAsk::Rename(_)
        | AnyAsk::Xattr(_) => {}
    }
}

fn set_number(what: Number, number: u64, request: &mut Request) {
    match what {
        Number::Size => request.size = Some(number),
        Number::NewSize => {
            if let AnyAsk::Changes(asked) = &mut request.ask {
                asked.size = asked.size.map(|_| number);
            }
        }
        Number::Nlink => request.nlink = u32::try_from(number).ok(),
        Number::Offset => request.offset = request.offset.map(|_| number),
        Number::Length => request.length = request.length.map(|_| number),
        Number::XattrSize => {
            let size = usize::try_from(number).unwrap_or(usize::MAX);
            request.xattr = request.xattr.take().map(|(name, _)| (name, size));
        }
    }
}

fn set_flags(flags: Flags, request: &mut Request) {
    match &mut request.ask {
        AnyAsk::Open(open) => *open = flags.into(),
        AnyAsk::Birth(birth) if request.op == Op::Create => birth.open = flags.into(),
        AnyAsk::Birth(_)
        | AnyAsk::Nothing
        | AnyAsk::Changes(_)
        | AnyAsk::Rename(_)
        | AnyAsk::Xattr(_) => {}
    }
}

fn set_how(how: Option<RenameHow>, request: &mut Request) {
    if let (AnyAsk::Rename(asked), Some(how)) = (&mut request.ask, how) {
        *asked = how;
    }
}

fn set_last_name(name: Option<Vec<u8>>, request: &mut Request) {
    let (Some(name), Some(path)) = (name, request.names.first_mut()) else {
        return;
    };
    if let Some(slash) = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .filter(|_| path.len() > 1)
    {
        path.truncate(slash + 1);
        path.extend(name);
    }
}

fn set_second(second: Option<Vec<u8>>, request: &mut Request) {
    if request.second.is_some() {
        request.second = second.or(request.second.take());
    }
}

fn set_xattr(name: Option<Vec<u8>>, request: &mut Request) {
    let (Some(name), Some((_, size))) = (name, request.xattr.clone()) else {
        return;
    };
    if let Some(ask) = XattrName::new(&name) {
        request.ask = AnyAsk::Xattr(ask);
        request.xattr = Some((name, size));
    }
}
