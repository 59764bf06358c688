//! `list` and `status`: what runs, and its walls as the kernel reports them.

use std::path::Path;

use serde_json::{Value, json};

use crate::control::commands::clients;
use crate::control::rundir::{self, State};
use crate::control::walls::{self, Helper, Role, Wall};
use crate::error::Result;
use crate::live::link;
use crate::output::outln;
use crate::plan;

/// Lists the running views.
pub(crate) fn list(as_json: bool) -> Result<()> {
    plan::require_root()?;
    let views = rundir::all()?;
    if as_json {
        let rows: Vec<Value> = views.iter().map(row).collect();
        outln!("{}", Value::Array(rows));
        return Ok(());
    }
    outln!("{:<16} {:<8} {:<12} EXPORT", "VIEW", "KEEPER", "CLIENT");
    for state in &views {
        let client = format!("{}:{}", state.client_uid, state.client_gid);
        outln!(
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
        "shared": state.shared, "peer": state.peer.map(|peer| peer.pid),
    })
}

/// Tells all about one view.
pub(crate) fn status(view: &str, as_json: bool) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    let mut told = row(&state);
    let processes: Vec<(String, i32, Vec<Wall>)> = processes(&state)
        .into_iter()
        .map(|(name, pid, role)| (name, pid, walls::around(pid, role, &state)))
        .collect();
    told["mediator"] = match link::status(&state.view) {
        Ok(status) => json!({ "status": status }),
        Err(error) => json!({ "error": error.to_string() }),
    };
    if as_json {
        let walled = |(name, pid, walls): &(String, i32, Vec<Wall>)| {
            (name.clone(), json!({ "pid": pid, "walls": walls }))
        };
        told["processes"] = processes.iter().map(walled).collect();
        outln!(
            "{}",
            link::json(&told).map_err(|error| link::failed(view, &error))?
        );
    } else {
        leave_out_buckets(&mut told["mediator"]);
        print_tree(&told, 0);
        for (name, pid, walls) in &processes {
            outln!("{name} (process {pid}):");
            print_walls(walls);
        }
    }
    Ok(())
}

/// They are for programs: for people, the counts and the time are told.
fn leave_out_buckets(mediator: &mut Value) {
    let rows = mediator.pointer_mut("/status/operations");
    for row in rows.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = row.as_object_mut() {
            fields.remove("buckets");
        }
    }
}

/// The processes of a view, each with its name and what is wanted of it.
fn processes(state: &State) -> Vec<(String, i32, Role)> {
    let mut found = vec![(
        "keeper".to_owned(),
        state.keeper.pid,
        Role::Helper(Helper::Keeper),
    )];
    if let Some(init) = state.init {
        found.push(("init".to_owned(), init, Role::Helper(Helper::Init)));
    }
    if let Some(warden) = state.warden {
        found.push(("warden".to_owned(), warden, Role::Helper(Helper::Warden)));
        for pid in children(warden) {
            found.push(("mediator".to_owned(), pid, Role::Mediator));
        }
    }
    // It may have ended before the view; its number may be another's then.
    let registrar = state.registrar;
    if let Some(registrar) = registrar.filter(|one| children(state.keeper.pid).contains(one)) {
        found.push(("registrar".to_owned(), registrar, Role::Registrar));
    }
    let role = match state.peer {
        None => Role::Client,
        Some(_) => Role::Peer,
    };
    for pid in clients(state) {
        found.push((format!("client {pid}"), pid, role));
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Control characters of a hostile string never reach the terminal.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

/// One line a wall: what, whether it stands, what the kernel said.
fn print_walls(walls: &[Wall]) {
    for Wall {
        wall,
        stands,
        found,
    } in walls
    {
        let stands = if *stands { "stands" } else { "DOWN" };
        outln!("  {wall:<30} {stands:<7} {}", found.escape_debug());
    }
}

fn print_tree(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        let key = key.escape_debug();
        match value {
            Value::Object(_) => {
                outln!("{:depth$}{key}:", "");
                print_tree(value, depth + 2);
            }
            Value::String(text) => outln!("{:depth$}{key}: {}", "", text.escape_debug()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                outln!("{:depth$}{key}: {}", "", value.to_string().escape_debug());
            }
        }
    }
}
