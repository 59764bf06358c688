//! `libvirt status`: which domains are enabled, and whether that is so in fact.

use clap::Args;
use serde::Serialize;

use crate::control::rundir;
use crate::error::Result;
use crate::libvirt::armed::{self, Stage};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::{self, DomainFile};
use crate::libvirt::domain_xml::is_wrapper;
use crate::libvirt::{drift, show, virsh};
use crate::output::outln;
use crate::plan;

/// The command line of `libvirt status`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// One domain: its name or uuid; default: all that are enabled.
    domain: Option<String>,
    /// One JSON array of {domain, uuid, state, enabled, client, views, stage, drift}.
    #[arg(long)]
    json: bool,
}

/// What is told of a domain.
#[derive(Debug, Serialize)]
struct Told {
    domain: String,
    uuid: Option<String>,
    /// As `virsh domstate`; `undefined` if libvirt does not know it.
    state: String,
    enabled: bool,
    /// `UID:GID`.
    client: Option<String>,
    views: Vec<View>,
    /// How far a start has come: `armed`, then `attached` until the domain ends.
    stage: Option<&'static str>,
    /// Where file and definition differ.
    drift: Vec<String>,
}

#[derive(Debug, Serialize)]
struct View {
    name: String,
    export: std::path::PathBuf,
    running: bool,
}

/// Tells of one domain, or of all that are enabled.
///
/// # Errors
///
/// Privilege; configuration: libvirt does not answer, or does not know the domain.
pub(crate) fn status(options: &Options) -> Result<u8> {
    plan::require_root()?;
    let told = match &options.domain {
        Some(typed) => vec![one(domain_file::checked_name(typed)?)?],
        None => all()?,
    };
    if options.json {
        outln!(
            "{}",
            serde_json::to_string_pretty(&told).unwrap_or_default()
        );
        return Ok(0);
    }
    if told.is_empty() {
        outln!("no domain is enabled (`virtfs-mediator libvirt enable DOMAIN`)");
    }
    for domain in &told {
        print(domain);
    }
    Ok(0)
}

fn one(typed: &str) -> Result<Told> {
    let definition = match virsh::find(typed) {
        Ok(domain) => {
            let definition = Definition::parse(domain.definition()?)?;
            show::refuse_number(typed, &definition)?;
            Some((domain.state()?, definition))
        }
        Err(error) if !domain_file::path_of(typed)?.exists() => return Err(error),
        Err(_) => None,
    };
    let name = definition
        .as_ref()
        .map_or(typed, |(_, definition)| definition.name.as_str());
    Ok(told(name, definition.as_ref()))
}

/// Those with a file, and those that name our wrapper without one.
fn all() -> Result<Vec<Told>> {
    let mut found = Vec::new();
    let mut names = DomainFile::names()?;
    for domain in virsh::all()? {
        let definition = match domain.definition().and_then(Definition::parse) {
            Ok(definition) => definition,
            Err(error) => {
                tracing::warn!("domain {} is passed over: {}", domain.uuid, error.what());
                continue;
            }
        };
        let has_file = names.contains(&definition.name);
        if has_file || is_wrapper(&definition.emulator) {
            names.retain(|name| *name != definition.name);
            let name = definition.name.clone();
            found.push(told(&name, Some(&(domain.state()?, definition))));
        }
    }
    found.extend(names.iter().map(|name| told(name, None)));
    found.sort_by(|one, other| one.domain.cmp(&other.domain));
    Ok(found)
}

fn told(name: &str, known: Option<&(String, Definition)>) -> Told {
    let file = match domain_file::checked_name(name) {
        Ok(_) => DomainFile::read(name),
        Err(error) => Err(error),
    };
    let mut drift = match (&file, known) {
        (Ok(Some(file)), Some((_, definition))) => drift::between(file, definition),
        (Ok(Some(_)), None) => vec!["libvirt does not know the domain".to_owned()],
        (Ok(None), Some((_, definition))) if is_wrapper(&definition.emulator) => {
            vec!["its emulator is the wrapper, but it has no file: it does not start".to_owned()]
        }
        (Ok(None), _) => Vec::new(),
        (Err(error), _) => vec![error.to_string()],
    };
    drift.dedup();
    let file = file.ok().flatten();
    let enabled = file.is_some() && drift.is_empty();
    let views = file.iter().flat_map(|file| &file.views).map(|view| View {
        name: view.name.clone(),
        export: view.export.clone(),
        running: rundir::load(&view.name).is_ok(),
    });
    Told {
        domain: name.to_owned(),
        uuid: known
            .map(|(_, definition)| definition.uuid.clone())
            .or_else(|| Some(file.as_ref()?.uuid.clone())),
        state: known.map_or_else(|| "undefined".to_owned(), |(state, _)| state.clone()),
        enabled,
        client: file.as_ref().and_then(|file| {
            let ids = file.client.ids().ok()?;
            Some(format!("{}:{}", ids.uid, ids.gid))
        }),
        views: views.collect(),
        stage: armed::stage(name).ok().flatten().map(|stage| match stage {
            Stage::Armed => "armed",
            Stage::Attached => "attached",
        }),
        drift,
    }
}

fn print(told: &Told) {
    let how = match (told.enabled, told.drift.is_empty()) {
        (true, _) => "enabled",
        (false, true) => "not enabled",
        (false, false) => "not as it should be",
    };
    let client = told
        .client
        .as_ref()
        .map_or_else(String::new, |client| format!(", client {client}"));
    let stage = told
        .stage
        .map_or_else(String::new, |stage| format!(", {stage}"));
    outln!("{}: {how}, {}{client}{stage}", told.domain, told.state);
    for view in &told.views {
        let running = if view.running {
            "running"
        } else {
            "not running"
        };
        outln!("  view {}: {}, {running}", view.name, view.export.display());
    }
    for drift in &told.drift {
        outln!("  ! {drift}");
    }
}
