//! Chains of requests, each request waiting for the one before it, many chains in flight at once.

use std::collections::HashMap;

use rustix::fs::OFlags;
use virtfs_p9::message::{Tclunk, Tlcreate, Tlopen, Tread, Twalk, Twrite};
use virtfs_p9::{Data, Error, Fid, Result, Session, Ticket};

/// One chain: which request of it is in flight.
pub(super) trait Chain: Sized {
    /// The tag of what is in flight.
    fn tag(&self) -> u16;
    /// Finishes what is in flight, which is done, and submits what follows; none at the end.
    fn next(self, session: &mut Session) -> Result<Option<Self>>;
}

/// Keeps `depth` chains in flight until all that `items` yields are done; each works with a fid
/// that no other chain has at the time. A server's error ends it.
pub(super) fn run<T, C: Chain>(
    session: &mut Session,
    depth: usize,
    mut items: impl Iterator<Item = T>,
    start: impl Fn(&mut Session, Fid, T) -> Result<C>,
) -> Result<()> {
    let mut idle: Vec<Fid> = (0..depth).map(|_| session.new_fid()).collect();
    let mut flying: HashMap<u16, (Fid, C)> = HashMap::new();
    loop {
        while let Some(fid) = idle.pop() {
            let Some(item) = items.next() else { break };
            let chain = start(session, fid, item)?;
            flying.insert(chain.tag(), (fid, chain));
        }
        if flying.is_empty() {
            return Ok(());
        }
        let tag = session.next_done()?;
        let (fid, chain) = flying
            .remove(&tag)
            .ok_or_else(|| Error::Protocol("an older request was left unfinished".to_owned()))?;
        match chain.next(session)? {
            Some(chain) => {
                flying.insert(chain.tag(), (fid, chain));
            }
            None => idle.push(fid),
        }
    }
}

/// Reads a small file of one directory.
pub(super) enum ReadSmall<'a> {
    Walk(Fid, Ticket<Twalk<'a>>),
    Open(Fid, Ticket<Tlopen>),
    Read(Fid, Ticket<Tread>),
    Clunk(Ticket<Tclunk>),
}

impl<'a> ReadSmall<'a> {
    pub(super) fn start(
        session: &mut Session,
        directory: Fid,
        newfid: Fid,
        name: &'a [&'a [u8]],
    ) -> Result<Self> {
        let walk = session.submit(&Twalk {
            fid: directory,
            newfid,
            wnames: name,
        })?;
        Ok(Self::Walk(newfid, walk))
    }
}

impl Chain for ReadSmall<'_> {
    fn tag(&self) -> u16 {
        match self {
            Self::Walk(_, ticket) => ticket.tag(),
            Self::Open(_, ticket) => ticket.tag(),
            Self::Read(_, ticket) => ticket.tag(),
            Self::Clunk(ticket) => ticket.tag(),
        }
    }

    fn next(self, session: &mut Session) -> Result<Option<Self>> {
        let next = match self {
            Self::Walk(fid, ticket) => {
                if session.finish(ticket)?.qids.len() != 1 {
                    return Err(Error::PartialWalk {
                        reached: 0,
                        wanted: 1,
                    });
                }
                let flags = OFlags::RDONLY.bits();
                Self::Open(fid, session.submit(&Tlopen { fid, flags })?)
            }
            Self::Open(fid, ticket) => {
                session.finish(ticket)?;
                let (offset, count) = (0, 4096);
                Self::Read(fid, session.submit(&Tread { fid, offset, count })?)
            }
            Self::Read(fid, ticket) => {
                let length = session.finish(ticket)?.data.0.len();
                if length != 4096 {
                    return Err(Error::Protocol(format!("read {length} octets of 4096")));
                }
                Self::Clunk(session.submit(&Tclunk { fid })?)
            }
            Self::Clunk(ticket) => {
                session.finish(ticket)?;
                return Ok(None);
            }
        };
        Ok(Some(next))
    }
}

/// Makes a file with some octets: a copy of the directory's fid becomes the open file.
pub(super) struct CreateSmall<'a> {
    fid: Fid,
    name: &'a [u8],
    data: &'a [u8],
    state: Creating<'a>,
}

enum Creating<'a> {
    Walk(Ticket<Twalk<'a>>),
    Create(Ticket<Tlcreate<'a>>),
    Write(Ticket<Twrite<'a>>),
    Clunk(Ticket<Tclunk>),
}

impl<'a> CreateSmall<'a> {
    pub(super) fn start(
        session: &mut Session,
        directory: Fid,
        fid: Fid,
        name: &'a [u8],
        data: &'a [u8],
    ) -> Result<Self> {
        let walk = session.submit(&Twalk {
            fid: directory,
            newfid: fid,
            wnames: &[],
        })?;
        Ok(Self {
            fid,
            name,
            data,
            state: Creating::Walk(walk),
        })
    }
}

impl Chain for CreateSmall<'_> {
    fn tag(&self) -> u16 {
        match &self.state {
            Creating::Walk(ticket) => ticket.tag(),
            Creating::Create(ticket) => ticket.tag(),
            Creating::Write(ticket) => ticket.tag(),
            Creating::Clunk(ticket) => ticket.tag(),
        }
    }

    fn next(self, session: &mut Session) -> Result<Option<Self>> {
        let Self {
            fid,
            name,
            data,
            state,
        } = self;
        let state = match state {
            Creating::Walk(ticket) => {
                session.finish(ticket)?;
                let flags = (OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).bits();
                Creating::Create(session.submit(&Tlcreate {
                    fid,
                    name,
                    flags,
                    mode: 0o640,
                    gid: 0,
                })?)
            }
            Creating::Create(ticket) => {
                session.finish(ticket)?;
                Creating::Write(session.submit(&Twrite {
                    fid,
                    offset: 0,
                    data: Data(data),
                })?)
            }
            Creating::Write(ticket) => {
                session.finish(ticket)?;
                Creating::Clunk(session.submit(&Tclunk { fid })?)
            }
            Creating::Clunk(ticket) => {
                session.finish(ticket)?;
                return Ok(None);
            }
        };
        Ok(Some(Self {
            fid,
            name,
            data,
            state,
        }))
    }
}
