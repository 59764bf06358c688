//! How full the areas are that a policy limits (`total`, `entries`).
//!
//! An area is counted by a walk, in a thread of its own; what requests add afterwards is charged
//! before it is done, by how much it could add at most. Nothing is given back but by the next
//! walk, which is made when there is no room left. So what is on the books is never less than what
//! requests through the view have made of the tree:
//!
//! * A file's bytes grow only by what was charged after its size was looked at, and what was
//!   charged stays on the books until a walk that began after it was done.
//! * A walk that a rename or link went on beside may have missed what moved: it is thrown away.
//! * Open files without a name are found by no walk, and are added to it.
//!
//! What the host changes counts from the next walk on.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::export::{Counted, Export, Fault, Tree, Walk};
use crate::ids::FileKind;
use crate::policy::{Area, Areas};

/// How long after the start of a walk a request waits for it, since it may give it room: small
/// trees are counted by then, and no worker is held up for long by a large one.
const PATIENCE: Duration = Duration::from_secs(1);
/// The least time between two walks; and a walk may take a tenth of the time at most.
const REST: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(1)
};

/// What is used of an area, or added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Used {
    /// One more name.
    pub(super) const NAME: Self = Self {
        bytes: 0,
        entries: 1,
    };

    /// So many more bytes.
    pub(super) const fn bytes(bytes: u64) -> Self {
        Self { bytes, entries: 0 }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            entries: self.entries.saturating_sub(other.entries),
        }
    }
}

/// One area's books.
#[derive(Debug, Default)]
struct Account {
    /// What the last walk found; `None` before the first.
    counted: Option<Used>,
    /// Charged since that walk began.
    charged: Used,
    /// Charged since the walk that is going on began.
    anew: Used,
    /// Charged, and not yet done.
    pending: Used,
}

#[derive(Debug)]
enum State {
    Resting {
        until: Option<Instant>,
    },
    Walking {
        since: Instant,
    },
    Walked {
        since: Instant,
        found: Option<Vec<Used>>,
    },
}

#[derive(Debug)]
struct Books {
    accounts: Vec<Account>,
    state: State,
    /// Renames and links that are going on.
    moves: usize,
    /// One of them went on beside the walk.
    moved: bool,
}

impl Books {
    fn new(areas: usize) -> Self {
        Self {
            accounts: (0..areas).map(|_area| Account::default()).collect(),
            state: State::Resting { until: None },
            moves: 0,
            moved: false,
        }
    }

    fn of(&mut self, areas: Areas) -> impl Iterator<Item = &mut Account> {
        let accounts = self.accounts.iter_mut().enumerate();
        accounts.filter_map(move |(place, account)| areas.contains(place).then_some(account))
    }

    fn charge(&mut self, areas: Areas, used: Used) {
        for account in self.of(areas) {
            account.charged = account.charged.plus(used);
            account.anew = account.anew.plus(used);
            account.pending = account.pending.plus(used);
        }
    }

    fn refund(&mut self, areas: Areas, used: Used) {
        for account in self.of(areas) {
            account.charged = account.charged.minus(used);
            account.anew = account.anew.minus(used);
        }
    }

    fn done(&mut self, areas: Areas, used: Used) {
        for account in self.of(areas) {
            account.pending = account.pending.minus(used);
        }
    }

    fn begin_move(&mut self) {
        self.moves += 1;
        self.moved = true;
    }

    /// What is being done now may be done before or after the walk comes by.
    fn begin_walk(&mut self, now: Instant) {
        for account in &mut self.accounts {
            account.anew = account.pending;
        }
        self.moved = self.moves > 0;
        self.state = State::Walking { since: now };
    }

    fn end_walk(&mut self, found: Option<Vec<Used>>, since: Instant, now: Instant) {
        if let Some(found) = found.filter(|_| !self.moved) {
            for (account, found) in self.accounts.iter_mut().zip(found) {
                account.counted = Some(found);
                account.charged = account.anew;
            }
        }
        let rest = REST.max(now.duration_since(since).saturating_mul(9));
        let until = Some(now + rest);
        self.state = State::Resting { until };
    }
}

/// The books of all areas.
#[derive(Debug)]
pub(super) struct Ledger {
    areas: Arc<[Area]>,
    books: Mutex<Books>,
    changed: Condvar,
}

/// Something that was charged and is being done.
#[must_use]
#[derive(Debug)]
pub(super) struct Receipt {
    ledger: Arc<Ledger>,
    areas: Areas,
    used: Used,
}

/// A rename or link that is being done.
#[must_use]
#[derive(Debug)]
pub(super) struct Move(Arc<Ledger>);

impl Ledger {
    /// Books for a policy's areas; starts to count them if there are any.
    pub(super) fn open(areas: &[Area], export: &Export) -> Arc<Self> {
        let ledger = Arc::new(Self {
            areas: areas.into(),
            books: Mutex::new(Books::new(areas.len())),
            changed: Condvar::new(),
        });
        if !areas.is_empty() {
            ledger.start_walk(&mut ledger.lock(), export);
        }
        ledger
    }

