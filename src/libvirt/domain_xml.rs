//! What a domain's XML says that views depend on. Written by whoever may define domains: facts to
//! compare with root's own file, never an instruction.

use std::path::{Path, PathBuf};

use roxmltree::{Document, Node};

use crate::error::{Class, Error, Result};
use crate::identity::{self, Ids};
use crate::libvirt::domain_file::{EMULATORS, WRAPPER};

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainXml {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) uuid: String,
    pub(crate) emulator: Option<PathBuf>,
    pub(crate) label: Label,
    /// Directories that QEMU's own file server shares.
    pub(crate) shares: Vec<Share>,
    /// libvirt runs qemu-pr-helper for it: `<reservations managed='yes'>`.
    managed_reservations: bool,
}

/// As whom QEMU runs by the domain's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// As qemu.conf says, like other domains.
    None,
    /// As libvirt chooses, or not at all.
    NotStatic(String),
    /// `<seclabel type='static' model='dac'>` with this text.
    Static(String),
}

/// A `<filesystem type='mount'>` that QEMU serves itself (9p).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) source: PathBuf,
    /// `accessmode='passthrough'`, which is also what its absence means.
    pub(crate) passthrough: bool,
}

impl DomainXml {
    /// Understands a domain's XML.
    ///
    /// # Errors
    ///
    /// Configuration: it is none.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let broken = |why: &dyn std::fmt::Display| {
            Error::new(Class::Configuration, format!("the domain's XML: {why}"), "")
        };
        // Without a document type, so without entities, which is what the parser's options say.
        let document = Document::parse(text).map_err(|error| broken(&error))?;
        let root = document.root_element();
        // A hook may be given more than the domain (`<hookData>`).
        let domain = root
            .descendants()
            .find(|node| node.has_tag_name("domain"))
            .ok_or_else(|| broken(&"there is no <domain>"))?;
        let word = |name: &str| {
            child(domain, name)
                .map(content)
                .ok_or_else(|| broken(&format!("there is no <{name}>")))
        };
        let devices = child(domain, "devices");
        Ok(Self {
            name: word("name")?,
            uuid: word("uuid")?.to_ascii_lowercase(),
            emulator: devices
                .and_then(|devices| child(devices, "emulator"))
                .map(|emulator| content(emulator).into()),
            label: label(domain),
            shares: devices
                .into_iter()
                .flat_map(|devices| devices.children())
                .filter(|node| node.has_tag_name("filesystem"))
                .filter_map(share)
                .collect(),
            managed_reservations: devices
                .into_iter()
                .flat_map(|devices| devices.descendants())
                .filter(|node| node.has_tag_name("reservations"))
                .any(|node| node.attribute("managed") == Some("yes")),
        })
    }

    /// libvirt starts qemu-pr-helper, as root, in QEMU's mount namespace before QEMU (qemuProcessLaunch
    /// in its source; not run): it would see the views, and no view is laid where somebody else is.
    ///
    /// # Errors
    ///
    /// Configuration: the domain has one.
    pub(crate) fn refuse_managed_reservations(&self) -> Result<()> {
        if !self.managed_reservations {
            return Ok(());
        }
        Err(Error::new(
            Class::Configuration,
            "a disk of it has <reservations managed='yes'>: libvirt runs qemu-pr-helper in QEMU's mount \
             namespace, where nobody else may be",
            "run qemu-pr-helper yourself, and name its socket in <reservations managed='no'>",
        ))
    }

    /// Whether QEMU is started by way of our wrapper, whichever link leads to it.
    pub(crate) fn is_ours(&self) -> bool {
        self.emulator.as_deref().is_some_and(is_wrapper)
    }

    /// Who the static label names.
    ///
    /// # Errors
    ///
    /// Configuration: nobody, or not for good.
    pub(crate) fn client(&self) -> Result<Ids> {
        let wanted =
            "<seclabel type='static' model='dac' relabel='yes'><label>+UID:+GID</label></seclabel>";
        let refused = |what: String| {
            let cure = format!("give the domain a user of its own: {wanted}");
            Err(Error::new(Class::Configuration, what, cure))
        };
        match &self.label {
            Label::None => {
                refused("the domain has no DAC label: it would run as every other".into())
            }
            Label::NotStatic(kind) => refused(format!(
                "the domain's DAC label is of type '{}', not 'static'",
                kind.escape_debug()
            )),
            Label::Static(text) => {
                // A + says that a number is meant, and no name that looks like one (libvirt's manual).
                let mut ids = text.split(':').map(|id| id.strip_prefix('+').unwrap_or(id));
                match (ids.next(), ids.next(), ids.next()) {
                    (Some(user), Some(group), None) => {
                        identity::client(Some(&format!("{user}:{group}")))
                    }
                    _ => refused(format!(
                        "the domain's DAC label '{}' is no USER:GROUP",
                        text.escape_debug()
                    )),
                }
            }
        }
    }
}

