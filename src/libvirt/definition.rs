//! A domain's definition: what of it concerns us, and where in the text that stands, so that
//! changes touch those bytes and no others.

use std::ops::Range;
use std::path::{Path, PathBuf};

use roxmltree::{Document, Node};

use crate::error::{Class, Error, Result};
use crate::libvirt::domain_xml::DomainXml;

/// What is read of a definition. Ranges are of bytes in `text`.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) emulator: PathBuf,
    /// The element's content.
    emulator_text: Range<usize>,
    pub(crate) dac: Option<Label>,
    pub(crate) filesystems: Vec<Filesystem>,
    /// What QEMU opens by its path: disks, firmware, kernels.
    pub(crate) files: Vec<PathBuf>,
    /// Before `</devices>`, with the white space before it.
    end_of_devices: usize,
    /// Behind `</devices>`.
    behind_devices: usize,
}

/// The domain's `<seclabel model='dac'>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    range: Range<usize>,
    /// `static`, `dynamic` or `none`.
    pub(crate) kind: String,
    /// What `<label>` says.
    pub(crate) label: Option<String>,
}

/// One `<filesystem>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    range: Range<usize>,
    /// How QEMU serves it.
    pub(crate) service: Service,
    /// `<source dir=...>`, and where its value stands.
    pub(crate) source: Option<(PathBuf, Range<usize>)>,
    /// `<target dir=...>`: the guest's mount tag.
    pub(crate) tag: String,
    pub(crate) readonly: bool,
}

/// How QEMU serves a `<filesystem>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Its `local` driver with `security_model=passthrough`: what a view is for.
    Passthrough,
    /// Its `local` driver in another mode, which keeps owners in attributes, or not at all.
    Local(&'static str),
    /// virtiofsd or something else.
    Other,
}

/// What stands in the place of a `<seclabel model='dac'>`.
fn label_text(uid: u32, gid: u32) -> String {
    format!(
        "<seclabel type='static' model='dac' relabel='yes'>\n    <label>+{uid}:+{gid}</label>\n  \
         </seclabel>"
    )
}

impl Definition {
    /// Understands what `virsh dumpxml` printed.
    ///
    /// # Errors
    ///
    /// Configuration: it is not XML, or not a domain.
    pub(crate) fn parse(text: String) -> Result<Self> {
        let wrong = |what: &dyn std::fmt::Display| {
            config(
                format!("the domain's definition: {what}"),
                "look at it with `virsh edit`",
            )
        };
        let document = Document::parse(&text).map_err(|error| wrong(&error))?;
        let root = document.root_element();
        if root.tag_name().name() != "domain" {
            return Err(wrong(&"it is not a <domain>"));
        }
        // What the hook will go by, when it starts.
        let facts = DomainXml::parse(&text)?;
        let devices = child(root, "devices").ok_or_else(|| wrong(&"it has no <devices>"))?;
        let emulator = child(devices, "emulator").ok_or_else(|| wrong(&"it has no <emulator>"))?;
        let emulator_text = emulator
            .first_child()
            .map(|content| content.range())
            .ok_or_else(|| wrong(&"its <emulator> is empty"))?;
        let dac = children(root, "seclabel")
            .find(|node| node.attribute("model") == Some("dac"))
            .map(label);
        let filesystems = children(devices, "filesystem").map(filesystem).collect();
        let end = devices.range().end;
        let end_of_devices = text
            .get(..end)
            .and_then(|before| before.rfind("</devices>"))
            .ok_or_else(|| wrong(&"its <devices> is empty"))?;
        let before = text.get(..end_of_devices).unwrap_or_default();
        let end_of_devices = before.trim_end().len();
        Ok(Self {
            name: facts.name,
            uuid: facts.uuid,
            emulator: facts.emulator.unwrap_or_default(),
            emulator_text,
            dac,
            filesystems,
            files: files(root, devices),
            end_of_devices,
            behind_devices: end,
            text,
        })
    }

    /// The filesystems that a view is for.
    pub(crate) fn passthrough(&self) -> impl Iterator<Item = &Filesystem> {
        self.filesystems
            .iter()
            .filter(|one| one.service == Service::Passthrough)
    }

    /// The domain's ids, if a static DAC label fixes them.
    pub(crate) fn static_ids(&self) -> Option<(u32, u32)> {
        let dac = self.dac.as_ref().filter(|dac| dac.kind == "static")?;
        dac.ids()
    }

    /// Changes to be made.
    pub(crate) fn edit(&self) -> Edit<'_> {
        Edit {
            of: self,
            changes: Vec::new(),
        }
    }
}

impl Label {
    /// Host ids, from numbers or names, as libvirt takes them (`+N` or a name).
    pub(crate) fn ids(&self) -> Option<(u32, u32)> {
        let (user, group) = self.label.as_deref()?.split_once(':')?;
        let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse::<u32>().ok();
        let uid = number(user).or_else(|| {
            let user = nix::unistd::User::from_name(user).ok()??;
            Some(user.uid.as_raw())
        })?;
        let gid = number(group).or_else(|| {
            let group = nix::unistd::Group::from_name(group).ok()??;
            Some(group.gid.as_raw())
        })?;
        Some((uid, gid))
    }
}

