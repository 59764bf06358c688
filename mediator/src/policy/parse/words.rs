//! The single words of a request's phrase: paths, modes, ids, and what each may be followed by.

use super::super::explain::kind_name;
use super::read::suggestion;
use crate::ids::{FileKind, Mode};
use crate::name::Name;
use crate::op::OpenAs;

/// Why some words are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct BadPhrase {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

pub(super) fn bad(what: impl Into<String>, hint: impl Into<String>) -> BadPhrase {
    BadPhrase {
        what: what.into(),
        hint: hint.into(),
    }
}

/// Each first word with what follows it.
pub(super) const FORMS: &[(&str, &str)] = &[
    ("lookup", "PATH"),
    ("getattr", "PATH"),
    ("readlink", "PATH"),
    ("access", "PATH"),
    ("statfs", "PATH"),
    (
        "setattr",
        "PATH KEY=VALUE... (uid gid mode size atime mtime)",
    ),
    ("chmod", "PATH MODE"),
    ("chown", "PATH UID:GID"),
    ("truncate", "PATH SIZE"),
    ("utimes", "PATH"),
    (
        "create",
        "PATH [MODE] [r|w|rw|append|trunc|excl|sync|direct...]",
    ),
    ("mkdir", "PATH [MODE]"),
    (
        "mknod",
        "PATH [MODE] [file|fifo|socket|char-device|block-device]",
    ),
    ("symlink", "PATH TARGET"),
    ("link", "PATH NEWPATH"),
    ("unlink", "PATH"),
    ("rmdir", "PATH"),
    ("rename", "PATH NEWPATH [noreplace|exchange]"),
    ("open", "PATH [r|w|rw|append|trunc|sync|direct...]"),
    ("read", "PATH [OFFSET LENGTH]"),
    ("write", "PATH [OFFSET LENGTH]"),
    ("fallocate", "PATH [OFFSET LENGTH]"),
    ("lseek", "PATH"),
    ("copy_file_range", "PATH read|write [OFFSET LENGTH]"),
    ("fsync", "PATH"),
    ("flush", "PATH"),
    ("opendir", "PATH"),
    ("readdir", "PATH"),
    ("setxattr", "PATH NAME [SIZE]"),
    ("getxattr", "PATH NAME"),
    ("listxattr", "PATH"),
    ("removexattr", "PATH NAME"),
];

/// Every form of a request's words, one a line: for help texts.
#[must_use]
pub fn phrase_forms() -> String {
    let lines = FORMS
        .iter()
        .map(|(verb, rest)| format!("  {verb} {rest}\n"));
    lines.collect()
}

/// The words after the first, each taken once.
pub(super) struct Rest {
    pub(super) verb: String,
    pub(super) words: std::vec::IntoIter<Vec<u8>>,
}

impl Rest {
    pub(super) fn form(&self) -> String {
        let found = FORMS.iter().find(|(verb, _)| *verb == self.verb);
        let rest = found.map_or("PATH", |(_, rest)| rest);
        format!("write `{} {rest}`", self.verb)
    }

    pub(super) fn need(&mut self, what: &str) -> Result<Vec<u8>, BadPhrase> {
        let missing = format!("`{}` lacks its {what}", self.verb);
        self.words.next().ok_or_else(|| bad(missing, self.form()))
    }

    pub(super) fn text(&self, word: &[u8]) -> Result<String, BadPhrase> {
        String::from_utf8(word.to_vec()).map_err(|_not_text| {
            bad(
                format!("`{}` is no word here", word.escape_ascii()),
                self.form(),
            )
        })
    }

    pub(super) fn need_path(&mut self, what: &str) -> Result<Vec<u8>, BadPhrase> {
        let path = self.need(what)?;
        check_path(&path)?;
        Ok(path)
    }

    pub(super) fn need_number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, BadPhrase> {
        let word = self.need(what)?;
        let text = self.text(&word)?;
        text.parse()
            .map_err(|_not_a_number| bad(format!("`{text}` is no {what}"), self.form()))
    }

    pub(super) fn need_mode(&mut self) -> Result<Mode, BadPhrase> {
        let word = self.need("mode")?;
        parse_mode(&self.text(&word)?)
    }

    /// A mode if the next word looks like one.
    pub(super) fn mode_or(&mut self, usual: u32) -> Result<Mode, BadPhrase> {
        let next = self.words.as_slice().first();
        if next.is_some_and(|word| word.first().is_some_and(u8::is_ascii_digit)) {
            return self.need_mode();
        }
        Ok(Mode::new(usual))
    }

    pub(super) fn span(&mut self) -> Result<Option<(u64, u64)>, BadPhrase> {
        if self.words.as_slice().is_empty() {
            return Ok(None);
        }
        Ok(Some((
            self.need_number("offset")?,
            self.need_number("length")?,
        )))
    }

