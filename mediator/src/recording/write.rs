//! Writing a recording.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use super::entry::{Entry, Meta, Outcome};
use super::{FRAME_MAX, MAGIC, Tag};
use crate::policy::{Request, Requester};

/// A frame is written when so many bytes wait...
const WINDOW: usize = 256 << 10;
/// ...or when it began so long ago, in milliseconds: what a killed recorder loses.
const WINDOW_AGE: u64 = 5_000;

/// Writes a recording, frame by frame. Needs memory for one frame, about 512 KiB.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    out: W,
    /// Where in `waiting` a request is, by its bytes.
    known: HashMap<Vec<u8>, usize>,
    /// In the order in which they first came.
    waiting: Vec<Waiting>,
    /// Bytes of all that waits.
    size: usize,
    summary: Summary,
}

#[derive(Debug)]
struct Waiting {
    at: u64,
    count: u64,
    /// Request and outcome.
    bytes: Vec<u8>,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests, those left out included.
    pub requests: u64,
    /// Entries in the file: requests that are alike share one.
    pub entries: u64,
    /// Requests with more names than fit a frame; they are not in the file.
    pub left_out: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Recorder<File> {
    /// Begins a recording in a new file that its owner alone can read.
    ///
    /// # Errors
    ///
    /// EEXIST if there is something already, a symbolic link included: what a recording would
    /// overwrite is nothing to guess about. Else what open(2) and write(2) say.
    pub fn create(path: &Path, meta: &Meta) -> io::Result<Self> {
        let mut how = OpenOptions::new();
        let file = how.write(true).create_new(true).mode(0o600).open(path)?;
        Self::new(file, meta)
    }
}

impl<W: Write> Recorder<W> {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn new(out: W, meta: &Meta) -> io::Result<Self> {
        let mut recorder = Self {
            out,
            known: HashMap::new(),
            waiting: Vec::new(),
            size: 0,
            summary: Summary::default(),
        };
        recorder.put(&MAGIC)?;
        let meta = encode(meta)?;
        recorder.frame(Tag::Meta, &meta)?;
        Ok(recorder)
    }

    /// Records a request. It reaches `out` with its frame: see [`Recorder::flush`].
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.summary.requests = self.summary.requests.saturating_add(entry.count);
        let bytes = key(&entry.request, entry.outcome)?;
        // Tag, and two numbers of at most ten bytes each.
        if bytes.len() > FRAME_MAX - 32 {
            self.summary.left_out = self.summary.left_out.saturating_add(entry.count);
            return Ok(());
        }
        let old = self
            .waiting
            .first()
            .is_some_and(|first| entry.at.saturating_sub(first.at) >= WINDOW_AGE);
        if old || self.size + bytes.len() > WINDOW {
            self.flush()?;
        }
        let known = self.known.get(&bytes).copied();
        if let Some(waiting) = known.and_then(|at| self.waiting.get_mut(at)) {
            waiting.count = waiting.count.saturating_add(entry.count);
            return Ok(());
        }
        self.size += bytes.len() + 20;
        self.known.insert(bytes.clone(), self.waiting.len());
        self.waiting.push(Waiting {
            at: entry.at,
            count: entry.count,
            bytes,
        });
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.known.clear();
        self.size = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return self.out.flush();
        }
        self.summary.entries += waiting.len() as u64;
        let mut raw = Vec::new();
        for Waiting { at, count, bytes } in waiting {
            raw.extend(encode(&(at, count))?);
            raw.extend(bytes);
        }
        self.frame(Tag::Entries, &raw)?;
        self.out.flush()
    }

    /// Writes what waits and the end.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<Summary> {
        self.flush()?;
        let end = encode(&(self.summary.requests, self.summary.left_out))?;
        self.frame(Tag::End, &end)?;
        self.out.flush()?;
        Ok(self.summary)
    }

    fn frame(&mut self, tag: Tag, body: &[u8]) -> io::Result<()> {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&[tag as u8])?;
        packer.write_all(body)?;
        let packed = packer.finish()?;
        let lengths = [packed.len(), body.len() + 1];
        for length in lengths {
            // Not reached: a frame is far smaller.
            let length = u32::try_from(length).map_err(io::Error::other)?;
            self.put(&length.to_le_bytes())?;
        }
        self.put(&packed)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.summary.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// What makes two requests alike: all but when they came and from which thread.
fn key(request: &Request, outcome: Outcome) -> io::Result<Vec<u8>> {
    let requester = Requester {
        pid: 0,
        ..request.requester
    };
    let request = Request {
        requester,
        ..request.clone()
    };
    encode(&(&request, outcome))
}

fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}
