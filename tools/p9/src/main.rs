//! `virtfs-p9`: tries an export through stock QEMU, without a guest.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use virtfs_p9::{Export, Ids, Launch, Machine, ProxyHelper, Qemu, Result, Session, smoke};

/// Drives the 9p device of a stock QEMU without a guest.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts QEMU on DIR, does a round of operations and compares them with what a root QEMU does.
    ///
    /// Exit status: 0 all as expected, 1 surprises, 2 QEMU could not be driven at all.
    #[command(
        after_help = "Examples:\n  virtfs-p9 smoke /srv/share\n  virtfs-p9 smoke /srv/share --user nobody\n  \
        virtfs-p9 smoke /srv/share --user nobody -- virtfs-mediator run --client nobody /srv/share --"
    )]
    Smoke {
        /// The directory to share; a new directory is made in it and removed again.
        directory: PathBuf,
        /// QEMU's user, name or number; with a WRAPPER it is the wrapper that changes to it.
        #[arg(long)]
        user: Option<String>,
        /// QEMU's driver; `proxy` starts virtfs-proxy-helper as well.
        #[arg(long, value_enum, default_value_t = Driver::Local)]
        fsdriver: Driver,
        /// A command that is given QEMU's command line and runs it.
        #[arg(last = true)]
        wrapper: Vec<OsString>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    Local,
    Proxy,
}

fn main() -> ExitCode {
    let Command::Smoke {
        directory,
        user,
        fsdriver,
        wrapper,
    } = Arguments::parse().command;
    match run_smoke(directory, user.as_deref(), fsdriver, wrapper) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("virtfs-p9: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_smoke(
    directory: PathBuf,
    user: Option<&str>,
    driver: Driver,
    wrapper: Vec<OsString>,
) -> Result<bool> {
    let ids = user.map(Ids::of_user).transpose()?;
    let (export, _helper) = match driver {
        Driver::Local => (Export::local("share", directory), None),
        Driver::Proxy => {
            let helper = ProxyHelper::start(&directory, ids.unwrap_or(Ids::ROOT))?;
            (Export::proxy("share", helper.socket()), Some(helper))
        }
    };
    let launch = match ids {
        _ if !wrapper.is_empty() => Launch::new().wrapper(wrapper, ids.unwrap_or(Ids::ROOT)),
        Some(ids) => Launch::new().user(ids),
        None => Launch::new(),
    };
    let start = Instant::now();
    let machine = Machine::boot(&Qemu::new().export(export), &launch)?;
    let mut session: Session = machine.session("share")?;
    let peer = machine.qemu();
    println!(
        "QEMU: pid {}, user {}:{}, msize {}, ready after {:?}",
        peer.pid,
        peer.ids.uid,
        peer.ids.gid,
        session.msize(),
        start.elapsed()
    );
    let start = Instant::now();
    let expected = smoke::run(&mut session, |outcome| println!("{outcome}"))?;
    println!(
        "{} after {:?}",
        if expected {
            "all as expected"
        } else {
            "SURPRISES"
        },
        start.elapsed()
    );
    let status = machine.stop()?;
    println!("QEMU ended: {status}");
    Ok(expected)
}
