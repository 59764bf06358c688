//! Domains of a lab: their definitions, and a client of their 9p devices that needs no guest.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use virtfs_p9::{Export as Share, Ids, Launch, Machine, Qemu};

use super::lab::{Lab, QEMU};
use crate::common::{Export, shown};

/// What stands in a definition until the client's end is known.
const SOCKET: &str = "@SOCKET@";
const MEMORY: &str = "@MEMORY@";
const SIZE: &str = "@SIZE@";

/// A domain of a lab.
pub(crate) struct Domain<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) name: String,
}

/// `<filesystem>` of an export under a tag.
pub(crate) fn filesystem(export: &Path, tag: &str) -> String {
    format!(
        "<filesystem type='mount' accessmode='passthrough'>\
         <source dir='{}'/><target dir='{tag}'/></filesystem>",
        export.to_str().unwrap().replace('&', "&amp;")
    )
}

/// A definition: devices besides the emulator, and what follows them.
pub(crate) fn xml(name: &str, devices: &str, rest: &str) -> String {
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
         <name>{name}</name><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os>\
         <devices><emulator>{QEMU}</emulator>{devices}</devices>{rest}</domain>"
    )
}

/// QEMU's own words by which a client drives its devices (virtfs_p9), instead of a guest.
fn driven() -> String {
    let words = [
        "-object",
        MEMORY,
        "-machine",
        "memory-backend=ram",
        "-m",
        SIZE,
        "-qtest",
        SOCKET,
        "-qtest-log",
        "none",
    ];
    let words = words.map(|word| format!("<qemu:arg value='{word}'/>"));
    format!("<qemu:commandline>{}</qemu:commandline>", words.concat())
}

impl<'a> Domain<'a> {
    /// One that shares an export under the tag `share`, and is not enabled.
    #[track_caller]
    pub(crate) fn plain(lab: &'a Lab, export: &Export) -> Self {
        let name = lab.domain_name();
        lab.define(&xml(&name, &filesystem(export.path(), "share"), ""));
        Self { lab, name }
    }

    /// One with anything in it: devices, and what follows them.
    #[track_caller]
    pub(crate) fn of(lab: &'a Lab, devices: &str, rest: &str) -> Self {
        let name = lab.domain_name();
        lab.define(&xml(&name, devices, rest));
        Self { lab, name }
    }

    /// One whose devices can be driven; not enabled.
    #[track_caller]
    pub(crate) fn driven(lab: &'a Lab, export: &Export) -> Self {
        Self::of(lab, &filesystem(export.path(), "share"), &driven())
    }

    /// `libvirt enable --yes`.
    #[track_caller]
    pub(crate) fn enabled(self) -> Self {
        self.enable(&[]);
        self
    }

    /// `libvirt enable --yes WORDS`: what it printed.
    #[track_caller]
    pub(crate) fn enable(&self, words: &[&str]) -> String {
        let all = [&["libvirt", "enable", "--yes", &self.name], words].concat();
        self.lab.ours_ok(&all)
    }

    /// `libvirt enable --yes WORDS`, which must be refused: exit status and what it said.
    #[track_caller]
    pub(crate) fn enable_fails(&self, words: &[&str]) -> (i32, String) {
        let all = [&["libvirt", "enable", "--yes", &self.name], words].concat();
        self.lab.ours_fails(&all)
    }

    /// `libvirt disable --yes`: what it printed.
    #[track_caller]
    pub(crate) fn disable(&self) -> String {
        self.lab
            .ours_ok(&["libvirt", "disable", "--yes", &self.name])
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        self.lab.virsh(&["start", &self.name]);
    }

    /// A start that must fail: what virsh said.
    #[track_caller]
    pub(crate) fn start_fails(&self) -> String {
        self.lab.virsh_fails(&["start", &self.name])
    }

    #[track_caller]
    pub(crate) fn destroy(&self) {
        self.lab.virsh(&["destroy", &self.name]);
    }

    #[track_caller]
    pub(crate) fn state(&self) -> String {
        self.lab.virsh(&["domstate", &self.name]).trim().to_owned()
    }

    /// The definition for the next start.
    #[track_caller]
    pub(crate) fn definition(&self) -> String {
        let flags = ["--inactive", "--security-info"];
        self.lab.virsh(&["dumpxml", &self.name, flags[0], flags[1]])
    }

    /// Another definition, made from the one that is there.
    #[track_caller]
    pub(crate) fn redefine(&self, change: impl FnOnce(String) -> String) {
        self.lab.define(&change(self.definition()));
    }

    /// QEMU's pid, as the lab numbers it.
    #[track_caller]
    pub(crate) fn qemu(&self) -> i32 {
        self.lab.qemu(&self.name)
    }

    /// The file that `enable` writes.
    pub(crate) fn file(&self) -> String {
        format!("/etc/virtfs-mediator/libvirt/{}.toml", self.name)
    }

    /// Its view, by the name that `enable` gives it.
    pub(crate) fn view(&self) -> String {
        format!("{}-share", self.name)
    }

    /// The ids of its static label.
    #[track_caller]
    pub(crate) fn ids(&self) -> Ids {
        let definition = self.definition();
        let label = definition.split("<label>").nth(1).expect("a label");
        let label = label.split("</label>").next().unwrap();
        let ids: Vec<u32> = label
            .split(':')
            .map(|id| id.trim_start_matches('+').parse().unwrap())
            .collect();
        Ids {
            uid: ids[0],
            gid: ids[1],
        }
    }

    /// Starts it, paused, with a client at its 9p devices. It runs on when the client goes.
    #[track_caller]
    pub(crate) fn boot(&self) -> Machine {
        // The client's own words for QEMU tell where they meet.
        let script = format!(
            "name={name}; while [ $# -gt 0 ]; do case $1 in \
             -qtest) socket=$2;; -object) memory=$2;; -m) size=$2;; esac; shift; done; \
             virsh -q dumpxml --inactive --security-info $name | \
             sed \"s|{SOCKET}|$socket|; s|{MEMORY}|$memory|; s|{SIZE}|$size|\" >/run/$name.xml && \
             virsh -q define /run/$name.xml && virsh -q start --paused $name && \
             exec tail -f /dev/null --pid=$(cat /run/libvirt/qemu/$name.pid)",
            name = self.name
        );
        let command = self.lab.command(["sh", "-c", &script, "sh"]);
        let mut words = vec![command.get_program().to_owned()];
        words.extend(command.get_args().map(ToOwned::to_owned));
        let before = self.definition();
        let qemu = Qemu::new().export(Share::local("share", "/nowhere"));
        let machine = Machine::boot(&qemu, &Launch::new().wrapper(words, self.ids()));
        let machine = machine.unwrap_or_else(|error| {
            panic!("{error}\n{}", self.lab.service_log());
        });
        // For the next boot.
        self.lab.define(&before);
        machine
    }
}

/// Owner and mode of a file, on the host.
pub(crate) fn on_host(export: &Export, name: &str) -> (u32, u32, u32) {
    let meta = fs::symlink_metadata(export.path().join(name)).unwrap();
    (meta.uid(), meta.gid(), meta.mode())
}

/// An export's path, as an argument.
pub(crate) fn path(export: &Export) -> String {
    shown(export.path())
}

/// Whose a file is.
pub(crate) fn owner(path: &Path) -> Ids {
    let meta = fs::symlink_metadata(path).unwrap();
    Ids {
        uid: meta.uid(),
        gid: meta.gid(),
    }
}
