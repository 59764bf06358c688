//! Requests and decisions in words, for terminals: names escaped, errors by their symbols.

use rustix::io::Errno;
use virtfs_mediator_core::mediate::{Ended, Verdict};
use virtfs_mediator_core::policy::{Request, errno_symbol};

use crate::live::in_force::Text;

/// An errno's symbol.
pub(crate) fn symbol(errno: i32) -> String {
    errno_symbol(Errno::from_raw_os_error(errno.clamp(1, 4095)))
}

/// `allow  by rule 2 "uploads" (line 7)`, `deny EACCES by default: denied by default`.
pub(crate) fn verdict(verdict: &Verdict, by_hand: bool, policy: Option<&Text>) -> String {
    let rule = |rule: Option<u32>| match (rule, policy) {
        _ if by_hand => "by hand".to_owned(),
        (None, _) => "by no rule".to_owned(),
        (Some(rule), Some(policy)) => format!("by {}", policy.rule(rule)),
        // Of a policy that was replaced meanwhile.
        (Some(rule), None) => format!("by rule {}", u64::from(rule) + 1),
    };
    let refused = |word: &str, errno: i32, by: Option<u32>, why: &str| {
        let (errno, by) = (symbol(errno), rule(by));
        format!("{word} {errno} {by}: {}", why.escape_debug())
    };
    match verdict {
        Verdict::Allowed { rule: by } => format!("allow {}", rule(*by)),
        Verdict::Pretended { rule: by } => format!("pretend {}", rule(*by)),
        Verdict::Observed {
            errno,
            rule: by,
            why,
        } => refused("would deny", *errno, *by, why),
        Verdict::Refused {
            errno,
            rule: by,
            why,
        } => refused("deny", *errno, *by, why),
    }
}

/// How a request ended.
pub(crate) fn ended(ended: Ended) -> String {
    match ended {
        Ended::Done => "done".to_owned(),
        Ended::Refused => "refused".to_owned(),
        Ended::Failed(errno) => format!("failed {}", symbol(errno)),
    }
}

/// Every fact of a request, one a line.
pub(crate) fn facts(request: &Request) -> Vec<(&'static str, String)> {
    let mut facts = vec![("operation", request.op.raw_name().to_owned())];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    for name in &request.names {
        add("path", Some(name.escape_ascii().to_string()));
    }
    let escaped = |bytes: &Vec<u8>| bytes.escape_ascii().to_string();
    add("second", request.second.as_ref().map(escaped));
    add("target", request.target.as_ref().map(escaped));
    add(
        "type",
        request.kind.map(|kind| format!("{kind:?}").to_lowercase()),
    );
    add("mode", request.mode.map(|mode| mode.to_string()));
    add(
        "owner",
        request
            .owner
            .map(|owner| format!("{}:{} (host)", owner.uid, owner.gid)),
    );
    add("size", request.size.map(|size| size.to_string()));
    add("nlink", request.nlink.map(|count| count.to_string()));
    add("offset", request.offset.map(|offset| offset.to_string()));
    add("length", request.length.map(|length| length.to_string()));
    add(
        "xattr",
        request
            .xattr
            .as_ref()
            .map(|(name, size)| format!("{} ({size} bytes)", name.escape_ascii())),
    );
    add("birth", request.birth.then(|| "true".to_owned()));
    add("submount", request.submount.then(|| "true".to_owned()));
    let who = request.requester;
    add(
        "requester",
        Some(format!("{}:{}, thread {}", who.uid, who.gid, who.pid)),
    );
    facts
}
