//! The language of the probes. Pure text to data; knows no operation.
//!
//! ```text
//! [chown]                      a family; `[acl on posix]` runs on the share with that tag
//! file_to_user: create f | chown f 1000:1000 | stat f
//! mode_{0644 4755}: create f | chmod f $1 | stat f      two probes, `$1` is the alternative
//!   | as 1000:1000 | ?unlink f                           an indented line continues the last
//! ```
//! A step that fails ends its probe, unless it is marked `?`: then its outcome is a fact like
//! another. In words, `\xNN` is a byte, `\s` a space and `{x*255}` a repetition.

use std::collections::HashSet;

/// One probe: a name that is unique in its script, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `family/operation_condition`.
    pub name: String,
    /// The tag of the share it runs on.
    pub share: String,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// One step of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// A failure is a fact and not the end.
    pub tolerate: bool,
    /// The operation's name.
    pub op: String,
    /// Its arguments, unescaped.
    pub args: Vec<Vec<u8>>,
}

/// A mistake in a script, with its line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

/// Reads a script.
///
/// # Errors
/// The first mistake: a line outside any family, no `:`, an unfinished escape, a name used twice.
pub fn parse(text: &str) -> Result<Vec<Probe>, Mistake> {
    let mut family: Option<(String, String)> = None;
    let mut seen = HashSet::new();
    let mut probes = Vec::new();
    for (line, logical) in logical_lines(text) {
        let fail = |what: String| Mistake { line, what };
        if let Some(head) = logical.strip_prefix('[') {
            let head = head
                .strip_suffix(']')
                .ok_or_else(|| fail("a family needs its closing `]`".into()))?;
            let (name, share) = head.split_once(" on ").unwrap_or((head, "share"));
            family = Some((name.trim().to_owned(), share.trim().to_owned()));
            continue;
        }
        let (family, share) = family
            .as_ref()
            .ok_or_else(|| fail("a probe before any `[family]`".into()))?;
        let (pattern, body) = logical
            .split_once(": ")
            .ok_or_else(|| fail("a probe is `name: step | step`".into()))?;
        for (name, values) in alternatives(pattern).map_err(fail)? {
            let name = format!("{family}/{name}");
            if !seen.insert(name.clone()) {
                return Err(fail(format!("{name} is there twice")));
            }
            let steps = steps(body, &values).map_err(fail)?;
            probes.push(Probe {
                name,
                share: share.clone(),
                steps,
            });
        }
    }
    Ok(probes)
}

/// Joins indented lines to the one before; drops comments and blank lines.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if raw.starts_with(' ') => {
                last.push(' ');
                last.push_str(trimmed);
            }
            _ => lines.push((index + 1, trimmed.to_owned())),
        }
    }
    lines
}

/// `a_{x y}` is `a_x` with `[x]` and `a_y` with `[y]`; several groups multiply.
fn alternatives(pattern: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let Some(open) = pattern.find('{') else {
        return Ok(vec![(pattern.trim().to_owned(), Vec::new())]);
    };
    let close = pattern[open..]
        .find('}')
        .ok_or_else(|| "an unfinished `{` in a name".to_owned())?
        + open;
    let rest = alternatives(&pattern[close + 1..])?;
    let mut all = Vec::new();
    for choice in pattern[open + 1..close].split_whitespace() {
        for (tail, values) in &rest {
            let name = format!("{}{choice}{tail}", pattern[..open].trim());
            let values = std::iter::once(choice.to_owned()).chain(values.iter().cloned());
            all.push((name, values.collect()));
        }
    }
    Ok(all)
}

fn steps(body: &str, values: &[String]) -> Result<Vec<Step>, String> {
    let mut text = body.to_owned();
    for (index, value) in values.iter().enumerate() {
        text = text.replace(&format!("${}", index + 1), value);
    }
    text.split('|').map(step).collect()
}

fn step(text: &str) -> Result<Step, String> {
    let text = text.trim();
    let (tolerate, text) = text
        .strip_prefix('?')
        .map_or((false, text), |rest| (true, rest));
    let mut words = text.split_whitespace();
    let op = words
        .next()
        .ok_or_else(|| "an empty step".to_owned())?
        .to_owned();
    let args = words.map(unescape).collect::<Result<_, _>>()?;
    Ok(Step { tolerate, op, args })
}

fn unescape(word: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("\\s") {
            out.push(b' ');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\x") {
            let digits = tail
                .get(..2)
                .ok_or_else(|| format!("{word}: `\\xNN` needs two digits"))?;
            out.push(u8::from_str_radix(digits, 16).map_err(|e| format!("{word}: {e}"))?);
            rest = &tail[2..];
        } else if let Some(tail) = rest.strip_prefix('{') {
            let (group, after) = tail
                .split_once('}')
                .ok_or_else(|| format!("{word}: an unfinished `{{`"))?;
            let (unit, count) = group
                .split_once('*')
                .ok_or_else(|| format!("{word}: not `{{text*count}}`"))?;
            let count: usize = count.parse().map_err(|e| format!("{word}: {e}"))?;
            out.extend(unit.as_bytes().repeat(count));
            rest = after;
        } else {
            out.extend(first.to_string().as_bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|p| p.name).collect()
    }

    #[test]
    fn parse_alternatives_multiply_and_fill_in() {
        let probes = parse("[c]\nm_{1 2}_{a b}: op $1 $2\n").unwrap();
        assert_eq!(probes.len(), 4);
        assert_eq!(probes[3].name, "c/m_2_b");
        assert_eq!(probes[3].steps[0].args, [b"2".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn parse_indented_line_continues_the_probe() {
        let probes = parse("[c on posix]\n# note\na: x\n  | ?y 1\nb: z\n").unwrap();
        assert_eq!(probes.len(), 2);
        assert_eq!(probes[0].share, "posix");
        assert!(probes[0].steps[1].tolerate);
        assert_eq!(names("[c]\na: x\nb: z"), ["c/a", "c/b"]);
    }

    #[test]
    fn parse_escapes_give_bytes() {
        let probes = parse("[c]\na: op \\xff\\s{ab*3}z").unwrap();
        assert_eq!(probes[0].steps[0].args[0], b"\xff abababz");
    }

    #[test]
    fn parse_mistake_names_its_line() {
        assert_eq!(parse("[c]\n\na: x\na: y").unwrap_err().line, 4);
        assert_eq!(parse("a: x").unwrap_err().line, 1);
        assert_eq!(parse("[c]\na x").unwrap_err().line, 2);
    }
}
