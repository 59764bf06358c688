//! `doctor`: checks a host before first use, by trying things and changing nothing.
//!
//! * [`catalogue`]: everything that can be objected to, as data.
//! * [`findings`]: what was found, how it is told, and the exit status.
//! * [`child`] and [`sandbox`]: processes in which to try what changes the process that tries it.
//! * [`kernel`], [`fuse`], [`lsm`], [`limits`], [`ids`], [`export`], [`qemu`], [`libvirt`]: the checks.

mod catalogue;
pub(crate) mod child;
mod export;
mod findings;
mod fuse;
pub(crate) mod ids;
mod kernel;
mod libvirt;
mod limits;
mod lsm;
mod qemu;
mod sandbox;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::mounts;
use crate::output::outln;

/// Why a check was not made.
const NEEDS_ROOT: &str = "needs root";

const EXIT_STATUS: &str = "\
Each line is a check: `ok`, `note` (nothing has to be done), `warn` (a view works, with something
missing or at a risk) or `FAIL`, what was found, and what to do about it.

Exit status: 0 if nothing FAILs; else that of the first of these that does:
  71  kernel: a wall cannot be built        78  a user, an export, a policy, QEMU
  74  FUSE                                  77  not root: some checks could not be made";

/// The command line of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS, after_long_help = EXIT_STATUS)]
pub(crate) struct Options {
    /// One JSON array of {check, level, found, cure}.
    #[arg(long)]
    json: bool,
    /// Who will run QEMU; default: as the policies say, or who called sudo.
    #[arg(long, value_name = "USER[:GROUP]")]
    client: Option<String>,
    /// The mediator's own user; default: `virtfs-mediator`, or a fixed high number.
    #[arg(long, value_name = "USER[:GROUP]")]
    mediator_user: Option<String>,
    /// The policy of exports that name none.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The QEMU to look at; default: qemu-system-* of this machine.
    #[arg(long, value_name = "PROGRAM")]
    qemu: Option<PathBuf>,
    /// Check libvirt, our hook and service, and the domains that are enabled, too.
    #[arg(long)]
    libvirt: bool,
    /// Directories to look at, each with the policy file of its own after `=`, if it has one.
    #[arg(value_name = "EXPORT[=POLICY]")]
    exports: Vec<OsString>,
}

/// Makes every check, prints what was found, and returns the exit status.
///
/// # Errors
///
/// Confinement: /proc is not mounted, so that hardly anything can be checked.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let table = mounts::Table::read()?;
    let mut findings = findings::Findings::default();
    let root = nix::unistd::geteuid().is_root();
    if root {
        findings.ok(catalogue::Problem::NotRoot, "checked as root");
    } else {
        findings.tell(
            catalogue::Problem::NotRoot,
            "not root: what only root can try is marked `not tried`",
            "sudo virtfs-mediator doctor",
        );
    }
    let exports = export::planned(&options.exports, options.policy.as_deref());
    let named = export::client_of(&exports);
    let mediator = ids::mediator(&mut findings, options.mediator_user.as_deref());
    let client = ids::client(
        &mut findings,
        options.client.as_deref().or(named.as_deref()),
    );
    ids::check(&mut findings, &mediator, client.as_ref());
    kernel::check(&mut findings, root, &mediator);
    fuse::check(&mut findings, root);
    lsm::check(&mut findings);
    limits::check(&mut findings);
    let who = Who {
        root,
        mediator: &mediator,
        client: client.as_ref(),
    };
    for export in exports {
        export::check(&mut findings, &table, &who, export);
    }
    qemu::check(&mut findings, &who, options.qemu.as_deref());
    if options.libvirt {
        libvirt::check(&mut findings, root);
    }
    if options.json {
        outln!("{}", findings.json());
    } else {
        outln!("{}", findings.text());
    }
    Ok(findings.status())
}

/// As whom checks are made.
struct Who<'a> {
    root: bool,
    mediator: &'a crate::identity::Ids,
    client: Option<&'a crate::identity::Ids>,
}

/// A setting of sysctl(8), by its dotted name; `None` if this kernel does not have it.
fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = std::fs::read_to_string(path).ok()?;
    Some(value.trim().to_owned())
}
