//! An audit record as one line of JSON: what a mediator hands to the process that keeps it.
//!
//! The names of the fields are a contract: log collectors rely on them, and the README lists them.
//! Whoever reads such a line must take its writer for a process that may be broken into:
//! [`AuditLine::parse`] takes nothing that a mediator does not write, but it cannot tell a lie.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ids::FileKind;
use crate::op::Op;
use crate::policy::errno_name;

/// The longest line in bytes, with its newline: what a pipe takes whole or not at all (`PIPE_BUF`,
/// pipe(7)), from several writers at once.
pub const AUDIT_LINE_MAX: usize = 4096;

/// The longest text in bytes, as it is shown; what is longer loses its middle.
const TEXT_MAX: usize = 3000;
/// The same for each path where a line would not fit otherwise, tried in this order.
const SHORTER: [usize; 2] = [1200, 600];
/// The same for a reason and a rule's name.
const WORDS_MAX: usize = 200;
/// So many further names of a file are told at most; none if the line would not fit.
const OTHERS_MAX: usize = 4;
/// What stands for the middle of a long path.
const CUT: &str = "[...]";

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// A request was refused.
    Refused,
    /// A rule with `log = "all"` allowed one.
    Allowed,
    /// The rules refuse a request, but are only observed (`mode = "observe"`): it went on.
    Observed,
    /// A rule pretended one: the client was told that it was done.
    Pretended,
    /// A person at the stepping console allowed one in the place of the rules.
    ByHand,
    /// Records are missing here: they came faster than they could be written.
    Dropped,
}

/// One record. A field that says nothing of its event is absent.
///
/// Strings are printable ASCII: other bytes of a file's name, and backslashes, are escaped as in a
/// Rust byte string (`\n`, `\x1b`, `\\`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditLine {
    /// What it is about.
    pub event: AuditEvent,
    /// The operation's raw FUSE name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Op>,
    /// The name, from the view's root; `?` if the file has none left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A rename's or link's new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_path: Option<String>,
    /// Further names by which the file is known; four at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_paths: Vec<String>,
    /// The file's type, where it is known.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FileKind>,
    /// The requester's fsuid, as the host numbers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its fsgid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Its thread, as the host numbers it; 0 if it has no number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The deciding rule's name; absent if it has none, or if no rule decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Its place among the rules, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_number: Option<u64>,
    /// The line of the policy file on which it begins, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_line: Option<u64>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the client was told: the symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// The same as a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_number: Option<i32>,
    /// How many records are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

impl AuditLine {
    /// A record with nothing but its event.
    #[must_use]
    pub const fn of(event: AuditEvent) -> Self {
        Self {
            event,
            operation: None,
            path: None,
            second_path: None,
            other_paths: Vec::new(),
            kind: None,
            uid: None,
            gid: None,
            pid: None,
            rule: None,
            rule_number: None,
            rule_line: None,
            why: None,
            errno: None,
            errno_number: None,
            records: None,
        }
    }

    /// So many records are missing.
    #[must_use]
    pub fn dropped(records: u64) -> Self {
        Self {
            records: Some(records),
            ..Self::of(AuditEvent::Dropped)
        }
    }

