//! A lab: real libvirtd, virtlogd and `serve` in namespaces of their own (lab.sh makes them).
//!
//! The host's libvirt, users and settings are never touched: `/etc`, `/usr` and `/var` are overlays,
//! `/run` is empty, there is no network, and all processes are in one pid namespace, which the
//! kernel ends with its first process. That one ends when its standard input does, so that nothing
//! is left however a test ends.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::common::{
    LIMIT, Lines, await_that, holds_within, needs_root, program, stderr, stdout, unique_name,
};
use crate::process::Process;

/// The service's socket.
pub(crate) const SOCKET: &str = "/run/virtfs-mediator-attach.sock";
/// The real emulator.
pub(crate) const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What `<emulator>` names once a domain is enabled.
pub(crate) const LINK: &str = "/usr/lib/virtfs-mediator/emulators/qemu-system-x86_64";
/// `qemu.conf` as Debian's defaults are, said aloud.
const QEMU_CONF: &str = "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\n";
/// Held by each lab; who has it alone may tidy up after all.
const LOCK: &str = "/run/lock/virtfs-mediator-labs";
/// Where libvirt puts cgroups on a host without systemd.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What libvirt has found out about emulators, which takes seconds; it looks again where one has
/// changed.
const KNOWN: &str = "/var/cache/libvirt/qemu/capabilities";

/// The processes and mounts of a lab; all are gone when it is dropped.
pub(crate) struct Lab {
    child: Child,
    input: Option<ChildStdin>,
    init: Process,
    scratch: TempDir,
    domains: RefCell<Vec<String>>,
    lock: Option<Flock<fs::File>>,
}

impl Lab {
    /// libvirtd with Debian's settings, our hook, and our service.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// As [`Lab::new`], with `conf` added to qemu.conf.
    #[track_caller]
    pub(crate) fn with(conf: &str) -> Self {
        let lab = Self::unstarted(conf);
        lab.start_libvirtd();
        lab.start_service();
        lab
    }

