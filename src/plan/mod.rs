//! From what was typed to what is meant: looked up once, early, before any privileged act.
//!
//! [`export`] looks at the directories that are to be shared, [`above`] at those above them, [`client`] at
//! who is to use them.

mod above;
pub(crate) mod client;
mod export;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use virtfs_mediator_core::DataMode;
use virtfs_mediator_core::policy::{DataJudgement, Policy};

use crate::audit::Sinks;
use crate::cli::{CacheOption, DataOption, ViewOptions};
use crate::error::{Class, Error, Result};
use crate::identity::{self, Ids};
use crate::launch::inside::Inside;
use crate::launch::isolate::{self, Bind};
use crate::launch::peer::Peer;
use crate::libvirt::domain_file::DomainFile;
use crate::live::origin::Origin;
use crate::submounts::Submounts;
use crate::{mounts, sys};

pub(crate) use above::others_may_rename;
pub(crate) use client::{ClientCommand, ClientProcess, refuse_inherited_directories};
pub(crate) use export::{
    Wish, open_directory, refuse_other_export, refuse_unfit_export, refuse_unmapped_root,
    split_policy, submounts_word, warn_of_observing,
};

/// All that is needed to start; nothing has been done yet.
pub(crate) struct Plan {
    pub(crate) client: Ids,
    pub(crate) mediator: Ids,
    pub(crate) views: Vec<ViewPlan>,
    /// Which process that is.
    pub(crate) process: ClientProcess,
    pub(crate) shared: bool,
    /// What the client sees of the host besides, if it gets a root of its own.
    pub(crate) isolate: Option<Vec<Bind>>,
    pub(crate) debug: bool,
    /// A stepping console comes first.
    pub(crate) step: bool,
    /// Where audit records go.
    pub(crate) audit: Sinks,
    /// A wall that this kernel lacks is an error.
    pub(crate) require_confinement: bool,
    /// What runs in the mediators' place.
    pub(crate) inside: &'static dyn Inside,
}

impl Plan {
    /// Closes what `--pass-fd` named: in a process that has forked the one it is for.
    pub(crate) fn close_handed_on(&mut self) {
        if let ClientProcess::Command(command) = &mut self.process {
            for fd in command.descriptors.drain(..) {
                drop(sys::own(fd));
            }
        }
    }
}

/// One export and where it is seen.
pub(crate) struct ViewPlan {
    pub(crate) name: String,
    /// The export's path on the host, without symbolic links.
    pub(crate) export: PathBuf,
    /// Opened once (`O_PATH`): every later step is compared with it.
    pub(crate) export_fd: OwnedFd,
    /// Where the view lies in its namespace, without symbolic links.
    pub(crate) at: PathBuf,
    pub(crate) policy: Policy,
    /// How long the kernel may remember: the command line's word, else the policy's.
    pub(crate) cache: CacheOption,
    /// What is mounted inside the export.
    pub(crate) submounts: Submounts,
    /// Which way file data goes.
    pub(crate) data: DataMode,
    pub(crate) policy_file: Option<PathBuf>,
    /// What was in it.
    pub(crate) policy_text: Option<String>,
    /// Where that file lies, and whose it is.
    pub(crate) policy_origin: Option<Origin>,
    /// `--readonly`.
    pub(crate) readonly: bool,
}