    /// Reads a line, without its newline, that anybody may have written.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words of ours alone: nothing of the line itself is in them.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        if line.len() >= AUDIT_LINE_MAX {
            return Err("longer than a record can be");
        }
        let read: Self = serde_json::from_slice(line).map_err(|_error| "not a record's JSON")?;
        read.check()?;
        Ok(read)
    }

    /// The line, with its newline. Where it would be longer than [`AUDIT_LINE_MAX`], its paths lose
    /// their middle, and further names are left out.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.json();
        for most in SHORTER {
            if bytes.len() <= AUDIT_LINE_MAX {
                break;
            }
            let shorter = |path: &Option<String>| path.clone().map(|path| cut(path, most));
            let line = Self {
                path: shorter(&self.path),
                second_path: shorter(&self.second_path),
                other_paths: Vec::new(),
                ..self.clone()
            };
            bytes = line.json();
        }
        bytes
    }

    fn json(&self) -> Vec<u8> {
        // Strings and numbers: nothing that could fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn check(&self) -> Result<(), &'static str> {
        let strings = [
            (&self.path, TEXT_MAX),
            (&self.second_path, TEXT_MAX),
            (&self.rule, WORDS_MAX),
            (&self.why, WORDS_MAX),
        ];
        let given = strings
            .into_iter()
            .filter_map(|(text, most)| Some((text.as_ref()?, most)));
        let others = self.other_paths.iter().map(|path| (path, TEXT_MAX));
        if !given.chain(others).all(|(text, most)| fits(text, most)) {
            return Err("text that no record holds");
        }
        if self.other_paths.len() > OTHERS_MAX {
            return Err("more names than a record holds");
        }
        // The symbol out of our own table is the only string that is not looked at by itself.
        let told = self.errno_number.map(symbol);
        if self.errno.as_deref() != told {
            return Err("an errno that is not its number's");
        }
        let asked = [
            self.operation.is_some(),
            self.uid.is_some(),
            self.gid.is_some(),
            self.pid.is_some(),
        ];
        let refused = self.errno.is_some() && self.why.is_some();
        let whole = match self.event {
            AuditEvent::Refused | AuditEvent::Observed => {
                asked == [true; 4] && refused && self.records.is_none()
            }
            AuditEvent::Allowed | AuditEvent::Pretended | AuditEvent::ByHand => {
                asked == [true; 4] && self.errno.is_none() && self.records.is_none()
            }
            AuditEvent::Dropped => {
                *self
                    == Self {
                        records: self.records,
                        ..Self::of(AuditEvent::Dropped)
                    }
                    && self.records.is_some()
            }
        };
        if whole {
            Ok(())
        } else {
            Err("fields that do not belong to its event")
        }
    }
}

fn fits(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Bytes that a guest or an administrator chose, as they may stand in a record.
pub(super) fn shown_words(bytes: &[u8]) -> String {
    cut(bytes.escape_ascii().to_string(), WORDS_MAX)
}

/// A path, likewise.
pub(super) fn shown_path(escaped: &str) -> String {
    cut(escaped.to_owned(), TEXT_MAX)
}

/// At most so many further names.
pub(super) fn shown_others(escaped: &[String]) -> Vec<String> {
    let some = escaped.iter().take(OTHERS_MAX);
    some.map(|path| cut(path.clone(), TEXT_MAX)).collect()
}

/// Leaves out the middle of what is too long. ASCII, so that every byte is a character.
fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let part = (most - CUT.len()) / 2;
    let start = text.get(..part).unwrap_or_default();
    let end = text.get(text.len() - part..).unwrap_or_default();
    format!("{start}{CUT}{end}")
}