    /// The namespaces and files alone.
    #[track_caller]
    pub(crate) fn unstarted(conf: &str) -> Self {
        needs_root();
        for (tool, package) in [
            ("/usr/sbin/libvirtd", "libvirt-daemon-system"),
            ("/usr/sbin/virtlogd", "libvirt-daemon-system"),
            ("/usr/bin/virsh", "libvirt-clients"),
            (QEMU, "qemu-system-x86"),
        ] {
            assert!(
                Path::new(tool).exists(),
                "{tool} is missing: apt-get install --no-install-recommends {package}"
            );
        }
        let lock = fs::File::create(LOCK).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockShared).expect("a lock of the labs' own");
        let scratch = tempfile::Builder::new()
            .prefix("virtfs-lab-")
            .tempdir()
            .unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--ipc", "--fork", "--"])
            .args(["bash", "--norc"])
            .arg(sources.join("tests/it/libvirt/lab.sh"))
            .arg(scratch.path())
            .args([program(), wrapper()])
            .arg(sources.join("tools/libvirt/qemu.d-virtfs-mediator"))
            .current_dir("/")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let out = Lines::of(child.stdout.take().unwrap());
        let errors = Lines::of(child.stderr.take().unwrap());
        if out.until_or_end("ready").is_err() {
            panic!("the lab does not start: {:?}", errors.rest());
        }
        let above = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        let [init] = above.children()[..] else {
            panic!("not one child of unshare");
        };
        let lab = Self {
            child,
            input,
            init,
            scratch,
            domains: RefCell::default(),
            lock: Some(lock),
        };
        lab.write("/etc/libvirt/qemu.conf", &format!("{QEMU_CONF}{conf}"));
        let known = lab.path(KNOWN);
        fs::create_dir_all(&known).unwrap();
        copy_all(&remembered(), &known);
        lab
    }

    /// virtlogd and libvirtd, up to where they answer.
    #[track_caller]
    pub(crate) fn start_libvirtd(&self) {
        if self.daemon("virtlogd").is_none() {
            self.ok(["virtlogd", "--daemon"]);
        }
        self.ok(["libvirtd", "--daemon"]);
    }

    /// A daemon's pid, as the lab numbers it, by its pid file.
    pub(crate) fn daemon(&self, name: &str) -> Option<i32> {
        let text = fs::read_to_string(self.path(&format!("/run/{name}.pid"))).ok()?;
        let pid = text.trim().parse().ok()?;
        self.alive(pid).then_some(pid)
    }

    /// Ends libvirtd as a crash would, and waits until it is gone.
    #[track_caller]
    pub(crate) fn crash_libvirtd(&self) {
        let pid = self.daemon("libvirtd").expect("libvirtd runs");
        self.kill("KILL", pid);
        self.await_gone(pid);
    }

    /// Our service, up to where it listens.
    #[track_caller]
    pub(crate) fn start_service(&self) {
        // The lab's first process takes it over when the shell is gone.
        let words = format!(
            "virtfs-mediator serve --socket {SOCKET} </dev/null >/run/serve.log 2>&1 & \
             echo $! >/run/serve.pid"
        );
        self.ok(["sh", "-c", &words]);
        if !holds_within(LIMIT, || self.service_log().contains("waiting for")) {
            panic!("the service does not listen: {}", self.service_log());
        }
    }

    /// Ends the service as a crash would, and waits until it is gone.
    #[track_caller]
    pub(crate) fn crash_service(&self) {
        let pid = self.read("/run/serve.pid").trim().parse().unwrap();
        self.kill("KILL", pid);
        self.await_gone(pid);
    }

    /// What the service told so far.
    pub(crate) fn service_log(&self) -> String {
        fs::read_to_string(self.path("/run/serve.log")).unwrap_or_default()
    }

    /// A path of the lab, as it is seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        assert!(inside.starts_with('/'), "{inside}");
        PathBuf::from(format!("/proc/{}/root{inside}", self.init.pid))
    }

    /// A file of the lab.
    #[track_caller]
    pub(crate) fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap();
    }

    /// A file of the lab.
    #[track_caller]
    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap()
    }

    /// A command in the lab, as root, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init.pid))
            .args(["--mount", "--pid", "--net", "--ipc", "--wd=/", "--"])
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// A command in the lab, waited for.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Output {
        self.command(argv).output().unwrap()
    }

    /// As [`Lab::run`]; it must succeed. What it printed.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> String {
        let argv: Vec<_> = argv
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        let output = self.run(&argv);
        assert!(
            output.status.success(),
            "{argv:?}: {}\n{}\n{}",
            stdout(&output),
            stderr(&output),
            self.service_log()
        );
        stdout(&output)
    }

    /// `virsh WORDS`, which must succeed.
    #[track_caller]
    pub(crate) fn virsh(&self, words: &[&str]) -> String {
        self.ok([&["virsh", "--quiet"], words].concat())
    }

    /// `virsh WORDS`, which must fail: what it said.
    #[track_caller]
    pub(crate) fn virsh_fails(&self, words: &[&str]) -> String {
        let output = self.run([&["virsh", "--quiet"], words].concat());
        assert!(!output.status.success(), "{words:?}: {}", stdout(&output));
        stderr(&output)
    }

    /// Our program in the lab.
    #[track_caller]
    pub(crate) fn ours(&self, words: &[&str]) -> Output {
        self.run([&["virtfs-mediator"], words].concat())
    }

    /// Our program in the lab, which must succeed.
    #[track_caller]
    pub(crate) fn ours_ok(&self, words: &[&str]) -> String {
        self.ok([&["virtfs-mediator"], words].concat())
    }

    /// Our program in the lab, which must fail: its exit status and what it said.
    #[track_caller]
    pub(crate) fn ours_fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.ours(words);
        assert!(!output.status.success(), "{words:?}: {}", stdout(&output));
        (output.status.code().unwrap(), stderr(&output))
    }

    /// A name for a domain, which no other lab uses: cgroups are the host's.
    pub(crate) fn domain_name(&self) -> String {
        let name = unique_name();
        self.domains.borrow_mut().push(name.clone());
        name
    }

    /// Makes a domain known to libvirt.
    #[track_caller]
    pub(crate) fn define(&self, xml: &str) {
        let file = self.path("/run/domain.xml");
        fs::write(&file, xml).unwrap();
        self.virsh(&["define", "--validate", "/run/domain.xml"]);
    }

    /// The pid of a domain's QEMU, as the lab numbers it.
    #[track_caller]
    pub(crate) fn qemu(&self, domain: &str) -> i32 {
        self.read(&format!("/run/libvirt/qemu/{domain}.pid"))
            .trim()
            .parse()
            .unwrap()
    }

    /// A file of `/proc/PID` of a process, as the lab numbers it.
    pub(crate) fn proc(&self, pid: i32, file: &str) -> PathBuf {
        self.path(&format!("/proc/{pid}/{file}"))
    }

    /// Whether a process runs, zombies aside.
    pub(crate) fn alive(&self, pid: i32) -> bool {
        let stat = fs::read_to_string(self.proc(pid, "stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim().chars().next());
        state.is_some_and(|state| state != 'Z' && state != 'X')
    }

    /// Waits until a process is gone.
    #[track_caller]
    pub(crate) fn await_gone(&self, pid: i32) {
        await_that(LIMIT, "a process ends", || !self.alive(pid));
    }

    /// Sends a signal, by its name.
    #[track_caller]
    pub(crate) fn kill(&self, signal: &str, pid: i32) {
        self.ok(["kill", "-s", signal, &pid.to_string()]);
    }

    /// All processes of the lab but its first: pid and name.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mut found: Vec<(i32, String)> = fs::read_dir(self.path("/proc"))
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != 1 && self.alive(*pid))
            .filter_map(|pid| {
                let name = fs::read_to_string(self.proc(pid, "comm")).ok()?;
                Some((pid, name.trim().to_owned()))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Who has a FUSE mount of ours at a place: pid and name, by each process's own mountinfo.
    pub(crate) fn who_sees_view_at(&self, place: &Path) -> Vec<(i32, String)> {
        let place = place.to_str().unwrap();
        let mut seen = self.processes();
        seen.push((1, "lab".to_owned()));
        seen.retain(|(pid, _)| {
            let mounts = fs::read_to_string(self.proc(*pid, "mountinfo")).unwrap_or_default();
            mounts.lines().any(|line| is_view_at(line, place))
        });
        seen
    }

    /// cgroups of the lab's domains.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let domains = self.domains.borrow();
        let of_a_domain = |name: &str| {
            let is_of = |domain: &String| name.contains(&format!("-{domain}.libvirt-qemu"));
            domains.iter().any(is_of)
        };
        machines()
            .iter()
            .flat_map(|machine| fs::read_dir(machine).into_iter().flatten().flatten())
            .filter(|entry| entry.file_name().to_str().is_some_and(of_a_domain))
            .map(|entry| entry.path())
            .collect()
    }
}

/// Whether a line of mountinfo is about a view of ours at this place.
pub(crate) fn is_view_at(line: &str, place: &str) -> bool {
    let fields: Vec<&str> = line.split(' ').collect();
    let kind = fields.iter().skip_while(|field| **field != "-").nth(1);
    fields.get(4) == Some(&place) && kind.is_some_and(|kind| kind.starts_with("fuse"))
}

/// The wrapper under test.
fn wrapper() -> &'static str {
    env!("CARGO_BIN_EXE_virtfs-mediator-qemu")
}