    pub(super) fn open(&mut self, usual: OpenAs) -> Result<OpenAs, BadPhrase> {
        let mut open = OpenAs::default();
        for word in std::mem::take(&mut self.words) {
            match self.text(&word)?.as_str() {
                "r" => open.read = true,
                "w" => open.write = true,
                "rw" => (open.read, open.write) = (true, true),
                "append" => (open.write, open.append) = (true, true),
                "trunc" => open.truncate = true,
                "excl" => open.exclusive = true,
                "sync" => open.sync = true,
                "direct" => open.direct = true,
                other => {
                    let known = ["r", "w", "rw", "append", "trunc", "excl", "sync", "direct"];
                    let what = format!("`{}` says nothing of an open", other.escape_debug());
                    return Err(bad(what, suggestion(other, &known)));
                }
            }
        }
        if !open.read && !open.write {
            (open.read, open.write) = (usual.read, usual.write);
        }
        Ok(open)
    }

    pub(super) fn end(mut self) -> Result<(), BadPhrase> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => {
                let what = format!("`{}` is one word too many", word.escape_ascii());
                Err(bad(what, self.form()))
            }
        }
    }
}

/// Permission bits in octal: `0644`, `4755`.
///
/// # Errors
///
/// They are none, in words.
pub fn parse_mode(text: &str) -> Result<Mode, BadPhrase> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let bits = u32::from_str_radix(digits, 8).ok();
    let bits = bits.filter(|bits| plain && *bits <= 0o7777);
    bits.map(Mode::new).ok_or_else(|| {
        let what = format!("`{}` is no mode", text.escape_debug());
        bad(what, "write it in octal: 0644, at most 7777")
    })
}

/// A type by its word.
///
/// # Errors
///
/// There is no such type, in words.
pub fn parse_kind(text: &str) -> Result<FileKind, BadPhrase> {
    let known = KINDS.map(kind_name);
    let found = KINDS.into_iter().find(|kind| kind_name(*kind) == text);
    found.ok_or_else(|| {
        let what = format!("`{}` is no type", text.escape_debug());
        bad(what, suggestion(text, &known))
    })
}

const KINDS: [FileKind; 7] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::CharDevice,
    FileKind::BlockDevice,
];

/// Two ids around a colon, either of which may be left out.
///
/// # Errors
///
/// They are none, in words.
pub fn parse_ids(text: &str) -> Result<(Option<u32>, Option<u32>), BadPhrase> {
    let wrong = || {
        let what = format!("`{}` is no pair of ids", text.escape_debug());
        bad(what, "write `UID:GID`, `UID:` or `:GID`, in numbers")
    };
    let id = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_not_a_number| wrong()),
    };
    let (uid, gid) = text.split_once(':').ok_or_else(wrong)?;
    match (id(uid)?, id(gid)?) {
        (None, None) => Err(wrong()),
        both => Ok(both),
    }
}

/// Whether bytes are a path within the view: `/`, or components that can be names.
///
/// # Errors
///
/// They are none, in words.
pub fn check_path(path: &[u8]) -> Result<(), BadPhrase> {
    let shown = path.escape_ascii();
    let Some(rest) = path.strip_prefix(b"/") else {
        let hint = "a path starts with `/`, the top of the view; a space in it is `\\x20`";
        return Err(bad(format!("`{shown}` is no path of the view"), hint));
    };
    if rest.is_empty() {
        return Ok(());
    }
    for component in rest.split(|byte| *byte == b'/') {
        if Name::new(component).is_err() {
            let what = format!("`{shown}` has a component that cannot be a name");
            let hint = "no `.`, `..`, `//`, no `/` at the end, at most 255 bytes each";
            return Err(bad(what, hint));
        }
    }
    Ok(())
}

pub(super) fn split(phrase: &str) -> Result<Vec<Vec<u8>>, BadPhrase> {
    phrase.split_ascii_whitespace().map(unescaped).collect()
}

/// One word's bytes: `\xNN`, `\n`, `\t`, `\r`, and `\` before a character that stands for itself.
///
/// # Errors
///
/// An escape is none, in words.
pub fn unescaped(word: &str) -> Result<Vec<u8>, BadPhrase> {
    let hint = "write `\\x20` for a byte by number, `\\\\` for a backslash";
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (escaped, tail) = match rest {
            [b'x', high, low, tail @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let value = digit(high)
                    .zip(digit(low))
                    .map(|(high, low)| high * 16 + low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                (value, tail)
            }
            [b'n', tail @ ..] => (Some(b'\n'), tail),
            [b't', tail @ ..] => (Some(b'\t'), tail),
            [b'r', tail @ ..] => (Some(b'\r'), tail),
            [other, tail @ ..] if other.is_ascii_punctuation() => (Some(*other), tail),
            _ => (None, rest),
        };
        let what = || format!("`{}` has an escape that is none", word.escape_debug());
        bytes.push(escaped.ok_or_else(|| bad(what(), hint))?);
        rest = tail;
    }
    Ok(bytes)
}
