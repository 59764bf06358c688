//! From what was typed to what is meant: looked up once, early, before any privileged act.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use virtfs_mediator_core::DataMode;
use virtfs_mediator_core::ids::{HostGid, HostOwner, HostUid};
use virtfs_mediator_core::policy::{CacheWord, DataJudgement, IdSpan, Policy, SubmountsWord};

use crate::audit::Sinks;
use crate::cli::{CacheOption, DataOption, SubmountsOption, ViewOptions};
use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::identity::{self, Ids};
use crate::launch::inside::Inside;
use crate::launch::isolate::{self, Bind};
use crate::live::in_force::Text;
use crate::submounts::{Submounts, is_kernels_own, is_view};
use crate::{mounts, sys, view_name};

/// All that is needed to start; nothing has been done yet.
pub(crate) struct Plan {
    pub(crate) client: Ids,
    pub(crate) mediator: Ids,
    pub(crate) views: Vec<ViewPlan>,
    /// The client's command; `None` for a view without a client of its own.
    pub(crate) command: Option<ClientCommand>,
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
    /// The descriptors that `--pass-fd` hands on.
    pub(crate) fn handed_on(&self) -> impl Iterator<Item = RawFd> {
        let command = self.command.iter();
        command.flat_map(|command| command.descriptors.iter().copied())
    }

