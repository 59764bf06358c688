//! The export's own files, and sockets.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use virtfs_mediator::attack::Wall;

use super::{Prepared, all_but_seccomp, case, everywhere, no_wall, seccomp_alone};
use crate::acts::INNOCENT;
use crate::case::{Attempt, Case, Verdict};
use crate::lab::Lab;
use crate::trial::{PRODUCT, PROXY, ROOT, ROOT_IN_CHROOT, Setting, UID, only, product_as};

pub(crate) const CASES: &[Case] = &[
    case(
        1,
        "follow",
        "a server that opens by path, while a directory is swapped for a link",
        "root directory = the export; Landlock",
        follow,
    ),
    case(
        5,
        "device",
        "opening a device that lies in the export",
        "the mount's nodev",
        device,
    ),
    case(
        10,
        "setuid-root",
        "a set-user-id program of root's, made on the host",
        "a `map` in the policy: root's id is not in the user namespace",
        setuid_root,
    ),
    case(
        10,
        "setuid-root-stripped",
        "the same, under a policy that strips set-user-id and has no `map`",
        "seccomp: no mode with a bit that the policy gives to nothing",
        setuid_root_stripped,
    ),
    case(
        10,
        "file-capability",
        "a program with file capabilities, made on the host",
        "no SETFCAP",
        file_capability,
    ),
    case(
        30,
        "log-setuid",
        "the file that standard error is, made a set-user-id program of root's",
        "it is a pipe, whose other end copies",
        |_| everywhere(&socket_settings(), |_| Prepared::new("log-setuid")),
    ),
    case(
        16,
        "exec",
        "executing a program that lies in the export",
        "the mount's noexec; seccomp",
        |_| executing("exec"),
    ),
    case(
        16,
        "exec-regain",
        "getting capabilities back by executing a program as uid 0",
        "own user; the mount's noexec; seccomp",
        |_| executing("exec-regain"),
    ),
    case(
        16,
        "chown-to-root",
        "giving a file to an id outside of the policy's `map`",
        "user namespace that maps the policy's ids only",
        |_| mapped("chown-to-root"),
    ),
    case(
        16,
        "chown-of-roots",
        "taking a file of root's inside the export, outside of the `map`",
        "user namespace that maps the policy's ids only",
        |_| mapped("chown-of-roots"),
    ),
    case(
        16,
        "chmod-of-roots",
        "changing the mode of such a file",
        "user namespace that maps the policy's ids only",
        |_| mapped("chmod-of-roots"),
    ),
    case(
        16,
        "read-roots",
        "reading such a file, which only root may",
        "user namespace that maps the policy's ids only",
        |_| mapped("read-roots"),
    ),
    case(
        16,
        "connect-inet",
        "connecting to 127.0.0.1 of the host",
        "network namespace; Landlock; seccomp",
        connect_inet,
    ),
    case(
        16,
        "connect-path",
        "connecting to a socket that lies in the export",
        "seccomp",
        connect_path,
    ),
    case(
        16,
        "connect-abstract",
        "connecting to an abstract socket of the host",
        "network namespace; Landlock; seccomp",
        connect_abstract,
    ),
];

fn told<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

fn follow(lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        ROOT,
        no_wall(),
        only("root directory = export alone", &[Wall::Root]),
        only("Landlock alone", &[Wall::Landlock]),
        PRODUCT,
    ];
    settings
        .iter()
        .map(|setting| {
            let mut prepared = Prepared::new("follow")?;
            // Long where a wall of ours must hold; a chroot holds as well, and is not what is asked.
            prepared.task.rounds = match setting.uid() {
                Some(_) => 20_000,
                None => lab.swaps(),
            };
            let export = prepared.place.export();
            fs::create_dir(export.join("d")).map_err(told("mkdir"))?;
            fs::write(export.join("d/canary"), INNOCENT).map_err(told("write"))?;
            symlink(prepared.place.outside(), export.join("absolute")).map_err(told("symlink"))?;
            symlink("../outside", export.join("relative")).map_err(told("symlink"))?;
            let ended = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| swap(&export, &ended));
                let attempt = prepared.attempt(setting);
                ended.store(true, Ordering::Relaxed);
                Ok(attempt)
            })
        })
        .collect()
}

/// Swaps `d` for one link and the other, and back.
fn swap(export: &Path, ended: &AtomicBool) {
    let directory = export.join("d");
    while !ended.load(Ordering::Relaxed) {
        for link in ["absolute", "relative"] {
            for _ in 0..2 {
                let link = export.join(link);
                let _ =
                    rustix::fs::renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE);
            }
        }
    }
}

fn device(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        only("mount nodev alone", &[]),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| {
        let prepared = Prepared::new("device")?;
        let path = prepared.place.export().join("zero");
        let everyone = Mode::from_raw_mode(0o666);
        let zero = rustix::fs::makedev(1, 5);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, everyone, zero)
            .map_err(told("mknod"))?;
        Ok(prepared)
    })
}

/// A policy whose ids on the host are 100000 to 165535, and an export that is theirs but for one
/// file of root's with the canary's secret.
fn with_map(act: &str, maps: bool) -> Result<Prepared, String> {
    let mut prepared = Prepared::new(act)?;
    let export = prepared.place.export();
    chown(&export, Some(100_000), Some(100_000)).map_err(told("chown"))?;
    let roots = export.join("roots");
    fs::copy(prepared.place.outside().join("canary"), &roots).map_err(told("copy"))?;
    fs::set_permissions(&roots, fs::Permissions::from_mode(0o600)).map_err(told("chmod"))?;
    if maps {
        let policy = prepared.place.outside().with_file_name("policy.toml");
        let text = "default = \"allow\"\nmap = [{ guest = 0, host = 100000, count = 65536 }]\n";
        fs::write(&policy, text).map_err(told("write"))?;
        prepared.policy = Some(policy);
    }
    Ok(prepared)
}