/// Plans a start. Without `exports`, the policy of `options` names the one.
///
/// # Errors
///
/// Usage, configuration or privilege: one sentence each, nothing left behind.
pub(crate) fn plan(
    options: &ViewOptions,
    exports: &[OsString],
    process: ClientProcess,
    inside: &'static dyn Inside,
) -> Result<Plan> {
    require_root()?;
    if exports.len() > 1 && (options.name.is_some() || options.at.is_some()) {
        return Err(Error::new(
            Class::Usage,
            "--name and --at speak of one export, but several are given",
            "leave them out, or start one export",
        ));
    }
    let named = export::named(exports, options.policy.as_deref())?;
    let wishes = named.into_iter().map(|(export, policy)| Wish {
        name: options.name.as_deref(),
        export,
        canonical: false,
        policy: policy.or_else(|| options.policy.clone()),
        at: options.at.as_deref(),
        cache: options.cache,
        submounts: options.submounts,
        data: options.data,
        readonly: options.readonly,
    });
    let looked = look(wishes, &process)?;
    let client = client(options, &looked.views)?;
    let mediator = mediator(options.mediator_user.as_deref(), &client)?;
    if let ClientProcess::Command(command) = &process {
        client::refuse_pidfile_of_qemu(&command.argv)?;
    }
    let isolate = if options.isolate {
        Some(binds(options, &looked.views, &looked.table)?)
    } else {
        looked.views.iter().for_each(warn_of_renames);
        None
    };
    // Last: a start that is refused for another reason leaves no file behind.
    let audit = Sinks::open(&options.audit, &looked.shared_places())?;
    Ok(Plan {
        audit,
        isolate,
        client,
        mediator,
        views: looked.views,
        process,
        shared: options.shared,
        debug: options.debug,
        step: options.step,
        require_confinement: options.require_confinement,
        inside,
    })
}

/// Plans the views of a domain whose QEMU runs already, or is about to.
///
/// # Errors
///
/// As [`plan`].
pub(crate) fn for_peer(
    domain: &DomainFile,
    client: Ids,
    peer: Peer,
    mediator_user: Option<&str>,
    inside: &'static dyn Inside,
) -> Result<Plan> {
    require_root()?;
    let process = ClientProcess::Peer(peer);
    let wishes = domain.views.iter().map(|view| Wish {
        name: Some(&view.name),
        export: view.export.clone(),
        canonical: true,
        policy: view.policy.clone(),
        at: None,
        cache: view.cache,
        submounts: None,
        data: view.data.unwrap_or(DataOption::Auto),
        readonly: view.readonly,
    });
    let looked = look(wishes, &process)?;
    let mut origins = looked
        .views
        .iter()
        .filter_map(|view| view.policy_origin.as_ref());
    origins.try_for_each(Origin::refuse_others)?;
    let mediator = mediator(mediator_user, &client)?;
    let audit: Vec<OsString> = domain.audit.iter().map(OsString::from).collect();
    let audit = Sinks::open(&audit, &looked.shared_places())?;
    Ok(Plan {
        audit,
        isolate: None,
        client,
        mediator,
        views: looked.views,
        process,
        shared: false,
        debug: false,
        step: false,
        require_confinement: domain.require_confinement,
        inside,
    })
}

/// What was found of all exports.
struct Looked {
    views: Vec<ViewPlan>,
    table: mounts::Table,
}

impl Looked {
    /// Every path under which an export or its view is seen.
    fn shared_places(&self) -> Vec<PathBuf> {
        let exports = self
            .views
            .iter()
            .flat_map(|view| view.submounts.places(&self.table));
        exports
            .chain(self.views.iter().map(|view| view.at.clone()))
            .collect()
    }
}

/// Looks at every export, and at what the client would have beside its view.
fn look<'a>(wishes: impl Iterator<Item = Wish<'a>>, process: &ClientProcess) -> Result<Looked> {
    let handed_on = process.inherited();
    for passed in handed_on.iter().skip(3) {
        client::refuse_closed_descriptor(*passed)?;
    }
    refuse_inherited_directories(&handed_on)?;
    let table = mounts::Table::read()?;
    let mut views: Vec<ViewPlan> = Vec::new();
    for wish in wishes {
        let view = export::view(&wish, &table, &views)?;
        client::refuse_inherited_descriptors(&handed_on, &view, &table)?;
        views.push(view);
    }
    let looked = Looked { views, table };
    let shared = looked.shared_places();
    for view in &looked.views {
        if let Some(origin) = &view.policy_origin {
            origin.refuse_shared(&shared)?;
        }
    }
    Ok(looked)
}

/// Without a root of its own, a client looks its view up by a path that is the host's too: one that opens
/// it after a rename above gets what the path leads to by then, as its own user.
fn warn_of_renames(view: &ViewPlan) {
    if let Some(above) = others_may_rename(&view.at) {
        tracing::warn!(
            view = %view.at.display(), directory = %above.display(),
            "others than root may rename what is in this directory, and so lead the client past its \
             view: use --isolate, or share a directory below directories of root's alone"
        );
    }
}

