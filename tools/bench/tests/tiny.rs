//! Each contender really measured once, in next to no time; ends early and cleanly when interrupted.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed, and says what it did without"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Beside this test's own program.
fn mediator() -> PathBuf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "the benchmark mounts and starts programs as other users: run this as root (sudo)"
    );
    let path = Path::new(env!("CARGO_BIN_EXE_virtfs-bench")).with_file_name("virtfs-mediator");
    assert!(
        path.exists(),
        "{} is missing: cargo build -p virtfs-mediator",
        path.display()
    );
    path
}

/// Where passthrough_hp is, if `tools/bench/run` has built it.
fn passthrough_hp() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_virtfs-bench"))
        .ancestors()
        .nth(2);
    target.unwrap().join("bench/passthrough_hp")
}

fn bench(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtfs-bench"));
    command
        .args(["--tiny", "--mediator"])
        .arg(mediator())
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .env("VIRTFS_BENCH_PASSTHROUGH_HP", passthrough_hp())
        .stdin(Stdio::null());
    command
}

/// Not on a file system in memory: `O_DIRECT` is for disks.
fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("virtfs-bench-test-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open).unwrap();
    directory
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Names of a group's contenders that rows should have.
fn expected(stderr: &str, names: &[&'static str]) -> Vec<&'static str> {
    let mut here = names.to_vec();
    here.retain(|name| {
        let absent = stderr.contains(&format!("without {name}, which is not here"));
        if absent {
            eprintln!("not measured, since it is not installed: {name}");
        }
        !absent
    });
    here
}

#[test]
fn every_contender_does_every_workload() {
    let (place, results) = (directory(), directory());
    let file = |name: &str| results.path().join(name).to_str().unwrap().to_owned();
    let [json, markdown, svg] = ["json", "md", "svg"].map(file);
    let output = bench(
        place.path(),
        &["--json", &json, "--markdown", &markdown, "--svg", &svg],
    )
    .output()
    .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

    let stderr = text(&output.stderr);
    let record: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let default = record["default_view"].as_str().unwrap();
    let others = expected(&stderr, &["native", "bindfs", "passthrough_hp"]);
    let through_qemu = expected(&stderr, &["native", "proxy"]);
    let rows = record["results"]["rows"].as_array().unwrap();
    for group in ["mount", "p9"] {
        let rows = rows.iter().filter(|row| row["group"] == group);
        assert!(rows.clone().count() > 10, "{group}");
        let names = if group == "mount" {
            &others
        } else {
            &through_qemu
        };
        for row in rows {
            for name in names.iter().chain([&default]) {
                assert_measured(row, name);
            }
        }
    }
    for section in ["requests", "start", "known", "rules", "clients"] {
        let figures = record["figures"].as_array().unwrap();
        let mut of_section = figures.iter().filter(|figure| figure["section"] == section);
        assert!(of_section.next().is_some(), "{section}");
    }
    let (markdown, svg) = (
        fs::read_to_string(markdown).unwrap(),
        fs::read_to_string(svg).unwrap(),
    );
    assert!(markdown.contains(default) && svg.contains(default));
    assert!(
        text(&output.stdout).contains("targets"),
        "{}",
        said(&output)
    );

    let again = bench(place.path(), &["--from", &json]).output().unwrap();
    assert_eq!(text(&again.stdout), text(&output.stdout));
}

/// A rate for each; what others' file systems cannot do is noted.
fn assert_measured(row: &Value, contender: &str) {
    let cells = row["cells"].as_array().unwrap();
    let cell = cells.iter().find(|cell| cell["contender"] == contender);
    let cell = cell.unwrap_or_else(|| panic!("no {contender} in {row}"));
    let rates = cell["rates"].as_array().unwrap();
    let may_fail = ["bindfs", "passthrough_hp"].contains(&contender);
    if may_fail && cell["failure"].is_string() {
        return;
    }
    assert_eq!(rates.len(), 1, "{contender}: {row}");
    assert!(rates[0].as_f64().unwrap() > 0.0, "{contender}: {row}");
}

#[test]
fn interrupted_leaves_nothing() {
    let place = directory();
    let mut child = bench(place.path(), &["--only", "stat", "--rounds", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Told when something has been measured: then mounts have come and gone.
    while !line.contains("round 2 ") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let mut rest = String::new();
    while stderr.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    let views = fs::read_dir("/run/virtfs-mediator").into_iter().flatten();
    let ours = format!("bench-{pid}-");
    let left: Vec<_> = views
        .map(|view| view.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&ours))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn contender_that_is_none_is_an_error_that_lists_them() {
    let place = directory();
    let output = bench(place.path(), &["--contenders", "nobody"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("view:auto/"),
        "{}",
        said(&output)
    );
}
