//! A request put into words: the way back from [`super::phrase`].

use super::super::explain::{kind_name, word_name};
use super::super::request::Request;

use crate::ids::{FileKind, Timestamp};
use crate::op::{AnyAsk, ChangesAsk, Op, OpenAs, RenameHow, SetTime};

/// Bytes as one word that [`super::unescaped`] reads back.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

impl Request {
    /// What is known of the target and is not in [`Request::phrase`], escaped: `directory, birth`;
    /// empty for nothing.
    #[must_use]
    pub fn circumstances(&self) -> String {
        let mut said: Vec<String> = Vec::new();
        said.extend(self.kind.map(|kind| kind_name(kind).to_owned()));
        said.extend(self.mode.map(|mode| format!("mode {mode}")));
        said.extend(self.owner.map(|of| format!("owner {}:{}", of.uid, of.gid)));
        said.extend(self.size.map(|size| format!("size {size}")));
        said.extend(self.nlink.map(|nlink| format!("nlink {nlink}")));
        let others = self.names.iter().skip(1);
        said.extend(others.map(|name| format!("also {}", escaped(name))));
        said.extend(self.birth.then(|| "birth".to_owned()));
        said.extend(self.submount.then(|| "submount".to_owned()));
        said.join(", ")
    }

    /// The request in words that [`Request::from_phrase`] reads; escaped. A path that was not
    /// known is `?`.
    #[must_use]
    pub fn phrase(&self) -> String {
        let path = self
            .names
            .first()
            .map_or_else(|| "?".to_owned(), |name| escaped(name));
        if let AnyAsk::Changes(ask) = self.ask {
            return say_changes(&path, &ask);
        }
        let mut said = vec![self.op.raw_name().to_owned(), path];
        said.extend(self.second.as_ref().map(|second| escaped(second)));
        if let (Op::CopyFileRange, Some(word)) = (self.op, word_name(self.words)) {
            said.push(word.to_owned());
        }
        match self.ask {
            AnyAsk::Nothing | AnyAsk::Changes(_) => {}
            AnyAsk::Open(open) => said.extend(say_open(open)),
            AnyAsk::Birth(birth) => {
                if let Some(target) = &self.target {
                    said.push(escaped(target));
                } else {
                    said.push(birth.mode.to_string());
                }
                if self.op == Op::Create {
                    said.extend(say_open(birth.open));
                }
                if self.op == Op::Mknod && birth.kind != FileKind::Regular {
                    said.push(kind_name(birth.kind).to_owned());
                }
            }
            AnyAsk::Rename(RenameHow::Replace) => {}
            AnyAsk::Rename(RenameHow::NoReplace) => said.push("noreplace".to_owned()),
            AnyAsk::Rename(RenameHow::Exchange) => said.push("exchange".to_owned()),
            AnyAsk::Xattr(name) => said.push(escaped(name.as_bytes())),
        }
        match self.xattr {
            Some((_, size)) if self.op == Op::Setxattr => said.push(size.to_string()),
            Some(_) | None => {}
        }
        if let (Some(offset), Some(length)) = (self.offset, self.length) {
            said.extend([offset.to_string(), length.to_string()]);
        }
        said.join(" ")
    }
}

fn say_open(open: OpenAs) -> Vec<String> {
    let access = match (open.read, open.write) {
        (true, true) => Some("rw"),
        (true, false) => Some("r"),
        (false, true) => Some("w"),
        (false, false) => None,
    };
    let more = [
        (open.append, "append"),
        (open.truncate, "trunc"),
        (open.exclusive, "excl"),
        (open.sync, "sync"),
        (open.direct, "direct"),
    ];
    let more = more.into_iter().filter(|(is, _)| *is).map(|(_, word)| word);
    access.into_iter().chain(more).map(str::to_owned).collect()
}

fn say_changes(path: &str, ask: &ChangesAsk) -> String {
    let id = |id: Option<u32>| id.map_or_else(String::new, |id| id.to_string());
    let (uid, gid) = (ask.uid.map(|id| id.0), ask.gid.map(|id| id.0));
    let only = |same: ChangesAsk| same == *ask;
    match ask {
        ChangesAsk {
            mode: Some(mode), ..
        } if only(ChangesAsk {
            mode: ask.mode,
            ..ChangesAsk::NOTHING
        }) =>
        {
            format!("chmod {path} {mode}")
        }
        ChangesAsk {
            size: Some(size), ..
        } if only(ChangesAsk {
            size: ask.size,
            ..ChangesAsk::NOTHING
        }) =>
        {
            format!("truncate {path} {size}")
        }
        _ if only(ChangesAsk {
            uid: ask.uid,
            gid: ask.gid,
            ..ChangesAsk::NOTHING
        }) && *ask != ChangesAsk::NOTHING =>
        {
            format!("chown {path} {}:{}", id(uid), id(gid))
        }
        _ => {
            let say_time = |time| match time {
                SetTime::Omit => None,
                SetTime::Now => Some("now".to_owned()),
                SetTime::To(Timestamp { sec, nsec: 0 }) => Some(sec.to_string()),
                SetTime::To(Timestamp { sec, nsec }) => Some(format!("{sec}.{nsec}")),
            };
            let said = [
                ("uid", uid.map(|id| id.to_string())),
                ("gid", gid.map(|id| id.to_string())),
                ("mode", ask.mode.map(|mode| mode.to_string())),
                ("size", ask.size.map(|size| size.to_string())),
                ("atime", say_time(ask.atime)),
                ("mtime", say_time(ask.mtime)),
            ];
            let said = said
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            let said: String = said.map(|(key, value)| format!(" {key}={value}")).collect();
            format!("setattr {path}{said}")
        }
    }
}
