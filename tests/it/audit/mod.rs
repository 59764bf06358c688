//! Audit records: what a refusal leaves in a file and in journald, and that nothing a client does,
//! nor a sink that does not take them, changes how its view is served.

mod records;
mod relay;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Export, Start, shown};
use crate::process::Process;

/// The rules begin on lines 2, 7 and 13.
const POLICY: &str = r#"default = "allow"
[[rule]]
name = "keep"
path = "/kept*"
do = ["remove", "rename"]
action = "deny"
[[rule]]
path = "/told"
do = ["read"]
action = "allow"
log = "all"

[[rule]]
path = "/dull"
do = ["write"]
action = "deny"
"#;

/// A name that is one line in no log as it stands.
const NASTY: &str = "kept\n{\"view\":\"x\"}\u{1b}[2J";

fn export() -> Export {
    let export = Export::unique();
    for name in [NASTY, "told", "dull"] {
        let file = export.path().join(name);
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::write(export.beside("policy.toml"), POLICY).unwrap();
    export
}

fn start(export: &Export, sinks: &[&str]) -> Start {
    let mut start = Start::new(export)
        .option("--policy")
        .option(shown(&export.beside("policy.toml")));
    for sink in sinks {
        start = start.option("--audit").option(*sink);
    }
    start
}

fn entries(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// Those that are whole, while others are written.
fn entries_so_far(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(found: &'a [Value], event: &str) -> Vec<&'a Value> {
    found.iter().filter(|one| one["event"] == event).collect()
}

/// The processes that keep records below a launcher.
fn relays(launcher: Process) -> Vec<Process> {
    let mut found = launcher.children();
    found.retain(|child| child.field("Name").as_deref() == Some("virtfs-audit"));
    found
}

/// Those that have a file open, whoever's children they are.
fn keepers_of(file: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let descriptors = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    let open = descriptors.flatten().flatten().map(|fd| fd.path());
    open.filter(|fd| fs::read_link(fd).is_ok_and(|to| to == file))
        .collect()
}
