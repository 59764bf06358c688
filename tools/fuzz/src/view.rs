//! A served view without a kernel: this side of a SOCK_SEQPACKET pair plays the kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use virtfs_mediator_core::export::{Export, Settings, Submounts};
use virtfs_mediator_core::fuse::serve_mediator;
use virtfs_mediator_core::mediate::{AuditTo, Mediator, Verbosity};
use virtfs_mediator_core::policy::Policy;
use virtfs_mediator_core::{Cache, ServeError, ViewMode};

use crate::scratch::{Scratch, client, lower_thread};
use crate::wire::{Answer, Body, OUT_HEADER, ROOT, Sender, message, op};

/// A request that is not answered for so long is a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a view is served.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its rules.
    pub policy: Policy,
    /// How long the kernel may remember.
    pub cache: Cache,
    /// What is logged.
    pub verbosity: Verbosity,
    /// The most descriptors for nodes.
    pub max_descriptors: usize,
}

/// The mediator's side has ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// One view, served until it is dropped or ended.
#[derive(Debug)]
pub struct View {
    socket: OwnedFd,
    unique: u64,
    buffer: Vec<u8>,
    sender: Sender,
    /// What serves: its accounts are looked at, it is never called.
    pub mediator: Arc<Mediator>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl View {
    /// Serves the export and answers INIT.
    ///
    /// # Panics
    ///
    /// If that fails.
    #[must_use]
    pub fn start(scratch: &Scratch, setup: Setup) -> Self {
        let (socket, device) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socketpair");
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))
            .expect("SO_RCVTIMEO");
        let (tell, told) = mpsc::channel();
        let cache = setup.cache;
        let served = with_mediator(scratch, setup, move |mediator| {
            tell.send(Arc::clone(&mediator)).expect("the view's owner");
            serve_mediator(device, mediator, cache, ViewMode::Client)
        });
        let mut view = Self {
            socket,
            unique: 0,
            buffer: vec![0; 256 << 10],
            sender: client(),
            mediator: told.recv().expect("a mediator"),
            served,
        };
        // Protocol 7.40, and every flag on offer.
        let init = Body::new()
            .u32(7)
            .u32(40)
            .u32(1 << 17)
            .u32(u32::MAX)
            .u32(u32::MAX);
        let answer = view.ask(op::INIT, 0, init.bytes(&[0; 44]).as_bytes());
        assert!(answer.is_ok_and(|answer| answer.is_ok()), "INIT failed");
        view
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    ///
    /// # Panics
    ///
    /// If the answer is not well-formed, is to another request, or does not come.
    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Answer, Ended> {
        let unique = self.tell(opcode, node, body)?;
        let (answered, answer) = self.receive()?;
        assert_eq!(
            answered, unique,
            "opcode {opcode}: an answer to another request"
        );
        Ok(answer)
    }

