//! `policy explain`: why a request is answered as it is, and what comes of it.

use std::path::Path;

use serde::Serialize;
use virtfs_mediator_core::ids::{FileKind, HostGid, HostOwner, HostUid, Mode};
use virtfs_mediator_core::op::{AnyAsk, AnyGrant, Op};
use virtfs_mediator_core::policy::{
    Answer, BadPhrase, CacheWord, Circumstances, Explanation, Fit, Outcome, Policy, Request,
    Requester, Role, Step, check_path, errno_symbol, escaped, parse_ids, parse_kind, parse_mode,
    phrase_forms, unescaped,
};

use super::{Form, load_text, show, usual_requester};
use crate::cli::Around;
use crate::error::{Class, Error, Result};

/// What `--help` tells of requests.
pub(crate) fn request_help() -> String {
    format!(
        "REQUEST is one of\n{}\
         A space or another odd byte of a name is written \\x20.\n\n\
         Example: virtfs-mediator policy explain share.toml create /up/a 0644 --requester 64055:64055",
        phrase_forms()
    )
}

/// All that `--json` prints.
#[derive(Debug, Serialize)]
struct Told {
    /// The request in words, escaped.
    request: String,
    /// Who asks, host ids.
    requester: (u32, u32),
    /// How it is judged.
    #[serde(flatten)]
    explanation: Explanation,
    /// What is asked before it: the way to its names.
    before: Vec<Aside>,
    /// What QEMU asks after it, where a guest's one operation is several here.
    after: Vec<Aside>,
    /// What the guest sees, a sentence each.
    outcome: Vec<String>,
}

/// Another request that belongs to the first.
#[derive(Debug, Serialize)]
struct Aside {
    /// In words, escaped.
    request: String,
    /// How it is answered.
    answer: Answer,
}

/// Tells how the policy in `file` judges a request in words.
///
/// # Errors
///
/// Configuration: the policy. Usage: the request or what is said of its target.
pub(super) fn explain(file: &Path, phrase: &str, around: &Around, form: Form) -> Result<()> {
    let (policy, text) = load_text(file)?;
    let around = circumstances(around, usual_requester(&policy))?;
    let request = Request::from_phrase(phrase, &around).map_err(usage)?;
    let told = tell(&policy, &request);
    match form {
        Form::Json => show::print_json(&told),
        Form::Text => {
            show::print(&lines(&told, &text));
            Ok(())
        }
    }
}

/// The same for a request that is already one.
pub(super) fn why(policy: &Policy, text: &str, request: &Request) -> Vec<String> {
    lines(&tell(policy, request), text)
}

fn usage(bad: BadPhrase) -> Error {
    Error::new(Class::Usage, bad.what, bad.hint)
}

fn circumstances(around: &Around, usual: Requester) -> Result<Circumstances> {
    let both = |option: &str, text: &str| match parse_ids(text).map_err(usage)? {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        (None, _) | (_, None) => Err(Error::new(
            Class::Usage,
            format!("{option} {}: both ids are needed", text.escape_debug()),
            "write UID:GID",
        )),
    };
    let mut found = Circumstances::of(usual);
    if let Some(text) = &around.requester {
        let (uid, gid) = both("--requester", text)?;
        found.requester = Requester { uid, gid, pid: 0 };
    }
    if let Some(text) = &around.owner {
        let (uid, gid) = both("--owner", text)?;
        found.owner = Some(HostOwner {
            uid: HostUid(uid),
            gid: HostGid(gid),
        });
    }
    if let Some(text) = &around.kind {
        found.kind = Some(parse_kind(text).map_err(usage)?);
    }
    if let Some(text) = &around.mode {
        found.mode = Some(parse_mode(text).map_err(usage)?);
    }
    for text in &around.names {
        let path = unescaped(text).map_err(usage)?;
        check_path(&path).map_err(usage)?;
        found.names.push(path);
    }
    found.size = around.size;
    found.nlink = around.nlink;
    found.birth = around.birth;
    found.submount = around.submount;
    Ok(found)
}

fn tell(policy: &Policy, request: &Request) -> Told {
    let explanation = policy.explain(request);
    let before = before(policy, request);
    let (after, unlink) = if explanation.answer.allowed {
        after(policy, request)
    } else {
        (Vec::new(), None)
    };
    let outcome = outcome(&explanation, &before, &after, unlink.as_ref());
    Told {
        request: request.phrase(),
        requester: (request.requester.uid, request.requester.gid),
        explanation,
        before,
        after,
        outcome,
    }
}