/// An errno's name; `other` if no file operation answers it.
pub(super) fn symbol(errno: i32) -> &'static str {
    let known = (1..=4095)
        .contains(&errno)
        .then(|| Errno::from_raw_os_error(errno));
    known.and_then(errno_name).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> AuditLine {
        AuditLine {
            operation: Some(Op::Rename),
            path: Some("/a\\n\\x1b".to_owned()),
            second_path: Some("/b".to_owned()),
            kind: Some(FileKind::Regular),
            uid: Some(1),
            gid: Some(2),
            pid: Some(3),
            rule: Some("keep".to_owned()),
            rule_number: Some(1),
            rule_line: Some(7),
            why: Some("a rule denies it".to_owned()),
            errno: Some("EACCES".to_owned()),
            errno_number: Some(13),
            ..AuditLine::of(AuditEvent::Refused)
        }
    }

    #[test]
    fn record_is_the_line_that_is_documented() {
        let line = serde_json::to_string(&refused()).unwrap();
        let documented = concat!(
            r#"{"event":"refused","operation":"rename","path":"/a\\n\\x1b","second_path":"/b","#,
            r#""type":"regular","uid":1,"gid":2,"pid":3,"rule":"keep","rule_number":1,"#,
            r#""rule_line":7,"why":"a rule denies it","errno":"EACCES","errno_number":13}"#,
        );
        assert_eq!(line, documented);
        assert_eq!(AuditLine::parse(line.as_bytes()), Ok(refused()));
        let line = serde_json::to_string(&AuditLine::dropped(9)).unwrap();
        assert_eq!(line, r#"{"event":"dropped","records":9}"#);
        assert_eq!(AuditLine::parse(line.as_bytes()), Ok(AuditLine::dropped(9)));
    }

    #[test]
    fn line_that_no_mediator_writes_is_refused() {
        let changes: [fn(&mut AuditLine); 12] = [
            |line| line.path = Some("a\u{1b}[2J".to_owned()),
            |line| line.path = Some("a\nb".to_owned()),
            |line| line.path = Some("caf\u{e9}".to_owned()),
            |line| line.path = Some("x".repeat(TEXT_MAX + 1)),
            |line| line.rule = Some("\u{202e}".to_owned()),
            |line| line.other_paths = vec!["/x".to_owned(); OTHERS_MAX + 1],
            |line| line.errno = Some("EPERM".to_owned()),
            |line| line.errno_number = None,
            |line| line.operation = None,
            |line| line.pid = None,
            |line| line.records = Some(1),
            |line| line.event = AuditEvent::Dropped,
        ];
        for change in changes {
            let mut line = refused();
            change(&mut line);
            let text = serde_json::to_vec(&line).unwrap();
            assert!(AuditLine::parse(&text).is_err(), "{line:?}");
        }
        let long = format!("{:width$}", "{}", width = AUDIT_LINE_MAX);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"event":"dropped"}"#,
            r#"{"event":"dropped","records":-1}"#,
            r#"{"event":"dropped","records":1,"view":"other"}"#,
            r#"{"event":"dropped","records":1,"time":"then"}"#,
            r#"{"event":"dropped","records":1,"records":1}"#,
            r#"{"event":"dropped","records":1}{"event":"dropped","records":1}"#,
            &long,
        ] {
            assert!(AuditLine::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(AuditLine::parse(b"\xff").is_err());
    }

    #[test]
    fn operation_is_called_by_its_raw_name() {
        for op in Op::ALL {
            let name = serde_json::to_string(op).unwrap();
            assert_eq!(name, format!("\"{}\"", op.raw_name()));
        }
    }

    #[test]
    fn record_at_its_largest_fits_the_limit() {
        // Each backslash is two in JSON.
        let longest = |most| "\\".repeat(most);
        let line = AuditLine {
            operation: Some(Op::CopyFileRange),
            path: Some(longest(TEXT_MAX)),
            second_path: Some(longest(TEXT_MAX)),
            other_paths: vec![longest(TEXT_MAX); OTHERS_MAX],
            kind: Some(FileKind::BlockDevice),
            uid: Some(u32::MAX),
            gid: Some(u32::MAX),
            pid: Some(u32::MAX),
            rule: Some(longest(WORDS_MAX)),
            rule_number: Some(u64::MAX),
            rule_line: Some(u64::MAX),
            why: Some(longest(WORDS_MAX)),
            errno: Some("other".to_owned()),
            errno_number: Some(i32::MIN),
            ..AuditLine::of(AuditEvent::Refused)
        };
        let text = line.bytes();
        assert!(text.len() <= AUDIT_LINE_MAX, "{}", text.len());
        let read = AuditLine::parse(text.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((read.rule, read.why), (line.rule, line.why));
        assert!(read.path.unwrap().contains(CUT));
    }

    #[test]
    fn long_path_is_whole_while_its_line_fits() {
        let path = format!("/{}", "x".repeat(TEXT_MAX - 1));
        let line = AuditLine {
            path: Some(path.clone()),
            ..refused()
        };
        let text = line.bytes();
        let read = AuditLine::parse(text.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(read.path, Some(path));
    }

    #[test]
    fn long_path_keeps_its_start_and_its_end() {
        let path = format!("/start/{}/end", "x".repeat(2 * TEXT_MAX));
        let shown = shown_path(&path);
        assert!(
            shown.len() <= TEXT_MAX && shown.contains(CUT),
            "{}",
            shown.len()
        );
        assert!(shown.starts_with("/start/") && shown.ends_with("/end"));
        assert_eq!(shown_path("/short"), "/short");
        assert_eq!(shown_words(b"\xff\n"), "\\xff\\n");
    }
}
