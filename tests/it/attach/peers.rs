//! Processes that stand in for libvirt's children: started by root in a mount namespace of their own,
//! then somebody without power, then the wrapper.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::attach::lab::{Domain, Lab, WRAPPER};
use crate::common::{Lines, code};
use crate::process::Process;

/// The protocol by hand: a program that is not the wrapper, `$CLIENT` to what runs before it.
pub(super) const BY_HAND: &str = r#"
use Socket;
my ($what) = @ARGV;
socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
connect($s, sockaddr_un("/run/virtfs-mediator-attach.sock")) or die "connect: $!";
my $word = "attach 1";
if ($what eq "orphan") {
    # The child holds the connection of a process that is gone, and speaks in its name.
    my $parent = $$;
    pipe(my $gone, my $held) or die;
    exit 0 if fork;
    close $held;
    select undef, undef, undef, 0.001 while getppid == $parent;
}
$word = "attach 2" . "x" x 5000 if $what eq "word";
$word = "" if $what eq "empty";
unless ($what eq "silent") { defined send($s, $word, 0) or die "send: $!"; }
defined recv($s, my $answer, 4096, 0) or die "recv: $!";
# In the wrapper's place: as it tells.
print { $what =~ m{^/} ? *STDERR : *STDOUT } "$answer\n";
"#;

/// How one is started.
pub(super) struct Start {
    /// Options of unshare(1), which makes its namespace; none: it stays in the lab's.
    pub(super) unshare: Vec<&'static str>,
    /// Before it gives up its power, in its namespace.
    pub(super) before: String,
    /// What precedes the wrapper, without power.
    pub(super) through: Vec<&'static str>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The domain whose pid file names it.
    pub(super) pid_file: Option<String>,
    /// `-fsdev` for each of these.
    pub(super) shares: Vec<String>,
}

impl Start {
    /// As libvirt starts a domain's QEMU.
    pub(super) fn of(domain: &Domain<'_>) -> Self {
        Self {
            unshare: vec!["-m", "--propagation", "slave"],
            before: String::new(),
            through: Vec::new(),
            uid: domain.uid,
            gid: domain.gid,
            pid_file: Some(domain.name.to_owned()),
            shares: domain
                .exports
                .iter()
                .map(|export| export.path().display().to_string())
                .collect(),
        }
    }

    /// The words up to the emulator's own.
    pub(super) fn words(&self) -> Vec<String> {
        let mut script = String::new();
        if let Some(domain) = &self.pid_file {
            script += &format!("echo $$ >/run/libvirt/qemu/{domain}.pid\n");
        }
        script += "exec ";
        if !self.unshare.is_empty() {
            script += &format!("unshare {} -- ", self.unshare.join(" "));
        }
        script += "sh -ec \"$0\" sh \"$@\"";
        let inner = format!(
            "{}\nexec setpriv --reuid={} --regid={} --clear-groups --inh-caps=-all -- {} \"$@\"",
            self.before,
            self.uid,
            self.gid,
            self.through.join(" ")
        );
        vec!["-ec".into(), script, inner]
    }

    pub(super) fn command(&self, lab: &Lab) -> Command {
        let mut command = lab.command("sh");
        command.args(self.words()).env("CLIENT", BY_HAND);
        command
    }

    /// The wrapper, running.
    pub(super) fn spawn(&self, lab: &Lab) -> Peer {
        let mut command = self.command(lab);
        command.arg(WRAPPER);
        for share in &self.shares {
            let share = share.replace(',', ",,");
            command.arg("-fsdev");
            command.arg(format!(
                "local,security_model=passthrough,id=fs,path={share}"
            ));
        }
        Peer::of(command)
    }
}

/// One of them.
pub(super) struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(super) process: Process,
    stdout: Lines,
    stderr: Lines,
}

impl Peer {
    pub(super) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            process: Process::of_child(&child),
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Waits until the probe runs, which is after the views are there.
    #[track_caller]
    pub(super) fn ready(&mut self) {
        if let Err(seen) = self.stdout.until_or_end("ready") {
            panic!("{seen:?}; {:?}", self.stderr.rest());
        }
    }

    /// Has the probe run a line; its status and what it printed.
    #[track_caller]
    pub(super) fn run(&mut self, line: &str) -> (i32, Vec<String>) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        let mut seen = self.stdout.until_seen("status ");
        let status = seen.pop().unwrap();
        let status = status.strip_prefix("status ").unwrap().parse().unwrap();
        (status, seen)
    }

    /// As [`Peer::run`]; the line must succeed.
    #[track_caller]
    pub(super) fn does(&mut self, line: &str) -> Vec<String> {
        let (status, seen) = self.run(&format!("{line} 2>&1"));
        assert_eq!(status, 0, "{line}: {seen:?}");
        seen
    }

    /// Waits for its end: status and standard error.
    #[track_caller]
    pub(super) fn end(&mut self) -> (i32, String) {
        drop(self.stdin.take());
        let told = self.stderr.rest().join("\n");
        (code(self.child.wait().unwrap()), told)
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it sees a view at a path.
    pub(super) fn sees_view(&self, path: &Path) -> bool {
        let text =
            std::fs::read_to_string(format!("/proc/{}/mountinfo", self.process.pid)).unwrap();
        let place = format!(" {} ", path.display());
        text.lines()
            .any(|line| line.contains(&place) && line.contains("fuse.virtfs-mediator"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _may_be_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
