//! Takes a fuzzer's bytes apart.
//!
//! Every piece is of few bytes at a fixed place after what came before it, so that a mutation of
//! one byte changes one choice, and no piece is ever refused: where the input ends, zeros follow.

/// Values at which arithmetic tends to go wrong.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    7,
    255,
    256,
    511,
    512,
    4095,
    4096,
    65_535,
    65_536,
    (1 << 20) - 1,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    i64::MAX as u64 - 4095,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// What is left of an input.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// One byte as a choice among `count` things.
    pub fn choose(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    /// A choice among things.
    ///
    /// # Panics
    ///
    /// If there is nothing to choose from.
    pub fn of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.choose(things.len())]
    }

    /// At most `most` bytes: one byte tells how many.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let asked = usize::from(self.byte()).min(most).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(asked);
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A number: mostly small, often at an edge, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => u64::from(small),
            255 => self.raw_u64(),
            edge => EDGES[usize::from(edge - 128) % EDGES.len()],
        }
    }

    /// The low half of a number.
    pub fn number32(&mut self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
        let low = self.number() as u32;
        low
    }

    /// Eight bytes as they are.
    pub fn raw_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_zeros_follow_the_end() {
        let mut input = Input::new(&[5, 128, 255, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9, 9, 9]);
        assert_eq!(input.number(), 5);
        assert_eq!(input.number(), 0);
        assert_eq!(input.number(), 0x0807_0605_0403_0201);
        assert_eq!(input.bytes(10), [9, 9]);
        assert_eq!(input.byte(), 9);
        assert!(input.is_empty());
        assert_eq!((input.byte(), input.raw_u64()), (0, 0));
    }
}
