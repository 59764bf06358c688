//! What is asked of a 9p server, and how long it takes.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use virtfs_p9::message::{Tgetattr, Tread, Tunlinkat, Twrite};
use virtfs_p9::{Data, Fid, GETATTR_BASIC, Result, Session};

use super::chains::{CreateSmall, ReadSmall, run};
use super::{FILES, Workload};
use crate::mounts::Size;
use crate::task::{Sample, file_name};

/// The workloads, without their depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Getattr,
    WalkOpenReadClunk,
    /// Then, apart, unlink: QEMU 7.2 crashes now and then where the two overlap.
    CreateThenUnlink,
    Read(u32),
    Write(u32),
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Getattr,
        Self::WalkOpenReadClunk,
        Self::CreateThenUnlink,
        Self::Read(4 << 10),
        Self::Write(4 << 10),
        Self::Read(128 << 10),
        Self::Write(128 << 10),
    ];

    /// A title for each sample.
    pub(crate) fn titles(self) -> Vec<String> {
        let kib = |octets: u32| octets >> 10;
        match self {
            Self::Getattr => vec!["getattr".into()],
            Self::WalkOpenReadClunk => vec!["walk+open+read+clunk".into()],
            Self::CreateThenUnlink => vec!["create+write+clunk".into(), "unlink".into()],
            Self::Read(octets) => vec![format!("read {}k", kib(octets))],
            Self::Write(octets) => vec![format!("write {}k", kib(octets))],
        }
    }
}

/// Does it for as long as a measurement takes. The server's errors end it: nothing here may fail.
pub(super) fn perform(
    session: &mut Session,
    home: &Path,
    workload: Workload,
    size: Size,
) -> Result<Vec<Sample>> {
    // Anew: fids of older workloads are forgotten on both sides.
    session.version()?;
    let root = session.attach(0)?;
    let home = session.walk(root, &[home])?;
    let Workload { kind, depth } = workload;
    let work = Work {
        session,
        home,
        depth,
        floor: Duration::from_millis(size.floor_ms),
        large: size.large_9p(),
    };
    match kind {
        Kind::Getattr => work.getattr(),
        Kind::WalkOpenReadClunk => work.walk_open_read_clunk(),
        Kind::CreateThenUnlink => work.create_then_unlink(),
        Kind::Read(octets) => work.read(octets),
        Kind::Write(octets) => work.write(octets),
    }
}

/// True once, and until the time is over; counts how often it said so.
struct Clock {
    start: Instant,
    floor: Duration,
    asked: Cell<usize>,
}

impl Clock {
    fn new(floor: Duration) -> Self {
        Self {
            start: Instant::now(),
            floor,
            asked: Cell::new(0),
        }
    }

    fn goes_on(&self) -> bool {
        let goes_on = self.asked.get() == 0 || self.start.elapsed() < self.floor;
        self.asked.set(self.asked.get() + usize::from(goes_on));
        goes_on
    }

    fn sample(&self) -> Sample {
        sample(self.asked.get(), self.start.elapsed())
    }
}

fn sample(amount: usize, time: Duration) -> Sample {
    Sample {
        part: String::new(),
        amount: amount as f64,
        seconds: time.as_secs_f64(),
    }
}

struct Work<'a> {
    session: &'a mut Session,
    home: Fid,
    depth: usize,
    floor: Duration,
    /// Octets of the large file.
    large: u64,
}

