//! As whom a domain's QEMU runs: see [`user`] for what that user must be.

use std::collections::BTreeSet;

use crate::error::{Class, Error, Result};
use crate::identity::{self, Ids};
use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::DomainFile;
use crate::libvirt::qemu_conf::{self, QemuConf};
use crate::libvirt::user::{self, NewUser};
use crate::libvirt::virsh;

/// Who it is.
pub(super) enum Who {
    /// The definition's own label says so.
    Kept(Ids),
    /// The domain's file says so.
    Ours(Ids),
    /// A user that is to be made.
    New(NewUser),
}

impl Who {
    /// Its ids.
    pub(super) fn ids(&self) -> Ids {
        match self {
            Self::Kept(ids) | Self::Ours(ids) => ids.clone(),
            Self::New(user) => Ids {
                uid: user.id,
                gid: user.id,
                groups: std::iter::once(user.id)
                    .chain(user.kvm.as_ref().map(|(_, gid)| *gid))
                    .collect(),
            },
        }
    }
}

/// Decides.
///
/// # Errors
///
/// Configuration: the domain's label gives it ids that are not its own.
pub(super) fn decide(
    definition: &Definition,
    file: Option<&DomainFile>,
    conf: &QemuConf,
    notes: &mut Vec<String>,
) -> Result<Who> {
    let taken = taken(&definition.uuid, conf)?;
    if !conf.dynamic_ownership {
        notes.push(format!(
            "{} has dynamic_ownership = 0: libvirt gives the domain's disk images to nobody; give \
             them to the domain's user yourself (`chown`)",
            qemu_conf::FILE
        ));
    }
    let who = if let Some(file) = file {
        Who::Ours(file.client.ids()?)
    } else if definition
        .dac
        .as_ref()
        .is_some_and(|dac| dac.kind == "static")
    {
        let refused = |why: String| {
            Error::new(
                Class::Configuration,
                why,
                format!(
                    "take <seclabel model='dac'> out (`virsh edit {}`), and the domain is given a \
                     user of its own; or write one there that no other domain has",
                    definition.name
                ),
            )
        };
        let Some((uid, gid)) = definition.static_ids() else {
            return Err(refused(format!(
                "domain '{}' has a static DAC label whose user and group cannot be told",
                definition.name
            )));
        };
        Who::Kept(
            identity::client(Some(&format!("{uid}:{gid}")))
                .map_err(|_| refused(format!("domain '{}' runs as root", definition.name)))?,
        )
    } else {
        Who::New(user::choose(&definition.name, &definition.uuid, &taken)?)
    };
    let ids = who.ids();
    if let Who::Kept(_) | Who::Ours(_) = &who
        && let Some(whose) = owner_of(ids.uid, &definition.uuid, conf)?
    {
        return Err(Error::new(
            Class::Configuration,
            format!(
                "domain '{}' runs as uid {}, and so {whose}: the QEMU of one reaches the other's \
                 views through /proc",
                definition.name, ids.uid
            ),
            match &who {
                Who::Ours(_) => format!(
                    "virtfs-mediator libvirt disable {0}, then enable it again: it is given a user \
                     of its own",
                    definition.name
                ),
                Who::Kept(_) | Who::New(_) => format!(
                    "take <seclabel model='dac'> out (`virsh edit {}`), and the domain is given a \
                     user of its own; or write one there that no other domain has",
                    definition.name
                ),
            },
        ));
    }
    if let Who::New(NewUser {
        kvm: Some((name, gid)),
        ..
    }) = &who
        && conf.shared_gid() == Some(*gid)
    {
        notes.push(format!(
            "the group of /dev/kvm, {name}, is also the one that {} gives domains without a \
             label: this domain can open their guest agents' sockets; enable them too, or name \
             another `group` there",
            qemu_conf::FILE
        ));
    }
    Ok(who)
}

/// Ids that are some other domain's.
fn taken(uuid: &str, conf: &QemuConf) -> Result<BTreeSet<u32>> {
    let mut taken = BTreeSet::new();
    taken.extend(conf.shared_uid());
    taken.extend(conf.shared_gid());
    for (_, uid, gid) in fixed(uuid)? {
        taken.extend([uid, gid]);
    }
    Ok(taken)
}

/// Who else runs, or would run, as this uid.
fn owner_of(uid: u32, uuid: &str, conf: &QemuConf) -> Result<Option<String>> {
    if conf.shared_uid() == Some(uid) {
        return Ok(Some("does every domain without a label of its own".into()));
    }
    if identity::mediator(None).is_ok_and(|mediator| mediator.uid == uid) {
        return Ok(Some("do the mediators".into()));
    }
    let other = fixed(uuid)?.into_iter().find(|(_, other, _)| *other == uid);
    Ok(other.map(|(name, ..)| format!("does domain '{name}'")))
}

/// Every other domain with ids of its own: by its definition, and by its file.
fn fixed(uuid: &str) -> Result<Vec<(String, u32, u32)>> {
    let mut found = Vec::new();
    for other in virsh::all()?.iter().filter(|other| other.uuid != uuid) {
        // It may have been undefined since.
        let Ok(text) = other.definition() else {
            continue;
        };
        // Which domains libvirt takes is not for one of them to decide: its file, if it has one, counts.
        match Definition::parse(text) {
            Ok(other) => {
                let ids = other.static_ids();
                found.extend(ids.map(|(uid, gid)| (other.name, uid, gid)));
            }
            Err(error) => tracing::warn!("domain {} is passed over: {}", other.uuid, error.what()),
        }
    }
    for name in DomainFile::names()? {
        if let Ok(Some(file)) = DomainFile::read(&name)
            && file.uuid != uuid
            && let Ok(ids) = file.client.ids()
        {
            found.push((name, ids.uid, ids.gid));
        }
    }
    Ok(found)
}
