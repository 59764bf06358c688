//! Two domains in a lab: A, whose QEMU is the attacker's, and B, whose export holds a canary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtfs_lab::{LINK, Lab as Libvirt, QEMU};
use virtfs_p9::Ids;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::actor::{Seat, Where, act};
use crate::driver::start::{LIMIT, line_with};
use crate::driver::{OrTell as _, product, role, weaker};
use crate::lab::{Lab, Place};

/// How the two are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As `virtfs-mediator libvirt enable` does it.
    Product,
    /// The same, but both run as one user, as all domains of a host do without a label.
    OneUser,
    /// And the service does not look up whom libvirt's record names.
    OneUserUnrecorded,
    /// A user for each, and a service that does not look that up.
    Unrecorded,
    /// QEMU as root on the directory itself, as `passthrough` needs it without views.
    Root,
}

/// The user of both.
const ONE: Ids = Ids {
    uid: 61_234,
    gid: 61_235,
};
/// This program, as a domain's user reaches it.
const PROGRAM: &str = "/usr/lib/virtfs-attack";
/// A hook that holds a start between ours and QEMU's as long as this is there and [`GO`] is not.
pub(super) const HOLD: &str = "/run/hold";
pub(super) const HELD: &str = "/run/held";
pub(super) const GO: &str = "/run/go";

/// A domain.
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) ids: Ids,
    pub(super) place: Place,
}

pub(crate) struct Pair {
    pub(super) kind: Kind,
    pub(super) libvirt: Libvirt,
    pub(super) a: Domain,
    pub(super) b: Domain,
}

impl Kind {
    pub(super) fn arrangement(self) -> Arrangement {
        match self {
            Self::Product => Arrangement::Product,
            Self::OneUser => Arrangement::Walls("all but a user of its own for each domain"),
            Self::OneUserUnrecorded => {
                Arrangement::Walls("neither users of their own nor libvirt's record of who asks")
            }
            Self::Unrecorded => Arrangement::Walls("all but libvirt's record of who asks"),
            Self::Root => Arrangement::Other("QEMU as root under libvirt"),
        }
    }

    fn has_views(self) -> bool {
        self != Self::Root
    }
}

impl Domain {
    fn new(what: &str, ids: Ids) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = Place::new().or_tell("a place")?;
        // A file of the guest's root: nobody's but root's on the host.
        let secret = place.export().join("secret");
        fs::copy(place.outside().join("canary"), &secret).or_tell("a secret")?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).or_tell("chmod")?;
        // And one that a guest's user left for all: the directory above the export is what closes it.
        let public = place.export().join("public");
        fs::copy(place.outside().join("canary"), &public).or_tell("a file")?;
        fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).or_tell("chmod")?;
        Ok(Self {
            name: format!("attack-{}-{number}-{what}", std::process::id()),
            ids,
            place,
        })
    }

    /// What nobody but its guest may read.
    pub(super) fn secret(&self) -> PathBuf {
        self.place.export().join("secret")
    }

    /// What its mode bits give to all who come so far.
    pub(super) fn public(&self) -> PathBuf {
        self.place.export().join("public")
    }

    /// The directory above the export, and of nobody but root: `enable` lets the domain's user through.
    fn close_above(&self) -> Result<(), String> {
        let export = self.place.export();
        let above = export
            .parent()
            .ok_or("an export without a directory above")?;
        fs::set_permissions(above, fs::Permissions::from_mode(0o700)).or_tell("chmod")
    }

    /// Its view, by the name that `enable` gives it.
    pub(super) fn view(&self) -> String {
        format!("{}-share", self.name)
    }

    fn file(&self) -> String {
        format!("/etc/virtfs-mediator/libvirt/{}.toml", self.name)
    }

    /// A domain that does nothing, with a share and a guest agent's socket.
    fn xml(&self, emulator: &str, label: bool) -> String {
        let Ids { uid, gid } = self.ids;
        let label = if label {
            format!(
                "<seclabel type='static' model='dac' relabel='yes'>\
                 <label>+{uid}:+{gid}</label></seclabel>"
            )
        } else {
            String::new()
        };
        format!(
            "<domain type='qemu'><name>{}</name><memory unit='MiB'>64</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
             <emulator>{emulator}</emulator>\
             <filesystem type='mount' accessmode='passthrough'><source dir='{}'/>\
             <target dir='share'/></filesystem>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             </devices>{label}</domain>",
            self.name,
            self.place.export().display()
        )
    }

    /// What `enable` would write.
    fn toml(&self, libvirt: &Libvirt) -> Result<String, String> {
        let Ids { uid, gid } = self.ids;
        let uuid = libvirt.virsh(&["domuuid", &self.name])?;
        Ok(format!(
            "domain = '{}'\nuuid = '{uuid}'\nemulator = '{QEMU}'\n\
             client = {{ user = {uid}, group = {gid} }}\n\
             [[view]]\nname = '{}'\nexport = '{}'\n",
            self.name,
            self.view(),
            self.place.export().display()
        ))
    }
}