const WITHOUT_MAP: &str = "virtfs-mediator, policy without `map`";

fn map_settings() -> [Setting; 7] {
    [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        product_as(WITHOUT_MAP),
        only(
            "user namespace of the map and own ids alone",
            &[Wall::Root, Wall::UserNamespace, Wall::Ids],
        ),
        all_but_seccomp(),
        PRODUCT,
    ]
}

fn maps(setting: &Setting) -> bool {
    setting.arrangement != product_as(WITHOUT_MAP).arrangement
}

fn mapped(act: &str) -> Result<Vec<Attempt>, String> {
    everywhere(&map_settings(), |setting| with_map(act, maps(setting)))
}

fn setuid_root(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    planted(&map_settings(), |setting| {
        with_map("setuid-root", maps(setting))
    })
}

const WITHOUT_POLICY: &str = "virtfs-mediator without a policy file, which allows set-id bits";

/// A policy as it comes, which strips set-user-id, and no map.
fn setuid_root_stripped(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        product_as(WITHOUT_POLICY),
        PRODUCT,
    ];
    planted(&settings, |setting| {
        let mut prepared = Prepared::new("setuid-root")?;
        if setting.arrangement != product_as(WITHOUT_POLICY).arrangement {
            let policy = prepared.place.outside().with_file_name("policy.toml");
            fs::write(&policy, "default = \"allow\"\n").map_err(told("write"))?;
            prepared.policy = Some(policy);
        }
        Ok(prepared)
    })
}

/// What counts is whether the program is there, whatever the calls said.
fn planted(
    settings: &[Setting],
    prepare: impl Fn(&Setting) -> Result<Prepared, String>,
) -> Result<Vec<Attempt>, String> {
    settings
        .iter()
        .map(|setting| {
            let prepared = prepare(setting)?;
            let mut attempt = prepared.attempt(setting);
            let planted = fs::symlink_metadata(prepared.place.export().join("planted"));
            let is = planted.is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o4000 != 0);
            attempt.verdict = match attempt.verdict {
                Verdict::Succeeded(how) if is => Verdict::Succeeded(how),
                Verdict::Succeeded(how) => Verdict::Untried(format!("{how}, but it is not there")),
                Verdict::Refused(how) if is => Verdict::Succeeded(how),
                Verdict::Refused(how) => Verdict::Refused(how),
                Verdict::Untried(why) => Verdict::Untried(why),
            };
            Ok(attempt)
        })
        .collect()
}

fn file_capability(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        only("four capabilities alone", &[Wall::Root, Wall::Capabilities]),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| Prepared::new("file-capability"))
}

fn executing(act: &str) -> Result<Vec<Attempt>, String> {
    const BUSYBOX: &str = "/bin/busybox";
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        only("mount noexec alone", &[]),
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| {
        let prepared = Prepared::new(act)?;
        fs::copy(BUSYBOX, prepared.place.export().join("busybox")).map_err(|error| {
            format!("{BUSYBOX}: {error} (install it: apt-get install busybox-static)")
        })?;
        Ok(prepared)
    })
}

fn socket_settings() -> [Setting; 6] {
    [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ]
}

/// A connection that was told of must have arrived.
fn arrived(attempt: Attempt, arrived: bool) -> Attempt {
    let verdict = match attempt.verdict {
        Verdict::Succeeded(how) if arrived => Verdict::Succeeded(how),
        Verdict::Succeeded(how) => Verdict::Untried(format!("{how}, but nobody arrived")),
        Verdict::Refused(how) if arrived => Verdict::Succeeded(format!("{how}, but connected")),
        Verdict::Refused(how) => Verdict::Refused(how),
        Verdict::Untried(why) => Verdict::Untried(why),
    };
    Attempt { verdict, ..attempt }
}

fn connect_inet(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let mut settings = socket_settings().to_vec();
    settings.insert(3, only("network namespace alone", &[]));
    settings
        .iter()
        .map(|setting| {
            let mut prepared = Prepared::new("connect-inet")?;
            let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(told("bind"))?;
            listener.set_nonblocking(true).map_err(told("listener"))?;
            prepared.task.port = listener.local_addr().map_err(told("listener"))?.port();
            let attempt = prepared.attempt(setting);
            Ok(arrived(attempt, listener.accept().is_ok()))
        })
        .collect()
}

fn connect_path(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    socket_settings()
        .iter()
        .map(|setting| {
            let prepared = Prepared::new("connect-path")?;
            let path = prepared.place.export().join("service.sock");
            let listener = UnixListener::bind(&path).map_err(told("bind"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(told("chmod"))?;
            listener.set_nonblocking(true).map_err(told("listener"))?;
            let attempt = prepared.attempt(setting);
            Ok(arrived(attempt, listener.accept().is_ok()))
        })
        .collect()
}

fn connect_abstract(_lab: &Lab) -> Result<Vec<Attempt>, String> {
    let mut settings = socket_settings().to_vec();
    settings.insert(3, only("network namespace alone", &[]));
    settings
        .iter()
        .map(|setting| {
            let prepared = Prepared::new("connect-abstract")?;
            let name = prepared.place.outside();
            let address = SocketAddr::from_abstract_name(name.as_os_str().as_bytes())
                .map_err(told("address"))?;
            let listener = UnixListener::bind_addr(&address).map_err(told("bind"))?;
            listener.set_nonblocking(true).map_err(told("listener"))?;
            let attempt = prepared.attempt(setting);
            Ok(arrived(attempt, listener.accept().is_ok()))
        })
        .collect()
}