    /// Books that nothing can be put on yet: whoever wants to waits for [`Ledger::settle_down`], as
    /// for a walk.
    pub(super) fn unsettled(areas: &[Area]) -> Arc<Self> {
        let mut books = Books::new(areas.len());
        books.state = State::Walking {
            since: Instant::now(),
        };
        Arc::new(Self {
            areas: areas.into(),
            books: Mutex::new(books),
            changed: Condvar::new(),
        })
    }

    /// Starts to count what was unsettled.
    pub(super) fn settle_down(self: &Arc<Self>, export: &Export) {
        let mut books = self.lock();
        books.state = State::Resting { until: None };
        if !self.areas.is_empty() {
            self.start_walk(&mut books, export);
        }
        drop(books);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what a request adds at most on the books of each area.
    ///
    /// # Errors
    ///
    /// The first area that has no room for it, or is not counted yet.
    pub(super) fn charge(
        self: &Arc<Self>,
        export: &Export,
        areas: Areas,
        used: Used,
    ) -> Result<Receipt, &Area> {
        let mut books = self.lock();
        loop {
            books = self.settle(books, export);
            let Some(full) = self.first_full(&books, areas, used) else {
                books.charge(areas, used);
                return Ok(Receipt {
                    ledger: Arc::clone(self),
                    areas,
                    used,
                });
            };
            self.start_walk(&mut books, export);
            let left = match books.state {
                State::Resting { .. } => Duration::ZERO,
                State::Walking { since } => PATIENCE.saturating_sub(since.elapsed()),
                // Settled at once.
                State::Walked { .. } => PATIENCE,
            };
            if left.is_zero() {
                return Err(full);
            }
            if matches!(books.state, State::Walked { .. }) {
                continue;
            }
            let waited = self.changed.wait_timeout(books, left);
            books = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Announces a rename or link in an area: no walk that goes on beside it is trusted.
    pub(super) fn begin_move(self: &Arc<Self>) -> Move {
        self.lock().begin_move();
        Move(Arc::clone(self))
    }

    /// What is used of an area, if it is counted.
    pub(super) fn used(&self, place: usize) -> Option<Used> {
        let books = self.lock();
        let account = books.accounts.get(place)?;
        Some(account.counted?.plus(account.charged))
    }

    fn first_full(&self, books: &Books, areas: Areas, used: Used) -> Option<&Area> {
        let all = self.areas.iter().zip(&books.accounts).enumerate();
        let concerned = all.filter(|(place, _)| areas.contains(*place));
        concerned.map(|(_, pair)| pair).find_map(|(area, account)| {
            let Some(counted) = account.counted else {
                return Some(area);
            };
            let then = counted.plus(account.charged).plus(used);
            let within = |limit: Option<u64>, used: u64, asked: u64| {
                asked == 0 || limit.is_none_or(|limit| used <= limit)
            };
            let totals = area.totals();
            let fits = within(totals.bytes, then.bytes, used.bytes)
                && within(totals.entries, then.entries, used.entries);
            (!fits).then_some(area)
        })
    }

    fn start_walk(self: &Arc<Self>, books: &mut Books, export: &Export) {
        let State::Resting { until } = books.state else {
            return;
        };
        let now = Instant::now();
        if until.is_some_and(|until| now < until) {
            return;
        }
        books.begin_walk(now);
        let (tree, areas, ledger) = (export.tree(), self.areas.clone(), Arc::downgrade(self));
        let thread = std::thread::Builder::new().name("count".to_owned());
        let started = thread.spawn(move || {
            let found = count(&tree, &areas, &ledger);
            if let Err(fault) = &found {
                tracing::warn!(%fault, "what the policy limits could not be counted");
            }
            if let Some(ledger) = ledger.upgrade() {
                let found = found.ok();
                ledger.lock().state = State::Walked { since: now, found };
                ledger.changed.notify_all();
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "what the policy limits could not be counted");
            let until = Some(now + REST);
            books.state = State::Resting { until };
        }
    }

    /// Takes over what a walk found. The lock is not held while open files are looked at.
    fn settle<'b>(
        &'b self,
        mut books: MutexGuard<'b, Books>,
        export: &Export,
    ) -> MutexGuard<'b, Books> {
        let State::Walked { since, found } = &mut books.state else {
            return books;
        };
        let (since, found) = (*since, found.take());
        // Nobody else settles, and no walk starts.
        books.state = State::Walking { since };
        drop(books);
        let found = found.and_then(|found| self.with_unlinked(found, export).ok());
        let mut books = self.lock();
        books.end_walk(found, since, Instant::now());
        self.changed.notify_all();
        books
    }

    fn with_unlinked(&self, mut found: Vec<Used>, export: &Export) -> Result<Vec<Used>, Fault> {
        for (path, bytes) in export.unlinked_open()? {
            for (area, used) in self.areas.iter().zip(&mut found) {
                if area.holds(&path) {
                    *used = used.plus(Used { bytes, entries: 0 });
                }
            }
        }
        Ok(found)
    }
}

/// Counts all areas in one walk; ends early when nobody wants to know any more.
fn count(tree: &Tree, areas: &[Area], ledger: &Weak<Ledger>) -> Result<Vec<Used>, Fault> {
    let mut found = vec![Used::default(); areas.len()];
    // By area: a file with several links there counts once.
    let mut linked = vec![HashSet::new(); areas.len()];
    let mut each = |path: &[u8], one: Counted| {
        if ledger.strong_count() == 0 {
            return Walk::End;
        }
        let mut below = false;
        for (place, area) in areas.iter().enumerate() {
            below |= area.reaches_below(path);
            let (Some(used), Some(linked)) = (found.get_mut(place), linked.get_mut(place)) else {
                continue;
            };
            if !area.holds(path) {
                continue;
            }
            used.entries = used.entries.saturating_add(1);
            let first = one.nlink < 2 || linked.insert(one.inode);
            if one.kind == FileKind::Regular && first {
                used.bytes = used.bytes.saturating_add(one.size);
            }
        }
        if below { Walk::Into } else { Walk::Past }
    };
    tree.walk(&mut each)?;
    if ledger.strong_count() == 0 {
        return Err((Errno::INTR, "count").into());
    }
    Ok(found)
}

impl Receipt {
    /// Nothing came of it.
    pub(super) fn refund(self) {
        self.ledger.lock().refund(self.areas, self.used);
        // Dropped here: it is pending no longer.
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.ledger.lock().done(self.areas, self.used);
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.0.lock().moves -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: u64) -> Used {
        Used::bytes(bytes)
    }

    /// Books of one area, of which `bytes` were counted.
    fn counted(used: u64) -> (Books, Areas) {
        let mut books = Books::new(1);
        walk(&mut books, used);
        (books, Areas::for_test(0))
    }

    fn walk(books: &mut Books, found: u64) {
        let now = Instant::now();
        books.begin_walk(now);
        books.end_walk(Some(vec![bytes(found)]), now, now);
    }

    fn told(books: &Books) -> Option<u64> {
        let account = books.accounts.first().unwrap();
        Some(account.counted?.plus(account.charged).bytes)
    }

    #[test]
    fn what_is_charged_and_done_before_a_walk_is_told_by_it_alone() {
        let (mut books, area) = counted(10);
        books.charge(area, bytes(5));
        assert_eq!(told(&books), Some(15));
        books.done(area, bytes(5));
        walk(&mut books, 12);
        assert_eq!(told(&books), Some(12));
    }

    #[test]
    fn what_is_charged_beside_a_walk_stays_on_the_books() {
        let (mut books, area) = counted(10);
        let now = Instant::now();
        books.begin_walk(now);
        books.charge(area, bytes(5));
        books.done(area, bytes(5));
        books.end_walk(Some(vec![bytes(10)]), now, now);
        assert_eq!(told(&books), Some(15));
    }

    #[test]
    fn what_is_not_done_when_a_walk_begins_stays_on_the_books() {
        let (mut books, area) = counted(10);
        books.charge(area, bytes(5));
        let now = Instant::now();
        books.begin_walk(now);
        books.done(area, bytes(5));
        books.end_walk(Some(vec![bytes(10)]), now, now);
        assert_eq!(told(&books), Some(15));
        walk(&mut books, 15);
        assert_eq!(told(&books), Some(15), "and no longer than that");
    }

    #[test]
    fn what_comes_to_nothing_is_given_back_once() {
        let (mut books, area) = counted(10);
        books.charge(area, bytes(5));
        let now = Instant::now();
        books.begin_walk(now);
        books.refund(area, bytes(5));
        books.done(area, bytes(5));
        assert_eq!(told(&books), Some(10));
        books.end_walk(Some(vec![bytes(10)]), now, now);
        assert_eq!(told(&books), Some(10));
    }

    #[test]
    fn walk_beside_a_move_is_thrown_away() {
        // Begun before the walk and not ended, or begun during it and ended.
        for before in [true, false] {
            let (mut books, area) = counted(10);
            books.charge(area, bytes(5));
            let now = Instant::now();
            if before {
                books.begin_move();
            }
            books.begin_walk(now);
            if !before {
                books.begin_move();
            }
            books.moves -= 1;
            books.end_walk(Some(vec![bytes(0)]), now, now);
            assert_eq!(told(&books), Some(15), "{before}");
            walk(&mut books, 3);
            assert_eq!(told(&books), Some(8), "the next one counts, {before}");
        }
    }

    #[test]
    fn area_is_not_counted_before_a_walk_and_walks_rest() {
        let mut books = Books::new(1);
        assert_eq!(told(&books), None);
        let now = Instant::now();
        books.begin_walk(now);
        books.end_walk(None, now, now + Duration::from_secs(2));
        assert_eq!(told(&books), None, "it failed");
        let State::Resting { until: Some(until) } = books.state else {
            panic!("{:?}", books.state);
        };
        assert_eq!(until, now + Duration::from_secs(20));
    }
}
