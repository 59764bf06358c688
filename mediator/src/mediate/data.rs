//! Which way an open file's data goes: what the policy, whoever watches and the file's size make
//! of it.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, Stop, Trail};
use super::scratch::with_paths;
use crate::backing::{Backings, DataMode, DataUse, WORTH_IT, Way, Wish};
use crate::export::{Attr, Pin};
use crate::ids::{HandleId, NodeId};
use crate::op::OpenAs;
use crate::policy::{DataJudgement, Refusal};

/// A file that was opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its handle.
    pub handle: HandleId,
    /// What it was opened for.
    pub open: OpenAs,
    /// How its data goes.
    pub way: Way,
    /// It may only be appended to: no mapping of it may be shared.
    pub append_only: bool,
}

impl Mediator {
    /// From now on data may go past this process. Before the first request.
    pub fn pass_data(&mut self, backings: Backings) {
        self.backings = backings;
    }

    /// Why data cannot go past this process although it must: what the kernel said to its offer, or
    /// to a file of the export's, where one can be made to try.
    #[must_use]
    pub fn cannot_pass(&self) -> Option<String> {
        if self.backings.mode() != DataMode::Passthrough {
            return None;
        }
        if let Some(file) = self.export.nameless_file() {
            self.backings.try_out(file.as_fd());
        }
        self.data_use().why_not
    }

    /// Passthrough.
    #[must_use]
    pub fn backings(&self) -> &Backings {
        &self.backings
    }

    /// What is told of passthrough.
    #[must_use]
    pub fn data_use(&self) -> DataUse {
        self.backings.usage()
    }

    /// The files that are open past this process, by one name each and in order; no more than so
    /// many bytes of names.
    #[must_use]
    pub fn open_past(&self, bytes: usize) -> Vec<Vec<u8>> {
        let nodes = self.backings.past().into_iter();
        let mut paths: Vec<_> = nodes.filter_map(|node| self.export.path(node)).collect();
        paths.sort_unstable();
        let mut left = bytes;
        let fits = |path: &Vec<u8>| {
            let rest = left.checked_sub(path.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        paths.into_iter().take_while(fits).collect()
    }

    /// What is wanted for an open of a file that is there; `None` where nothing goes past this
    /// process. Asked before the open, which may truncate: one that could not be answered is
    /// refused here.
    pub(super) fn wish(&self, trail: &Trail, pin: &Pin, open: OpenAs) -> Act<Option<Wish>> {
        if !self.backings.counts() {
            return Ok(None);
        }
        let wish = if self.judges_data_of(trail, pin)? {
            if self.backings.is_past(pin.node()) {
                return Err(self.busy(trail, pin));
            }
            Wish::Judged
        } else if self.is_watched()
            || self.audit.is_verbose()
            // The registrar takes files of the export's own mount alone.
            || self.export.is_submount(pin)
            // The backing file that the kernel opens would append for good: it is not told when the
            // client takes the flag back (`backing_file_open`, fs/backing-file.c).
            || open.append
        {
            Wish::Watched
        } else if open.direct && !self.export.has_direct_io(pin)? {
            // The kernel would find out only after our answer, and make EIO of it.
            if self.backings.is_past(pin.node()) {
                return Err(Errno::INVAL.into());
            }
            Wish::Either
        } else if self.is_worth_it(pin, open)? && !self.export.is_append_only_file(pin)? {
            Wish::Passthrough
        } else {
            Wish::Either
        };
        Ok(Some(wish))
    }

    /// Enters a file that was opened; one whose way cannot be is closed again.
    pub(super) fn enter_file(
        &self,
        trail: &Trail,
        pin: &Pin,
        (handle, open): (HandleId, OpenAs),
        wish: Option<Wish>,
    ) -> Act<Opened> {
        let append_only = open.append && self.export.is_append_only(handle)?;
        let opened = |way| Opened {
            handle,
            open,
            way,
            append_only,
        };
        let wish = match wish {
            None => return Ok(opened(Way::Cached)),
            // A mapping would be the backing file's.
            Some(_) if append_only => Wish::Judged,
            Some(wish) => wish,
        };
        let entering = (pin.node(), handle);
        let enter = |file: BorrowedFd<'_>| self.backings.enter(entering, wish, file, open.write);
        let stop = match self.export.lend_file(handle, enter) {
            Ok(Ok(way)) => return Ok(opened(way)),
            Ok(Err(_busy)) => self.busy(trail, pin),
            Err(fault) => fault.into(),
        };
        self.export.release(handle);
        Err(stop)
    }

    /// The same for a file that has just been made.
    pub(super) fn enter_new_file(
        &self,
        trail: &Trail,
        made: &Attr,
        (handle, open): (HandleId, OpenAs),
    ) -> Act<Opened> {
        let pin = self.export.pin_new_file(handle, made).map_err(Stop::from);
        let wished = pin.and_then(|pin| Ok((self.wish(trail, &pin, open)?, pin)));
        match wished {
            Ok((wish, pin)) => self.enter_file(trail, &pin, (handle, open), wish),
            Err(stop) => {
                self.export.release(handle);
                Err(stop)
            }
        }
    }

    /// Where the client's kernel has to forget what it knows of a file that is about to be closed;
    /// see [`Backings::went_past_for_writing`].
    #[must_use]
    pub fn outdated_by(&self, handle: HandleId) -> Option<NodeId> {
        self.backings
            .counts()
            .then(|| self.backings.went_past_for_writing(handle))?
    }

    fn is_worth_it(&self, pin: &Pin, open: OpenAs) -> Act<bool> {
        match self.backings.mode() {
            DataMode::Passthrough => Ok(true),
            DataMode::Auto if open.truncate => Ok(false),
            DataMode::Auto => Ok(self.export.stat_once(pin)?.size >= WORTH_IT),
            DataMode::Mediated => Ok(false),
        }
    }

    fn judges_data_of(&self, trail: &Trail, pin: &Pin) -> Act<bool> {
        let policy = trail.policy.borrow();
        match policy.judges_data() {
            DataJudgement::Never => return Ok(false),
            DataJudgement::Always => return Ok(true),
            DataJudgement::ByName => {}
        }
        // Names that are looked for on the host each time, not known.
        if !policy.followed().is_empty() && self.export.stat(pin)?.nlink > 1 {
            return Ok(true);
        }
        Ok(with_paths(|scratch| {
            self.export.write_path(pin, &mut scratch.first);
            let others = self.export.other_names(pin);
            let first = scratch.first.as_slice();
            let names: Vec<&[u8]> = std::iter::once(first)
                .chain(others.iter().map(Vec::as_slice))
                .collect();
            policy.judges_data_of(&names)
        }))
    }

    fn busy(&self, trail: &Trail, pin: &Pin) -> Stop {
        let refusal = Refusal {
            errno: Errno::BUSY,
            rule: None,
            why: "its reads and writes are judged, but it is open past the mediator",
        };
        self.refuse(trail.op, trail, &Case::node(pin), refusal)
    }
}

#[cfg(test)]
#[path = "tests_data.rs"]
mod tests;