/// Where labs leave to others what libvirt has found out.
fn remembered() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt-capabilities")
}

/// Copies files, each whole or not at all.
fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let copied = tempfile::Builder::new().prefix("new-").tempfile_in(to);
        if let Ok(copy) = copied
            && fs::copy(entry.path(), copy.path()).is_ok()
        {
            let _next_time = copy.persist(to.join(entry.file_name()));
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

impl Drop for Lab {
    fn drop(&mut self) {
        if fs::create_dir_all(remembered()).is_ok() {
            copy_all(&self.path(KNOWN), &remembered());
        }
        // The end of the lab's first process, and so of all its processes.
        drop(self.input.take());
        let ended = holds_within(LIMIT, || matches!(self.child.try_wait(), Ok(Some(_))));
        if !ended {
            self.init.kill(nix::sys::signal::Signal::SIGKILL);
            let _status = self.child.wait();
        }
        for cgroup in self.cgroups() {
            remove_cgroup(&cgroup);
        }
        // The last lab takes libvirt's own directories along, if no domain of anybody is in them.
        if let Some(lock) = self.lock.take()
            && let Ok(_alone) = lock.relock(FlockArg::LockExclusiveNonblock)
        {
            for machine in machines() {
                let _others_may_be_there = fs::remove_dir(machine);
            }
        }
        let left = fs::read_dir(self.scratch.path()).map(Iterator::count);
        if !std::thread::panicking() {
            assert_eq!(left.unwrap(), 0, "the lab's mounts are the lab's alone");
        }
    }
}
