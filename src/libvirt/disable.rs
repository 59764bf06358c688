//! `libvirt disable`: puts back what `enable` changed, by its record, and nothing else.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Class, Error, Result};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::{self, DomainFile};
use crate::libvirt::domain_xml::is_wrapper;
use crate::libvirt::search::Allowance;
use crate::libvirt::show::{self, Consent};
use crate::libvirt::undo::Undo;
use crate::libvirt::virsh::Domain;
use crate::libvirt::{lock, user, virsh};
use crate::output::outln;
use crate::plan;

/// The command line of `libvirt disable`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The domain: its name or uuid.
    domain: String,
    #[command(flatten)]
    consent: Consent,
}

/// Disables a domain.
///
/// # Errors
///
/// Privilege, usage; configuration: it runs with views, or libvirt refuses the definition.
pub(crate) fn disable(options: &Options) -> Result<u8> {
    plan::require_root()?;
    let _alone = lock()?;
    let typed = domain_file::checked_name(&options.domain)?;
    let known = match virsh::find(typed) {
        Ok(domain) => Some(domain),
        // Undefined since: what is left of it is under its name.
        Err(error) if error.what().contains("failed to get domain") && has_left(typed)? => None,
        Err(error) => return Err(error),
    };
    let definition = match &known {
        Some(domain) => Some(Definition::parse(domain.definition()?)?),
        None => None,
    };
    let name = match &definition {
        Some(definition) => {
            show::refuse_number(typed, definition)?;
            domain_file::checked_name(&definition.name)?
        }
        None => typed,
    };
    let undo = Undo::read(name)?;
    // A file with a mistake in it is removed like any other.
    let file = DomainFile::read(name);
    let is_ours = |definition: &Definition| is_wrapper(&definition.emulator);
    if undo.is_none() && matches!(file, Ok(None)) && !definition.as_ref().is_some_and(is_ours) {
        outln!("domain '{name}' is not enabled: nothing to change");
        return Ok(0);
    }
    let mut notes = Vec::new();
    let after = match (&known, &definition) {
        (Some(domain), Some(definition)) => {
            domain.refuse_uneditable(name)?;
            refuse_running(domain, name, undo.as_ref())?;
            let emulator = undo
                .as_ref()
                .map(|undo| undo.emulator.clone())
                .or_else(|| Some(file.as_ref().ok()?.as_ref()?.emulator.clone()));
            Some(put_back(
                definition,
                undo.as_ref(),
                emulator.as_deref(),
                &mut notes,
            )?)
        }
        _ => None,
    };
    if let (Some(definition), Some(after)) = (&definition, &after) {
        let title = format!("virsh dumpxml --inactive {name}");
        show::diff(&definition.text, after, &title);
    }
    show_host(name, undo.as_ref())?;
    if let Some(kept) = changed_file(name, undo.as_ref())? {
        notes.push(format!(
            "the domain's file was changed since `enable`: it is kept as {}",
            kept.display()
        ));
    }
    show::notes(&notes);
    if !options
        .consent
        .given(&format!("Disable domain '{name}' so?"))?
    {
        return Ok(0);
    }
    if let (Some(domain), Some(definition)) = (&known, &definition) {
        // The question may have taken long.
        refuse_running(domain, name, undo.as_ref())?;
        domain.refuse_changed(definition)?;
    }
    if let (Some(definition), Some(after)) = (&definition, &after)
        && *after != definition.text
    {
        virsh::define(after)?;
    }
    show::notes(&clean(name, undo.as_ref())?);
    outln!("domain '{name}' is disabled");
    Ok(0)
}

fn has_left(name: &str) -> Result<bool> {
    Ok(Undo::read(name)?.is_some() || domain_file::path_of(name)?.exists())
}

/// The QEMU that runs holds on to its views, and its user to processes and files.
fn refuse_running(domain: &Domain, name: &str, undo: Option<&Undo>) -> Result<()> {
    let Some(text) = domain.running()? else {
        return Ok(());
    };
    let running = Definition::parse(text)?;
    let ids = undo.and_then(|undo| undo.ids);
    if !is_wrapper(&running.emulator) && (ids.is_none() || running.static_ids() != ids) {
        return Ok(());
    }
    Err(Error::new(
        Class::Configuration,
        format!("domain '{name}' runs, and uses its views"),
        format!("shut it down first: virsh shutdown {name}"),
    ))
}