fn aside(policy: &Policy, phrase: &str, around: &Circumstances) -> Option<Aside> {
    // Made of a request that was read from words: there is nothing in it that cannot be.
    let request = Request::from_phrase(phrase, around).ok()?;
    let answer = policy.answer(&request);
    Some(Aside {
        request: phrase.to_owned(),
        answer,
    })
}

/// The way to each name: every directory above it is looked up, the last one opened where opening is
/// asked for, and what must be there already is looked up itself. What is listed is opened in any
/// case: that is asked with the listing.
fn before(policy: &Policy, request: &Request) -> Vec<Aside> {
    let directory = Circumstances {
        kind: Some(FileKind::Directory),
        ..Circumstances::of(request.requester)
    };
    let target = Circumstances {
        kind: request.kind,
        mode: request.mode,
        owner: request.owner,
        size: request.size,
        nlink: request.nlink,
        ..Circumstances::of(request.requester)
    };
    let is_new = matches!(
        request.op,
        Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink | Op::Lookup
    );
    let mut found: Vec<Aside> = Vec::new();
    let mut add = |phrase: String, around: &Circumstances| {
        if !found.iter().any(|known| known.request == phrase) {
            found.extend(aside(policy, &phrase, around));
        }
    };
    // Otherwise the client's kernel opens directories by itself.
    let opens = policy.settings().cache == Some(CacheWord::None);
    let first = request.names.first().map(|name| (name, !is_new));
    let second = request.second.as_ref().map(|name| (name, false));
    for (name, must_be_there) in first.into_iter().chain(second) {
        if name == b"/" {
            continue;
        }
        let slashes = (1..name.len()).filter(|at| name.get(*at) == Some(&b'/'));
        for ancestor in slashes.filter_map(|at| name.get(..at)) {
            add(format!("lookup {}", escaped(ancestor)), &directory);
        }
        let parent = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) if at > 0 => name.get(..at).unwrap_or(b"/"),
            Some(_) | None => b"/",
        };
        if opens {
            add(format!("opendir {}", escaped(parent)), &directory);
        }
        if must_be_there {
            add(format!("lookup {}", escaped(name)), &target);
        }
    }
    if let (Op::Readdir, Some(name)) = (request.op, request.names.first()) {
        add(format!("opendir {}", escaped(name)), &target);
    }
    found
}

/// What QEMU asks after making something, as itself: the guest's owner (root's here) and mode. The
/// second is what it does if one of them is refused.
fn after(policy: &Policy, request: &Request) -> (Vec<Aside>, Option<Aside>) {
    let (AnyAsk::Birth(birth), Some(name)) = (request.ask, request.names.first()) else {
        return (Vec::new(), None);
    };
    let Ok(granted) = policy.decide_request(request) else {
        return (Vec::new(), None);
    };
    let (owner, mode) = match granted.grant {
        AnyGrant::Birth(made) => (Some(made.owner), Some(made.mode)),
        AnyGrant::Nothing
        | AnyGrant::Open(_)
        | AnyGrant::Changes(_)
        | AnyGrant::Rename(_)
        | AnyGrant::Xattr(_)
        | AnyGrant::XattrChange(_) => (None, None),
    };
    let made = Circumstances {
        kind: Some(birth.kind),
        owner,
        mode,
        size: Some(0),
        nlink: Some(1),
        birth: true,
        ..Circumstances::of(request.requester)
    };
    let path = escaped(name);
    let mut phrases = vec![format!("chown {path} 0:0")];
    if birth.kind != FileKind::Symlink {
        // A link has no mode of its own.
        phrases.push(format!("chmod {path} {}", Mode::new(birth.mode.bits())));
    }
    let asides = phrases
        .iter()
        .filter_map(|phrase| aside(policy, phrase, &made));
    let verb = if birth.kind == FileKind::Directory {
        "rmdir"
    } else {
        "unlink"
    };
    let undo = aside(policy, &format!("{verb} {path}"), &made);
    (asides.collect(), undo)
}

