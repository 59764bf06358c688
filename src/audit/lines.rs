//! A stream of bytes that anybody may have written, as records: bounded in length and in number.

use std::time::{Duration, Instant};

use virtfs_mediator_core::mediate::{AUDIT_LINE_MAX, AuditLine};

/// Splits a stream into lines and keeps of it no more than one record's length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// The line was longer than a record can be; the rest of it is passed over.
    too_long: bool,
}

impl Lines {
    /// Takes what was read; calls `each` with every line that ended in it, `None` for one that is
    /// no record.
    pub(super) fn take(&mut self, mut piece: &[u8], mut each: impl FnMut(Option<AuditLine>)) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            self.hold(line);
            let whole = !std::mem::take(&mut self.too_long);
            let record = AuditLine::parse(&self.held).ok().filter(|_| whole);
            self.held.clear();
            each(record);
            piece = rest.get(1..).unwrap_or_default();
        }
        self.hold(piece);
    }

    fn hold(&mut self, piece: &[u8]) {
        if self.too_long || self.held.len() + piece.len() >= AUDIT_LINE_MAX {
            self.held.clear();
            self.too_long = true;
        } else {
            self.held.extend_from_slice(piece);
        }
    }
}

/// How many records a view may have kept: what a guest does to be refused costs nothing, and must
/// not fill the host's disk at the speed of memory.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    /// At once, after it was quiet for a while; besides, a thousand each second.
    pub(super) const BURST: u32 = 10_000;
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: Self::BURST,
            since: now,
        }
    }

    /// Whether one more may be kept.
    pub(super) fn takes(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        // A millisecond earns one.
        match u32::try_from(passed.as_millis()) {
            Ok(earned) if earned < Self::BURST => {
                self.left = self.left.saturating_add(earned).min(Self::BURST);
                self.since += Duration::from_millis(earned.into());
            }
            Ok(_) | Err(_) => {
                self.left = Self::BURST;
                self.since = now;
            }
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pieces: &[&[u8]]) -> Vec<Option<u64>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.take(piece, |line| found.push(line.and_then(|line| line.records)));
            assert!(lines.held.len() < AUDIT_LINE_MAX);
        }
        found
    }

    #[test]
    fn records_are_found_wherever_the_stream_was_cut() {
        let text =
            b"{\"event\":\"dropped\",\"records\":1}\n{\"event\":\"dropped\",\"records\":2}\n";
        for at in 0..text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(taken(&[one, other]), [Some(1), Some(2)], "cut at {at}");
        }
    }

    #[test]
    fn garbage_is_told_by_the_line_and_ends_with_it() {
        let good = b"{\"event\":\"dropped\",\"records\":1}\n";
        let long = vec![b'x'; 3 * AUDIT_LINE_MAX];
        let found = taken(&[b"\n\x1b[2J\n", &long, b"\n", good, b"not ended"]);
        assert_eq!(found, [None, None, None, Some(1)]);
        // One that would be a record but for its length.
        let padded = format!("{{\"event\":\"dropped\",{:40000}\"records\":1}}\n", "");
        assert_eq!(taken(&[padded.as_bytes(), good]), [None, Some(1)]);
    }

    #[test]
    fn allowance_is_spent_and_earned_again() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let spend = |allowance: &mut Allowance, now| {
            let asked = 2 * Allowance::BURST;
            (0..asked).filter(|_| allowance.takes(now)).count()
        };
        let burst = usize::try_from(Allowance::BURST).unwrap();
        assert_eq!(spend(&mut allowance, start), burst);
        let soon = start + Duration::from_millis(1500);
        assert_eq!(spend(&mut allowance, soon), 1500);
        let late = start + Duration::from_secs(3600);
        assert_eq!(spend(&mut allowance, late), burst);
        // Asked all the time, it earns what it earns when asked seldom.
        let mut kept = 0;
        for step in 0..10_000_u64 {
            let now = late + Duration::from_micros(300 * step);
            kept += usize::from(allowance.takes(now));
        }
        assert!((2_900..=3_000).contains(&kept), "{kept}");
        // A long sleep never overflows.
        let later = late + Duration::from_secs(u64::from(u32::MAX) * 10);
        assert_eq!(spend(&mut allowance, later), burst);
    }
}
