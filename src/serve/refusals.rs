//! What is told of refusals: each, but of one user's flood only a few and their number.

use std::time::{Duration, Instant};

use crate::serve::asker::Asker;

/// For how long one user's refusals are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// How many of them are told one by one.
const TOLD: u32 = 20;
/// How many users are told apart at once.
const USERS: usize = 64;

/// Refusals by user.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<Window>);

#[derive(Debug)]
struct Window {
    uid: u32,
    since: Instant,
    count: u32,
}

impl Refusals {
    /// Tells of one.
    pub(crate) fn tell(&mut self, who: Asker, why: &str) {
        if self.counts(who.uid, Instant::now()) {
            tracing::warn!("refused: {who}: {why}");
        }
    }

    /// Counts one; tells whether it is told by itself.
    fn counts(&mut self, uid: u32, now: Instant) -> bool {
        self.sum_up(now);
        let at = self.0.iter().position(|window| window.uid == uid);
        let window = match at.and_then(|at| self.0.get_mut(at)) {
            Some(window) => window,
            None => {
                if self.0.len() >= USERS {
                    self.0.remove(0).tell();
                }
                self.0.push(Window {
                    uid,
                    since: now,
                    count: 0,
                });
                match self.0.last_mut() {
                    Some(window) => window,
                    None => return true,
                }
            }
        };
        window.count = window.count.saturating_add(1);
        window.count <= TOLD
    }

    /// Tells the number of those that were not told, once their time is over.
    pub(crate) fn sum_up(&mut self, now: Instant) {
        let over = |window: &Window| now.duration_since(window.since) >= WINDOW;
        for window in self.0.iter().filter(|window| over(window)) {
            window.tell();
        }
        self.0.retain(|window| !over(window));
    }

    /// When that is to be done next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|window| window.since + WINDOW).min()
    }
}

impl Window {
    fn tell(&self) {
        if let Some(more @ 1..) = self.count.checked_sub(TOLD) {
            tracing::warn!("refused: {more} more of uid {}", self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_one_user_hides_nobody_else() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let told = (0..2000).filter(|_| refusals.counts(1, now)).count();
        assert_eq!(told, usize::try_from(TOLD).unwrap());
        assert!(refusals.counts(2, now));
        assert_eq!(refusals.0[0].count, 2000);
        refusals.sum_up(now + WINDOW);
        assert!(refusals.0.is_empty() && refusals.next().is_none());
        assert!(refusals.counts(1, now + WINDOW));
        for uid in 0..1000 {
            assert!(refusals.counts(10_000 + uid, now + WINDOW));
        }
        assert_eq!(refusals.0.len(), USERS);
    }
}
