//! Buffers that a worker thread uses again for every request, so that the hot path allocates
//! nothing.

use std::cell::Cell;

/// Paths of one decision.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) first: Vec<u8>,
    pub(super) second: Vec<u8>,
}

/// Larger buffers are not kept: one request must not pin memory for good. 1 MiB is the largest
/// read that is negotiated.
const KEPT: usize = 1 << 20;

thread_local! {
    static PATHS: Cell<Scratch> = Cell::default();
    static DATA: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's path buffers. A nested call gets fresh ones instead of a panic.
pub(super) fn with_paths<T>(body: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = PATHS.take();
    scratch.first.clear();
    scratch.second.clear();
    let result = body(&mut scratch);
    PATHS.set(scratch);
    result
}

/// Lends a buffer of `len` bytes with arbitrary content.
pub(super) fn with_data<T>(len: usize, body: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut data = DATA.take();
    if data.len() < len {
        data.resize(len, 0);
    }
    let result = body(data.get_mut(..len).unwrap_or_default());
    data.truncate(KEPT);
    DATA.set(data);
    result
}

/// Appends one component to a directory's path.
pub(super) fn join(path: &mut Vec<u8>, name: &[u8]) {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_at_the_root_and_below_gives_one_slash() {
        let mut path = b"/".to_vec();
        join(&mut path, b"a");
        join(&mut path, b"b\xff");
        assert_eq!(path, b"/a/b\xff");
    }

    #[test]
    fn buffers_lent_twice_at_once_are_distinct() {
        with_paths(|outer| {
            outer.first.extend_from_slice(b"outer");
            with_paths(|inner| assert!(inner.first.is_empty()));
            assert_eq!(outer.first, b"outer");
        });
    }
}
