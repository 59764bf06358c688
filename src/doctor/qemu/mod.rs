//! QEMU: found, asked, and tried without a guest.
//!
//! * [`probe`]: runs it, as somebody without privilege.
//! * [`faults`]: what is known of versions.

mod faults;
mod probe;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use self::faults::Version;
use crate::doctor::catalogue::{Level, Problem};
use crate::doctor::findings::Findings;
use crate::doctor::ids::user_name;
use crate::doctor::{NEEDS_ROOT, Who, child};

/// Where distributions keep a QEMU that is not in PATH.
const ELSEWHERE: &str = "/usr/libexec/qemu-kvm";

/// A machine without anything, which ends when it is told to.
const NOTHING: [&str; 7] = [
    "-M",
    "none",
    "-nodefaults",
    "-display",
    "none",
    "-monitor",
    "stdio",
];

/// All checks of this group.
pub(super) fn check(findings: &mut Findings, who: &Who<'_>, asked: Option<&Path>) {
    kvm(findings, who);
    let Some(program) = program(findings, asked) else {
        return;
    };
    let user = who.root.then(|| who.client.unwrap_or(who.mediator));
    let run = |arguments: &[&str]| probe::run(&program, arguments, user);
    let shown = program.display();
    let said = match run(&["--version"]) {
        Ok(said) => said,
        Err(why) => {
            findings.tell(
                Problem::BadQemu,
                format!("{shown}: {why}"),
                "name a program that the client may run with --qemu",
            );
            return;
        }
    };
    findings.ok(Problem::BadQemu, shown.to_string());
    let version = faults::parse(&said.text);
    match version {
        Some(version) => {
            let line = said.text.lines().next().unwrap_or_default();
            findings.ok(Problem::NoVersion, line);
            known_faults(findings, version);
        }
        None => {
            findings.tell(
                Problem::NoVersion,
                format!("{shown} --version does not tell a version of QEMU"),
                "name QEMU itself with --qemu, not a script around it",
            );
            let why = "the version is not known";
            findings.untried(Problem::Fault, why);
            findings.untried(Problem::Proxy, why);
        }
    }
    nine_p(findings, &program, run);
    sandbox(findings, run);
}

/// The program that was named, or the machine's own.
fn program(findings: &mut Findings, asked: Option<&Path>) -> Option<PathBuf> {
    if let Some(asked) = asked {
        let found = in_path(asked);
        if found.is_none() {
            findings.tell(
                Problem::BadQemu,
                format!("{}: no such program", asked.display()),
                "name a program that is in PATH, or by its path",
            );
        }
        return found;
    }
    let usual = format!("qemu-system-{}", architecture());
    let found = in_path(Path::new(&usual)).or_else(|| in_path(Path::new(ELSEWHERE)));
    if found.is_none() {
        findings.tell(
            Problem::NoQemu,
            format!("neither {usual} in PATH nor {ELSEWHERE}"),
            "install it (Debian: apt-get install qemu-system-x86, -arm, ...), or name it with --qemu",
        );
    }
    found
}

/// As QEMU names this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86" => "i386",
        "powerpc64" => "ppc64",
        other => other,
    }
}

fn in_path(program: &Path) -> Option<PathBuf> {
    let usable = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return usable(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| usable(path))
}

fn known_faults(findings: &mut Findings, version: Version) {
    let mut seen = false;
    for fault in faults::of(version) {
        seen = true;
        let problem = if fault.level == Level::Note {
            Problem::Limit
        } else {
            Problem::Fault
        };
        let found = format!("{} [{}]", fault.what, fault.source);
        findings.tell(problem, found, fault.cure);
    }
    if !seen {
        findings.ok(Problem::Fault, "none known of this version");
    }
    if version < faults::PROXY_REMOVED {
        findings.tell(
            Problem::Proxy,
            "it still has the proxy driver, which QEMU deprecated in 8.1 and removed in 9.2",
            "where a command line says `-virtfs proxy`, use `local` on a view",
        );
    } else {
        findings.ok(
            Problem::Proxy,
            "the proxy driver is gone: `local` on a view takes its place",
        );
    }
}

/// The device, by the list that QEMU prints; the driver, by an export that is never opened. A
/// build that can only run with KVM may not start at all: then the list has to do.
fn nine_p(
    findings: &mut Findings,
    program: &Path,
    run: impl Fn(&[&str]) -> Result<probe::Said, String>,
) {
    let lists = run(&["-device", "help"])
        .is_ok_and(|said| said.ended_well && said.text.contains("\"virtio-9p-"));
    let why = if lists {
        let mut arguments = NOTHING.to_vec();
        arguments.extend([
            "-fsdev",
            "local,id=doctor,path=/,security_model=passthrough",
        ]);
        match run(&arguments) {
            Ok(said) if said.ended_well => {
                findings.ok(Problem::No9p, "virtio-9p and the local driver");
                return;
            }
            Ok(said) if said.blames(&["fsdev"]) => said.last_line().to_owned(),
            Ok(said) => {
                let found = format!(
                    "virtio-9p is listed; no more was tried: {}",
                    said.last_line()
                );
                findings.ok(Problem::No9p, found);
                return;
            }
            Err(why) => why,
        }
    } else {
        "it lists no virtio-9p device".to_owned()
    };
    findings.tell(
        Problem::No9p,
        format!("built without 9p: {why}"),
        format!(
            "take another QEMU than {} (Debian's has 9p)",
            program.display()
        ),
    );
}

fn sandbox(findings: &mut Findings, run: impl Fn(&[&str]) -> Result<probe::Said, String>) {
    let mut arguments = NOTHING.to_vec();
    arguments.extend(["-sandbox", "on"]);
    let why = match run(&arguments) {
        Ok(said) if said.ended_well => {
            findings.ok(Problem::NoSandbox, "-sandbox on");
            return;
        }
        Ok(said) if said.blames(&["sandbox", "seccomp"]) => said.last_line().to_owned(),
        Ok(said) => {
            findings.untried(Problem::NoSandbox, said.last_line());
            return;
        }
        Err(why) => why,
    };
    findings.tell(
        Problem::NoSandbox,
        format!("-sandbox on does not work: {why}"),
        "take a QEMU that was built with libseccomp: the client has no filter of ours",
    );
}

/// By opening it as the client, whose groups count.
fn kvm(findings: &mut Findings, who: &Who<'_>) {
    let open = || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, OsStr::new("/dev/kvm"), flags, Mode::empty())
    };
    let tried = match (who.client, who.root) {
        (Some(client), true) => child::run(0, |_| {
            child::become_user(client)?;
            Ok(open().map(drop).map_err(|errno| errno.to_string()))
        })
        .result()
        .map_err(|error| error.what().to_owned())
        .and_then(|tried| tried),
        (None, _) => {
            findings.untried(Problem::Kvm, "no client is named");
            return;
        }
        (_, false) => {
            findings.untried(Problem::Kvm, NEEDS_ROOT);
            return;
        }
    };
    let client = who
        .client
        .map(|client| user_name(client.uid))
        .unwrap_or_default();
    match tried {
        Ok(()) => findings.ok(Problem::Kvm, format!("user {client} may use /dev/kvm")),
        Err(why) => findings.tell(
            Problem::Kvm,
            format!("user {client} may not use /dev/kvm ({why}): QEMU emulates, slowly"),
            "add the client to the group that owns /dev/kvm (Debian: `adduser CLIENT kvm`)",
        ),
    }
}
