//! Threads that the workers do without: while a stepping console is attached, requests are done
//! here, so that one that is held stops only itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::adapter::Inner;
use crate::mediate::{HELD_MAX, holding};

/// So many go on when as many as may be are held.
const FREE: usize = 4;
/// Requests that wait for a thread; then the worker waits.
const QUEUE: usize = 64;
/// How long a thread outlives the last request.
const IDLE: Duration = Duration::from_secs(1);

/// A request with its reply.
pub(super) type Job = Box<dyn FnOnce(&Inner) + Send>;

/// The threads; none until they are needed.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    threads: Arc<AtomicUsize>,
}

impl Default for Pool {
    fn default() -> Self {
        let (jobs, queue) = bounded(QUEUE);
        Self {
            jobs,
            queue,
            threads: Arc::default(),
        }
    }
}

impl Pool {
    /// Does a job on one of the threads; on this one, where nothing is held, if there is none.
    pub(super) fn run(&self, inner: &Arc<Inner>, job: Job) {
        while self.threads.load(Ordering::SeqCst) < HELD_MAX + FREE {
            if !self.start(inner) {
                break;
            }
        }
        if self.threads.load(Ordering::SeqCst) <= HELD_MAX {
            // All that there are may be held: whoever waited in the queue would wait for them.
            return done(inner, job);
        }
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => done(inner, job),
        }
    }

    fn start(&self, inner: &Arc<Inner>) -> bool {
        let (queue, threads) = (self.queue.clone(), Arc::clone(&self.threads));
        let inner = Arc::clone(inner);
        self.threads.fetch_add(1, Ordering::SeqCst);
        let started = std::thread::Builder::new()
            .name("held".to_owned())
            .spawn(move || work(&inner, &queue, &threads));
        if let Err(error) = &started {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "a thread for held requests cannot be started");
        }
        started.is_ok()
    }
}

fn work(inner: &Inner, queue: &Receiver<Job>, threads: &AtomicUsize) {
    loop {
        match queue.recv_timeout(IDLE) {
            Ok(job) => holding(|| done(inner, job)),
            Err(_) if inner.is_stepped() => {}
            Err(_) => break,
        }
    }
    threads.fetch_sub(1, Ordering::SeqCst);
    // What came between the last look and the count.
    while let Ok(job) = queue.try_recv() {
        done(inner, job);
    }
}

fn done(inner: &Inner, job: Job) {
    let _turn = inner.enter();
    job(inner);
}
