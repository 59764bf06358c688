//! What can be typed.

use std::fmt::Write as _;

use virtfs_mediator_core::mediate::Selector;
use virtfs_mediator_core::policy::errno_named;

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A breakpoint: what is typed is checked against the policy's words later.
    Break(Vec<Clause>),
    Delete(u32),
    Info,
    Facts,
    Why,
    List,
    Step,
    Next,
    Continue {
        all: bool,
    },
    UntilDeny,
    Allow,
    Deny(Option<i32>),
    Trace(bool),
    Request(u64),
    Edit(Option<String>),
    Keep,
    Drop,
    PrintRule,
    Wait(u64),
    Help,
    Detach,
}

/// A part of a breakpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Clause {
    Op(Vec<String>),
    Path(String),
    Rule(String),
    Deny,
    When(String),
}

/// The commands with their arguments, for `help` and completion.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    (
        "break",
        "op WORD|WORD, path GLOB, rule N|NAME, deny, when KEY=VALUE,...",
        "stop where all of these hold",
    ),
    ("delete", "N", "remove a breakpoint"),
    ("info", "", "what is held, breakpoints, the policy"),
    ("facts", "", "every fact of the held request"),
    ("why", "", "how the policy judges it, rule by rule"),
    ("list", "", "the policy, with the line that decides"),
    (
        "step",
        "",
        "let it go by the policy; stop at the next decision",
    ),
    (
        "next",
        "",
        "let it go by the policy; stop at the next decision about the same file",
    ),
    (
        "continue",
        "[all]",
        "let it go by the policy, or everything that is held",
    ),
    (
        "until",
        "deny",
        "let it go by the policy; stop at the next refusal",
    ),
    (
        "allow",
        "once",
        "allow it in the place of the rules; the floor stands",
    ),
    ("deny", "once [ERRNO]", "refuse it (EACCES)"),
    ("request", "N", "speak of this one, where several are held"),
    ("trace", "on|off", "tell of every decision while it is on"),
    (
        "edit",
        "[FILE]",
        "another policy: in $VISUAL or $EDITOR, or FILE's; see how verdicts change",
    ),
    ("keep", "", "put the edited policy in force"),
    ("drop", "", "forget the edited policy"),
    (
        "print-rule",
        "",
        "the rule that would do what was last done by hand",
    ),
    (
        "wait",
        "[SECONDS]",
        "wait until a request is held (scripts)",
    ),
    (
        "detach",
        "",
        "leave; everything that is held is the policy's again",
    ),
    ("help", "", "this"),
];

/// A command in a line; `None` for an empty one or a comment.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if word.is_empty() || word.starts_with('#') {
        return Ok(None);
    }
    let alone = |command| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(format!("`{word}` takes nothing"))
        }
    };
    let command = match full_name(word)? {
        "break" => Command::Break(clauses(rest)?),
        "delete" => Command::Delete(number(rest, "the breakpoint's number")?),
        "info" => alone(Command::Info)?,
        "facts" => alone(Command::Facts)?,
        "why" => alone(Command::Why)?,
        "list" => alone(Command::List)?,
        "step" => alone(Command::Step)?,
        "next" => alone(Command::Next)?,
        "continue" => match rest {
            "" => Command::Continue { all: false },
            "all" => Command::Continue { all: true },
            other => return Err(format!("`continue {other}`: only `all` goes with it")),
        },
        "until" if rest == "deny" => Command::UntilDeny,
        "until" => return Err("write `until deny`".to_owned()),
        "allow" if rest == "once" => Command::Allow,
        "allow" => return Err("write `allow once`; for always, `edit` the policy".to_owned()),
        "deny" => Command::Deny(denial(rest)?),
        "request" => Command::Request(number(rest, "the request's number")?),
        "trace" => match rest {
            "on" => Command::Trace(true),
            "off" => Command::Trace(false),
            _ => return Err("write `trace on` or `trace off`".to_owned()),
        },
        "edit" => Command::Edit((!rest.is_empty()).then(|| rest.to_owned())),
        "keep" => alone(Command::Keep)?,
        "drop" => alone(Command::Drop)?,
        "print-rule" => alone(Command::PrintRule)?,
        "wait" if rest.is_empty() => Command::Wait(10),
        "wait" => Command::Wait(number(rest, "a number of seconds")?),
        "detach" => alone(Command::Detach)?,
        _ => alone(Command::Help)?,
    };
    Ok(Some(command))
}

