//! Requests to one 9p device: submitted up to 128 at a time, finished in any order.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::machine::Shared;
use crate::message::{Request, Tversion, decode, encode};
use crate::virtio::{Queue, RING_SIZE, Slot};
use crate::wire::Fid;

/// The dialect, Linux's.
const VERSION: &[u8] = b"9P2000.L";
/// Tversion's own tag.
const NO_TAG: u16 = u16::MAX;

/// A request in flight. Finish it: its place in the ring is taken until then.
#[derive(Debug)]
#[must_use = "a request that is not finished keeps its place in the ring"]
pub struct Ticket<R> {
    slot: Slot,
    request: PhantomData<R>,
}

impl<R> Ticket<R> {
    /// The request's tag, for Tflush and to match [`Session::next_done`].
    #[must_use]
    pub fn tag(&self) -> u16 {
        self.slot.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    InFlight,
    Done(u32),
}

/// A conversation with one 9p device, its fids and its requests in flight.
#[derive(Debug)]
pub struct Session {
    shared: Rc<Shared>,
    queue: Queue,
    states: Vec<State>,
    free: Vec<Slot>,
    /// Done and not finished, in the order they were done.
    done: VecDeque<Slot>,
    buffer: Vec<u8>,
    msize: u32,
    next_fid: u32,
    /// The root as each of the guest's users sees it, by uid.
    pub(crate) roots: HashMap<u32, Fid>,
}

impl Session {
    pub(crate) fn open(shared: Rc<Shared>, queue: Queue) -> Result<Self> {
        let mut session = Self {
            shared,
            msize: queue.msize(),
            queue,
            states: vec![State::Free; usize::from(RING_SIZE)],
            free: (0..RING_SIZE).rev().map(Slot).collect(),
            done: VecDeque::new(),
            buffer: Vec::new(),
            next_fid: 0,
            roots: HashMap::new(),
        };
        session.version()?;
        Ok(session)
    }

    /// Starts anew: all fids are forgotten on both sides. Returns the message size agreed on, in octets.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the server does not speak 9P2000.L.
    pub fn version(&mut self) -> Result<u32> {
        self.roots.clear();
        let proposal = Tversion {
            msize: self.queue.msize(),
            version: VERSION,
        };
        let ticket = self.submit_tagged(&proposal, NO_TAG)?;
        let slot = self.wait_for(ticket.slot)?;
        let reply = self.take_reply::<Tversion<'_>>(slot, NO_TAG)?;
        if reply.version != VERSION || reply.msize > proposal.msize {
            return Err(Error::Protocol(format!(
                "the server answered {reply:?} to 9P2000.L"
            )));
        }
        self.msize = reply.msize;
        Ok(reply.msize)
    }

    /// The message size agreed on, in octets, headers included.
    #[must_use]
    pub fn msize(&self) -> u32 {
        self.msize
    }

    /// A fid that is in use nowhere.
    pub fn new_fid(&mut self) -> Fid {
        let fid = Fid(self.next_fid);
        // P9_NOFID is never reached: it would take 4 billion fids.
        self.next_fid = self.next_fid.wrapping_add(1);
        fid
    }

    /// Requests that are in flight or wait to be finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::from(RING_SIZE) - self.free.len()
    }

    /// Puts a request into the ring. The device is told by [`Session::kick`] or by whatever waits next.
    ///
    /// # Errors
    /// [`Error::Full`] with 128 in flight; [`Error::Protocol`] for a request larger than msize.
    pub fn submit<R: Request>(&mut self, request: &R) -> Result<Ticket<R>> {
        let tag = self.free.last().ok_or(Error::Full)?.0;
        self.submit_tagged(request, tag)
    }

    fn submit_tagged<R: Request>(&mut self, request: &R, tag: u16) -> Result<Ticket<R>> {
        let slot = *self.free.last().ok_or(Error::Full)?;
        encode(request, tag, &mut self.buffer)?;
        self.queue.offer(slot, &self.buffer)?;
        self.free.pop();
        self.states[usize::from(slot.0)] = State::InFlight;
        Ok(Ticket {
            slot,
            request: PhantomData,
        })
    }

    /// Tells the device of what was submitted.
    ///
    /// # Errors
    /// Any fault of the transport.
    pub fn kick(&mut self) -> Result<()> {
        let mut qtest = self.shared.qtest.borrow_mut();
        let rung = self
            .shared
            .lower_with_next(&mut qtest)
            .and_then(|()| self.queue.ring(&mut qtest));
        drop(qtest);
        rung.map_err(|error| self.shared.explain(error))
    }