/// The definition without what `enable` wrote; what others have changed since is theirs, and told.
fn put_back(
    definition: &Definition,
    undo: Option<&Undo>,
    emulator: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<String> {
    let mut edit = definition.edit();
    if is_wrapper(&definition.emulator) {
        let emulator = emulator.ok_or_else(|| {
            Error::new(
                Class::Configuration,
                format!(
                    "which emulator domain '{}' had is not known: neither its file nor a record of \
                     `enable` is there",
                    definition.name
                ),
                format!("put it back by hand: virsh edit {}", definition.name),
            )
        })?;
        edit.emulator(emulator);
    }
    let Some(undo) = undo else {
        notes.push(format!(
            "there is no record of what `enable` changed in '{}': its emulator is put back, its \
             label and filesystems stay",
            definition.name
        ));
        return Ok(edit.text());
    };
    if undo.ids.is_some() {
        if definition.static_ids() == undo.ids {
            edit.label_back(undo.label.as_deref());
        } else {
            notes.push("the DAC label was changed since, and stays".to_owned());
        }
    }
    for filesystem in &definition.filesystems {
        let Some((source, _)) = &filesystem.source else {
            continue;
        };
        let added = |(directory, tag): &(_, String)| directory == source && *tag == filesystem.tag;
        if undo.added.iter().any(added) {
            edit.drop_filesystem(filesystem);
        } else if let Some((before, _)) = undo.sources.iter().find(|(_, after)| after == source) {
            edit.source(filesystem, before);
        }
    }
    Ok(edit.text())
}

fn show_host(name: &str, undo: Option<&Undo>) -> Result<()> {
    let path = domain_file::path_of(name)?;
    match undo.and_then(|undo| undo.file.as_ref()) {
        Some(_) => outln!("{} as it was", path.display()),
        None => outln!("remove {}", path.display()),
    }
    let Some(undo) = undo else { return Ok(()) };
    if let Some((user, id)) = &undo.user {
        outln!("remove system user {user} (uid and gid {id})");
    }
    for Allowance { uid, directory, .. } in &undo.searchable {
        outln!(
            "the ACL entry of uid {uid} on {} as it was",
            directory.display()
        );
    }
    Ok(())
}

/// Where the domain's file goes if somebody has changed it since `enable` wrote it.
fn changed_file(name: &str, undo: Option<&Undo>) -> Result<Option<PathBuf>> {
    let path = domain_file::path_of(name)?;
    let written = undo.and_then(|undo| undo.written.as_ref());
    let (Some(written), Ok(now)) = (written, std::fs::read(&path)) else {
        return Ok(None);
    };
    Ok((now != written.as_bytes()).then(|| path.with_extension("toml.old")))
}

/// All of it, whatever fails; the record last, so that a second try knows what is left. Told is what
/// others have changed, and stays.
fn clean(name: &str, undo: Option<&Undo>) -> Result<Vec<String>> {
    let (mut failed, mut notes) = (Vec::<Error>::new(), Vec::new());
    if let Some(kept) = changed_file(name, undo)? {
        let path = domain_file::path_of(name)?;
        std::fs::rename(&path, &kept)
            .map_err(|error| Error::step(Class::Configuration, kept.display(), error))?;
    }
    match undo.and_then(|undo| undo.file.as_ref()) {
        Some(text) => {
            let path = domain_file::path_of(name)?;
            let written = std::fs::write(&path, text);
            let told = |error| Error::step(Class::Configuration, path.display(), error);
            failed.extend(written.map_err(told).err());
        }
        None => failed.extend(DomainFile::remove(name).err()),
    }
    if let Some(undo) = undo {
        // The last first: each knows what was before it.
        for allowance in undo.searchable.iter().rev() {
            match allowance.take_back() {
                Ok(left) => notes.extend(left),
                Err(error) => failed.push(error),
            }
        }
        if let Some((user, id)) = &undo.user {
            failed.extend(user::remove(user, *id).err());
        }
    }
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Undo::remove(name).map(|()| notes),
    }
}