/// A command by its name, or the beginning of one that no other begins with, as in gdb.
fn full_name(word: &str) -> Result<&'static str, String> {
    /// What people type who have used a debugger.
    const SHORT: &[(&str, &str)] = &[
        ("b", "break"),
        ("c", "continue"),
        ("d", "delete"),
        ("h", "help"),
        ("i", "info"),
        ("l", "list"),
        ("n", "next"),
        ("q", "detach"),
        ("quit", "detach"),
        ("exit", "detach"),
        ("s", "step"),
        ("w", "why"),
    ];
    if let Some((_, name)) = SHORT.iter().find(|(short, _)| *short == word) {
        return Ok(name);
    }
    let names = || COMMANDS.iter().map(|(name, ..)| *name);
    if let Some(name) = names().find(|name| *name == word) {
        return Ok(name);
    }
    let begun: Vec<&str> = names().filter(|name| name.starts_with(word)).collect();
    match begun.as_slice() {
        [one] => Ok(one),
        [] => Err(format!("no command `{}`", word.escape_debug())),
        several => Err(format!("`{word}` may be {}", several.join(", "))),
    }
}

fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_error| format!("`{}` is not {what}", text.escape_debug()))
}

fn denial(rest: &str) -> Result<Option<i32>, String> {
    match rest.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["once"] => Ok(None),
        ["once", name] => errno_named(name)
            .map(|errno| Some(errno.raw_os_error()))
            .ok_or_else(|| format!("`{}` is no errno", name.escape_debug())),
        _ => {
            Err("write `deny once` or `deny once EPERM`; for always, `edit` the policy".to_owned())
        }
    }
}

fn clauses(rest: &str) -> Result<Vec<Clause>, String> {
    let mut found = Vec::new();
    let mut words = rest.split_whitespace();
    while let Some(word) = words.next() {
        let mut argument = |what: &str| {
            let given = words.next().map(str::to_owned);
            given.ok_or_else(|| format!("`break {word}` needs {what}"))
        };
        found.push(match word {
            "op" => {
                let list = argument("an operation, as in `do`")?;
                Clause::Op(list.split(['|', ',']).map(str::to_owned).collect())
            }
            "path" => Clause::Path(argument("a path glob")?),
            "rule" => Clause::Rule(argument("a rule's number or name")?),
            "deny" => Clause::Deny,
            "when" => Clause::When(argument("KEY=VALUE, as in `when`")?),
            // `break /site/**` and `break owner` say what they mean.
            path if path.starts_with('/') => Clause::Path(path.to_owned()),
            other => {
                return Err(format!(
                    "`break {}`: op, path, rule, deny or when",
                    other.escape_debug()
                ));
            }
        });
    }
    if found.is_empty() {
        return Err("say where to break: op, path, rule, deny or when".to_owned());
    }
    Ok(found)
}

