//! A lab: real libvirtd, virtlogd and `serve` in namespaces of their own ([`virtfs_lab`]), as tests use
//! it: what should work and does not is a panic.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{LIMIT, await_that, needs_root, program, stderr, stdout, unique_name};

pub(crate) use virtfs_lab::{LINK, QEMU, SOCKET};

/// `qemu.conf` as Debian's defaults are, said aloud.
const QEMU_CONF: &str = "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\n";

/// The processes and mounts of a lab; all are gone when it is dropped.
pub(crate) struct Lab {
    lab: virtfs_lab::Lab,
    domains: RefCell<Vec<String>>,
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
        let conf = format!("{QEMU_CONF}{conf}");
        Self {
            lab: must(virtfs_lab::Lab::new(Path::new(program()), &conf)),
            domains: RefCell::default(),
        }
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
        must(self.lab.start_service("virtfs-mediator"));
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
        self.lab.service_log()
    }

    /// What libvirtd told so far of errors and warnings.
    pub(crate) fn libvirtd_log(&self) -> String {
        fs::read_to_string(self.path("/var/log/libvirt/libvirtd.log")).unwrap_or_default()
    }

    /// A path of the lab, as it is seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        assert!(inside.starts_with('/'), "{inside}");
        self.lab.path(inside)
    }

    /// A file of the lab.
    #[track_caller]
    pub(crate) fn write(&self, inside: &str, text: &str) {
        must(self.lab.write(inside, text));
    }

    /// A file of the lab.
    #[track_caller]
    pub(crate) fn read(&self, inside: &str) -> String {
        must(self.lab.read(inside))
    }

    /// A command in the lab, as root, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        self.lab.command(argv)
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
            "{argv:?}: {}\n{}\n{}\n{}",
            stdout(&output),
            stderr(&output),
            self.service_log(),
            self.libvirtd_log()
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
        must(self.lab.define(xml));
    }

    /// The pid of a domain's QEMU, as the lab numbers it.
    #[track_caller]
    pub(crate) fn qemu(&self, domain: &str) -> i32 {
        must(self.lab.qemu(domain))
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
        domains.iter().flat_map(|it| self.lab.cgroups(it)).collect()
    }
}

/// What should have worked.
#[track_caller]
fn must<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|why| panic!("{why}"))
}

/// Whether a line of mountinfo is about a view of ours at this place.
pub(crate) fn is_view_at(line: &str, place: &str) -> bool {
    let fields: Vec<&str> = line.split(' ').collect();
    let kind = fields.iter().skip_while(|field| **field != "-").nth(1);
    fields.get(4) == Some(&place) && kind.is_some_and(|kind| kind.starts_with("fuse"))
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.lab.end();
        let left = fs::read_dir(self.lab.scratch()).map(Iterator::count);
        if !std::thread::panicking() {
            assert_eq!(left.unwrap(), 0, "the lab's mounts are the lab's alone");
        }
    }
}
