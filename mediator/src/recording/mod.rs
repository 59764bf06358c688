//! Requests and how they were answered, in a file: what `replay` and `suggest` read.
//!
//! A recording is untrusted: what is in it came through a mediator, which may be broken into, and
//! from a guest. Reading one takes bounded memory, checks every path and ends at the first thing
//! that cannot be; it never panics. Whoever prints names out of it must escape them.
//!
//! The file: [`MAGIC`], then frames, each a length of what follows and a length unpacked (both 32
//! bits, little endian) and a zlib stream. Unpacked, a frame is a tag and, in postcard: the
//! [`Meta`] (the first frame), entries (any number of frames), or how many there are (the last).
//! Requests that are alike are written once in a frame, with their number. A file whose end is
//! missing is read as far as it goes.

mod entry;
mod read;
pub mod suggest;
mod write;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Meta, Outcome};
pub use read::{Ending, ReadError, Reader};
pub use write::{Recorder, Summary};

/// How a recording begins; the digit is the version of all that follows, [`crate::policy::Request`]
/// included.
pub const MAGIC: [u8; 8] = *b"vmrec\x1a\n1";

/// The most bytes of a frame, unpacked.
const FRAME_MAX: usize = 1 << 20;
/// The most bytes of a frame as it is in the file: what deflate cannot make smaller it makes little
/// larger.
const PACKED_MAX: usize = FRAME_MAX + FRAME_MAX / 64;

/// What a frame holds: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    Meta = 0,
    Entries = 1,
    End = 2,
}
