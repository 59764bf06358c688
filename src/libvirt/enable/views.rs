//! Which filesystems of a domain get a view.

use std::path::{Path, PathBuf};

use virtfs_mediator_core::policy::Policy;

use crate::cli::CacheOption;
use crate::error::{Class, Error, Result};
use crate::libvirt::definition::{Definition, Filesystem, Service};
use crate::libvirt::domain_file::{DomainFile, View};
use crate::live::in_force::Text;
use crate::live::origin::Origin;
use crate::{mounts, plan, view_name};

/// The longest mount tag that QEMU takes (hw/9pfs/virtio-9p.h: `MAX_TAG_LEN`, with a NUL).
const LONGEST_TAG: usize = 31;

/// `--share DIR:TAG[=POLICY]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) directory: PathBuf,
    pub(super) tag: String,
    policy: Option<PathBuf>,
}

/// What was found.
pub(super) struct Views {
    pub(super) views: Vec<View>,
    /// Filesystems whose source has to be written without links.
    pub(super) sources: Vec<(Filesystem, PathBuf)>,
    /// Filesystems that the domain does not have yet.
    pub(super) added: Vec<Share>,
}

impl Share {
    /// # Errors
    ///
    /// Usage.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(
                Class::Usage,
                format!("--share {text}: {what}"),
                "write DIR:TAG or DIR:TAG=POLICY; a directory with ':' in its name needs a \
                 <filesystem> of the domain's own (`virsh edit`)",
            )
        };
        let (directory, rest) = text.split_once(':').ok_or_else(|| wrong("no TAG"))?;
        let (tag, policy) = match rest.split_once('=') {
            Some((tag, policy)) => (tag, Some(policy)),
            None => (rest, None),
        };
        if directory.is_empty() || policy == Some("") {
            return Err(wrong("a part of it is empty"));
        }
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b',';
        if tag.is_empty() || tag.len() > LONGEST_TAG || !tag.bytes().all(fits) {
            return Err(wrong(
                "the TAG must have 1 to 31 letters, digits and signs, without '/' and ','",
            ));
        }
        Ok(Self {
            directory: directory.into(),
            tag: tag.to_owned(),
            policy: policy.map(PathBuf::from),
        })
    }
}

/// Goes through the domain's filesystems and what is to be added.
///
/// # Errors
///
/// Configuration: an export that a start would refuse, a tag or directory twice, or no filesystem
/// to make a view of.
pub(super) fn plan(
    definition: &Definition,
    file: Option<&DomainFile>,
    shares: &[Share],
    policy: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<Views> {
    let others = others(&definition.name);
    let table = mounts::Table::read()?;
    let policy = policy.map(absolute);
    let mut found = Views {
        views: Vec::new(),
        sources: Vec::new(),
        added: Vec::new(),
    };
    let mut taken: Vec<String> = others
        .iter()
        .flat_map(|file| file.views.iter().map(|view| view.name.clone()))
        .collect();
    let mut origins = Vec::new();
    for filesystem in &definition.filesystems {
        let tag = &filesystem.tag;
        match filesystem.service {
            Service::Passthrough => {}
            Service::Local(mode) => {
                notes.push(format!(
                    "filesystem '{tag}' has accessmode='{mode}': it is left as it is, without a \
                     view; write 'passthrough' for one"
                ));
                continue;
            }
            Service::Other => continue,
        }
        let Some((source, _)) = &filesystem.source else {
            return Err(config(
                format!("filesystem '{tag}' has no <source dir=...>"),
                "give it one (`virsh edit`)",
            ));
        };
        let share = shares.iter().find(|share| share.tag == *tag);
        let typed = share.and_then(|share| share.policy.as_deref().map(absolute));
        let wanted = Wanted {
            source,
            tag,
            readonly: filesystem.readonly,
            policy: typed.or_else(|| policy.clone()),
        };
        let view = view(definition, file, &wanted, &table, &mut taken, &mut origins)?;
        if let Some(share) = share
            && plan::open_directory(&share.directory, "--share")?.0 != view.export
        {
            return Err(config(
                format!(
                    "--share {}:{tag}: the domain's filesystem '{tag}' is {}",
                    share.directory.display(),
                    source.display()
                ),
                "choose another tag",
            ));
        }
        if view.export != *source {
            found
                .sources
                .push((filesystem.clone(), view.export.clone()));
        }
        found.views.push(view);
    }
    let known = |tag: &str| definition.filesystems.iter().any(|one| one.tag == tag);
    for share in shares.iter().filter(|share| !known(&share.tag)) {
        if found.added.iter().any(|other| other.tag == share.tag) {
            return Err(config(
                format!("two shares with the tag '{}'", share.tag),
                "",
            ));
        }
        let wanted = Wanted {
            source: &share.directory,
            tag: &share.tag,
            readonly: false,
            policy: share
                .policy
                .as_deref()
                .map(absolute)
                .or_else(|| policy.clone()),
        };
        let view = view(definition, file, &wanted, &table, &mut taken, &mut origins)?;
        found.added.push(Share {
            directory: view.export.clone(),
            ..share.clone()
        });
        found.views.push(view);
    }
    if found.views.is_empty() {
        return Err(config(
            format!(
                "domain '{}' has no <filesystem type='mount' accessmode='passthrough'>",
                definition.name
            ),
            "name a directory to share with --share DIR:TAG",
        ));
    }
    let shared: Vec<PathBuf> = found
        .views
        .iter()
        .flat_map(|view| table.places_of(&view.export))
        .collect();
    origins
        .iter()
        .try_for_each(|origin| origin.refuse_shared(&shared))?;
    note_shared_exports(&found.views, &others, notes);
    Ok(found)
}

/// What a view is to be.
struct Wanted<'a> {
    source: &'a Path,
    tag: &'a str,
    readonly: bool,
    policy: Option<PathBuf>,
}

