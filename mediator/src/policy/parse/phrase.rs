//! A request in words: `create /up/a 0644`, `chmod /a 4755`, `rename /a /b exchange`.
//!
//! Words are separated by spaces. A space or another odd byte of a name is written `\x20`, as
//! [`u8::escape_ascii`] does for most of them, so that what is printed can be typed again.

use super::super::facts::{Facts, Requester};
use super::super::request::Request;
use super::read::suggestion;
use super::words::{
    BadPhrase, FORMS, Rest, bad, parse_ids, parse_kind, parse_mode, phrase_forms, split,
};
use crate::ids::{FileKind, GuestGid, GuestOwner, GuestUid, HostOwner, Mode, Timestamp};
use crate::op::{
    AnyAsk, BirthAsk, ChangesAsk, Op, OpenAs, RenameHow, SetTime, Word, Words, XattrName,
};

/// What a request's words do not say: how things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The target's type; if not given, the one that the operation is only ever asked for.
    pub kind: Option<FileKind>,
    /// The target's mode.
    pub mode: Option<Mode>,
    /// The target's owner, host ids.
    pub owner: Option<HostOwner>,
    /// The target's size in bytes.
    pub size: Option<u64>,
    /// The target's link count.
    pub nlink: Option<u32>,
    /// Its further names.
    pub names: Vec<Vec<u8>>,
    /// Made through the view and not yet given its owner and mode.
    pub birth: bool,
    /// It lies on another mount.
    pub submount: bool,
    /// Who asks.
    pub requester: Requester,
}

impl Circumstances {
    /// Nothing known but who asks.
    #[must_use]
    pub fn of(requester: Requester) -> Self {
        Self {
            kind: None,
            mode: None,
            owner: None,
            size: None,
            nlink: None,
            names: Vec::new(),
            birth: false,
            submount: false,
            requester,
        }
    }
}

impl Request {
    /// Reads a request's words; `around` tells what they do not.
    ///
    /// # Errors
    ///
    /// They are no request: what is wrong, and what to write.
    pub fn from_phrase(phrase: &str, around: &Circumstances) -> Result<Self, BadPhrase> {
        let mut words = split(phrase)?.into_iter();
        let verb = words.next().ok_or_else(|| {
            bad(
                "there is no request",
                format!("write one of\n{}", phrase_forms()),
            )
        })?;
        let verb = String::from_utf8_lossy(&verb).into_owned();
        if !FORMS.iter().any(|(known, _)| *known == verb) {
            let known: Vec<&str> = FORMS.iter().map(|(verb, _)| *verb).collect();
            let what = format!("`{}` is no operation", verb.escape_debug());
            return Err(bad(what, suggestion(&verb, &known)));
        }
        let mut rest = Rest { verb, words };
        let path = rest.need_path("path")?;
        let mut request = Self::read_rest(&mut rest, around)?;
        rest.end()?;
        request.names.push(path);
        request.names.extend(around.names.iter().cloned());
        request.kind = around.kind.or(request.kind);
        let known = Self {
            mode: around.mode,
            owner: around.owner,
            size: around.size,
            nlink: around.nlink,
            birth: around.birth,
            submount: around.submount,
            ..request
        };
        Ok(known)
    }

    fn read_rest(rest: &mut Rest, around: &Circumstances) -> Result<Self, BadPhrase> {
        let verb = rest.verb.clone();
        let raw = Op::ALL.iter().find(|op| op.raw_name() == verb);
        // Every other verb of `FORMS` is a way to say SETATTR.
        let op = raw.copied().unwrap_or(Op::Setattr);
        let plain = Self::of(&Facts::of(op, around.requester), AnyAsk::Nothing);
        let kind = usual_kind(op);
        let plain = Self { kind, ..plain };
        let birth = |kind, mode, open| {
            AnyAsk::Birth(BirthAsk {
                requester: GuestOwner {
                    uid: GuestUid(around.requester.uid),
                    gid: GuestGid(around.requester.gid),
                },
                kind,
                mode,
                open,
            })
        };
        let none = OpenAs::default();
        Ok(match op {
            Op::Lookup
            | Op::Getattr
            | Op::Readlink
            | Op::Access
            | Op::Statfs
            | Op::Unlink
            | Op::Rmdir
            | Op::Lseek
            | Op::Fsync
            | Op::Flush
            | Op::Opendir
            | Op::Readdir
            | Op::Listxattr => plain,
            Op::Setattr => {
                let ask = changes(rest)?;
                Self {
                    kind: ask.size.map(|_| FileKind::Regular),
                    words: ask.words(),
                    ask: AnyAsk::Changes(ask),
                    ..plain
                }
            }
            Op::Create => {
                let mode = rest.mode_or(0o644)?;
                let open = rest.open(OpenAs {
                    read: true,
                    write: true,
                    ..none
                })?;
                let ask = birth(FileKind::Regular, mode, open);
                Self { ask, ..plain }
            }
            Op::Mkdir => {
                let ask = birth(FileKind::Directory, rest.mode_or(0o755)?, none);
                Self { ask, ..plain }
            }
            Op::Mknod => {
                let mode = rest.mode_or(0o644)?;
                let kind = match rest.words.next() {
                    None => FileKind::Regular,
                    Some(word) => parse_kind(&rest.text(&word)?)?,
                };
                let ask = birth(kind, mode, none);
                Self { ask, ..plain }
            }
            Op::Symlink => {
                let target = rest.need("target")?;
                Self {
                    target: Some(target),
                    ask: birth(FileKind::Symlink, Mode::new(0o777), none),
                    ..plain
                }
            }
            Op::Link => Self {
                second: Some(rest.need_path("new path")?),
                ..plain
            },
            Op::Rename => {
                let second = rest.need_path("new path")?;
                let how = match rest.words.next().as_deref() {
                    None => RenameHow::Replace,
                    Some(b"noreplace") => RenameHow::NoReplace,
                    Some(b"exchange") => RenameHow::Exchange,
                    Some(other) => {
                        let what = format!("`{}` is no way to rename", other.escape_ascii());
                        return Err(bad(what, rest.form()));
                    }
                };
                Self {
                    second: Some(second),
                    ask: AnyAsk::Rename(how),
                    ..plain
                }
            }
            Op::Open => {
                let open = rest.open(OpenAs { read: true, ..none })?;
                Self {
                    words: open.words(),
                    ask: AnyAsk::Open(open),
                    ..plain
                }
            }
            Op::Read | Op::Write | Op::Fallocate => plain.with_span(rest.span()?),
            Op::CopyFileRange => {
                let word = match rest.words.next().as_deref() {
                    Some(b"read") => Word::Read,
                    Some(b"write") => Word::Write,
                    Some(_) | None => {
                        let what = "`copy_file_range` is judged at its source and at its target";
                        return Err(bad(what, rest.form()));
                    }
                };
                let words = Words::of(word);
                Self { words, ..plain }.with_span(rest.span()?)
            }
            Op::Setxattr | Op::Getxattr | Op::Removexattr => {
                let name = rest.need("attribute's name")?;
                let sized = op == Op::Setxattr && !rest.words.as_slice().is_empty();
                let size = if sized { rest.need_number("size")? } else { 0 };
                let ask = XattrName::new(&name).ok_or_else(|| {
                    let what = format!("`{}` is no attribute's name", name.escape_ascii());
                    bad(what, "at most 255 bytes: `user.comment`")
                })?;
                Self {
                    xattr: Some((name, size)),
                    ask: AnyAsk::Xattr(ask),
                    ..plain
                }
            }
        })
    }

