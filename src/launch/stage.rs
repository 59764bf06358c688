//! The order of a start, in the process that becomes the keeper.
//!
//! Each stage takes the token of the one before, so that a wrong order does not compile:
//! planned -> [`Clean`] -> [`Isolated`] -> [`Mounted`] -> [`Spawned`].

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};

use std::path::Path;

use virtfs_mediator_core::AuditTo;

use crate::cli::CacheOption;
use crate::error::{Class, Error, Result};
use crate::keep::client::Client;
use crate::keep::{init, registrar};
use crate::launch::child::Child;
use crate::launch::inside::Wall;
use crate::launch::peer::{Lying, Peer};
use crate::launch::seccomp::Verdict;
use crate::launch::{fusemount, isolate, mediator, namespace, readahead};
use crate::mounts::Table;
use crate::pipes::{await_byte, pipe};
use crate::plan::{ClientProcess, Plan, ViewPlan};
use crate::report::Reporter;
use crate::sys::{self, Forked};

/// Descriptors that the keeper was given on purpose.
pub(crate) struct Given {
    /// Where to tell of progress.
    pub(crate) reporter: Reporter,
    /// The writing end of the mediators' log.
    pub(crate) log: OwnedFd,
    /// The writing ends of the audit records, one a view; none if nobody keeps any.
    pub(crate) audits: Vec<OwnedFd>,
    /// From the launcher; it hangs up when the launcher dies.
    pub(crate) orders: OwnedFd,
    /// One listening control socket a view.
    pub(crate) controls: Vec<OwnedFd>,
    /// The directory of all views below /run, through which the keeper tidies up.
    pub(crate) run: OwnedFd,
}

/// Nothing is inherited that was not planned.
pub(crate) struct Clean(());

/// In a mount namespace of our own.
pub(crate) struct Isolated(());

/// Every view is mounted; none is served yet.
pub(crate) struct Mounted {
    views: Vec<Prepared>,
    /// Of the namespace that they lie in; opened while /proc still is the host's.
    mountinfo: File,
    /// Opened while /sys still is.
    bdis: Option<OwnedFd>,
}

struct Prepared {
    device: OwnedFd,
    tree: OwnedFd,
    mount: OwnedFd,
    mount_id: u64,
    /// Where the view is to lie in a root that stays the host's.
    place: OwnedFd,
}

/// A view as the keeper knows it.
pub(crate) struct KeptView {
    /// Its name.
    pub(crate) name: String,
    /// Pid 1 of the mediator's pid namespace.
    pub(crate) warden: Child,
    /// What registers its files with the kernel, if anything does.
    pub(crate) registrar: Option<Child>,
    /// The view's mount in our namespace.
    pub(crate) mount_id: u64,
}

/// Everything runs.
pub(crate) struct Spawned {
    pub(crate) views: Vec<KeptView>,
    pub(crate) client: Client,
    /// While it is open the inits live; they end when its last copy, the keeper's, closes.
    pub(crate) life: OwnedFd,
    /// To see by that a view was unmounted.
    pub(crate) mountinfo: File,
}

/// Closes what the caller left open and sets what children inherit.
pub(crate) fn clean(plan: &Plan, given: &Given) -> Result<Clean> {
    let mut keep: Vec<RawFd> = vec![given.reporter.as_raw_fd(), given.orders.as_raw_fd()];
    keep.extend([given.run.as_raw_fd(), given.log.as_raw_fd()]);
    keep.extend(given.controls.iter().map(AsRawFd::as_raw_fd));
    keep.extend(given.audits.iter().map(AsRawFd::as_raw_fd));
    keep.extend(plan.views.iter().map(|view| view.export_fd.as_raw_fd()));
    keep.extend(plan.process.descriptors());
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // The kernel applies the requester's umask; ours would cut the modes that it grants.
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(Clean(()))
}

/// From here on nothing we mount is seen on the host, at any moment.
pub(crate) fn isolate(_clean: Clean) -> Result<Isolated> {
    namespace::own_mounts()?;
    // The caller's working directory would stay ours, and every child's, below what is mounted
    // over it, and through every pivot_root.
    nix::unistd::chdir("/").map_err(|errno| Error::step(Class::Confinement, "chdir(/)", errno))?;
    Ok(Isolated(()))
}