/// What a start would refuse is refused now. A view that the file has keeps its settings.
fn view(
    definition: &Definition,
    file: Option<&DomainFile>,
    wanted: &Wanted<'_>,
    table: &mounts::Table,
    taken: &mut Vec<String>,
    origins: &mut Vec<Origin>,
) -> Result<View> {
    let (export, fd) = plan::open_directory(wanted.source, "export")?;
    plan::refuse_unfit_export(&export, table)?;
    let known = file.and_then(|file| file.views.iter().find(|view| view.export == export));
    let view = match known {
        Some(view) => View {
            policy: wanted.policy.clone().or_else(|| view.policy.clone()),
            readonly: view.readonly || wanted.readonly,
            ..view.clone()
        },
        None => View {
            name: free_name(&definition.name, wanted.tag, taken),
            export: export.clone(),
            policy: wanted.policy.clone(),
            data: None,
            cache: None,
            readonly: wanted.readonly,
        },
    };
    taken.push(view.name.clone());
    let policy = match &view.policy {
        Some(file) => {
            let read = Text::read(file)?;
            if let Some(origin) = read.origin {
                origin.refuse_others()?;
                origins.push(origin);
            }
            read.policy
        }
        None => Policy::parity(),
    };
    plan::refuse_other_export(&export, &policy)?;
    plan::refuse_unmapped_root(&export, &fd, &policy)?;
    Ok(view)
}

/// `DOMAIN-TAG`, as far as that is a view's name that no other has.
fn free_name(domain: &str, tag: &str, taken: &[String]) -> String {
    let path = format!("{domain}-{tag}").replace('/', "-");
    let plain = view_name::checked(&path).ok();
    match plain.filter(|name| !taken.contains(name)) {
        Some(name) => name,
        None => view_name::derived(Path::new(&path), |name| {
            taken.iter().any(|other| other == name)
        }),
    }
}

/// The files of all other domains; those that cannot be read are `status`'s to tell.
fn others(domain: &str) -> Vec<DomainFile> {
    let names = DomainFile::names().unwrap_or_default();
    let others = names.iter().filter(|name| *name != domain);
    others
        .filter_map(|name| DomainFile::read(name).ok()?)
        .collect()
}

fn note_shared_exports(views: &[View], others: &[DomainFile], notes: &mut Vec<String>) {
    for view in views {
        for other in others {
            let shares = |one: &&View| {
                one.export.starts_with(&view.export) || view.export.starts_with(&one.export)
            };
            if let Some(theirs) = other.views.iter().find(shares) {
                let exclusive = [view.cache, theirs.cache].contains(&Some(CacheOption::Exclusive));
                notes.push(format!(
                    "domain '{}' shares {} too: each sees the other's changes{}",
                    other.domain,
                    theirs.export.display(),
                    if exclusive {
                        " late or never, since one view has cache = \"exclusive\""
                    } else {
                        " within a second"
                    }
                ));
            }
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_a_directory_a_tag_and_perhaps_a_policy() {
        let share = Share::parse("/srv/a=b:web=/etc/web.toml").unwrap();
        assert_eq!(share.directory, Path::new("/srv/a=b"));
        assert_eq!(share.tag, "web");
        assert_eq!(share.policy.as_deref(), Some(Path::new("/etc/web.toml")));
        assert_eq!(Share::parse("rel:t").unwrap().policy, None);
        let long = format!("/srv:{}", "x".repeat(32));
        for bad in [
            "/srv", "/srv:", ":t", "/srv:t=", "/srv:a/b", "/srv:a b", "/srv:a,b", &long,
        ] {
            assert_eq!(
                Share::parse(bad).unwrap_err().class(),
                Class::Usage,
                "{bad}"
            );
        }
    }

    #[test]
    fn view_is_called_after_domain_and_tag() {
        assert_eq!(free_name("web", "share", &[]), "web-share");
        let taken = ["web-share".to_owned()];
        assert_eq!(free_name("web", "share", &taken), "web-share-2");
        let long = free_name(&"x".repeat(80), "share", &[]);
        assert!(view_name::checked(&long).is_ok(), "{long}");
    }
}