/// A breakpoint as the mediator understands it; `find_rule` knows the rules of the policy in force.
///
/// # Errors
///
/// No such rule; a condition that is no `KEY=VALUE`.
pub(super) fn selector(
    clauses: &[Clause],
    find_rule: impl Fn(&str) -> Option<u32>,
) -> Result<Selector, String> {
    let (mut paths, mut words) = (Vec::new(), Vec::new());
    let mut when = String::new();
    let mut selector = Selector::default();
    for clause in clauses {
        match clause {
            Clause::Op(list) => words.extend(list.iter().cloned()),
            Clause::Path(glob) => paths.push(glob.clone()),
            Clause::Rule(name) => {
                let rule = find_rule(name);
                let none = || format!("the policy has no rule `{}`", name.escape_debug());
                selector.decided_by = Some(rule.ok_or_else(none)?);
            }
            Clause::Deny => selector.refused = true,
            Clause::When(conditions) => {
                for condition in conditions.split(',') {
                    when.push_str(&self::condition(condition)?);
                }
            }
        }
    }
    let mut rule = String::new();
    for (key, list) in [("path", paths), ("do", words)] {
        if !list.is_empty() {
            // Writing to a String cannot fail.
            let _infallible = writeln!(rule, "{key} = {}", toml::Value::from(list));
        }
    }
    rule.push_str(&when);
    selector.rule = (!rule.is_empty()).then_some(rule);
    Ok(selector)
}

/// `new_uid=0` as the policy has it: `when.new_owner.uid = 0`.
fn condition(text: &str) -> Result<String, String> {
    const SHORT: &[(&str, &str)] = &[
        ("uid", "owner.uid"),
        ("gid", "owner.gid"),
        ("new_uid", "new_owner.uid"),
        ("new_gid", "new_owner.gid"),
    ];
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{}` is no KEY=VALUE", text.escape_debug()))?;
    let (key, value) = (key.trim(), value.trim());
    let short = SHORT.iter().find(|(short, _)| *short == key);
    let key = short.map_or(key, |(_, long)| long);
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
    if key.is_empty() || !key.chars().all(plain) {
        return Err(format!("`{}` is no fact", key.escape_debug()));
    }
    let is_number = value.parse::<u64>().is_ok() || value.starts_with("0o");
    let value = if is_number || matches!(value, "true" | "false") {
        value.to_owned()
    } else {
        toml::Value::from(value).to_string()
    };
    Ok(format!("when.{key} = {value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::Host;

    #[test]
    fn command_is_known_by_its_name_or_as_much_of_it_as_is_its_own() {
        assert_eq!(parse("  step "), Ok(Some(Command::Step)));
        assert_eq!(parse("s"), Ok(Some(Command::Step)));
        assert_eq!(parse("print"), Ok(Some(Command::PrintRule)));
        assert_eq!(
            parse("deny once EPERM"),
            Ok(Some(Command::Deny(Some(libc::EPERM))))
        );
        assert_eq!(parse("# a remark"), Ok(None));
        for bad in [
            "de",
            "blah",
            "allow",
            "deny once EBLAH",
            "until dawn",
            "trace",
            "step 3",
            "break",
            "break op",
            "delete x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for (name, ..) in COMMANDS {
            assert_eq!(full_name(name), Ok(*name));
        }
    }

    #[test]
    fn breakpoint_is_what_a_rule_of_the_policy_would_be() {
        let parsed = |line: &str| match parse(line) {
            Ok(Some(Command::Break(clauses))) => {
                selector(&clauses, |name| (name == "web").then_some(4))
            }
            other => panic!("{other:?}"),
        };
        let rule = |line: &str| parsed(line).unwrap().rule.unwrap();
        assert_eq!(
            rule("break op rename|owner"),
            "do = [\"rename\", \"owner\"]\n"
        );
        assert_eq!(rule("break /site/**"), "path = [\"/site/**\"]\n");
        assert_eq!(
            rule("break when new_uid=0,type=file op owner"),
            "do = [\"owner\"]\nwhen.new_owner.uid = 0\nwhen.type = \"file\"\n"
        );
        assert_eq!(
            parsed("break rule web deny"),
            Ok(Selector {
                rule: None,
                refused: true,
                decided_by: Some(4)
            })
        );
        assert!(parsed("break rule nix").is_err());
        assert!(parsed("break when x").is_err());
        for line in [
            "break op rename|owner",
            "break path /site/**",
            "break when new_uid=0",
            "break when size.min=1000000,birth=true",
        ] {
            parsed(line).unwrap().compile(&Host).unwrap();
        }
    }
}