impl Work<'_> {
    fn getattr(self) -> Result<Vec<Sample>> {
        let small = self.session.walk(self.home, &["small"])?;
        let names = (0..FILES).map(file_name);
        let fids: Vec<Fid> = names
            .map(|name| self.session.walk(small, &[name]))
            .collect::<Result<_>>()?;
        let clock = Clock::new(self.floor);
        let requests = fids.iter().cycle().take_while(|_| clock.goes_on());
        let requests = requests.map(|&fid| Tgetattr {
            fid,
            request_mask: GETATTR_BASIC,
        });
        let mut first = None;
        self.session.pipeline(self.depth, requests, |_, reply| {
            keep_error(&mut first, reply)
        })?;
        finish(first, &clock)
    }

    fn walk_open_read_clunk(self) -> Result<Vec<Sample>> {
        let small = self.session.walk(self.home, &["small"])?;
        let names: Vec<_> = (0..FILES).map(file_name).collect();
        let names: Vec<_> = names.iter().map(|name| [name.as_bytes()]).collect();
        let clock = Clock::new(self.floor);
        let chains = names.iter().cycle().take_while(|_| clock.goes_on());
        run(self.session, self.depth, chains, |session, fid, name| {
            ReadSmall::start(session, small, fid, name)
        })?;
        Ok(vec![clock.sample()])
    }

    fn create_then_unlink(self) -> Result<Vec<Sample>> {
        let new = self.session.walk(self.home, &["new"])?;
        // More than any server can make in that time; names are made before the clock starts.
        let names: Vec<_> = (0..60_000).map(file_name).collect();
        let data = vec![b'x'; 4096];
        let clock = Clock::new(self.floor);
        let chains = names
            .iter()
            .take_while(|_| clock.goes_on())
            .map(String::as_bytes);
        run(self.session, self.depth, chains, |session, fid, name| {
            CreateSmall::start(session, new, fid, name, &data)
        })?;
        let created = clock.sample();
        let made = &names[..clock.asked.get()];
        let requests = made.iter().map(|name| Tunlinkat {
            dirfd: new,
            name: name.as_bytes(),
            flags: 0,
        });
        let start = Instant::now();
        let mut first = None;
        self.session.pipeline(self.depth, requests, |_, reply| {
            keep_error(&mut first, reply)
        })?;
        let time = start.elapsed();
        first.map_or(Ok(()), Err)?;
        Ok(vec![created, sample(made.len(), time)])
    }

    fn large(&mut self, flags: OFlags) -> Result<Fid> {
        let fid = self.session.walk(self.home, &["large"])?;
        self.session.lopen(fid, flags.bits())?;
        Ok(fid)
    }

    fn read(mut self, count: u32) -> Result<Vec<Sample>> {
        let fid = self.large(OFlags::RDONLY)?;
        let clock = Clock::new(self.floor);
        let requests = offsets(self.large, count)
            .take_while(|_| clock.goes_on())
            .map(|offset| Tread { fid, offset, count });
        let mut first = None;
        let mut short = 0;
        self.session.pipeline(self.depth, requests, |_, reply| {
            if let Ok(reply) = &reply {
                short += usize::from(reply.data.0.len() != count as usize);
            }
            keep_error(&mut first, reply);
        })?;
        if short > 0 {
            return Err(virtfs_p9::Error::Protocol(format!("{short} short reads")));
        }
        finish(first, &clock)
    }

    fn write(mut self, count: u32) -> Result<Vec<Sample>> {
        let fid = self.large(OFlags::RDWR)?;
        let data = vec![b'w'; count as usize];
        let clock = Clock::new(self.floor);
        let requests = offsets(self.large, count)
            .take_while(|_| clock.goes_on())
            .map(|offset| Twrite {
                fid,
                offset,
                data: Data(&data),
            });
        let mut first = None;
        self.session.pipeline(self.depth, requests, |_, reply| {
            keep_error(&mut first, reply)
        })?;
        let samples = finish(first, &clock)?;
        // What is dirty now should not be written in another one's time.
        self.session.fsync(fid)?;
        Ok(samples)
    }
}

/// Offsets in the large file, one after the other, again and again.
fn offsets(large: u64, count: u32) -> impl Iterator<Item = u64> {
    let count = u64::from(count);
    (0..large / count).cycle().map(move |block| block * count)
}

fn keep_error<T>(first: &mut Option<virtfs_p9::Error>, reply: Result<T>) {
    if let Err(error) = reply {
        first.get_or_insert(error);
    }
}

fn finish(first: Option<virtfs_p9::Error>, clock: &Clock) -> Result<Vec<Sample>> {
    let sample = clock.sample();
    first.map_or(Ok(vec![sample]), Err)
}
