//! What libvirt, QEMU and the service keep in files and sockets.

use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::look::told;
use super::pair::{Kind, Pair, kernels};
use crate::driver::emulator::read;
use crate::driver::{OrTell as _, Outcome};
use crate::lab::Lab;

/// What is tried on a path.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Act {
    Read,
    Write,
    Create,
    List,
    Connect,
}

fn tried(act: Act, path: &Path) -> Result<Vec<u8>, i32> {
    let done = match act {
        Act::Read => return read(path),
        Act::Write => OpenOptions::new().append(true).open(path).map(|_| ()),
        Act::Create => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path.join("attack"))
            .map(|_| ()),
        Act::List => fs::read_dir(path).map(|_| ()),
        Act::Connect => UnixStream::connect(path).map(|_| ()),
    };
    done.map(|()| Vec::new())
        .map_err(|error| error.raw_os_error().unwrap_or(-1))
}

/// B's directory below one of libvirt's, whose name begins with `domain-ID-`.
fn directory(pair: &Pair, above: &str) -> Result<PathBuf, String> {
    let id = pair.libvirt.virsh(&["domid", &pair.b.name])?;
    let begins = format!("domain-{id}-");
    let entries = fs::read_dir(pair.libvirt.path(above)).or_tell(above)?;
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .find(|name| name.to_string_lossy().starts_with(&begins))
        .map(|name| Path::new(above).join(name))
        .ok_or_else(|| format!("{above} has no {begins}*"))
}

/// Each is there: root's look says so first.
fn ways(pair: &Pair) -> Result<Vec<(String, Act, PathBuf)>, String> {
    let b = &pair.b.name;
    let of_b = directory(pair, "/var/lib/libvirt/qemu")?;
    let agent = [
        "/var/lib/libvirt/qemu/channel/target",
        "/run/libvirt/qemu/channel",
    ]
    .into_iter()
    .find_map(|above| directory(pair, above).ok())
    .ok_or("B has no directory for its agent's socket")?;
    let own = |path: String| PathBuf::from(path);
    let ways = [
        ("B's monitor", Act::Connect, of_b.join("monitor.sock")),
        ("B's master key", Act::Read, of_b.join("master-key.aes")),
        ("a file beside B's monitor", Act::Create, of_b),
        (
            "B's guest agent",
            Act::Connect,
            agent.join("org.qemu.guest_agent.0"),
        ),
        (
            "B's state",
            Act::Read,
            own(format!("/run/libvirt/qemu/{b}.xml")),
        ),
        (
            "B's pid file",
            Act::Write,
            own(format!("/run/libvirt/qemu/{b}.pid")),
        ),
        (
            "a pid file",
            Act::Create,
            own("/run/libvirt/qemu".to_owned()),
        ),
        (
            "B's log",
            Act::Read,
            own(format!("/var/log/libvirt/qemu/{b}.log")),
        ),
        (
            "virtlogd",
            Act::Connect,
            own("/run/libvirt/virtlogd-sock".to_owned()),
        ),
        (
            "B's domain file",
            Act::Write,
            own(format!("/etc/virtfs-mediator/libvirt/{b}.toml")),
        ),
        (
            "a domain file",
            Act::Create,
            own("/etc/virtfs-mediator/libvirt".to_owned()),
        ),
        (
            "who is armed",
            Act::List,
            own("/run/virtfs-mediator-libvirt/armed".to_owned()),
        ),
        (
            "a record of who is armed",
            Act::Create,
            own("/run/virtfs-mediator-libvirt/armed".to_owned()),
        ),
        (
            "B's view's directory",
            Act::List,
            own(format!("/run/virtfs-mediator/{}", pair.b.view())),
        ),
        (
            "B's mediator's control socket",
            Act::Connect,
            own(format!("/run/virtfs-mediator/{}/control", pair.b.view())),
        ),
        (
            "the service's log",
            Act::Write,
            own("/run/serve.log".to_owned()),
        ),
    ];
    let mut found = Vec::new();
    for (way, act, path) in ways {
        let seen = pair.libvirt.path(&path.to_string_lossy());
        fs::symlink_metadata(&seen).or_tell(&format!("{way}, {}", path.display()))?;
        found.push((way.to_owned(), act, path));
    }
    Ok(found)
}

/// Row 32.
pub(super) fn files(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [Kind::OneUser, Kind::Product] {
        let pair = Pair::started(lab, kind)?;
        let ways = ways(&pair)?;
        let tries: Vec<Result<Vec<u8>, i32>> = pair.as_a(|| {
            ways.iter()
                .map(|(_, act, path)| tried(*act, path))
                .collect()
        })?;
        for ((way, act, _), read) in ways.iter().zip(tries) {
            let what = told(&read);
            let way = format!("{way} ({act:?})").to_lowercase();
            attempts.push(pair.attempt(&way, read.is_ok(), what, kernels()));
        }
        pair.is_alive()?;
    }
    Ok(attempts)
}
