//! Reading a recording, whoever wrote it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;
use serde::de::DeserializeOwned;

use super::entry::{Entry, Meta, Outcome};
use super::{FRAME_MAX, MAGIC, PACKED_MAX, Tag};
use crate::policy::Request;

/// Why a file is no recording, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It begins otherwise.
    #[error("it is no recording: it begins otherwise")]
    NoRecording,
    /// It was written by a program whose requests look otherwise.
    #[error("it is a recording of another version of the program")]
    OtherVersion,
    /// It holds what no recorder writes.
    #[error("it is damaged in frame {frame}: {what}")]
    Damaged {
        /// Which frame, from 1.
        frame: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its recorder ended it.
    Whole {
        /// Requests that the recorder left out: they had too many names.
        left_out: u64,
    },
    /// In the middle: the recorder was killed, or the disk was full.
    CutOff,
}

/// Reads a recording entry by entry; holds one frame in memory, 1 MiB unpacked. After an error
/// there is nothing more.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    meta: Meta,
    /// Entries of the current frame that are still to come.
    frame: Vec<u8>,
    at: usize,
    frames: u64,
    ending: Option<Ending>,
    failed: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a recording.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    /// Reads a recording's beginning.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is none.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            input,
            meta: Meta::default(),
            frame: Vec::new(),
            at: 0,
            frames: 0,
            ending: None,
            failed: false,
        };
        let mut magic = [0; MAGIC.len()];
        let [name @ .., _version] = MAGIC;
        if reader.fill(&mut magic)? < magic.len() || !magic.starts_with(&name) {
            return Err(ReadError::NoRecording);
        }
        if magic != MAGIC {
            return Err(ReadError::OtherVersion);
        }
        match reader.next_frame()? {
            Some(Tag::Meta) => {
                reader.meta = reader.decode()?;
                if reader.at < reader.frame.len() {
                    return Err(reader.damaged("the first frame says more than of what it is"));
                }
            }
            Some(Tag::Entries | Tag::End) => {
                return Err(reader.damaged("the first frame does not say of what it is"));
            }
            None => {}
        }
        Ok(reader)
    }

    /// What the recording is of. Nothing in it is trusted: escape it.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// How it ended; `None` until the last entry was handed out.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged {
            frame: self.frames,
            what,
        }
    }

    /// Reads until `buffer` is full or nothing comes.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Reads and unpacks a frame; `None`, and the ending is known, if the file ends before it does.
    fn next_frame(&mut self) -> Result<Option<Tag>, ReadError> {
        self.frames = self.frames.saturating_add(1);
        self.frame.clear();
        self.at = 0;
        let mut lengths = [0; 8];
        if self.fill(&mut lengths)? < lengths.len() {
            self.ending = Some(Ending::CutOff);
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = lengths;
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (packed_len, len) = (size([a, b, c, d]), size([e, f, g, h]));
        if packed_len > PACKED_MAX || len > FRAME_MAX || len == 0 {
            return Err(self.damaged("its length is none that is written"));
        }
        let mut packed = vec![0; packed_len];
        if self.fill(&mut packed)? < packed_len {
            self.ending = Some(Ending::CutOff);
            return Ok(None);
        }
        // One byte more than is told, so that more is noticed; never all of what a bomb holds.
        let bound = u64::try_from(len).unwrap_or(u64::MAX).saturating_add(1);
        let mut unpacker = ZlibDecoder::new(packed.as_slice()).take(bound);
        let unpacked = unpacker.read_to_end(&mut self.frame);
        if unpacked.is_err() || self.frame.len() != len {
            return Err(self.damaged("it does not unpack to what it should"));
        }
        let tag = self.frame.first().copied();
        self.at = 1;
        [Tag::Meta, Tag::Entries, Tag::End]
            .into_iter()
            .find(|known| Some(*known as u8) == tag)
            .map(Some)
            .ok_or_else(|| self.damaged("it says of nothing known what it is"))
    }

    /// Decodes the next value of the frame.
    fn decode<T: DeserializeOwned>(&mut self) -> Result<T, ReadError> {
        let rest = self.frame.get(self.at..).unwrap_or_default();
        match postcard::take_from_bytes(rest) {
            Ok((value, after)) => {
                self.at = self.frame.len() - after.len();
                Ok(value)
            }
            Err(_undecodable) => Err(self.damaged("it holds bytes that mean nothing")),
        }
    }

    fn read(&mut self) -> Result<Option<Entry>, ReadError> {
        while self.at >= self.frame.len() {
            if self.ending.is_some() {
                return Ok(None);
            }
            match self.next_frame()? {
                None => return Ok(None),
                Some(Tag::Entries) => {}
                Some(Tag::End) => {
                    let (_requests, left_out): (u64, u64) = self.decode()?;
                    self.ending = Some(Ending::Whole { left_out });
                    self.frame.clear();
                    return Ok(None);
                }
                Some(Tag::Meta) => return Err(self.damaged("it says a second time of what it is")),
            }
        }
        let (at, count): (u64, u64) = self.decode()?;
        let (request, outcome): (Request, Outcome) = self.decode()?;
        let entry = Entry {
            at,
            count,
            request,
            outcome,
        };
        match entry.fault() {
            None => Ok(Some(entry)),
            Some(what) => Err(self.damaged(what)),
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        read.transpose()
    }
}
