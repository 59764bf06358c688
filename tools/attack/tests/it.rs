//! The tool as a whole, on the product as it was built.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn attack(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_virtfs-attack");
    Command::new(program).args(arguments).output().unwrap()
}

fn needs_root_and_product() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "attacks are tried as root, to show what root could do: run these tests as root (sudo)"
    );
    let product = Path::new(env!("CARGO_BIN_EXE_virtfs-attack")).with_file_name("virtfs-mediator");
    assert!(
        product.exists(),
        "{} is missing: cargo build -p virtfs-mediator",
        product.display()
    );
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn short_run_of_seat_m_proves_every_case() {
    needs_root_and_product();
    let place = tempfile::tempdir().unwrap();
    let json = place.path().join("attacks.json");
    let markdown = place.path().join("attacks.md");
    let output = attack(&[
        "--short",
        "--seat",
        "m",
        "--json",
        json.to_str().unwrap(),
        "--markdown",
        markdown.to_str().unwrap(),
    ]);
    let (table, progress) = (stdout(&output), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}\n{progress}");
    let closing = table.lines().last().unwrap_or_default();
    assert!(closing.contains(" passed, 0 failed"), "{closing}");

    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let cases = told["cases"].as_array().unwrap();
    for case in cases {
        let tries = case["attempts"].as_array().unwrap();
        let product = |try_: &&serde_json::Value| try_["arrangement"] == "virtfs-mediator";
        assert!(tries.iter().any(|one| product(&one)), "{case:#}");
        for one in tries.iter().filter(product) {
            assert_eq!(one["verdict"], "refused", "{case:#}");
            assert!(one["told"].is_string(), "{case:#}");
        }
    }
    let rows = std::fs::read_to_string(&markdown).unwrap().lines().count();
    assert_eq!(rows, cases.len() + 2, "a row for each case, below the head");
}

#[test]
fn one_case_is_run_alone() {
    needs_root_and_product();
    let output = attack(&["--case", "handle"]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        stdout(&output).ends_with("attacks: 1 passed, 0 failed\n"),
        "{output:?}"
    );
}

#[test]
fn list_names_cases_and_runs_none() {
    let output = attack(&["--list", "--row", "11"]);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("handle"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn case_that_there_is_not_is_an_error() {
    let output = attack(&["--case", "no-such"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
