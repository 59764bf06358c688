//! A host of its own for each test: a mount namespace with an empty /run and a /etc that nobody else
//! sees, its mounts shared as systemd makes them, the service in it, and libvirt's part played by
//! hand.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::common::{Export, LIMIT, Lines, await_that, holds_within, needs_root, program, stderr};
use crate::process::Process;

/// Where the lab has the wrapper, under the name of the emulator.
pub(super) const WRAPPER: &str = "/run/emulators/qemu-system-x86_64";
/// An emulator that runs the lines of its standard input.
pub(super) const PROBE: &str = "/run/emulators/probe";
const SOCKET: &str = "run/virtfs-mediator-attach.sock";

/// The namespace lives as long as this does.
pub(super) struct Lab {
    holder: Child,
    holder_stdin: Option<std::process::ChildStdin>,
    pub(super) inside: Process,
    service: Option<Service>,
}

struct Service {
    child: Child,
    log: Lines,
}

const SETUP: &str = "\
mount --make-rprivate /
mount --make-rshared /
mount -t tmpfs -o mode=755 lab /run
mkdir -p /run/libvirt/qemu /run/upper /run/work /run/emulators
mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work lab /etc
rm -rf /etc/virtfs-mediator
mkdir -p -m 755 /etc/virtfs-mediator/libvirt
echo lab-qemu:x:61301:61302::/:/bin/sh >>/etc/passwd
cp \"$1\" /run/emulators/virtfs-mediator-qemu
ln -s virtfs-mediator-qemu /run/emulators/qemu-system-x86_64
cat >/run/emulators/probe <<'END'
#!/bin/sh
echo ready
while read -r line; do eval \"$line\"; echo \"status $?\"; done
END
chmod 755 /run/emulators/probe
echo ready
read -r never";

