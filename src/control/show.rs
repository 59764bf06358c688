//! `list` and `status`: what runs, and its walls as the kernel reports them.
#![allow(clippy::print_stdout, reason = "these commands print")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::commands::clients;
use crate::control::rundir::{self, State};
use crate::error::{Class, Error, Result};
use crate::plan;

/// The longest answer that is read from a mediator: it is parsed as hostile.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Lists the running views.
pub(crate) fn list(as_json: bool) -> Result<()> {
    plan::require_root()?;
    let views = rundir::all()?;
    if as_json {
        let rows: Vec<Value> = views.iter().map(row).collect();
        println!("{}", Value::Array(rows));
        return Ok(());
    }
    println!("{:<16} {:<8} {:<12} EXPORT", "VIEW", "KEEPER", "CLIENT");
    for state in &views {
        let client = format!("{}:{}", state.client_uid, state.client_gid);
        println!(
            "{:<16} {:<8} {client:<12} {}",
            state.view,
            state.keeper.pid,
            escaped(&state.export)
        );
    }
    Ok(())
}

fn row(state: &State) -> Value {
    json!({
        "view": state.view, "export": state.export, "at": state.at, "policy": state.policy,
        "keeper": state.keeper.pid, "client_uid": state.client_uid,
        "client_gid": state.client_gid, "clients": clients(state), "command": state.command,
        "shared": state.shared,
    })
}

/// Tells all about one view.
pub(crate) fn status(view: &str, as_json: bool) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    let mut told = row(&state);
    let mut processes = BTreeMap::new();
    processes.insert("keeper".to_owned(), walls(state.keeper.pid));
    if let Some(init) = state.init {
        processes.insert("init".to_owned(), walls(init));
    }
    if let Some(warden) = state.warden {
        processes.insert("warden".to_owned(), walls(warden));
        for pid in children(warden) {
            processes.insert("mediator".to_owned(), walls(pid));
        }
    }
    for pid in clients(&state) {
        processes.insert(format!("client {pid}"), walls(pid));
    }
    told["processes"] = json!(processes);
    told["mediator"] =
        ask(&state.view).unwrap_or_else(|error| json!({ "error": error.to_string() }));
    if as_json {
        println!("{told}");
    } else {
        print_tree(&told, 0);
    }
    Ok(())
}

/// A process as /proc/PID/status and /proc/PID/ns show it.
fn walls(pid: i32) -> Value {
    const FIELDS: [&str; 9] = [
        "Uid",
        "Gid",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut told = json!({ "pid": pid });
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(':')
            && FIELDS.contains(&key)
        {
            told[key] = json!(value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    let foreign: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"]
        .into_iter()
        .filter(|kind| {
            let read = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
            read(&pid.to_string()) != read("self")
        })
        .collect();
    told["own_namespaces"] = json!(foreign.join(" "));
    told["root"] = json!(
        std::fs::read_link(format!("/proc/{pid}/root"))
            .map(|root| escaped(&root))
            .unwrap_or_default()
    );
    told
}

fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Asks the mediator for its policy and counters. It may be broken into: its answer is bounded in
/// time and size, and only shown.
fn ask(view: &str) -> Result<Value> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(
            Class::Mount,
            format!("the mediator does not answer: {error}"),
            "",
        )
    };
    let path = Path::new(rundir::RUN).join(view).join("control");
    let mut stream = UnixStream::connect(path).map_err(|error| failed(&error))?;
    let limit = Some(Duration::from_secs(2));
    stream
        .set_read_timeout(limit)
        .map_err(|error| failed(&error))?;
    stream
        .set_write_timeout(limit)
        .map_err(|error| failed(&error))?;
    stream
        .write_all(b"{\"ask\":\"status\"}\n")
        .map_err(|error| failed(&error))?;
    stream
        .shutdown(std::net::Shutdown::Write)
        .map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    stream
        .take(ANSWER_LIMIT)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

/// Control characters of a hostile string never reach the terminal.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn print_tree(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let key = key.escape_debug();
        match value {
            Value::Object(_) => {
                println!("{:depth$}{key}:", "");
                print_tree(value, depth + 2);
            }
            Value::String(text) => println!("{:depth$}{key}: {}", "", text.escape_debug()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                println!("{:depth$}{key}: {}", "", value.to_string().escape_debug());
            }
        }
    }
}
