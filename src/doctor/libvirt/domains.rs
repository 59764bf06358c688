//! Each domain that is enabled, and those that only look so.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;
use crate::doctor::ids::{listed, processes_of};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::DomainFile;
use crate::libvirt::domain_xml::is_wrapper;
use crate::libvirt::qemu_conf::QemuConf;
use crate::libvirt::{drift, search, virsh};
use crate::plan::others_may_rename;

/// Where libvirt keeps what it makes for each domain.
const STATE: &str = "/var/lib/libvirt/qemu/domain";

/// All checks of this part.
pub(super) fn check(findings: &mut Findings, conf: Option<&QemuConf>) {
    let all = match virsh::all() {
        Ok(all) => all,
        Err(error) => {
            findings.tell(Problem::NoLibvirt, error.what(), error.advice());
            return;
        }
    };
    findings.ok(
        Problem::NoLibvirt,
        format!("libvirt answers, and has {} domains", all.len()),
    );
    let definitions: Vec<Definition> = all
        .iter()
        .filter_map(|domain| Definition::parse(domain.definition().ok()?).ok())
        .collect();
    let names = match DomainFile::names() {
        Ok(names) => names,
        Err(error) => {
            findings.tell(Problem::Drift, error.what(), error.advice());
            return;
        }
    };
    for name in &names {
        let definition = definitions.iter().find(|one| one.name == *name);
        match (DomainFile::read(name), definition) {
            (Ok(Some(file)), Some(definition)) => domain(findings, &file, definition, conf),
            (Ok(Some(_)), None) => findings.tell(
                Problem::Drift,
                format!("{name}: has a file, but libvirt does not know it"),
                format!("virtfs-mediator libvirt disable {name}"),
            ),
            (Ok(None), _) => {}
            (Err(error), _) => findings.tell(
                Problem::Drift,
                error.what(),
                if error.advice().is_empty() {
                    "correct that line"
                } else {
                    error.advice()
                },
            ),
        }
    }
    let mut without = Vec::new();
    for definition in definitions
        .iter()
        .filter(|definition| !names.contains(&definition.name))
    {
        if is_wrapper(&definition.emulator) {
            findings.tell(
                Problem::Drift,
                format!(
                    "{}: its emulator is the wrapper, but it has no file: it does not start",
                    definition.name
                ),
                format!(
                    "virtfs-mediator libvirt enable {0}, or put its own emulator back",
                    definition.name
                ),
            );
        } else if definition.passthrough().next().is_some() {
            without.push(definition.name.clone());
        }
    }
    if without.is_empty() {
        findings.ok(
            Problem::NotEnabled,
            "every domain with a passthrough filesystem is enabled",
        );
    } else {
        findings.tell(
            Problem::NotEnabled,
            format!(
                "passthrough filesystems without views: {}; their guests cannot give files owners",
                without.join(", ")
            ),
            "virtfs-mediator libvirt enable DOMAIN",
        );
    }
}