    fn with_span(self, span: Option<(u64, u64)>) -> Self {
        Self {
            offset: span.map(|(offset, _)| offset),
            length: span.map(|(_, length)| length),
            ..self
        }
    }
}

/// The type that an operation is only ever asked for.
fn usual_kind(op: Op) -> Option<FileKind> {
    match op {
        Op::Opendir | Op::Readdir | Op::Rmdir => Some(FileKind::Directory),
        Op::Readlink => Some(FileKind::Symlink),
        Op::Open | Op::Read | Op::Write | Op::Fallocate | Op::Lseek | Op::CopyFileRange => {
            Some(FileKind::Regular)
        }
        Op::Lookup
        | Op::Getattr
        | Op::Access
        | Op::Statfs
        | Op::Setattr
        | Op::Create
        | Op::Mkdir
        | Op::Mknod
        | Op::Symlink
        | Op::Link
        | Op::Unlink
        | Op::Rename
        | Op::Fsync
        | Op::Flush
        | Op::Setxattr
        | Op::Getxattr
        | Op::Listxattr
        | Op::Removexattr => None,
    }
}

fn changes(rest: &mut Rest) -> Result<ChangesAsk, BadPhrase> {
    Ok(match rest.verb.as_str() {
        "chmod" => ChangesAsk {
            mode: Some(rest.need_mode()?),
            ..ChangesAsk::NOTHING
        },
        "chown" => {
            let ids = rest.need("ids")?;
            let (uid, gid) = parse_ids(&rest.text(&ids)?)?;
            ChangesAsk {
                uid: uid.map(GuestUid),
                gid: gid.map(GuestGid),
                ..ChangesAsk::NOTHING
            }
        }
        "truncate" => ChangesAsk {
            size: Some(rest.need_number("size")?),
            ..ChangesAsk::NOTHING
        },
        "utimes" => ChangesAsk {
            atime: SetTime::Now,
            mtime: SetTime::Now,
            ..ChangesAsk::NOTHING
        },
        _ => {
            let mut ask = ChangesAsk::NOTHING;
            for word in std::mem::take(&mut rest.words) {
                change(rest, &rest.text(&word)?, &mut ask)?;
            }
            if ask == ChangesAsk::NOTHING {
                return Err(bad("`setattr` changes nothing", rest.form()));
            }
            ask
        }
    })
}

fn change(rest: &Rest, word: &str, ask: &mut ChangesAsk) -> Result<(), BadPhrase> {
    let wrong = || {
        let what = format!("`{}` is no change", word.escape_debug());
        bad(what, rest.form())
    };
    let (key, value) = word.split_once('=').ok_or_else(wrong)?;
    let id = || value.parse().map_err(|_not_a_number| wrong());
    match key {
        "uid" => ask.uid = Some(GuestUid(id()?)),
        "gid" => ask.gid = Some(GuestGid(id()?)),
        "mode" => ask.mode = Some(parse_mode(value)?),
        "size" => ask.size = Some(value.parse().map_err(|_not_a_number| wrong())?),
        "atime" => ask.atime = time(value).ok_or_else(wrong)?,
        "mtime" => ask.mtime = time(value).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }
    Ok(())
}

/// `now`, or seconds since the epoch, with nanoseconds after a point: `-5.000000001`.
fn time(text: &str) -> Option<SetTime> {
    if text == "now" {
        return Some(SetTime::Now);
    }
    let (sec, nsec) = text.split_once('.').unwrap_or((text, "0"));
    let nsec = nsec.parse().ok().filter(|nsec| *nsec < 1_000_000_000)?;
    let sec = sec.parse().ok()?;
    Some(SetTime::To(Timestamp { sec, nsec }))
}
