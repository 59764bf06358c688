//! From descriptors to a served view.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};

use super::adapter::{Adapter, Inner};
use super::caches::Caches;
use super::listings::{Listings, Over};
use crate::backing::{Backings, DataMode};
use crate::control::{ControlServer, Facts, View};
use crate::export::{Export, Fault, Settings, Submounts};
use crate::ids::NodeId;
use crate::mediate::{AuditTo, KernelCaches as _, Mediator, Verbosity};
use crate::policy::Policy;

/// How long a listing may be kept where the host may change the export, and a reader's place in a
/// directory everywhere. What was read ahead may enter the kernel's cache at its end: both together
/// last as long as a name in [`Cache::Auto`].
const LISTED: Duration = Duration::from_millis(500);

/// How long the client's kernel may remember what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// A second: what the host changes is seen within it, and a new name at once.
    Auto,
    /// Not at all.
    None,
    /// An hour, missing names too: only this view changes the export.
    Exclusive,
}

impl Cache {
    const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Exclusive => "exclusive",
        }
    }
}

/// Who uses the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewMode {
    /// One client, which acts for a guest's root.
    Client,
    /// Every user; mounted with `allow_other,default_permissions`, so that the kernel enforces
    /// modes.
    Shared,
}

impl ViewMode {
    const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Shared => "shared",
        }
    }
}

/// All that a view is served with. Descriptors are handed over; nothing is opened by path.
#[derive(Debug)]
pub struct Service {
    /// `/dev/fuse`, mounted (or about to be) with this descriptor.
    pub device: OwnedFd,
    /// The export's root: `O_PATH|O_DIRECTORY`.
    pub root: OwnedFd,
    /// A detached clone of the process's own `/proc/self/fd`.
    pub proc_fd: OwnedFd,
    /// The control socket, listening, made by root with mode 0600.
    pub control: Option<OwnedFd>,
    /// The rules.
    pub policy: Policy,
    /// What lies on other mounts.
    pub submounts: Submounts,
    /// How long the kernel may remember.
    pub cache: Cache,
    /// Who uses the view.
    pub mode: ViewMode,
    /// Log every request.
    pub debug: bool,
    /// Where refusals are told.
    pub audit: AuditTo,
    /// The view's name, for the log and the control socket.
    pub view: String,
    /// The most descriptors to hold for nodes.
    pub max_descriptors: usize,
    /// Worker threads; at least one runs.
    pub threads: usize,
    /// Which way file data is to go.
    pub data: DataMode,
    /// One end of a `SOCK_SEQPACKET` pair, with a time limit on both directions, whose other end a
    /// registrar reads ([`crate::backing`]). Without it all data is mediated.
    pub registrar: Option<OwnedFd>,
}

/// Why a view could not be served, or ended other than by unmount or abort.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The export's root cannot be used.
    #[error("the export cannot be opened: {}: {}", .0.call, .0.errno)]
    Export(Fault),
    /// A helper thread could not be started.
    #[error("the {thread} thread cannot be started: {source}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel's INIT could not be answered.
    #[error("the FUSE connection cannot be set up: {0}")]
    Handshake(io::Error),
    /// `passthrough` was asked for, and cannot be had.
    #[error("--data passthrough: {0}; start with --data auto, or mediated")]
    Data(String),
    /// The connection broke.
    #[error("the FUSE connection failed: {0}")]
    Session(io::Error),
}