fn domain(
    findings: &mut Findings,
    file: &DomainFile,
    definition: &Definition,
    conf: Option<&QemuConf>,
) {
    let name = &file.domain;
    let differences = drift::between(file, definition);
    if differences.is_empty() {
        findings.ok(Problem::Drift, format!("{name}: definition and file agree"));
    }
    for difference in differences {
        findings.tell(
            Problem::Drift,
            format!("{name}: {difference}"),
            format!("virtfs-mediator libvirt enable {name}, or disable it"),
        );
    }
    let Ok(ids) = file.client.ids() else {
        return;
    };
    alone(findings, name, ids.uid, conf);
    if matches!(User::from_uid(Uid::from_raw(ids.uid)), Ok(Some(_))) {
        findings.ok(
            Problem::NoAccount,
            format!("{name}: uid {} has an account", ids.uid),
        );
    } else {
        findings.tell(
            Problem::NoAccount,
            format!(
                "{name}: uid {} has no account: it can have no groups (as for /dev/kvm), and may be \
                 given to somebody else",
                ids.uid
            ),
            format!("useradd --system --no-log-init --uid {} --no-create-home --user-group NAME", ids.uid),
        );
    }
    let mut reached = vec![PathBuf::from(STATE)];
    reached.extend(definition.files.iter().cloned());
    reached.extend(file.views.iter().map(|view| view.export.clone()));
    match search::closed_to(&ids, &reached) {
        Ok(closed) if closed.is_empty() => findings.ok(
            Problem::Closed,
            format!("{name}: its user may search all directories on its way"),
        ),
        Ok(closed) => {
            let first: &Path = closed.first().map_or(Path::new("/"), PathBuf::as_path);
            findings.tell(
                Problem::Closed,
                format!(
                    "{name}: uid {} may not search {}, so that its QEMU does not start, or cannot \
                     open its files",
                    ids.uid,
                    first.display()
                ),
                search::setfacl(first, ids.uid),
            );
        }
        Err(error) => findings.untried(Problem::Closed, &format!("{name}: {}", error.what())),
    }
    way_of_the_service(findings, file);
    way_in_the_hands_of_others(findings, file);
}

fn exports(file: &DomainFile) -> Vec<PathBuf> {
    file.views.iter().map(|view| view.export.clone()).collect()
}

/// The service that lays views is root without power over mode bits.
fn way_of_the_service(findings: &mut Findings, file: &DomainFile) {
    let name = &file.domain;
    match search::closed_to_the_service(&exports(file)) {
        Ok(closed) => match closed.first() {
            None => findings.ok(
                Problem::ServiceClosed,
                format!("{name}: the service may search all directories above its exports"),
            ),
            Some(first) => findings.tell(
                Problem::ServiceClosed,
                format!("{name}: {}", search::closed_to_the_service_says(first)),
                search::closed_to_the_service_cure(first),
            ),
        },
        Err(error) => {
            findings.untried(Problem::ServiceClosed, &format!("{name}: {}", error.what()))
        }
    }
}

/// Who may rename above an export decides what the domain shares at its next start.
fn way_in_the_hands_of_others(findings: &mut Findings, file: &DomainFile) {
    let name = &file.domain;
    let exports = exports(file);
    let found = exports
        .iter()
        .find_map(|export| Some((export, others_may_rename(export)?)));
    match found {
        None => findings.ok(
            Problem::ExportMovable,
            format!("{name}: only root may rename directories above its exports"),
        ),
        Some((export, above)) => findings.tell(
            Problem::ExportMovable,
            format!("{name}: {}", search::movable_says(&above, export, "it")),
            "share a directory below directories of root's alone, if they are not to",
        ),
    }
}

/// Whoever else runs as the domain's user reaches its views through /proc.
fn alone(findings: &mut Findings, name: &str, uid: u32, conf: Option<&QemuConf>) {
    let recorded = std::fs::read_to_string(format!("/run/libvirt/qemu/{name}.pid"));
    let own: Option<i32> = recorded.ok().and_then(|text| text.trim().parse().ok());
    let mut others = processes_of(uid);
    others.retain(|(pid, _)| Some(*pid) != own);
    let cure = format!(
        "end them; give each domain a user of its own (virtfs-mediator libvirt disable {name}, then \
         enable it)"
    );
    if conf.and_then(QemuConf::shared_uid) == Some(uid) {
        findings.tell(
            Problem::SharedUid,
            format!("{name}: uid {uid} is that of every domain without a label"),
            cure,
        );
    } else if others.is_empty() {
        findings.ok(
            Problem::SharedUid,
            format!("{name}: nobody else runs as uid {uid}"),
        );
    } else {
        findings.tell(
            Problem::SharedUid,
            format!(
                "{name}: uid {uid} also runs {}, which can reach its views through /proc",
                listed(&others)
            ),
            cure,
        );
    }
}