impl Pair {
    /// Both defined, libvirtd and the service running; no domain is started.
    pub(super) fn defined(lab: &Lab, kind: Kind) -> Result<Self, String> {
        let conf = if kind == Kind::Root {
            "user = \"root\"\ngroup = \"root\"\n"
        } else {
            "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\n"
        };
        let libvirt = Libvirt::new(&lab.mediator, conf)?;
        let program = std::env::current_exe().or_tell("this program's path")?;
        libvirt.write(PROGRAM, "")?;
        libvirt.run([
            "mount".as_ref(),
            "--bind".as_ref(),
            program.as_os_str(),
            PROGRAM.as_ref(),
        ])?;
        let hook = "/etc/libvirt/hooks/qemu.d/zz-hold";
        libvirt.write(
            hook,
            &format!(
                "#!/bin/sh\n[ \"$2\" = prepare ] && [ -e {HOLD} ] || exit 0\n: >{HELD}\n\
                 until [ -e {GO} ]; do sleep 0.02; done\n"
            ),
        )?;
        libvirt.run(["chmod", "755", hook])?;
        libvirt.start_libvirtd()?;
        libvirt.start_service(&match kind {
            Kind::Product | Kind::OneUser | Kind::Root => "virtfs-mediator".to_owned(),
            Kind::OneUserUnrecorded | Kind::Unrecorded => {
                format!("env {}={} {PROGRAM}", role::OUTSIDE, role::RECORD)
            }
        })?;
        let root = Ids { uid: 0, gid: 0 };
        let ids = if kind.has_views() { ONE } else { root };
        let mut pair = Self {
            kind,
            libvirt,
            a: Domain::new("a", ids)?,
            b: Domain::new("b", ids)?,
        };
        match kind {
            Kind::Product | Kind::Unrecorded => pair.enable()?,
            Kind::OneUser | Kind::OneUserUnrecorded => {
                // As `enable` lets a domain's user through; Debian has it closed (0750).
                pair.libvirt
                    .run(["chmod", "751", "/var/lib/libvirt/qemu"])?;
                pair.libvirt
                    .run(["mkdir", "-p", "/etc/virtfs-mediator/libvirt"])?;
                for domain in [&pair.a, &pair.b] {
                    pair.libvirt.define(&domain.xml(LINK, true))?;
                }
                // The hook refuses two domains of one user: B's file follows when A has started.
                let text = pair.a.toml(&pair.libvirt)?;
                pair.libvirt.write(&pair.a.file(), &text)?;
            }
            Kind::Root => {
                for domain in [&pair.a, &pair.b] {
                    pair.libvirt.define(&domain.xml(QEMU, false))?;
                }
            }
        }
        Ok(pair)
    }

    /// Both defined and running.
    pub(super) fn started(lab: &Lab, kind: Kind) -> Result<Self, String> {
        let pair = Self::defined(lab, kind)?;
        pair.start(&pair.a)?;
        pair.file_of_b()?;
        pair.start(&pair.b)?;
        Ok(pair)
    }

    /// As [`Pair::started`], for cases that leave both as they are: the first of them starts it.
    pub(super) fn kept(lab: &Lab, kind: Kind) -> Result<Rc<Self>, String> {
        let found = lab
            .pairs
            .borrow()
            .iter()
            .find(|pair| pair.kind == kind)
            .cloned();
        if let Some(pair) = found {
            return Ok(pair);
        }
        let pair = Rc::new(Self::started(lab, kind)?);
        lab.pairs.borrow_mut().push(Rc::clone(&pair));
        Ok(pair)
    }

    /// The same for the last of them: it ends with the case.
    pub(super) fn taken(lab: &Lab, kind: Kind) -> Result<Rc<Self>, String> {
        let pair = Self::kept(lab, kind)?;
        lab.pairs.borrow_mut().retain(|pair| pair.kind != kind);
        Ok(pair)
    }