fn mediator(asked: Option<&str>, client: &Ids) -> Result<Ids> {
    let mediator = identity::mediator(asked)?;
    if mediator.uid == client.uid {
        return Err(Error::new(
            Class::Configuration,
            format!("client and mediator would both be uid {}", client.uid),
            "they must not be able to signal each other: choose another --mediator-user",
        ));
    }
    Ok(mediator)
}

/// The command line's client, else the one that the policies name, else who called sudo.
fn client(options: &ViewOptions, views: &[ViewPlan]) -> Result<Ids> {
    if options.client.is_some() {
        return identity::client(options.client.as_deref());
    }
    let mut named = views.iter().filter_map(|view| {
        let settings = view.policy.settings();
        let group = settings
            .client_group
            .map(|gid| format!(":{gid}"))
            .unwrap_or_default();
        settings.client_user.map(|uid| format!("{uid}{group}"))
    });
    let first = named.next();
    if named.any(|other| Some(other) != first) {
        return Err(config(
            "the policies name different clients",
            "one client uses all views of a start: name it with --client",
        ));
    }
    identity::client(first.as_deref())
}

/// What `--bind` and `--bind-ro` name.
fn binds(options: &ViewOptions, views: &[ViewPlan], table: &mounts::Table) -> Result<Vec<Bind>> {
    refuse_view_beside_its_original(views, table)?;
    let writable = options.bind.iter().map(|path| (path, false));
    let readonly = options.bind_ro.iter().map(|path| (path, true));
    let mut found = Vec::new();
    for (typed, readonly) in writable.chain(readonly) {
        let path = typed.canonicalize().map_err(|error| {
            config(
                format!("--bind {}: {error}", typed.display()),
                "name what exists",
            )
        })?;
        for view in views {
            let shows = |place: &PathBuf| path.starts_with(place) || place.starts_with(&path);
            let export = &view.export;
            if view.submounts.places(table).iter().any(shows) || view.at.starts_with(&path) {
                return Err(config(
                    format!(
                        "--bind {} would show export {}",
                        path.display(),
                        export.display()
                    ),
                    "the client sees it through the view: bind what lies elsewhere",
                ));
            }
        }
        found.push(Bind { path, readonly });
    }
    // What lies above others comes first, and does not cover them.
    found.sort_by_key(|bind| bind.path.components().count());
    Ok(found)
}

/// The minimal root shows some of the host's directories: an export inside one of them is seen
/// there, unless the view covers it.
fn refuse_view_beside_its_original(views: &[ViewPlan], table: &mounts::Table) -> Result<()> {
    for view in views {
        // What is below the view is covered by it.
        let seen = |place: &&PathBuf| !place.starts_with(&view.at) && isolate::shows(place);
        if let Some(place) = view.submounts.places(table).iter().find(seen) {
            return Err(config(
                format!(
                    "with --isolate the client would see export {} at {}, besides the view",
                    view.export.display(),
                    place.display()
                ),
                "share a directory outside of /usr and /etc, or let the view cover it (no --at)",
            ));
        }
    }
    Ok(())
}

/// Whoever makes, asks or enters a view is root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        Class::Privilege,
        "this needs root",
        "call it as `sudo virtfs-mediator ...` (what it starts runs without privilege)",
    ))
}

/// The caller's working directory, by path.
pub(crate) fn working_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// The caller's umask, which can only be read by setting it.
pub(crate) fn current_umask() -> rustix::fs::Mode {
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(umask);
    umask
}

impl From<DataOption> for DataMode {
    fn from(option: DataOption) -> Self {
        match option {
            DataOption::Auto => Self::Auto,
            DataOption::Passthrough => Self::Passthrough,
            DataOption::Mediated => Self::Mediated,
        }
    }
}

impl ViewPlan {
    /// Whether file data may go past the mediator at all.
    pub(crate) fn wants_registrar(&self) -> bool {
        self.data != DataMode::Mediated && self.policy.judges_data() != DataJudgement::Always
    }
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}
