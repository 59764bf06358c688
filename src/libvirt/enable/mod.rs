//! `libvirt enable`: gives a domain's passthrough filesystems views.
//!
//! * [`views`]: which filesystems get a view, and what is told of the others.
//! * [`who`]: as whom the domain's QEMU runs.
//! * [`apply`]: what is changed, all of it or none.
//!
//! All is looked at and shown before anything is changed; what was is recorded ([`super::undo`]).

mod apply;
mod views;
mod who;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Class, Error, Result};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::{self, Client, DomainFile, EMULATORS, Id, View, WRAPPER};
use crate::libvirt::domain_xml::{DomainXml, is_wrapper};
use crate::libvirt::qemu_conf::QemuConf;
use crate::libvirt::search::{self, Allowance};
use crate::libvirt::show::{self, Consent};
use crate::libvirt::undo::Undo;
use crate::libvirt::{lock, virsh};
use crate::output::outln;
use crate::plan;
use crate::serve::protocol::EMULATOR_HOMES;
use apply::Changes;
use who::Who;

/// Where libvirt keeps what it makes for each domain: QEMU reads its master key there.
const STATE: &str = "/var/lib/libvirt/qemu";

/// The command line of `libvirt enable`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The domain: its name or uuid.
    domain: String,
    /// The policy of its views; without one, all but device nodes is allowed.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Share this directory too, under this mount tag: adds a <filesystem> to the definition.
    #[arg(long, value_name = "DIR:TAG[=POLICY]")]
    share: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Enables a domain.
///
/// # Errors
///
/// Privilege, usage; configuration: why the domain or the host cannot have it, and nothing has been
/// changed.
pub(crate) fn enable(options: &Options) -> Result<u8> {
    plan::require_root()?;
    let shares = options
        .share
        .iter()
        .map(|text| views::Share::parse(text))
        .collect::<Result<Vec<_>>>()?;
    let _alone = lock()?;
    let domain = virsh::find(domain_file::checked_name(&options.domain)?)?;
    let definition = Definition::parse(domain.definition()?)?;
    show::refuse_number(&options.domain, &definition)?;
    domain_file::checked_name(&definition.name)?;
    domain.refuse_uneditable(&definition.name)?;
    DomainXml::parse(&definition.text)?.refuse_managed_reservations()?;
    let conf = QemuConf::read()?;
    conf.refuse_without_namespaces()?;

    let file_before = DomainFile::read(&definition.name)?;
    let undo_before = Undo::read(&definition.name)?;
    refuse_earlier(&definition, file_before.as_ref(), undo_before.as_ref())?;
    let mut notes = Vec::new();
    let (emulator, link) = emulator(&definition, file_before.as_ref())?;
    let views = views::plan(
        &definition,
        file_before.as_ref(),
        &shares,
        options.policy.as_deref(),
        &mut notes,
    )?;
    let who = who::decide(&definition, file_before.as_ref(), &conf, &mut notes)?;
    let ids = who.ids();

    let mut reached = vec![Path::new(STATE).join("domain")];
    reached.extend(definition.files.iter().cloned());
    reached.extend(views.views.iter().map(|view| view.export.clone()));
    let closed = search::closed_to(&ids, &reached)?;
    let search = closed
        .iter()
        .map(|directory| Allowance::plan(directory, ids.uid))
        .collect::<Result<Vec<_>>>()?;
    note_ways(&views.views, &mut notes)?;
    show::note_what_is_missing(&mut notes);

    let mut edit = definition.edit();
    if definition.emulator != link {
        edit.emulator(&link);
    }
    if definition.static_ids() != Some((ids.uid, ids.gid)) {
        edit.label(ids.uid, ids.gid);
    }
    for (filesystem, to) in &views.sources {
        edit.source(filesystem, to);
    }
    for share in &views.added {
        edit.add(&share.directory, &share.tag);
    }

    let mut undo = undo_before.clone().unwrap_or(Undo {
        uuid: definition.uuid.clone(),
        emulator: emulator.clone(),
        label: definition.label_text().map(ToOwned::to_owned),
        ids: None,
        sources: Vec::new(),
        added: Vec::new(),
        user: None,
        searchable: Vec::new(),
        written: None,
        file: file_text(&definition.name, file_before.is_some())?,
    });
    if !matches!(who, Who::Kept(_)) {
        undo.ids = Some((ids.uid, ids.gid));
    }
    let sources = views.sources.iter().filter_map(|(filesystem, to)| {
        let (from, _) = filesystem.source.as_ref()?;
        Some((from.clone(), to.clone()))
    });
    undo.sources.extend(sources);
    let added = views.added.iter();
    undo.added
        .extend(added.map(|share| (share.directory.clone(), share.tag.clone())));
    undo.searchable.extend(search.iter().cloned());
    if let Who::New(user) = &who {
        undo.user = Some((user.name.clone(), user.id));
    }

    let base = file_before.clone();
    let file = DomainFile {
        domain: definition.name.clone(),
        uuid: definition.uuid.clone(),
        emulator,
        audit: base
            .as_ref()
            .map(|file| file.audit.clone())
            .unwrap_or_default(),
        require_confinement: base.is_some_and(|file| file.require_confinement),
        client: Client {
            user: Id::Number(ids.uid),
            group: Id::Number(ids.gid),
        },
        views: views.views,
    };
    file.check()?;
    undo.written = Some(file.text()?);
    let changes = Changes {
        after: edit.text(),
        file,
        file_before,
        undo,
        undo_before,
        user: match who {
            Who::New(user) => Some(user),
            Who::Kept(_) | Who::Ours(_) => None,
        },
        search,
        domain,
        definition,
    };
    finish(&changes, &options.consent, &notes)
}

