//! How many requests of FUSE one request of 9p becomes, on its way through stock QEMU.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::OFlags;
use virtfs_p9::{Fid, Session};

use super::status::requests;
use super::{Round, Section};
use crate::contender::{Contender, View};
use crate::error::Result;
use crate::p9;
use crate::task::file_name;

/// How often each is asked.
const TIMES: usize = 50;

/// Where: a directory of its own.
const HOME: &str = "requests";

type Step = fn(&mut Ground<'_>) -> virtfs_p9::Result<()>;

/// In this order: each finds what the one before left.
const STEPS: [(&str, Step); 7] = [
    ("getattr of a known file", |ground| ground.getattr()),
    ("walk+open+read+clunk, first time", |ground| ground.read()),
    ("walk+open+read+clunk, again", |ground| ground.read()),
    ("walk+create", |ground| ground.create()),
    ("write 4k", |ground| ground.write()),
    ("clunk of a written file", |ground| ground.clunk()),
    ("unlink", |ground| ground.unlink()),
];

pub(super) fn measure(view: &View, round: &mut Round<'_>) -> Result<()> {
    let contender = Contender::View(view.clone());
    let of = contender.to_string();
    let home = round.place.export().join(HOME);
    if !home.exists() {
        p9::prepare_home(&home, round.size)?;
    }
    let mut seat = p9::Seat::take(&contender, round.place)?;
    let name = seat.view().unwrap_or_default().to_owned();
    let mut counted = Vec::new();
    seat.drive(|session| {
        let mut ground = Ground::new(session)?;
        for (title, step) in STEPS {
            // Asked outside of what is counted: the metrics are not the client's business.
            let before = requests(&view.program, &name);
            step(&mut ground)?;
            counted.push((title, before, requests(&view.program, &name)));
        }
        Ok(())
    })?;
    seat.leave()?;
    for (title, before, after) in counted {
        let each = difference(&before?, &after?);
        let total = each.values().fold(0.0, |sum, count| sum + count);
        let figure = round
            .figures
            .add(Section::Requests, title, &of, (total, ""));
        figure.detail = Some(shown(&each));
    }
    Ok(())
}

/// The export's directories, and files that are open.
struct Ground<'a> {
    session: &'a mut Session,
    small: Fid,
    new: Fid,
    known: Fid,
    open: Vec<Fid>,
}

impl<'a> Ground<'a> {
    fn new(session: &'a mut Session) -> virtfs_p9::Result<Self> {
        let root = session.attach(0)?;
        let home = session.walk(root, &[Path::new(HOME)])?;
        let (small, new) = (
            session.walk(home, &["small"])?,
            session.walk(home, &["new"])?,
        );
        let known = session.walk(small, &[file_name(0)])?;
        session.getattr(known)?;
        Ok(Self {
            session,
            small,
            new,
            known,
            open: Vec::new(),
        })
    }

    fn getattr(&mut self) -> virtfs_p9::Result<()> {
        (0..TIMES).try_for_each(|_| self.session.getattr(self.known).map(drop))
    }

    fn read(&mut self) -> virtfs_p9::Result<()> {
        for number in 0..TIMES {
            let fid = self.session.walk(self.small, &[file_name(number)])?;
            self.session.lopen(fid, OFlags::RDONLY.bits())?;
            self.session.read(fid, 0, 4096)?;
            self.session.clunk(fid)?;
        }
        Ok(())
    }

    fn create(&mut self) -> virtfs_p9::Result<()> {
        let flags = (OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).bits();
        for number in 0..TIMES {
            let fid = self.session.walk::<&str>(self.new, &[])?;
            self.session
                .lcreate(fid, file_name(number), flags, 0o640, 0)?;
            self.open.push(fid);
        }
        Ok(())
    }

    fn write(&mut self) -> virtfs_p9::Result<()> {
        for &fid in &self.open {
            self.session.write(fid, 0, &[b'x'; 4096])?;
        }
        Ok(())
    }

    fn clunk(&mut self) -> virtfs_p9::Result<()> {
        let open = std::mem::take(&mut self.open);
        open.into_iter().try_for_each(|fid| self.session.clunk(fid))
    }

    fn unlink(&mut self) -> virtfs_p9::Result<()> {
        (0..TIMES).try_for_each(|number| self.session.unlinkat(self.new, file_name(number), 0))
    }
}

/// Of each operation, for one request.
fn difference(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let mut each = BTreeMap::new();
    for (operation, count) in after {
        let more = count - before.get(operation).unwrap_or(&0.0);
        if more > 0.0 {
            each.insert(operation.clone(), more / TIMES as f64);
        }
    }
    each
}

/// The most frequent first.
fn shown(each: &BTreeMap<String, f64>) -> String {
    let mut sorted: Vec<_> = each.iter().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(a.1));
    let words: Vec<_> = sorted
        .iter()
        .map(|(operation, count)| format!("{operation} {}", (*count * 100.0).round() / 100.0))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_of_each_operation_and_request() {
        let map = |pairs: &[(&str, f64)]| {
            let pairs = pairs.iter().map(|&(name, count)| (name.to_owned(), count));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("lookup", 5.0), ("open", 2.0)]);
        let after = map(&[("lookup", 105.0), ("open", 2.0), ("create", 50.0)]);
        let each = difference(&before, &after);
        assert_eq!(each, map(&[("lookup", 2.0), ("create", 1.0)]));
        assert_eq!(shown(&each), "lookup 2, create 1");
    }
}