impl Lab {
    /// Without a service so far.
    pub(super) fn new() -> Self {
        needs_root();
        let mut holder = Command::new("unshare")
            .args(["-m", "--", "sh", "-eu", "-c", SETUP, "sh"])
            .arg(env!("CARGO_BIN_EXE_virtfs-mediator-qemu"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = Lines::of(holder.stdout.take().unwrap());
        ready.until("ready");
        let inside = Process::find(i32::try_from(holder.id()).unwrap()).unwrap();
        Self {
            holder_stdin: holder.stdin.take(),
            holder,
            inside,
            service: None,
        }
    }

    /// With one.
    pub(super) fn serving() -> Self {
        let mut lab = Self::new();
        lab.serve();
        lab
    }

    /// A file of the lab.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let path = path.strip_prefix("/").unwrap_or(path);
        Path::new(&format!("/proc/{}/root", self.inside.pid)).join(path)
    }

    /// A command in the lab, as root.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.inside.pid))
            .args(["--", program])
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Our program in the lab, waited for.
    pub(super) fn ours(&self, arguments: &[&str]) -> Output {
        self.command(program()).args(arguments).output().unwrap()
    }

    /// Starts the service (again).
    pub(super) fn serve(&mut self) {
        self.serve_by(|_command| "exec \"$@\"");
    }

    /// As [`Lab::serve`], by a script that executes its words, with what it needs besides.
    pub(super) fn serve_by(&mut self, prepare: impl FnOnce(&mut Command) -> &'static str) {
        assert!(self.service.is_none(), "it serves already");
        let mut command = self.command("sh");
        let script = prepare(&mut command);
        let mut child = command
            .args(["-c", script, "sh", program(), "serve"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        log.until_part("waiting for virtual machines");
        self.service = Some(Service { child, log });
    }

    /// The next line of the service's log, or of one of its starts, that holds `part`.
    #[track_caller]
    pub(super) fn logged(&self, part: &str) -> String {
        self.service.as_ref().unwrap().log.until_part(part)
    }

    /// Its process.
    pub(super) fn service(&self) -> Process {
        service_process(self.service.as_ref().unwrap())
    }

    /// Ends the service as systemd does.
    pub(super) fn stop_serving(&mut self) {
        let mut service = self.service.take().unwrap();
        service_process(&service).kill(Signal::SIGTERM);
        let status = service.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!self.path(SOCKET).exists(), "its socket goes with it");
    }

    /// Ends the service as a fault does.
    pub(super) fn crash_service(&mut self) {
        let mut service = self.service.take().unwrap();
        service_process(&service).kill(Signal::SIGKILL);
        service.child.wait().unwrap();
    }

    /// Writes a domain's file.
    pub(super) fn define(&self, domain: &Domain<'_>) {
        let path = self
            .path("/etc/virtfs-mediator/libvirt")
            .join(format!("{}.toml", domain.name));
        fs::write(&path, domain.file()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// What libvirt calls, with a domain's XML: the script that is shipped, but for the program's place.
    pub(super) fn hook(
        &self,
        name: &str,
        operation: &str,
        suboperation: &str,
        xml: &str,
    ) -> Output {
        let script = include_str!("../../../tools/libvirt/qemu.d-virtfs-mediator");
        assert!(script.contains(" /usr/bin/virtfs-mediator "), "{script}");
        let script = script.replace("/usr/bin/virtfs-mediator ", &format!("{} ", program()));
        let mut child = self
            .command("sh")
            .args(["-c", &script, "sh", name, operation, suboperation, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It need not read it.
        let _closed_early = child.stdin.take().unwrap().write_all(xml.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Defines a domain and arms it as the hook does.
    #[track_caller]
    pub(super) fn arm(&self, domain: &Domain<'_>) {
        self.define(domain);
        let output = self.hook(domain.name, "prepare", "begin", &domain.xml());
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Whether a domain may still come for its views.
    pub(super) fn is_armed(&self, domain: &str) -> bool {
        self.path(format!("/run/virtfs-mediator-libvirt/armed/{domain}.json"))
            .exists()
    }

    /// Nobody in the lab's own namespace ever sees a view.
    #[track_caller]
    pub(super) fn assert_unseen(&self) {
        for process in ["self".to_owned(), "1".into(), self.inside.pid.to_string()] {
            let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
            assert!(!text.contains("fuse.virtfs-mediator"), "{process}: {text}");
        }
    }

    /// Nothing of a view is left.
    #[track_caller]
    pub(super) fn assert_nothing_left(&self, view: &str) {
        let directory = self.path(format!("/run/virtfs-mediator/{view}"));
        await_that(LIMIT, "the view's directory below /run goes", || {
            !directory.exists()
        });
        self.assert_unseen();
    }

    /// The processes of a view, as its record has them.
    pub(super) fn view(&self, view: &str) -> Kept {
        let path = self.path(format!("/run/virtfs-mediator/{view}/state.json"));
        let mut state = serde_json::Value::Null;
        await_that(LIMIT, "the view is recorded", || {
            state = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
                .unwrap_or_default();
            !state.is_null()
        });
        let find = |pid: &serde_json::Value| {
            Process::find(i32::try_from(pid.as_i64().unwrap()).unwrap()).unwrap()
        };
        let warden = find(&state["warden"]);
        Kept {
            keeper: find(&state["keeper"]["pid"]),
            warden,
            mediator: warden.children()[0],
            registrar: find(&state["registrar"]),
        }
    }
}

fn service_process(service: &Service) -> Process {
    Process::find(i32::try_from(service.child.id()).unwrap()).unwrap()
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _may_be_gone = service.child.kill();
            let _status = service.child.wait();
        }
        // Views of peers that a failed test left.
        for entry in fs::read_dir(self.path("/run/virtfs-mediator"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let _may_have_ended = self.ours(&["unmount", "--force", &name.to_string_lossy()]);
        }
        drop(self.holder_stdin.take());
        let _status = self.holder.wait();
    }
}

/// The processes of a view without an init.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) keeper: Process,
    pub(super) warden: Process,
    pub(super) mediator: Process,
    pub(super) registrar: Process,
}

impl Kept {
    pub(super) fn all(&self) -> [Process; 4] {
        [self.keeper, self.warden, self.mediator, self.registrar]
    }

    /// Nobody is left a moment later.
    #[track_caller]
    pub(super) fn assert_gone(&self) {
        let gone = holds_within(crate::common::END_LIMIT, || {
            self.all().iter().all(|process| !process.alive())
        });
        assert!(gone, "still there: {self:?}");
    }
}

/// A domain with views, and who its QEMU runs as.
pub(super) struct Domain<'a> {
    pub(super) name: &'a str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) exports: Vec<&'a Export>,
    pub(super) emulator: &'a str,
}

pub(super) const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

impl<'a> Domain<'a> {
    /// Its views are called `NAME-0`, `NAME-1`...
    pub(super) fn new(name: &'a str, exports: impl IntoIterator<Item = &'a Export>) -> Self {
        Self {
            name,
            uid: 61_301,
            gid: 61_302,
            exports: exports.into_iter().collect(),
            emulator: PROBE,
        }
    }

    pub(super) fn file(&self) -> String {
        let mut text = format!(
            "domain = \"{}\"\nuuid = \"{UUID}\"\nemulator = \"{}\"\n\
             client = {{ user = {}, group = {} }}\n",
            self.name, self.emulator, self.uid, self.gid
        );
        for (at, export) in self.exports.iter().enumerate() {
            text += &format!(
                "[[view]]\nname = \"{}-{at}\"\nexport = \"{}\"\n",
                self.name,
                export.path().display()
            );
        }
        text
    }

    pub(super) fn xml(&self) -> String {
        let shares: String = self
            .exports
            .iter()
            .map(|export| {
                format!(
                    "<filesystem type='mount' accessmode='passthrough'><source dir='{}'/>\
                     <target dir='share'/></filesystem>",
                    export.path().display()
                )
            })
            .collect();
        format!(
            "<domain type='qemu'><name>{}</name><uuid>{UUID}</uuid><devices>\
             <emulator>{WRAPPER}</emulator>{shares}</devices>\
             <seclabel type='static' model='dac' relabel='yes'><label>+{}:+{}</label></seclabel>\
             </domain>",
            self.name, self.uid, self.gid
        )
    }
}