/// Clones each export and lays its view over it: in this namespace, in a minimal root if one is asked
/// for, or in the namespace of a client that others have started.
pub(crate) fn mount(_isolated: Isolated, plan: &Plan, reporter: &Reporter) -> Result<Mounted> {
    let views: Vec<Prepared> = plan
        .views
        .iter()
        .map(|view| prepare(plan, view))
        .collect::<Result<_>>()?;
    let bdis = readahead::settings();
    if let Some(peer) = plan.process.peer() {
        let mountinfo = lay(peer, plan, &views, reporter)?;
        return Ok(Mounted {
            views,
            mountinfo,
            bdis,
        });
    }
    let mountinfo = if let Some(binds) = &plan.isolate {
        let proc = isolate::host_proc()?;
        let places: Vec<&Path> = plan.views.iter().map(|view| view.at.as_path()).collect();
        isolate::enter(binds, &places)?;
        isolate::with_proc(&proc, mountinfo)?
    } else {
        mountinfo()?
    };
    for (view, prepared) in plan.views.iter().zip(&views) {
        let shown = view.at.display().to_string();
        if plan.isolate.is_some() {
            namespace::attach(&prepared.mount, &namespace::open_plain(&view.at)?, &shown)?;
        } else {
            namespace::attach(&prepared.mount, &prepared.place, &shown)?;
        }
    }
    Ok(Mounted {
        views,
        mountinfo,
        bdis,
    })
}

fn lay(peer: &Peer, plan: &Plan, views: &[Prepared], reporter: &Reporter) -> Result<File> {
    let lying: Vec<Lying<'_>> = plan
        .views
        .iter()
        .zip(views)
        .map(|(view, prepared)| Lying {
            mount: &prepared.mount,
            mount_id: prepared.mount_id,
            at: &view.at,
            export: &view.export_fd,
        })
        .collect();
    peer.lay(&lying, reporter)?;
    let mountinfo = peer.mountinfo.try_clone();
    mountinfo.map_err(|error| Error::step(Class::Confinement, "fcntl(F_DUPFD)", error))
}

fn prepare(plan: &Plan, view: &ViewPlan) -> Result<Prepared> {
    let export = namespace::reopen(&view.export, &view.export_fd)?;
    view.submounts.check_unchanged(&Table::read()?)?;
    let follow = view.submounts.are_followed();
    let tree = namespace::clone_export(&export, view.policy.readonly(), follow)?;
    let mounted = fusemount::mount(view, &plan.client, plan.shared)?;
    let mount_id = fusemount::mount_id(&mounted.mount)?;
    let place = if view.at == view.export {
        export
    } else {
        namespace::open_plain(&view.at)?
    };
    Ok(Prepared {
        device: mounted.device,
        tree,
        mount: mounted.mount,
        mount_id,
        place,
    })
}

fn mountinfo() -> Result<File> {
    File::open("/proc/self/mountinfo")
        .map_err(|error| Error::step(Class::Confinement, "open(/proc/self/mountinfo)", error))
}

/// Starts the mediators, waits until each answers, then lets the client go.
pub(crate) fn spawn(mounted: Mounted, plan: &mut Plan, given: &mut Given) -> Result<Spawned> {
    let (life_end, life) = pipe()?;
    let mut views = Vec::new();
    let mut ready = Vec::new();
    let sources = plan
        .views
        .drain(..)
        .zip(mounted.views)
        .zip(given.controls.drain(..));
    let mut audits = given.audits.drain(..);
    let mut devices = Vec::new();
    let common = registrar::Common {
        ids: &plan.mediator,
        log: given.log.as_fd(),
        reporter: &given.reporter,
        verdict: Verdict::of(plan.debug),
        keeper: nix::unistd::getpid(),
        looks: plan.inside.walls().has(Wall::Registrar),
    };
    for ((view, prepared), control) in sources {
        let (ready_end, ready_tx) = pipe()?;
        let audit = match (audits.next(), plan.audit.stderr) {
            (None, _) => AuditTo::Log,
            (Some(lines), false) => AuditTo::Lines(lines),
            (Some(lines), true) => AuditTo::Both(lines),
        };
        let maps = mediator::Maps::of(&view.policy, &plan.mediator)?;
        let (registrar, to_registrar) = if view.wants_registrar() {
            let (child, socket) = start_registrar(&prepared, &common)?;
            (Some(child), Some(socket))
        } else {
            (None, None)
        };
        let warden = sys::clone_process(
            libc::CLONE_NEWPID
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP,
        )
        .map_err(|error| Error::step(Class::Confinement, "clone(mediator's namespaces)", error))?;
        match warden {
            Forked::Child => mediator::warden(mediator::Start {
                ids: &plan.mediator,
                maps,
                readonly: view.policy.readonly(),
                policy: view.policy,
                view: view.name,
                tree: prepared.tree,
                device: prepared.device,
                control,
                ready: ready_tx,
                life: life_end,
                reporter: &given.reporter,
                shared: plan.shared,
                cache: view.cache,
                submounts: view.submounts,
                data: view.data,
                registrar: to_registrar,
                debug: plan.debug,
                audit,
                log: given.log.as_fd(),
                strict: plan.require_confinement,
                inside: plan.inside,
            }),
            Forked::Parent(warden) => {
                views.push(KeptView {
                    name: view.name,
                    warden: Child::hold(warden)?,
                    registrar,
                    mount_id: prepared.mount_id,
                });
                devices.push(prepared.device);
                ready.push(ready_end);
            }
        }
    }
    drop(audits);
    // Only the mediators may hold the devices: a copy here would keep the connection alive after
    // its mediator died, and the client's requests waiting for an answer that never comes.
    drop(devices);
    for (end, view) in ready.iter().zip(&views) {
        await_byte(end).map_err(|why| {
            Error::new(
                Class::Confinement,
                format!("view {}: its mediator {why}", view.name),
                "",
            )
        })?;
    }
    read_ahead(mounted.bdis, &mounted.mountinfo, &views);
    let client = match &plan.process {
        ClientProcess::Command(_) | ClientProcess::Nobody => {
            start_init(plan, given, &views, &life_end)?
        }
        ClientProcess::Peer(peer) => Client::of_peer(peer)?,
    };
    Ok(Spawned {
        views,
        client,
        life,
        mountinfo: mounted.mountinfo,
    })
}