    fn enable(&mut self) -> Result<(), String> {
        self.b.close_above()?;
        for domain in [&mut self.a, &mut self.b] {
            self.libvirt.define(&domain.xml(QEMU, false))?;
            let words = ["virtfs-mediator", "libvirt", "enable", "--yes"];
            self.libvirt
                .run(words.into_iter().chain([domain.name.as_str()]))?;
            let status = self.libvirt.read(&domain.file())?;
            let id = |key: &str| {
                let rest = status
                    .split(key)
                    .nth(1)?
                    .trim_start_matches([' ', '=', '"']);
                rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .next()
                    .map(str::to_owned)
            };
            let asked = |flag: &str, what: Option<String>| -> Result<u32, String> {
                let what = what.ok_or("the domain's file names no client")?;
                match what.parse() {
                    Ok(number) => Ok(number),
                    Err(_) => self.libvirt.run(["id", flag, &what])?.parse().or_tell("id"),
                }
            };
            domain.ids = Ids {
                uid: asked("-u", id("user"))?,
                gid: asked("-g", id("group"))?,
            };
        }
        if self.a.ids.uid == self.b.ids.uid {
            return Err(format!("both domains run as uid {}", self.a.ids.uid));
        }
        Ok(())
    }

    /// Where both have one user, in the place of all that the hook would know of A.
    pub(super) fn file_of_b(&self) -> Result<(), String> {
        if matches!(self.kind, Kind::OneUser | Kind::OneUserUnrecorded) {
            let record = format!("/run/virtfs-mediator-libvirt/attached/{}.json", self.a.name);
            self.libvirt.run(["rm", &self.a.file(), &record])?;
            let text = self.b.toml(&self.libvirt)?;
            self.libvirt.write(&self.b.file(), &text)?;
        }
        Ok(())
    }

    /// A's emulator becomes a script.
    pub(super) fn emulator_of_a(
        &self,
        script: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        const EMULATOR: &str = "/usr/lib/virtfs-attack-emulator";
        self.libvirt.write(EMULATOR, &script(PROGRAM)?)?;
        self.libvirt.run(["chmod", "755", EMULATOR])?;
        let text = self.libvirt.read(&self.a.file())?.replace(QEMU, EMULATOR);
        self.libvirt.write(&self.a.file(), &text)
    }

    /// Starts a domain, paused: there is no guest in it.
    pub(super) fn start(&self, domain: &Domain) -> Result<(), String> {
        self.libvirt
            .virsh(&["start", "--paused", &domain.name])
            .map(|_| ())
            .map_err(|why| format!("{why}; the service: {}", self.libvirt.service_log()))
    }

    /// QEMU's seat.
    pub(super) fn seat(&self, domain: &Domain) -> Result<Seat, String> {
        Ok(Seat {
            init: self.libvirt.init(),
            qemu: self.libvirt.qemu(&domain.name)?,
        })
    }

    /// Runs in the seat of A's QEMU, as its user.
    pub(super) fn as_a<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        run: impl FnOnce() -> T,
    ) -> Result<T, String> {
        act(Where::Domain(&self.seat(&self.a)?), self.a.ids, LIMIT, run)
    }

    /// B's own user reads the secret in B's view: what is attacked is there.
    pub(super) fn is_alive(&self) -> Result<(), String> {
        let secret = self.b.secret();
        let seat = self.seat(&self.b)?;
        let read = act(Where::Domain(&seat), self.b.ids, LIMIT, || {
            crate::driver::emulator::read(&secret)
        })?;
        match read {
            Ok(bytes) if self.b.place.betrays(&bytes) => Ok(()),
            other => Err(format!("B's own QEMU does not read its secret: {other:?}")),
        }
    }

    /// Whether the canary and B's file are as they were.
    pub(super) fn is_untouched(&self) -> bool {
        self.b.place.is_untouched()
            && fs::read(self.b.secret()).is_ok_and(|bytes| self.b.place.betrays(&bytes))
    }

    /// What became of a way: `got` if the attacker has what they wanted.
    pub(super) fn attempt(
        &self,
        way: &str,
        got: bool,
        what: String,
        told: Option<String>,
    ) -> Attempt {
        let verdict = match (got, self.is_untouched()) {
            (_, false) => Verdict::Succeeded(format!("the canary was changed: {what}")),
            (true, _) => Verdict::Succeeded(what),
            (false, _) => Verdict::Refused(what),
        };
        if self.kind == Kind::Product {
            return product(way, verdict, told);
        }
        Attempt {
            told,
            ..weaker(self.kind.arrangement(), way, verdict)
        }
    }

    /// The first line of the service's log that holds all words.
    pub(super) fn told(&self, words: &[&str]) -> Option<String> {
        line_with(&self.libvirt.service_log(), words)
    }
}

/// No process of ours sees what the kernel refuses by itself.
pub(super) fn kernels() -> Option<String> {
    Some(crate::trial::KERNELS_OWN.to_owned())
}

/// A path as text, for C calls and messages.
pub(super) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