/// What the exports' places mean for starts to come.
fn note_ways(views: &[View], notes: &mut Vec<String>) -> Result<()> {
    let exports: Vec<PathBuf> = views.iter().map(|view| view.export.clone()).collect();
    if let Some(first) = search::closed_to_the_service(&exports)?.first() {
        notes.push(format!(
            "{}; {}",
            search::closed_to_the_service_says(first),
            search::closed_to_the_service_cure(first)
        ));
    }
    let movable = exports
        .iter()
        .filter_map(|export| Some((export, plan::others_may_rename(export)?)));
    notes.extend(movable.map(|(export, above)| search::movable_says(&above, export, "the domain")));
    Ok(())
}

/// A domain of the same name was there before, and was undefined without `disable`.
fn refuse_earlier(
    definition: &Definition,
    file: Option<&DomainFile>,
    undo: Option<&Undo>,
) -> Result<()> {
    let file = file.map(|file| &file.uuid);
    let mut uuids = file.into_iter().chain(undo.map(|undo| &undo.uuid));
    if uuids.all(|uuid| *uuid == definition.uuid) {
        return Ok(());
    }
    let name = &definition.name;
    Err(config(
        format!("an earlier domain called '{name}' was enabled, and its file is still there"),
        format!("virtfs-mediator libvirt disable {name}, then enable it again"),
    ))
}

/// Shows the changes, asks, makes them.
fn finish(changes: &Changes, consent: &Consent, notes: &[String]) -> Result<u8> {
    let name = &changes.definition.name;
    if changes.is_empty()? {
        show::notes(notes);
        outln!("domain '{name}' is enabled already: nothing to change");
        return Ok(0);
    }
    changes.show()?;
    show::notes(notes);
    if !consent.given(&format!("Enable domain '{name}' so?"))? {
        return Ok(0);
    }
    changes.apply()?;
    outln!("domain '{name}' is enabled");
    if changes.domain.state()? != "shut off" {
        outln!(
            "it runs: all this takes effect when it is next started (shut it down first; a reboot \
             from inside keeps the QEMU that runs)"
        );
    }
    Ok(0)
}

/// What the domain's QEMU is, and the link by which `<emulator>` leads to the wrapper.
fn emulator(definition: &Definition, file: Option<&DomainFile>) -> Result<(PathBuf, PathBuf)> {
    let named = &definition.emulator;
    let real = if is_wrapper(named) {
        real_emulator(definition, file)?
    } else {
        named.clone()
    };
    let shown = real.display();
    let executable = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if !executable(&real) {
        return Err(config(
            format!("the emulator {shown} cannot be run"),
            "install QEMU, or name another <emulator> (`virsh edit`)",
        ));
    }
    let base = real.file_name().unwrap_or_default();
    let link = Path::new(EMULATORS).join(base);
    let leads_to_wrapper = link
        .canonicalize()
        .is_ok_and(|target| target.ends_with(WRAPPER) && executable(&target));
    if !leads_to_wrapper {
        return Err(config(
            format!("{} does not lead to {WRAPPER}", link.display()),
            format!("ln -sf /usr/bin/{WRAPPER} {}", link.display()),
        ));
    }
    // libvirt asks the wrapper what it can do, before it has a domain: it can only go by its name.
    let probed = EMULATOR_HOMES
        .iter()
        .map(|home| Path::new(home).join(base))
        .find(|path| executable(path));
    let same = |probed: &PathBuf| {
        let (one, other) = (probed.canonicalize().ok(), real.canonicalize().ok());
        one.is_some() && one == other
    };
    if !probed.as_ref().is_some_and(same) {
        return Err(config(
            format!(
                "the emulator {shown} is not the one that libvirt would be told about, {}",
                probed.map_or_else(
                    || format!("none of that name in {}", EMULATOR_HOMES.join(", ")),
                    |probed| probed.display().to_string()
                )
            ),
            format!(
                "let /usr/local/bin/NAME be a link to {shown}, with a name of its own, and name \
                 that as <emulator> (`virsh edit`)"
            ),
        ));
    }
    Ok((real, link))
}

/// What the wrapper becomes, of a domain that names the wrapper.
fn real_emulator(definition: &Definition, file: Option<&DomainFile>) -> Result<PathBuf> {
    if let Some(file) = file {
        return Ok(file.emulator.clone());
    }
    let name = &definition.name;
    if let Some(before) = called_before(&definition.uuid) {
        return Err(config(
            format!("domain '{name}' was called '{before}' when it was enabled"),
            format!(
                "virsh domrename {name} {before}; virtfs-mediator libvirt disable {before}; then \
                 rename it again, and enable it"
            ),
        ));
    }
    Err(config(
        format!(
            "domain '{name}' names {} as its emulator, but has no file of ours: which QEMU it had \
             is not known",
            definition.emulator.display()
        ),
        format!("put its own emulator back first: virsh edit {name}"),
    ))
}

/// The text of a file that an administrator wrote before.
fn file_text(name: &str, is_there: bool) -> Result<Option<String>> {
    if !is_there {
        return Ok(None);
    }
    let path = domain_file::path_of(name)?;
    let text = std::fs::read_to_string(&path);
    text.map(Some)
        .map_err(|error| config(format!("{}: {error}", path.display()), ""))
}

/// The name that a domain of this uuid has in a file of ours.
fn called_before(uuid: &str) -> Option<String> {
    let names = DomainFile::names().ok()?;
    names.into_iter().find(|name| {
        let file = DomainFile::read(name).ok().flatten();
        file.is_some_and(|file| file.uuid == uuid)
    })
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}