fn outcome(
    explanation: &Explanation,
    before: &[Aside],
    after: &[Aside],
    unlink: Option<&Aside>,
) -> Vec<String> {
    let mut said = Vec::new();
    let refused = |aside: &&Aside| !aside.answer.allowed;
    if let Some(stop) = before.iter().find(refused) {
        said.push(format!(
            "the client does not get that far: `{}` is {}",
            stop.request,
            show::answer(&stop.answer)
        ));
        return said;
    }
    if let Some(errno) = &explanation.answer.errno {
        said.push(format!("the guest's operation fails with {errno}"));
        return said;
    }
    let narrowed = |role| {
        let mut steps = explanation.steps.iter();
        steps.any(|step| step.role == role && !step.outcome.is_allowed())
    };
    let exists = errno_symbol(rustix::io::Errno::EXIST);
    if narrowed(Role::OpensExisting) {
        said.push(format!(
            "a file that is there already is not opened by it: {exists}"
        ));
    }
    if narrowed(Role::Replaces) {
        said.push(format!(
            "what is there already under the new name is not replaced: {exists}"
        ));
    }
    if !explanation.answer.pretended.is_empty() {
        said.push(format!(
            "the guest is told that it is done; nothing is changed by: {}",
            explanation.answer.pretended.join(", ")
        ));
    }
    let Some(stop) = after.iter().find(refused) else {
        return said;
    };
    let errno = stop.answer.errno.clone().unwrap_or_default();
    said.push(format!(
        "the guest's one operation is several of QEMU's: `{}` is {}, so that QEMU undoes the rest and the guest gets {errno}",
        stop.request,
        show::answer(&stop.answer)
    ));
    if let Some(undo) = unlink.filter(refused) {
        said.push(format!(
            "but `{}` is {} too: what was made stays behind",
            undo.request,
            show::answer(&undo.answer)
        ));
    }
    said
}

fn lines(told: &Told, text: &str) -> Vec<String> {
    let answer = &told.explanation.answer;
    let mut out = vec![format!("{}: {}", told.request, show::answer(answer))];
    match &answer.rule {
        Some(rule) => out.extend(show::source(text, rule)),
        None => out.extend(show::setting(text, answer)),
    }
    let effect = answer.grant.as_ref().map(show::effect);
    if let Some(effect) = effect.filter(|effect| !effect.is_empty()) {
        out.push(format!("the export is asked: {effect}"));
    }
    if told.explanation.steps.is_empty() {
        out.push("no rule was asked".to_owned());
    }
    for step in &told.explanation.steps {
        out.push(String::new());
        out.extend(step_lines(step));
    }
    for (title, asides) in [
        ("asked before it, on the way there:", &told.before),
        (
            "asked after it by QEMU, for the guest's one operation:",
            &told.after,
        ),
    ] {
        if !asides.is_empty() {
            out.push(String::new());
            out.push(title.to_owned());
        }
        for aside in asides {
            out.push(format!(
                "  {}: {}",
                aside.request,
                show::answer(&aside.answer)
            ));
        }
    }
    if !told.outcome.is_empty() {
        out.push(String::new());
    }
    out.extend(told.outcome.iter().cloned());
    out
}

fn step_lines(step: &Step) -> Vec<String> {
    let name = step.name.as_deref().unwrap_or("(whatever its name)");
    let word = step.word.unwrap_or("(no word)");
    let role = match step.role {
        Role::Target => "",
        Role::NewName => " (new name)",
        Role::OpensExisting => " (if it is there already)",
        Role::Replaces => " (to replace what is there)",
    };
    let outcome = match step.outcome {
        Outcome::Allow => "allow",
        Outcome::AllowByDefault => "allow: nothing denies it",
        Outcome::AllowAsWay => "allow: the way to something allowed",
        Outcome::Deny => "deny",
        Outcome::DenyByDefault => "deny: no rule holds, `default`",
        Outcome::Hide => "hide",
        Outcome::Pretend => "pretend",
    };
    let mut out = vec![format!("{word} {name}{role}: {outcome}")];
    let decided = step
        .rules
        .iter()
        .position(|tried| tried.fit == Fit::Decides);
    let asked = decided.map_or(step.rules.len(), |at| at + 1);
    for tried in step.rules.iter().take(asked) {
        let fit = match &tried.fit {
            Fit::Decides => "decides".to_owned(),
            Fit::TooLate => "would hold".to_owned(),
            Fit::OtherWords => format!("no: its `do` does not speak of {word}"),
            Fit::OtherPath => "no: its `path` does not match".to_owned(),
            Fit::Unmet { key, fact } => format!("no: `when.{key}` does not hold, it is {fact}"),
        };
        out.push(format!(
            "  {} ({}): {fit}",
            show::rule(&tried.rule),
            tried.action
        ));
    }
    match step.rules.len() - asked {
        0 => {}
        1 => out.push("  1 later rule is not asked".to_owned()),
        more => out.push(format!("  {more} later rules are not asked")),
    }
    out
}