    /// Sends a request that has no answer (FORGET) and returns its number.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub fn tell(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<u64, Ended> {
        // As the kernel numbers: even numbers, those between are for interrupts.
        self.unique += 2;
        let message = message(opcode, self.unique, node, self.sender, body);
        self.put(&message)?;
        Ok(self.unique)
    }

    /// Sends any bytes, and waits until they have been dealt with.
    ///
    /// # Errors
    ///
    /// [`Ended`]: they were no message.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, Ended> {
        if bytes.is_empty() {
            // An empty packet reads as the end of the connection.
            return Ok(Vec::new());
        }
        self.put(bytes)?;
        // One thread serves: an answer to this comes after whatever comes to those bytes.
        let unique = self.tell(op::GETATTR, ROOT, &[0; 16])?;
        let mut answers = Vec::new();
        loop {
            let (answered, answer) = self.receive()?;
            if answered == unique {
                return Ok(answers);
            }
            answers.push(answer);
        }
    }

    fn put(&self, message: &[u8]) -> Result<(), Ended> {
        match send(&self.socket, message, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Ended),
            Err(errno) => panic!("send: {errno}"),
        }
    }

    fn receive(&mut self) -> Result<(u64, Answer), Ended> {
        let got = match recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
            Ok((0 | usize::MAX, _)) | Err(Errno::CONNRESET) => return Err(Ended),
            Ok((_, got)) => got,
            Err(Errno::INTR) => return self.receive(),
            Err(errno) => panic!("no answer: {errno}"),
        };
        let frame = self
            .buffer
            .get(..got)
            .expect("an answer larger than any that is asked for");
        let field = |at: usize| {
            frame
                .get(at..at + 4)
                .and_then(|it| it.try_into().ok())
                .map(u32::from_ne_bytes)
        };
        let (Some(len), Some(error), Some(low), Some(high)) =
            (field(0), field(4), field(8), field(12))
        else {
            panic!("an answer of {got} bytes");
        };
        assert_eq!(
            usize::try_from(len),
            Ok(got),
            "the answer's length is wrong"
        );
        let errno = error.cast_signed().checked_neg().expect("an errno");
        assert!((0..=4095).contains(&errno), "errno {errno}");
        let body = frame[OUT_HEADER..].to_vec();
        assert!(errno == 0 || body.is_empty(), "an error with a body");
        Ok((
            u64::from(low) | u64::from(high) << 32,
            Answer { errno, body },
        ))
    }

    /// Ends the connection as an unmount does.
    ///
    /// # Panics
    ///
    /// If serving ends with an error.
    pub fn end(mut self) {
        let answer = self.ask(op::DESTROY, 0, &[]);
        assert!(answer.is_ok_and(|answer| answer.is_ok()), "DESTROY failed");
        self.join().expect("the view failed");
    }

    /// Waits for a view whose connection has ended.
    ///
    /// # Errors
    ///
    /// How it ended.
    ///
    /// # Panics
    ///
    /// If a thread of the view panicked.
    pub fn join(self) -> Result<(), ServeError> {
        drop(self.socket);
        drop(self.mediator);
        self.served.join().expect("the view panicked")
    }
}

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Keeps this thread, and those that it starts, on one processor while fuzzing: a request and its
/// answer cost a third less CPU time, and a quarter of the waiting, than across two.
fn stay_on_one_processor() {
    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    static ONCE: std::sync::Once = std::sync::Once::new();
    if cfg!(fuzzing) {
        ONCE.call_once(|| {
            let mut here = CpuSet::new();
            let this = sched_getcpu().and_then(|cpu| here.set(cpu));
            this.and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &here))
                .expect("sched_setaffinity");
        });
    }
}

/// Makes a mediator in a thread of its own, with what the launcher does for it as far as it concerns
/// a thread: a working directory and umask of its own, no rights, no death by a file that is too
/// large; then goes on in that thread.
///
/// # Panics
///
/// The thread does, if any of it fails.
pub(crate) fn with_mediator<T: Send + 'static>(
    scratch: &Scratch,
    setup: Setup,
    go_on: impl FnOnce(Arc<Mediator>) -> T + Send + 'static,
) -> JoinHandle<T> {
    stay_on_one_processor();
    let root = rustix::fs::openat(scratch.export(), c".", PATH, Mode::empty()).expect("root");
    std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_FS).expect("unshare");
        rustix::process::umask(Mode::empty());
        lower_thread();
        let mut too_large = SigSet::empty();
        too_large.add(Signal::SIGXFSZ);
        too_large.thread_block().expect("sigmask");
        let settings = Settings {
            root,
            proc_fd: rustix::fs::open("/proc/self/fd", PATH, Mode::empty()).expect("/proc/self/fd"),
            max_descriptors: setup.max_descriptors,
            submounts: Submounts::Refuse,
            exact_names: setup.policy.goes_by_name(),
        };
        let export = Export::open(settings).expect("the export");
        let made = Mediator::new(export, setup.policy, setup.verbosity, AuditTo::Log);
        let (mediator, log) = made.expect("a mediator");
        let end = go_on(Arc::new(mediator));
        log.join();
        end
    })
}
