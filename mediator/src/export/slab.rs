//! Where known inodes are kept: records of one size in chunks, which give their memory back when no
//! record is left in them. A slot is a record's number as long as it lives, and then another's.

use std::collections::HashMap;
use std::hash::Hash;

use super::descriptor::NONE;
use super::node::Record;

/// Records in a chunk.
pub(super) const CHUNK: usize = 1024;
/// So many records less are worth a walk through the allocator's free memory: 2 MB.
const WORTH_GIVING: usize = 16 * 1024;

/// All records.
#[derive(Default)]
pub(super) struct Slab {
    chunks: Vec<Chunk>,
    /// Chunks with room for another record, by number.
    roomy: Vec<u32>,
    len: usize,
    /// The most records there were since memory was last given back.
    peak: usize,
}

#[derive(Default)]
struct Chunk {
    records: Vec<Record>,
    used: usize,
    /// The first free record of `records`, which names the next by its `parent`.
    free: Option<u32>,
}

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn at(&self, slot: u32) -> &Record {
        &self.chunks[slot as usize / CHUNK].records[slot as usize % CHUNK]
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.chunks[slot as usize / CHUNK].records[slot as usize % CHUNK]
    }

    pub(super) fn is_used(&self, slot: u32) -> bool {
        let chunk = self.chunks.get(slot as usize / CHUNK);
        let record = chunk.and_then(|chunk| chunk.records.get(slot as usize % CHUNK));
        record.is_some_and(|record| record.id != 0)
    }

    /// The record's slot.
    pub(super) fn push(&mut self, record: Record) -> u32 {
        self.len += 1;
        self.peak = self.peak.max(self.len);
        let number = match self.roomy.last() {
            Some(number) => *number,
            None => {
                self.chunks.push(Chunk::default());
                // 2^32 records are 400 GB: memory ends before the numbers do.
                let number = u32::try_from(self.chunks.len() - 1).unwrap_or(NONE);
                self.roomy.push(number);
                number
            }
        };
        let chunk = &mut self.chunks[number as usize];
        let place = chunk.put(record);
        if chunk.is_full() {
            self.roomy.pop();
        }
        u32::try_from(number as usize * CHUNK + place).unwrap_or(NONE)
    }

    /// The slot is free; a chunk without any record gives its memory back.
    pub(super) fn vacate(&mut self, slot: u32) {
        let number = slot as usize / CHUNK;
        let chunk = &mut self.chunks[number];
        let was_full = chunk.is_full();
        chunk.take(slot as usize % CHUNK);
        if was_full {
            self.roomy.push(u32::try_from(number).unwrap_or(NONE));
        }
        self.len -= 1;
    }

    /// Whether half of many records went since this was true last.
    pub(super) fn gave_up_much(&mut self) -> bool {
        let much = self.peak - self.len >= WORTH_GIVING && self.len <= self.peak / 2;
        if much {
            self.peak = self.len;
        }
        much
    }

    /// How many records there is memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks
            .iter()
            .map(|chunk| chunk.records.capacity())
            .sum()
    }
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.used == CHUNK
    }

    /// Where it was put. There must be room.
    fn put(&mut self, record: Record) -> usize {
        self.used += 1;
        if let Some(place) = self.free {
            let place = place as usize;
            let next = self.records[place].parent;
            self.free = (next != NONE).then_some(next);
            self.records[place] = record;
            return place;
        }
        if self.records.is_empty() {
            self.records.reserve_exact(CHUNK);
        }
        self.records.push(record);
        self.records.len() - 1
    }

    fn take(&mut self, place: usize) {
        self.used -= 1;
        if self.used == 0 {
            *self = Self::default();
            return;
        }
        let record = &mut self.records[place];
        record.id = 0;
        record.parent = self.free.unwrap_or(NONE);
        self.free = u32::try_from(place).ok();
    }
}

/// A table that is mostly empty is made smaller, to twice of what is in it.
pub(super) fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > CHUNK && table.len() < table.capacity() / 4 {
        table.shrink_to(table.len() * 2);
    }
}