    /// Waits for that request and returns its reply.
    ///
    /// # Errors
    /// [`Error::Remote`] with the server's errno, [`Error::Flushed`], any fault of the transport.
    pub fn finish<R: Request>(&mut self, ticket: Ticket<R>) -> Result<R::Reply> {
        let tag = ticket.tag();
        let slot = self.wait_for(ticket.slot)?;
        self.take_reply::<R>(slot, tag)
    }

    /// Waits until some request is done and returns its tag: finishing it will not wait.
    ///
    /// # Errors
    /// [`Error::Protocol`] if nothing is in flight; any fault of the transport.
    pub fn next_done(&mut self) -> Result<u16> {
        if self.in_flight() == 0 {
            return Err(Error::Protocol("nothing is in flight".to_owned()));
        }
        self.wait_until(|session| session.done.front().copied())
            .map(|slot| slot.0)
    }

    /// Submits a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Reply> {
        let ticket = self.submit(request)?;
        self.finish(ticket)
    }

    /// Keeps up to `depth` requests of one kind in flight until all that `requests` yields are done. `each` is given the
    /// reply, or the server's errno, with the request's number, in the order they are done.
    ///
    /// # Errors
    /// Any fault of the transport; the server's errno values go to `each`.
    pub fn pipeline<R: Request>(
        &mut self,
        depth: usize,
        requests: impl IntoIterator<Item = R>,
        mut each: impl FnMut(usize, Result<R::Reply>),
    ) -> Result<()> {
        let depth = depth.clamp(1, usize::from(RING_SIZE));
        let mut requests = requests.into_iter().enumerate();
        let mut flying: HashMap<u16, (usize, Ticket<R>)> = HashMap::new();
        loop {
            while flying.len() < depth
                && let Some((number, request)) = requests.next()
            {
                let ticket = self.submit(&request)?;
                flying.insert(ticket.tag(), (number, ticket));
            }
            if flying.is_empty() {
                return Ok(());
            }
            let tag = self.next_done()?;
            let (number, ticket) = flying.remove(&tag).ok_or_else(|| {
                Error::Protocol("an older request was left unfinished".to_owned())
            })?;
            match self.finish(ticket) {
                Err(error) if error.errno().is_none() => return Err(error),
                result => each(number, result),
            }
        }
    }

    fn wait_for(&mut self, slot: Slot) -> Result<Slot> {
        self.wait_until(|session| {
            matches!(session.states[usize::from(slot.0)], State::Done(_)).then_some(slot)
        })
    }

    /// Waits for interrupts until `ready` is.
    fn wait_until(&mut self, ready: impl Fn(&Self) -> Option<Slot>) -> Result<Slot> {
        self.kick()?;
        let waited = self.wait_quietly(ready);
        waited.map_err(|error| self.shared.explain(error))
    }

    fn wait_quietly(&mut self, ready: impl Fn(&Self) -> Option<Slot>) -> Result<Slot> {
        self.collect()?;
        if let Some(slot) = ready(self) {
            return Ok(slot);
        }
        self.queue.want_interrupts(true)?;
        loop {
            // Looked at after interrupts are on, and after each was taken back: what is done later raises a new one.
            self.collect()?;
            if let Some(slot) = ready(self) {
                self.queue.want_interrupts(false)?;
                return Ok(slot);
            }
            if !self.shared.lower()? {
                self.shared.wait_change()?;
            }
        }
    }

    fn collect(&mut self) -> Result<()> {
        while let Some((slot, length)) = self.queue.take()? {
            match &mut self.states[usize::from(slot.0)] {
                state @ State::InFlight => *state = State::Done(length),
                State::Free | State::Done(_) => {
                    return Err(Error::Protocol(format!(
                        "the device returned entry {} unasked",
                        slot.0
                    )));
                }
            }
            self.done.push_back(slot);
        }
        Ok(())
    }

    fn take_reply<R: Request>(&mut self, slot: Slot, tag: u16) -> Result<R::Reply> {
        let state = std::mem::replace(&mut self.states[usize::from(slot.0)], State::Free);
        let State::Done(length) = state else {
            return Err(Error::Protocol(format!("{} was not done", R::NAME)));
        };
        self.done.retain(|&other| other != slot);
        self.free.push(slot);
        if length == 0 {
            return Err(Error::Flushed(R::NAME));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.buffer.resize(length, 0);
        self.queue.reply(slot, &mut self.buffer)?;
        decode::<R>(tag, &self.buffer)
    }
}
