//! A throw-away libvirt for the project's tools and tests: libvirtd, virtlogd and `virtfs-mediator serve` in
//! namespaces of their own.
//!
//! `lab.sh` makes them: `/etc`, `/usr` and `/var` are overlays, `/run` is empty, there is no network, and
//! all processes are in one pid namespace, which the kernel ends with its first process. That one ends
//! when its standard input is closed: so nothing is left however a tool or a test ends. The host's
//! libvirt, users and settings are never touched.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

/// The real emulator.
pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What `<emulator>` names in a domain with views.
pub const LINK: &str = "/usr/lib/virtfs-mediator/emulators/qemu-system-x86_64";
/// The service's socket.
pub const SOCKET: &str = "/run/virtfs-mediator-attach.sock";

/// How long a step of a lab may take. Generous: machines are shared.
const LIMIT: Duration = Duration::from_secs(60);
/// Held by each lab; who has it alone may tidy up after all.
const LOCK: &str = "/run/lock/virtfs-mediator-labs";
/// Where libvirt puts cgroups on a host without systemd.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What libvirtd has found out of the host's emulators, which takes it a second or two.
const KNOWN: &str = "/var/cache/libvirt/qemu/capabilities";

/// The processes and mounts of a lab; all are gone when it is dropped.
#[derive(Debug)]
pub struct Lab {
    child: Child,
    input: Option<ChildStdin>,
    init: i32,
    scratch: TempDir,
    lock: Option<Flock<File>>,
    known: PathBuf,
    /// The names of domains that were defined: cgroups are the host's.
    domains: RefCell<Vec<String>>,
}

impl Lab {
    /// Makes the namespaces, with `mediator` and the wrapper that lies beside it installed there as the
    /// package does it, and `conf` as qemu.conf. Nothing runs there yet.
    ///
    /// # Errors
    ///
    /// In words: a program that is missing, or the step that failed.
    pub fn new(mediator: &Path, conf: &str) -> Result<Self, String> {
        for (tool, package) in [
            ("/usr/sbin/libvirtd", "libvirt-daemon-system"),
            ("/usr/sbin/virtlogd", "libvirt-daemon-system"),
            ("/usr/bin/virsh", "libvirt-clients"),
            (QEMU, "qemu-system-x86"),
        ] {
            if !Path::new(tool).exists() {
                return Err(format!(
                    "{tool} is missing: apt-get install --no-install-recommends {package}"
                ));
            }
        }
        let lock = File::create(LOCK).map_err(|error| format!("{LOCK}: {error}"))?;
        let lock = Flock::lock(lock, FlockArg::LockShared)
            .map_err(|(_, errno)| format!("{LOCK}: {errno}"))?;
        let scratch = tempfile::Builder::new()
            .prefix("virtfs-lab-")
            .tempdir()
            .map_err(|error| format!("a directory for a lab: {error}"))?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--ipc", "--fork", "--"])
            .args(["bash", "--norc"])
            .arg(own.join("lab.sh"))
            .arg(scratch.path())
            .arg(mediator)
            .arg(mediator.with_file_name("virtfs-mediator-qemu"))
            .arg(own.join("../libvirt/qemu.d-virtfs-mediator"))
            .current_dir("/")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let above = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let known = mediator.with_file_name("libvirt-capabilities");
        let mut lab = Self {
            input: child.stdin.take(),
            child,
            init: 0,
            scratch,
            lock: Some(lock),
            known,
            domains: RefCell::default(),
        };
        lab.await_ready()?;
        let children = fs::read_to_string(format!("/proc/{above}/task/{above}/children"));
        lab.init = children
            .ok()
            .and_then(|children| children.trim().parse().ok())
            .ok_or("unshare has not one child")?;
        lab.write("/etc/libvirt/qemu.conf", conf)?;
        copy_all(&lab.known, &lab.path(KNOWN));
        Ok(lab)
    }

