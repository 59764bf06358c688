//! Limits and settings of the host that a view lives under.

use nix::sys::resource::{Resource, getrlimit};

use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;
use crate::doctor::sysctl;

/// Below this a guest's build or mail server may well hit the limit.
const FEW_FILES: u64 = 4096;
/// A mediator takes no more (see `walls::limit_resources`).
const ENOUGH_FILES: u64 = 65_536;

/// All checks of this group.
pub(super) fn check(findings: &mut Findings) {
    files(findings);
    tiocsti(findings);
    protected_links(findings);
    ptrace(findings);
}

/// A tree of any size can be walked: descriptors of names are a budget. Files that a guest holds
/// open take one each, which nothing can replace.
fn files(findings: &mut Findings) {
    let hard = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_soft, hard)) => hard,
        Err(errno) => {
            findings.untried(Problem::FewFiles, &format!("getrlimit: {errno}"));
            return;
        }
    };
    let open = hard.min(ENOUGH_FILES) / 2;
    let found = format!("RLIMIT_NOFILE is {hard}: a guest can hold about {open} files open");
    let cure = "raise it for whoever starts views: LimitNOFILE=65536 in the service, `nofile` in \
                /etc/security/limits.conf";
    if hard >= ENOUGH_FILES {
        findings.ok(Problem::FewFiles, found);
    } else if hard >= FEW_FILES {
        findings.tell(Problem::SomeFiles, found, cure);
    } else {
        findings.tell(Problem::FewFiles, found, cure);
    }
}

/// A kernel without the setting (before 6.2) always lets a process type into its terminal.
fn tiocsti(findings: &mut Findings) {
    let value = sysctl("dev.tty.legacy_tiocsti");
    if value.as_deref() == Some("0") {
        findings.ok(Problem::Tiocsti, "dev.tty.legacy_tiocsti = 0");
        return;
    }
    let shown = value.map_or("is not there".to_owned(), |value| format!("= {value}"));
    findings.tell(
        Problem::Tiocsti,
        format!("dev.tty.legacy_tiocsti {shown}: a hostile client can type into its terminal"),
        "`sysctl -w dev.tty.legacy_tiocsti=0` (Linux 6.2 or later), or start it without a terminal",
    );
}

/// proc_sys_fs(5).
fn protected_links(findings: &mut Findings) {
    for (problem, name, what) in [
        (
            Problem::Hardlinks,
            "fs.protected_hardlinks",
            "a user of the host who may write to an export can link other people's files of the \
             same file system into it",
        ),
        (
            Problem::Symlinks,
            "fs.protected_symlinks",
            "programs of the host that use an export like /tmp follow links that a guest made",
        ),
    ] {
        if sysctl(name).as_deref() == Some("0") {
            let cure = format!("sysctl -w {name}=1");
            findings.tell(problem, format!("{name} = 0: {what}"), cure);
        } else {
            findings.ok(problem, "restricted");
        }
    }
}

fn ptrace(findings: &mut Findings) {
    match sysctl("kernel.yama.ptrace_scope").as_deref() {
        Some(scope) if scope != "0" => {
            findings.ok(Problem::Ptrace, format!("kernel.yama.ptrace_scope = {scope}"));
        }
        Some(_) | None => findings.tell(
            Problem::Ptrace,
            "processes of one user may trace each other: one VM's QEMU another's, if they share a \
             user (a mediator cannot be traced)",
            "give each VM a user of its own, or set kernel.yama.ptrace_scope to 1 where there is Yama",
        ),
    }
}
