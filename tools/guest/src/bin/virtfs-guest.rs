//! Runs in the guest: the probes of a script, one line of outcome each, to standard output.
//!
//! `virtfs-guest matrix|try [--after PROBE] MOUNTS`: the shares are the directories in MOUNTS.
//! It also runs on a plain directory of the host, which is how a script is written quickly.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use virtfs_guest::probe;
use virtfs_guest::record::Record;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let after = args.iter().position(|arg| arg == "--after").and_then(|at| {
        args.remove(at);
        (at < args.len()).then(|| args.remove(at))
    });
    let [script, mounts] = args.as_slice() else {
        say(&Record::Error(
            "usage: virtfs-guest matrix|try [--after PROBE] MOUNTS".into(),
        ));
        return ExitCode::from(2);
    };
    let mut probes = match probe::load(script) {
        Ok(probes) => probes,
        Err(what) => {
            say(&Record::Error(what));
            return ExitCode::FAILURE;
        }
    };
    // The host's path of the file that no guest may reach; only the host knows it.
    let canary = std::env::var("CANARY").unwrap_or_else(|_| "/canary".into());
    for arg in probes
        .iter_mut()
        .flat_map(|p| &mut p.steps)
        .flat_map(|step| &mut step.args)
    {
        if let Some(before) = arg.strip_suffix(b"$CANARY") {
            *arg = [before, canary.as_bytes()].concat();
        }
    }
    let mounts = PathBuf::from(mounts);
    let skip = after.map_or(0, |name| {
        probes
            .iter()
            .position(|probe| probe.name == name)
            .map_or(0, |at| at + 1)
    });
    for probe in &probes[skip..] {
        say(&Record::Begin(probe.name.clone()));
        say(&Record::Probe(
            probe.name.clone(),
            probe::run(probe, &mounts),
        ));
    }
    ExitCode::SUCCESS
}

/// One write for a whole line, so that the kernel's messages do not fall into it. A console that
/// cannot be written to leaves nobody to tell.
fn say(record: &Record) {
    let _ = std::io::stdout()
        .lock()
        .write_all(format!("{record}\n").as_bytes());
}