/// Serves a view until its connection ends by unmount or abort.
///
/// `ready` is called once INIT is answered: from then on the view answers.
///
/// # Errors
///
/// See [`ServeError`].
pub fn serve(service: Service, ready: impl FnOnce()) -> Result<(), ServeError> {
    let settings = Settings {
        root: service.root,
        proc_fd: service.proc_fd,
        max_descriptors: service.max_descriptors,
        submounts: service.submounts,
        exact_names: service.policy.goes_by_name(),
    };
    let export = Export::open(settings).map_err(ServeError::Export)?;
    let verbosity = if service.debug {
        Verbosity::EveryRequest
    } else {
        Verbosity::Refusals
    };
    let facts = Facts {
        view: service.view,
        cache: service.cache.word(),
        mode: service.mode.word(),
    };
    let thread = |thread| move |source| ServeError::Thread { thread, source };
    let (mut mediator, log) =
        Mediator::new(export, service.policy, verbosity, service.audit).map_err(thread("audit"))?;
    mediator.pass_data(Backings::new(service.data, service.registrar));
    let mediator = Arc::new(mediator);
    // Another descriptor of the same connection, for notifications.
    let device = service.device.try_clone().map_err(ServeError::Handshake)?;
    let (session, inner) = connect(
        service.device,
        Arc::clone(&mediator),
        service.cache,
        service.mode,
        service.threads,
    )?;
    if let Some(why) = mediator.cannot_pass() {
        return Err(ServeError::Data(why));
    }
    let caches = Caches::new(session.notifier(), device.into());
    // On a kernel that cannot, a reload could not undo that a name is remembered as missing.
    if caches.forget_names().is_ok_and(|can| can) {
        inner.forgets_missing();
    }
    inner.notify_by(session.notifier());
    let listings = Arc::new(Listings::new(LISTED, service.cache == Cache::Auto));
    inner.listings_end_in(Arc::clone(&listings));
    drop(inner);
    let ending = listings
        .start(end_listings(Arc::downgrade(&mediator), session.notifier()))
        .map_err(thread("listings"))?;
    let view = View {
        facts,
        mediator: Arc::clone(&mediator),
        caches: Box::new(caches),
    };
    let control = service
        .control
        .map(|listener| ControlServer::start(listener, view))
        .transpose()
        .map_err(thread("control"))?;
    ready();
    let end = session.run().map_err(ServeError::Session);

    listings.close();
    // It only panics with the process.
    let _ended = ending.join();
    if let Some(control) = control {
        control.stop();
    }
    // Behind the last question: no one comes after it.
    mediator.close();
    // The last mediator lets the log end; what is queued is written first.
    drop(mediator);
    log.join();
    end
}

/// What is done when a listing is over.
fn end_listings(mediator: Weak<Mediator>, notifier: Notifier) -> impl FnMut(Over) + Send {
    move |over| {
        let (Over::Streams(node) | Over::Pages(node)) = over;
        if let Some(mediator) = mediator.upgrade() {
            mediator.close_streams(node);
        }
        if matches!(over, Over::Pages(_)) {
            drop_pages(&notifier, node);
        }
    }
}

/// Drops a directory's pages, and its attributes.
pub(super) fn drop_pages(notifier: &Notifier, node: NodeId) {
    // What the kernel does not know any more (ENOENT) has none; any other error is the
    // connection's end.
    let _known = notifier.inval_inode(INodeNo(node.0), 0, 0);
}

/// Serves a mediator that the caller made and keeps a share of, without control socket and log.
///
/// The fuzz targets' way in: while the view is served and when it ends, they look at what
/// [`serve`] hides (counters, nodes, handles). A client gets nothing here that `serve` does not
/// give it.
///
/// # Errors
///
/// [`ServeError::Handshake`] and [`ServeError::Session`].
#[doc(hidden)]
pub fn serve_mediator(
    device: OwnedFd,
    mediator: Arc<Mediator>,
    cache: Cache,
    mode: ViewMode,
) -> Result<(), ServeError> {
    let (session, _inner) = connect(device, mediator, cache, mode, 1)?;
    session.run().map_err(ServeError::Session)
}

/// Answers INIT.
fn connect(
    device: OwnedFd,
    mediator: Arc<Mediator>,
    cache: Cache,
    mode: ViewMode,
    threads: usize,
) -> Result<(Session<Adapter>, Arc<Inner>), ServeError> {
    let adapter = Adapter::new(mediator, cache, mode);
    let inner = adapter.inner();
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // fuser's own check compares with our user, not the client's; the kernel's gate (user_id,
    // group_id of the mount) is the one that counts.
    config.acl = SessionACL::All;
    let session = Session::from_fd(adapter, device, SessionACL::All, config);
    Ok((session.map_err(ServeError::Handshake)?, inner))
}