/// Whether an emulator is our wrapper.
pub(crate) fn is_wrapper(emulator: &Path) -> bool {
    emulator.starts_with(EMULATORS)
        || emulator.ends_with(WRAPPER)
        || emulator
            .canonicalize()
            .is_ok_and(|program| program.ends_with(WRAPPER))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn content(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

fn label(domain: Node<'_, '_>) -> Label {
    let dac = domain
        .children()
        .find(|node| node.has_tag_name("seclabel") && node.attribute("model") == Some("dac"));
    let Some(dac) = dac else {
        return Label::None;
    };
    match dac.attribute("type") {
        Some("static") => Label::Static(child(dac, "label").map(content).unwrap_or_default()),
        // Its own default.
        other => Label::NotStatic(other.unwrap_or("dynamic").to_owned()),
    }
}

fn share(node: Node<'_, '_>) -> Option<Share> {
    if node.attribute("type").unwrap_or("mount") != "mount" {
        return None;
    }
    // virtiofs has a server of its own, and mtp none of ours.
    let driver = child(node, "driver").and_then(|driver| driver.attribute("type"));
    if !matches!(driver, None | Some("path" | "handle" | "default")) {
        return None;
    }
    let source = child(node, "source")?.attribute("dir")?;
    Some(Share {
        // Without a slash at its end, as the domain's file has it.
        source: Path::new(source).components().collect(),
        passthrough: node.attribute("accessmode").unwrap_or("passthrough") == "passthrough",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "<domain type='kvm'>
  <name>web</name><uuid>4DEA22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <metadata><x:name xmlns:x='urn:x'>other</x:name></metadata>
  <devices>
    <emulator>/usr/lib/virtfs-mediator/emulators/qemu-system-x86_64</emulator>
    <filesystem type='mount' accessmode='passthrough'><source dir='/srv/web/'/><target dir='web'/></filesystem>
    <filesystem type='mount' accessmode='mapped'><source dir='/srv/m'/><target dir='m'/></filesystem>
    <filesystem type='mount'><driver type='virtiofs'/><source dir='/srv/v'/><target dir='v'/></filesystem>
    <filesystem type='ram'><source usage='1'/><target dir='r'/></filesystem>
  </devices>
  <seclabel type='dynamic' model='apparmor' relabel='yes'/>
  <seclabel type='static' model='dac' relabel='yes'><label>+2000001001:+2000001002</label></seclabel>
</domain>";

    #[test]
    fn facts_are_found() {
        let web = DomainXml::parse(WEB).unwrap();
        assert_eq!(web.name, "web");
        assert_eq!(web.uuid, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
        assert!(web.is_ours());
        let share = |source: &str, passthrough| Share {
            source: source.into(),
            passthrough,
        };
        assert_eq!(
            web.shares,
            [share("/srv/web", true), share("/srv/m", false)]
        );
        let client = web.client().unwrap();
        assert_eq!((client.uid, client.gid), (2_000_001_001, 2_000_001_002));
    }

    #[test]
    fn helper_in_qemus_namespace_is_refused() {
        let disk = |managed: &str| {
            let disk = format!(
                "<disk type='block' device='lun'><source dev='/dev/sdx'><reservations \
                 type='unix' managed='{managed}'/></source><target dev='sda'/></disk></devices>"
            );
            DomainXml::parse(&WEB.replace("</devices>", &disk)).unwrap()
        };
        assert!(
            DomainXml::parse(WEB)
                .unwrap()
                .refuse_managed_reservations()
                .is_ok()
        );
        assert!(disk("no").refuse_managed_reservations().is_ok());
        let told = disk("yes").refuse_managed_reservations().unwrap_err();
        assert!(told.to_string().contains("qemu-pr-helper"), "{told}");
    }

    #[test]
    fn label_that_is_no_wall_is_told() {
        for (from, to, told) in [
            ("model='dac'", "model='none'", "no DAC label"),
            (
                "'static' model='dac'",
                "'dynamic' model='dac'",
                "type 'dynamic'",
            ),
            ("'static' model='dac'", "'none' model='dac'", "type 'none'"),
            (":+2000001002", "", "no USER:GROUP"),
            ("+2000001001:", "+0:", "root"),
        ] {
            let web = DomainXml::parse(&WEB.replace(from, to)).unwrap();
            let error = web.client().unwrap_err().to_string();
            assert!(error.contains(told), "{to}: {error}");
        }
    }

    #[test]
    fn xml_that_is_none_or_brings_entities_is_an_error() {
        for text in [
            "",
            "<domain>",
            "<network><name>n</name></network>",
            "<domain><name>n</name></domain>",
            "<!DOCTYPE d [<!ENTITY e 'x'>]><domain><name>&e;</name><uuid>u</uuid></domain>",
        ] {
            assert!(DomainXml::parse(text).is_err(), "{text}");
        }
    }
}