/// They answer, so that INIT is over.
fn read_ahead(bdis: Option<OwnedFd>, mountinfo: &File, views: &[KeptView]) {
    if let (Some(bdis), Ok(table)) = (bdis, Table::read_again(mountinfo)) {
        let mounts = views.iter().filter_map(|view| table.by_id(view.mount_id));
        mounts.for_each(|mount| readahead::raise(&bdis, &mount.device));
    }
}

/// Starts the client's init, and waits until its walls stand.
fn start_init(
    plan: &mut Plan,
    given: &Given,
    views: &[KeptView],
    life_end: &OwnedFd,
) -> Result<Client> {
    // After the mediators: its writing end must be the init's alone, so that it hangs up with it.
    let (client_end, end_tx) = pipe()?;
    let (init_walled, walled) = pipe()?;
    let (may_go, go) = pipe()?;
    // With a root of its own, also out of reach of other processes' System V and POSIX IPC.
    let ipc = if plan.isolate.is_some() {
        libc::CLONE_NEWIPC
    } else {
        0
    };
    let init = match sys::clone_process(libc::CLONE_NEWPID | ipc)
        .map_err(|error| Error::step(Class::Confinement, "clone(client's namespaces)", error))?
    {
        Forked::Child => {
            let lines = init::Lines {
                reporter: &given.reporter,
                life: life_end,
                end: &end_tx,
                walled: &walled,
                go: &may_go,
                run: &given.run,
            };
            init::client_init(plan, &lines, views)
        }
        Forked::Parent(init) => Child::hold(init)?,
    };
    plan.close_handed_on();
    // Its own end must be the last, or a dead init would not be noticed.
    drop(walled);
    await_byte(&init_walled)
        .map_err(|why| Error::new(Class::Confinement, format!("the client's init {why}"), ""))?;
    Ok(Client::Init {
        init,
        go,
        end: client_end,
        command: plan.process.command().is_some(),
    })
}

/// Starts a view's registrar, and waits until its walls stand.
fn start_registrar(
    prepared: &Prepared,
    common: &registrar::Common<'_>,
) -> Result<(Child, OwnedFd)> {
    let (ours, theirs) = registrar::channel()?;
    let (stands, walled) = pipe()?;
    let child = match sys::clone_process(0)
        .map_err(|error| Error::step(Class::Confinement, "fork(registrar)", error))?
    {
        Forked::Child => registrar::registrar(
            registrar::Start {
                common,
                tree: prepared.tree.as_fd(),
                device: prepared.device.as_fd(),
                socket: theirs,
            },
            walled,
        ),
        Forked::Parent(child) => Child::hold(child)?,
    };
    drop((theirs, walled));
    await_byte(&stands)
        .map_err(|why| Error::new(Class::Confinement, format!("the registrar {why}"), ""))?;
    Ok((child, ours))
}

impl From<CacheOption> for virtfs_mediator_core::Cache {
    fn from(option: CacheOption) -> Self {
        match option {
            CacheOption::Auto => Self::Auto,
            CacheOption::None => Self::None,
            CacheOption::Exclusive => Self::Exclusive,
        }
    }
}