/// Changes to a definition, which touch what they name and nothing else.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    of: &'a Definition,
    changes: Vec<(Range<usize>, String)>,
}

impl Edit<'_> {
    /// Another emulator.
    pub(crate) fn emulator(&mut self, path: &Path) {
        let text = escaped(&path.to_string_lossy());
        self.changes.push((self.of.emulator_text.clone(), text));
    }

    /// A static label with these ids, in the place of the one that is there.
    pub(crate) fn label(&mut self, uid: u32, gid: u32) {
        match &self.of.dac {
            Some(dac) => self.changes.push((dac.range.clone(), label_text(uid, gid))),
            None => {
                let at = self.of.behind_devices;
                let text = format!("\n  {}", label_text(uid, gid));
                self.changes.push((at..at, text));
            }
        }
    }

    /// The label's own text again, as [`Definition::label_text`] told it; `None`: no label.
    pub(crate) fn label_back(&mut self, text: Option<&str>) {
        let Some(dac) = &self.of.dac else { return };
        match text {
            Some(text) => self.changes.push((dac.range.clone(), text.to_owned())),
            None => self.remove(&dac.range),
        }
    }

    /// Another source directory of a filesystem.
    pub(crate) fn source(&mut self, filesystem: &Filesystem, to: &Path) {
        if let Some((_, range)) = &filesystem.source {
            let text = escaped(&to.to_string_lossy());
            self.changes.push((range.clone(), text));
        }
    }

    /// One more filesystem, behind all other devices.
    pub(crate) fn add(&mut self, directory: &Path, tag: &str) {
        let text = format!(
            "\n    <filesystem type='mount' accessmode='passthrough'>\n      <source dir='{}'/>\n      \
             <target dir='{}'/>\n    </filesystem>",
            escaped(&directory.to_string_lossy()),
            escaped(tag)
        );
        let at = self.of.end_of_devices;
        self.changes.push((at..at, text));
    }

    /// One filesystem less.
    pub(crate) fn drop_filesystem(&mut self, filesystem: &Filesystem) {
        self.remove(&filesystem.range);
    }

    /// An element, with the white space before it.
    fn remove(&mut self, range: &Range<usize>) {
        let before = self.of.text.get(..range.start).unwrap_or_default();
        self.changes
            .push((before.trim_end().len()..range.end, String::new()));
    }

    /// The text with all changes.
    pub(crate) fn text(mut self) -> String {
        let mut text = self.of.text.clone();
        // From the back, so that what is before keeps its place; of several at one place, the one
        // that was asked for first comes first.
        self.changes.sort_by_key(|(range, _)| range.start);
        for (range, new) in self.changes.iter().rev() {
            text.replace_range(range.clone(), new);
        }
        text
    }
}

