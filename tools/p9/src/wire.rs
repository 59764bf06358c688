//! How 9P2000.L writes its basic types: little-endian integers, counted strings, counted lists.
//!
//! Source: the 9P2000.L protocol notes (diod's `protocol.md`) and Linux `include/net/9p/9p.h`.

use crate::error::{Error, Result};

/// `size[4] type[1] tag[2]`, before each message's own fields.
pub(crate) const HEADER: usize = 7;

/// The server's name of a file: its type, a version that changes with it, and an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Qid {
    /// QTDIR 0x80, QTSYMLINK 0x02, plain file 0.
    pub kind: u8,
    /// Changes when the file does (QEMU: from mtime and size).
    pub version: u32,
    /// Identity on the server (QEMU: from device and inode number).
    pub path: u64,
}

/// A number by which the client names a file to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fid(pub u32);

/// `P9_NOFID`: no file, Tattach's `afid` without authentication.
pub const NO_FID: Fid = Fid(u32::MAX);

/// Bytes counted by four octets: the data of Twrite.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a>(pub &'a [u8]);

/// Bytes counted by four octets: the data of Rread and Rreaddir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// A type that a request may carry.
pub(crate) trait Put {
    fn put(&self, out: &mut Vec<u8>) -> Result<()>;
}

/// A type that a reply may carry.
pub(crate) trait Get: Sized {
    fn get(from: &mut Decoder<'_>) -> Result<Self>;
}

/// A reply's octets that were not read yet.
#[derive(Debug)]
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(|| {
            Error::Protocol(format!("reply ends {} octets early", count - self.0.len()))
        })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }
}

macro_rules! integers {
    ($($int:ty),*) => { $(
        impl Put for $int {
            fn put(&self, out: &mut Vec<u8>) -> Result<()> {
                out.extend_from_slice(&self.to_le_bytes());
                Ok(())
            }
        }
        impl Get for $int {
            fn get(from: &mut Decoder<'_>) -> Result<Self> {
                Ok(<$int>::from_le_bytes(from.array()?))
            }
        }
    )* };
}
integers!(u8, u16, u32, u64);

fn count<T: TryFrom<usize>>(length: usize) -> Result<T> {
    T::try_from(length)
        .map_err(|_| Error::Protocol(format!("{length} items are more than a message can count")))
}

impl Put for Fid {
    fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        self.0.put(out)
    }
}

impl Put for &[u8] {
    fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        count::<u16>(self.len())?.put(out)?;
        out.extend_from_slice(self);
        Ok(())
    }
}

impl Put for &[&[u8]] {
    fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        count::<u16>(self.len())?.put(out)?;
        self.iter().try_for_each(|name| name.put(out))
    }
}

impl Put for Data<'_> {
    fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        count::<u32>(self.0.len())?.put(out)?;
        out.extend_from_slice(self.0);
        Ok(())
    }
}

impl Get for Qid {
    fn get(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            kind: Get::get(from)?,
            version: Get::get(from)?,
            path: Get::get(from)?,
        })
    }
}

impl Get for Vec<u8> {
    fn get(from: &mut Decoder<'_>) -> Result<Self> {
        let length = usize::from(u16::get(from)?);
        Ok(from.take(length)?.to_vec())
    }
}

impl Get for Vec<Qid> {
    fn get(from: &mut Decoder<'_>) -> Result<Self> {
        (0..u16::get(from)?).map(|_| Get::get(from)).collect()
    }
}

impl Get for Payload {
    fn get(from: &mut Decoder<'_>) -> Result<Self> {
        let length = count_back(u32::get(from)?)?;
        Ok(Self(from.take(length)?.to_vec()))
    }
}

fn count_back(length: u32) -> Result<usize> {
    usize::try_from(length)
        .map_err(|_| Error::Protocol(format!("{length} octets do not fit in memory")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_over_64k_is_refused() {
        let long = vec![b'x'; 65_536];
        assert!(long.as_slice().put(&mut Vec::new()).is_err());
    }

    #[test]
    fn names_are_counted_then_listed() {
        let names: &[&[u8]] = &[b"ab", b""];
        let mut out = Vec::new();
        names.put(&mut out).unwrap();
        assert_eq!(out, [2, 0, 2, 0, b'a', b'b', 0, 0]);
    }

    #[test]
    fn reply_cut_short_is_an_error() {
        assert!(Payload::get(&mut Decoder::new(&[9, 0, 0, 0, 1])).is_err());
        assert!(Qid::get(&mut Decoder::new(&[0; 12])).is_err());
    }
}