    fn await_ready(&mut self) -> Result<(), String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            // It says one line, or ends.
            let _read = BufReader::new(stdout).read_line(&mut line);
        }
        if line == "ready\n" {
            return Ok(());
        }
        let mut told = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _read = stderr.read_to_string(&mut told);
        }
        Err(format!("the lab does not start: {}", told.trim()))
    }

    /// virtlogd and libvirtd, up to where they answer.
    ///
    /// # Errors
    ///
    /// What they said.
    pub fn start_libvirtd(&self) -> Result<(), String> {
        self.run(["virtlogd", "--daemon"])?;
        self.run(["libvirtd", "--daemon"]).map(|_| ())
    }

    /// The service, up to where it listens; `program` is what stands before `serve`.
    ///
    /// # Errors
    ///
    /// What it said.
    pub fn start_service(&self, program: &str) -> Result<(), String> {
        // The lab's first process takes it over when the shell is gone.
        let words = format!(
            "{program} serve --socket {SOCKET} </dev/null >/run/serve.log 2>&1 & \
             echo $! >/run/serve.pid"
        );
        self.run(["sh", "-c", &words])?;
        if holds_within(LIMIT, || self.service_log().contains("waiting for")) {
            Ok(())
        } else {
            Err(format!("no service: {}", self.service_log()))
        }
    }

    /// What the service told so far.
    #[must_use]
    pub fn service_log(&self) -> String {
        fs::read_to_string(self.path("/run/serve.log")).unwrap_or_default()
    }

    /// The lab's first process, as the host numbers it.
    #[must_use]
    pub fn init(&self) -> i32 {
        self.init
    }

    /// A path of the lab (absolute), as it is seen from outside.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Writes a file of the lab.
    ///
    /// # Errors
    ///
    /// The path and why.
    pub fn write(&self, inside: &str, text: &str) -> Result<(), String> {
        fs::write(self.path(inside), text).map_err(|error| format!("{inside}: {error}"))
    }

    /// Reads a file of the lab.
    ///
    /// # Errors
    ///
    /// The path and why.
    pub fn read(&self, inside: &str) -> Result<String, String> {
        fs::read_to_string(self.path(inside)).map_err(|error| format!("{inside}: {error}"))
    }

    /// A command in the lab, as root, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--pid", "--net", "--ipc", "--wd=/", "--"])
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// A command in the lab, waited for: what it printed.
    ///
    /// # Errors
    ///
    /// Its words and what it said, if it failed.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<String, String> {
        let mut command = self.command(argv);
        let output = command
            .output()
            .map_err(|error| format!("nsenter: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let words: Vec<_> = command.get_args().skip(7).collect();
        Err(format!(
            "{words:?}: {} {}",
            text(&output.stdout),
            text(&output.stderr)
        ))
    }

    /// `virsh WORDS`: what it printed.
    ///
    /// # Errors
    ///
    /// What it said.
    pub fn virsh(&self, words: &[&str]) -> Result<String, String> {
        self.run([&["virsh", "--quiet"], words].concat())
    }

    /// Makes a domain known to libvirt.
    ///
    /// # Errors
    ///
    /// What virsh said of it.
    pub fn define(&self, xml: &str) -> Result<(), String> {
        self.write("/run/domain.xml", xml)?;
        // Kept by every definition, as libvirt writes it or a test does.
        if let Some((_, rest)) = xml.split_once("<name>")
            && let Some((name, _)) = rest.split_once("</name>")
        {
            self.domains.borrow_mut().push(name.to_owned());
        }
        self.virsh(&["define", "--validate", "/run/domain.xml"])
            .map(|_| ())
    }

    /// The pid of a domain's QEMU, as the lab numbers it.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn qemu(&self, domain: &str) -> Result<i32, String> {
        let path = format!("/run/libvirt/qemu/{domain}.pid");
        let text = self.read(&path)?;
        text.trim()
            .parse()
            .map_err(|_| format!("{path} holds '{text}'"))
    }
}

impl Lab {
    /// Ends all processes of the lab; only files can be asked for then, of [`Lab::scratch`].
    pub fn end(&mut self) {
        let Some(input) = self.input.take() else {
            return;
        };
        if self.init > 0 && fs::create_dir_all(&self.known).is_ok() {
            copy_all(&self.path(KNOWN), &self.known);
        }
        drop(input);
        if !holds_within(LIMIT, || matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _may_be_gone = self.child.kill();
        }
        let _status = self.child.wait();
    }

    /// The directory that the lab's mounts are made in: nothing is in it outside of the lab.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// libvirt's cgroups of domains: those whose name ends so, `DOMAIN.libvirt-qemu`.
    #[must_use]
    pub fn cgroups(&self, domain: &str) -> Vec<PathBuf> {
        let of_it = format!("-{domain}.libvirt-qemu");
        machines()
            .iter()
            .flat_map(|machine| fs::read_dir(machine).into_iter().flatten().flatten())
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| name.contains(&of_it))
            })
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end();
        for domain in self.domains.borrow().iter() {
            for cgroup in self.cgroups(domain) {
                remove_cgroup(&cgroup);
            }
        }
        // libvirt's own directories, with the last lab, if no domain of anybody is in them.
        if let Some(lock) = self.lock.take()
            && let Ok(_alone) = lock.relock(FlockArg::LockExclusiveNonblock)
        {
            for machine in machines() {
                let _others_may_be_there = fs::remove_dir(machine);
            }
        }
    }
}

/// libvirt's own directory in each cgroup hierarchy.
fn machines() -> Vec<PathBuf> {
    let mut found = vec![Path::new(CGROUPS).join("machine")];
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    found.extend(hierarchies.map(|entry| entry.path().join("machine")));
    found.retain(|path| path.is_dir());
    found
}

/// A cgroup and all below it, which nobody is in any more.
fn remove_cgroup(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&below.path());
        }
    }
    let _may_be_gone = fs::remove_dir(cgroup);
}

/// Whether a lab sees an overlay in a path's place, so that what is written there is not the host's.
#[must_use]
pub fn is_overlaid(path: &Path) -> bool {
    ["/etc", "/run", "/usr", "/var"]
        .iter()
        .any(|above| path.starts_with(above))
}

/// Polls until a condition holds; tells whether it did in time. The last look begins when the time
/// is over, so that a look that takes long on a loaded machine is not the only one.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        let last = Instant::now() >= end;
        if condition() {
            return true;
        }
        if last {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Copies files, each whole or not at all.
fn copy_all(from: &Path, to: &Path) {
    let _may_be_there = fs::create_dir_all(to);
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let copied = tempfile::Builder::new().prefix("new-").tempfile_in(to);
        if let Ok(copy) = copied
            && fs::copy(entry.path(), copy.path()).is_ok()
        {
            let _next_time = copy.persist(to.join(entry.file_name()));
        }
    }
}