impl Definition {
    /// The text of the DAC label, to put it back by.
    pub(crate) fn label_text(&self) -> Option<&str> {
        self.text.get(self.dac.as_ref()?.range.clone())
    }
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &str) -> impl Iterator<Item = Node<'a, 'i>> {
    // Elements of other namespaces (qemu:commandline, what metadata holds) are not meant.
    node.children()
        .filter(move |one| one.tag_name().namespace().is_none() && one.has_tag_name(name))
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

fn label(node: Node<'_, '_>) -> Label {
    Label {
        range: node.range(),
        kind: node.attribute("type").unwrap_or("dynamic").to_owned(),
        label: child(node, "label").and_then(|label| Some(label.text()?.trim().to_owned())),
    }
}

/// The defaults are those of libvirt's formatdomain, "Filesystems".
fn filesystem(node: Node<'_, '_>) -> Filesystem {
    let driver = child(node, "driver").and_then(|driver| driver.attribute("type"));
    let local = node.attribute("type").unwrap_or("mount") == "mount"
        && matches!(driver, None | Some("path" | "handle" | "default"));
    let service = match node.attribute("accessmode").unwrap_or("passthrough") {
        _ if !local => Service::Other,
        "passthrough" => Service::Passthrough,
        "mapped" => Service::Local("mapped"),
        _ => Service::Local("squash"),
    };
    let source = child(node, "source").and_then(|source| {
        let attribute = source.attribute_node("dir")?;
        Some((attribute.value().into(), attribute.range_value()))
    });
    let tag = child(node, "target").and_then(|target| target.attribute("dir"));
    Filesystem {
        range: node.range(),
        service,
        source,
        tag: tag.unwrap_or_default().to_owned(),
        readonly: child(node, "readonly").is_some(),
    }
}

fn files(root: Node<'_, '_>, devices: Node<'_, '_>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for disk in children(devices, "disk") {
        // A chain of backing files, if libvirt was told of it: each has a source of its own.
        let sources = disk.descendants().filter(|one| one.has_tag_name("source"));
        let attributes = sources.flat_map(|source| {
            let names = ["file", "dev", "dir"];
            names
                .map(|name| source.attribute(name))
                .into_iter()
                .flatten()
        });
        found.extend(attributes.map(PathBuf::from));
    }
    let boot = child(root, "os").into_iter().flat_map(|os| {
        let names = ["kernel", "initrd", "dtb", "loader", "nvram"];
        names.into_iter().filter_map(move |name| child(os, name))
    });
    found.extend(boot.filter_map(|node| Some(node.text()?.trim().into())));
    found.retain(|path: &PathBuf| path.is_absolute());
    found
}

/// For text and for attributes in either quote.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <uuid>4DEA22B3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <metadata>
    <mine:note xmlns:mine='urn:mine'>
      <emulator>/not/me</emulator> &amp; <mine:seclabel model='dac'/>
    </mine:note>
  </metadata>
  <os>
    <type arch='x86_64'>hvm</type>
    <nvram>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <source file='/images/a&amp;b.qcow2'>
        <seclabel model='dac' relabel='no'/>
      </source>
      <target dev='vda'/>
    </disk>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='/srv/we&quot;b'/>
      <target dir='web'/>
      <readonly/>
    </filesystem>
    <filesystem type='mount' accessmode='mapped'>
      <source dir='/srv/mapped'/>
      <target dir='m'/>
    </filesystem>
    <filesystem type='mount'>
      <driver type='virtiofs'/>
      <source dir='/srv/v'/>
      <target dir='v'/>
    </filesystem>
    <filesystem>
      <source dir='/srv/plain'/>
      <target dir='plain'/>
    </filesystem>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-x'/>
  </qemu:commandline>
</domain>";

    fn parsed(text: &str) -> Definition {
        Definition::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn what_concerns_us_is_found_and_nothing_that_looks_like_it() {
        let web = parsed(XML);
        assert_eq!(web.uuid, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
        assert_eq!(web.emulator, Path::new("/usr/bin/qemu-system-x86_64"));
        assert!(web.dac.is_none());
        let services: Vec<Service> = web.filesystems.iter().map(|one| one.service).collect();
        let expected = [
            Service::Passthrough,
            Service::Local("mapped"),
            Service::Other,
            Service::Passthrough,
        ];
        assert_eq!(services, expected);
        let first = &web.filesystems[0];
        let source = &first.source.as_ref().unwrap().0;
        assert_eq!(source, Path::new("/srv/we\"b"));
        assert!(first.readonly && first.tag == "web");
        let files = [
            "/images/a&b.qcow2",
            "/var/lib/libvirt/qemu/nvram/web_VARS.fd",
        ];
        assert_eq!(web.files, files.map(PathBuf::from));
    }

    #[test]
    fn edits_undone_leave_every_byte() {
        for text in [
            XML.to_owned(),
            XML.replace(
                "</devices>",
                "</devices>\n  <seclabel type='dynamic' model='dac' relabel='no'/>",
            ),
        ] {
            let before = parsed(&text);
            let mut edit = before.edit();
            edit.label(7, 8);
            edit.emulator(Path::new("/link/<&>"));
            edit.source(&before.filesystems[0], Path::new("/srv/it's"));
            edit.add(Path::new("/srv/new"), "new");
            edit.add(Path::new("/srv/second"), "second");
            let after = parsed(&edit.text());
            assert_eq!(after.emulator, Path::new("/link/<&>"));
            assert_eq!(after.static_ids(), Some((7, 8)));
            let sources: Vec<&Path> = after
                .passthrough()
                .map(|one| one.source.as_ref().unwrap().0.as_path())
                .collect();
            let expected = ["/srv/it's", "/srv/plain", "/srv/new", "/srv/second"];
            assert_eq!(sources, expected.map(Path::new));

            let mut edit = after.edit();
            edit.label_back(before.label_text());
            edit.emulator(&before.emulator);
            edit.source(&after.filesystems[0], Path::new("/srv/we\"b"));
            edit.drop_filesystem(&after.filesystems[4]);
            edit.drop_filesystem(&after.filesystems[5]);
            assert_eq!(edit.text(), text);
        }
    }

    #[test]
    fn label_of_names_or_numbers_gives_ids() {
        let label = |text: &str| Label {
            range: 0..0,
            kind: "static".into(),
            label: Some(text.into()),
        };
        assert_eq!(label("+7:+8").ids(), Some((7, 8)));
        assert_eq!(label("7:8").ids(), Some((7, 8)));
        assert_eq!(label("root:root").ids(), Some((0, 0)));
        assert_eq!(label("no-such-user:8").ids(), None);
        assert_eq!(label("7").ids(), None);
    }

    #[test]
    fn no_domain_is_told() {
        for bad in ["", "<a", "<network/>", "<domain><name>x</name></domain>"] {
            assert!(Definition::parse(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