    /// Closes what `--pass-fd` named: in a process that has forked the one it is for.
    pub(crate) fn close_handed_on(&mut self) {
        if let Some(command) = &mut self.command {
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
    /// `--readonly`.
    pub(crate) readonly: bool,
}

/// The client's command line and where it starts.
pub(crate) struct ClientCommand {
    pub(crate) argv: Vec<OsString>,
    /// The caller's working directory: resolved again by path once the view lies over it.
    pub(crate) directory: PathBuf,
    /// The caller's umask, which ours replaces meanwhile.
    pub(crate) umask: rustix::fs::Mode,
    /// Where to write the client's pid as the host numbers it.
    pub(crate) pidfile: Option<PathBuf>,
    /// What it inherits besides 0, 1 and 2 (`--pass-fd`).
    pub(crate) descriptors: Vec<RawFd>,
}

/// Plans a start.
///
/// # Errors
///
/// Usage, configuration or privilege: one sentence each, nothing left behind.
pub(crate) fn plan(
    options: &ViewOptions,
    exports: &[OsString],
    command: Option<ClientCommand>,
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
    let handed_on: Vec<RawFd> = match &command {
        Some(command) => (0..=2).chain(command.descriptors.iter().copied()).collect(),
        None => Vec::new(),
    };
    for passed in handed_on.iter().skip(3) {
        refuse_closed_descriptor(*passed)?;
    }
    refuse_inherited_directories(&handed_on)?;
    let table = mounts::Table::read()?;
    let mut views: Vec<ViewPlan> = Vec::new();
    for export in exports {
        let view = view(options, export, &table, &views)?;
        refuse_inherited_descriptors(&handed_on, &view, &table)?;
        views.push(view);
    }
    let client = client(options, &views)?;
    let mediator = identity::mediator(options.mediator_user.as_deref())?;
    if mediator.uid == client.uid {
        return Err(Error::new(
            Class::Configuration,
            format!("client and mediator would both be uid {}", client.uid),
            "they must not be able to signal each other: choose another --mediator-user",
        ));
    }
    if let Some(command) = &command {
        refuse_pidfile_of_qemu(&command.argv)?;
    }
    let isolate = if options.isolate {
        Some(binds(options, &views, &table)?)
    } else {
        None
    };
    // Last: a start that is refused for another reason leaves no file behind.
    let audit = Sinks::open(&options.audit, &shared_places(&views, &table))?;
    Ok(Plan {
        audit,
        isolate,
        client,
        mediator,
        views,
        command,
        shared: options.shared,
        debug: options.debug,
        step: options.step,
        require_confinement: options.require_confinement,
        inside,
    })
}

/// Every path under which an export or its view is seen.
fn shared_places(views: &[ViewPlan], table: &mounts::Table) -> Vec<PathBuf> {
    let exports = views.iter().flat_map(|view| view.submounts.places(table));
    exports
        .chain(views.iter().map(|view| view.at.clone()))
        .collect()
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

/// A policy that names its export is not used for another by mistake.
pub(crate) fn refuse_other_export(path: &Path, policy: &Policy) -> Result<()> {
    match &policy.settings().export {
        Some(export) if Path::new(export) != path => Err(config(
            format!("the policy is for export {export}, not {}", path.display()),
            "name the policy's own export, or change `export` in the policy",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Inside a user namespace an owner that it does not map looks like this one.
fn warn_of_overflow_ids(policy: &Policy) {
    const OVERFLOW: u32 = 65534;
    let among = |spans: Option<&[IdSpan]>| {
        spans.is_some_and(|spans| spans.iter().any(|span| span.holds(OVERFLOW)))
    };
    if among(policy.host_uids()) || among(policy.host_gids()) {
        tracing::warn!(
            "the policy's host ids include {OVERFLOW}, which is also what the kernel shows for ids \
             outside of `map`: such files are judged by their mode for others, not refused"
        );
    }
}

/// A view that only watches must not be taken for one that guards.
pub(crate) fn warn_of_observing(path: &Path, policy: &Policy) {
    if policy.observes() {
        tracing::warn!(
            export = %path.display(),
            "`mode = \"observe\"`: what the policy's rules refuse is let through and only told"
        );
    }
}

/// The mediator of a policy with a `map` has power over the map's ids alone: a root directory of
/// anyone else would be closed to it.
fn refuse_unmapped_root(path: &Path, export: &OwnedFd, policy: &Policy) -> Result<()> {
    let stat = rustix::fs::fstat(export)
        .map_err(|errno| config(format!("export {}: {errno}", path.display()), ""))?;
    let owner = HostOwner {
        uid: HostUid(stat.st_uid),
        gid: HostGid(stat.st_gid),
    };
    if policy.admits(owner) {
        return Ok(());
    }
    let first =
        |spans: Option<&[IdSpan]>| spans.and_then(<[_]>::first).map_or(0, |span| span.first);
    Err(config(
        format!(
            "export {} belongs to {}:{}, which is outside of every range of the policy's `map`",
            path.display(),
            owner.uid,
            owner.gid
        ),
        format!(
            "give it to an id inside (chown {}:{} {}; files below it likewise), or extend `map`",
            first(policy.host_uids()),
            first(policy.host_gids()),
            path.display()
        ),
    ))
}

/// Both are asked for on purpose, and one would be without effect.
fn refuse_strict_passthrough(data: DataOption, policy: &Policy) -> Result<()> {
    if data == DataOption::Passthrough && policy.judges_data() == DataJudgement::Always {
        return Err(config(
            "--data passthrough, but `strict = true` in the policy has every read and write judged",
            "leave out one of them",
        ));
    }
    Ok(())
}

/// Every command but `policy` needs root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        Class::Privilege,
        "mounting a view needs root",
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

fn view(
    options: &ViewOptions,
    export: &OsStr,
    table: &mounts::Table,
    earlier: &[ViewPlan],
) -> Result<ViewPlan> {
    let (typed, policy_file) = split_policy(export);
    let policy_file = policy_file.or_else(|| options.policy.clone());
    let (path, export_fd) = open_directory(&typed, "export")?;
    refuse_unfit_export(&path, table)?;
    let at = match &options.at {
        Some(at) => open_directory(at, "place of the view (--at)")?.0,
        None => path.clone(),
    };
    for other in earlier {
        if at.starts_with(&other.at) || other.at.starts_with(&at) {
            return Err(config(
                format!(
                    "the views of {} and {} would cover each other",
                    path.display(),
                    other.export.display()
                ),
                "share the upper directory alone, or start two clients",
            ));
        }
    }
    if at != path && at.starts_with(&path) {
        return Err(config(
            format!(
                "the view at {} would lie inside its own export {}",
                at.display(),
                path.display()
            ),
            "choose a place outside the export",
        ));
    }
    // The record outlives the working directory.
    let policy_file = policy_file.map(|file| std::path::absolute(&file).unwrap_or(file));
    let (mut policy, policy_text) = match &policy_file {
        Some(file) => {
            let read = Text::read(file)?;
            (read.policy, Some(read.text))
        }
        None => (Policy::parity(), None),
    };
    if options.readonly {
        policy.set_readonly();
    }
    refuse_other_export(&path, &policy)?;
    refuse_unmapped_root(&path, &export_fd, &policy)?;
    let submounts = Submounts::plan(submounts_word(options.submounts, &policy), &path, table)?;
    refuse_strict_passthrough(options.data, &policy)?;
    warn_of_overflow_ids(&policy);
    warn_of_observing(&path, &policy);
    let cache = options.cache.unwrap_or(match policy.settings().cache {
        Some(CacheWord::Auto) | None => CacheOption::Auto,
        Some(CacheWord::None) => CacheOption::None,
        Some(CacheWord::Exclusive) => CacheOption::Exclusive,
    });
    let name = match &options.name {
        Some(name) => view_name::checked(name)?,
        None => view_name::derived(&path, |name| {
            earlier.iter().any(|view| view.name == name) || rundir::is_live(name)
        }),
    };
    table.report_other_mounts(&path);
    Ok(ViewPlan {
        name,
        export: path,
        export_fd,
        at,
        policy,
        cache,
        submounts,
        data: options.data.into(),
        policy_file,
        policy_text,
        readonly: options.readonly,
    })
}

/// The command line's word, else the policy's.
pub(crate) fn submounts_word(typed: Option<SubmountsOption>, policy: &Policy) -> SubmountsWord {
    match typed {
        Some(SubmountsOption::Refuse) => SubmountsWord::Refuse,
        Some(SubmountsOption::Hide) => SubmountsWord::Hide,
        Some(SubmountsOption::Follow) => SubmountsWord::Follow,
        None => policy.settings().submounts.unwrap_or_default(),
    }
}

/// `EXPORT=POLICY`, unless a directory of that very name exists.
pub(crate) fn split_policy(export: &OsStr) -> (PathBuf, Option<PathBuf>) {
    let bytes = export.as_bytes();
    if !Path::new(export).exists()
        && let Some(at) = bytes.iter().rposition(|byte| *byte == b'=')
    {
        let (path, policy) = (&bytes[..at], &bytes[at + 1..]);
        return (
            OsStr::from_bytes(path).into(),
            Some(OsStr::from_bytes(policy).into()),
        );
    }
    (export.into(), None)
}

/// Opens a directory without following a symbolic link in its last component, and tells its
/// canonical path.
pub(crate) fn open_directory(typed: &Path, what: &str) -> Result<(PathBuf, OwnedFd)> {
    let shown = typed.display();
    let failed = |errno: rustix::io::Errno| {
        config(
            format!("{what} {shown}: {errno}"),
            "name a directory that exists",
        )
    };
    // Opened before it is looked at: what is checked, and whose path is told, is what is used.
    // Without a trailing slash, which would have the kernel follow a link in spite of O_NOFOLLOW.
    let plain: PathBuf = typed.components().collect();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &plain, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        return Err(config(
            format!("{what} {shown} is a symbolic link"),
            "name the directory itself: a link could be changed to lead elsewhere",
        ));
    }
    if kind != FileType::Directory {
        return Err(config(
            format!("{what} {shown} is not a directory"),
            "name a directory",
        ));
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|error| config(format!("{what} {shown}: {error}"), "mount /proc"))?;
    Ok((path, fd))
}

/// Refuses what can be no export, whatever is mounted inside it.
///
/// # Errors
///
/// Configuration.
pub(crate) fn refuse_unfit_export(path: &Path, table: &mounts::Table) -> Result<()> {
    let shown = path.display();
    if path == Path::new("/") {
        return Err(config(
            "the export is the root directory",
            "share a directory below it: a view of everything protects nothing",
        ));
    }
    if let Some(mount) = table.holding(path)
        && is_kernels_own(&mount.kind)
    {
        return Err(config(
            format!("export {shown} lies on a {} mount", mount.kind),
            "kernel file systems cannot be shared: choose another directory",
        ));
    }
    if let Some(mount) = table.holding(path)
        && is_view(&mount.kind)
    {
        return Err(config(
            format!("export {shown} is itself a view"),
            "share the original",
        ));
    }
    Ok(())
}

/// What `--pass-fd` names must be open.
fn refuse_closed_descriptor(fd: RawFd) -> Result<()> {
    if Path::new(&format!("/proc/self/fd/{fd}"))
        .symlink_metadata()
        .is_ok()
    {
        return Ok(());
    }
    Err(Error::new(
        Class::Usage,
        format!("--pass-fd {fd}: descriptor {fd} is not open"),
        "name one that the caller opened and did not mark close-on-exec (in a shell: `9<>FILE`)",
    ))
}

/// A descriptor that lies inside the export leads the client past the view (CVE-2024-21626's
/// class), whichever mount it was opened through.
fn refuse_inherited_descriptors(
    handed_on: &[RawFd],
    view: &ViewPlan,
    table: &mounts::Table,
) -> Result<()> {
    let places = view.submounts.places(table);
    for fd in handed_on {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{fd}"))
            && places.iter().any(|place| target.starts_with(place))
        {
            return Err(config(
                format!(
                    "descriptor {fd} is {}, inside export {}",
                    target.display(),
                    view.export.display()
                ),
                "redirect it elsewhere: it would lead the client past the view",
            ));
        }
    }
    Ok(())
}

/// A directory among the client's descriptors leads past every view, wherever it lies: names below
/// it, and `..` above it, are resolved in the mount namespace that it was opened in, the host's,
/// where no view covers anything and no `--isolate` holds.
pub(crate) fn refuse_inherited_directories(handed_on: &[RawFd]) -> Result<()> {
    // What is not open at all leads nowhere.
    let is_directory = |fd: &&RawFd| {
        std::fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|meta| meta.is_dir())
    };
    match handed_on.iter().find(is_directory) {
        None => Ok(()),
        Some(fd) => Err(config(
            format!("descriptor {fd} is a directory of the host"),
            "redirect it elsewhere (`</dev/null`): it would lead the client past the view",
        )),
    }
}

/// QEMU would write the number that its own pid namespace gives it, which means another process,
/// or none, to whoever reads it on the host.
fn refuse_pidfile_of_qemu(argv: &[OsString]) -> Result<()> {
    let is_qemu = argv.first().is_some_and(|program| {
        Path::new(program)
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"qemu"))
    });
    let named = argv
        .iter()
        .skip(1)
        .any(|arg| arg == "-pidfile" || arg == "--pidfile");
    if is_qemu && named {
        return Err(Error::new(
            Class::Usage,
            "QEMU's -pidfile would hold a number of its own pid namespace, not the host's",
            "use `virtfs-mediator run --pidfile FILE` instead",
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_pidfile_is_refused_and_only_qemus() {
        let argv = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(
            refuse_pidfile_of_qemu(&argv(&["/usr/bin/qemu-system-x86_64", "-pidfile", "x"]))
                .is_err()
        );
        assert!(refuse_pidfile_of_qemu(&argv(&["mydaemon", "-pidfile", "x"])).is_ok());
    }

    #[test]
    fn export_on_a_kernel_file_system_is_refused() {
        let table = mounts::Table::read().unwrap();
        let error = refuse_unfit_export(Path::new("/proc/self"), &table).unwrap_err();
        assert!(error.to_string().contains("proc mount"), "{error}");
        assert!(!is_kernels_own("ext4") && !is_kernels_own("tmpfs"));
    }
}
