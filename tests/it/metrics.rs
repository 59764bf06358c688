//! Counters of a running view: what `metrics` and `status --json` tell of what a client did.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use virtfs_mediator_core::op::Op;

use crate::common::{
    Export, LIMIT, Running, Start, await_that, metrics, ours, samples, shown, stderr,
};
use crate::workload;

fn total(found: &BTreeMap<String, f64>, verdict: &str) -> f64 {
    let verdict = format!("verdict=\"{verdict}\"");
    let fits =
        |name: &String| name.starts_with("virtfs_requests_total{") && name.contains(&verdict);
    let fitting = found.iter().filter(|(name, _)| fits(name));
    fitting.map(|(_, value)| value).sum()
}

#[test]
fn every_operation_of_a_workload_is_counted_and_timed() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut running = Running::spawn(
        start.command(workload::words(&export, true)),
        start.name().to_owned(),
    );
    running.ready();
    let view = start.name();
    await_that(LIMIT, "the launcher has recorded the view", || {
        ours(["status", view]).status.success()
    });
    let found = metrics(view);
    let sample = |name: &str, labels: &str| {
        let name = format!("{name}{{view=\"{view}\"{labels}}}");
        found.get(&name).copied()
    };
    let mut idle = Vec::new();
    for op in Op::ALL {
        let name = op.raw_name();
        let of = |verdict: &str| {
            let labels = format!(",operation=\"{name}\",verdict=\"{verdict}\"");
            sample("virtfs_requests_total", &labels).unwrap_or_default()
        };
        let asked = of("done") + of("refused") + of("failed");
        if asked == 0.0 {
            idle.push(name);
            continue;
        }
        let labels = format!(",operation=\"{name}\"");
        let timed = sample("virtfs_request_duration_seconds_count", &labels);
        // Each look at a counter is a moment later, but this client is asleep.
        assert_eq!(timed, Some(asked), "{name}");
        let sum = sample("virtfs_request_duration_seconds_sum", &labels).unwrap();
        assert!(sum > 0.0 && sum < 60.0, "{name}: {sum}");
    }
    // Where closing tells nothing the kernel does not ask; the protocol's tests do.
    idle.retain(|name| *name != Op::Flush.raw_name());
    assert!(idle.is_empty(), "nothing counts {idle:?}");
    for verdict in ["done", "refused", "failed"] {
        assert!(total(&found, verdict) > 0.0, "{verdict}: {found:#?}");
    }
    for gauge in [
        "virtfs_known_nodes",
        "virtfs_descriptors",
        "virtfs_descriptor_budget",
        "virtfs_verdicts_judged_total",
        "virtfs_verdicts_remembered_total",
        "virtfs_audit_records_written_total",
    ] {
        assert!(
            sample(gauge, "").is_some_and(|value| value > 0.0),
            "{gauge}"
        );
    }
    assert_eq!(sample("virtfs_audit_records_dropped_total", ""), Some(0.0));
    assert_eq!(sample("virtfs_readonly", ""), Some(0.0));
}

#[test]
fn open_file_and_refusals_are_seen_while_the_view_runs() {
    let export = Export::new();
    fs::write(export.path().join("file"), "x").unwrap();
    let policy = export.beside("policy.toml");
    let rule = "default = \"allow\"\n[[rule]]\ndo = [\"remove\"]\naction = \"deny\"\n";
    fs::write(&policy, rule).unwrap();
    let start = Start::new(&export)
        .option("--policy")
        .option(shown(&policy));
    let script = format!(
        "cd {at} && exec 3<file; rm -f file 2>/dev/null; echo ready; exec sleep 1000",
        at = shown(export.path())
    );
    let running = start.shell_ready(&script);
    let view = running.name.as_str();
    await_that(LIMIT, "the launcher has recorded the view", || {
        ours(["status", view]).status.success()
    });
    let found = metrics(view);
    let sample = |name: &str, labels: &str| found[&format!("{name}{{view=\"{view}\"{labels}}}")];
    assert!(sample("virtfs_open_handles", "") >= 1.0);
    assert!(sample("virtfs_rules", "") >= 1.0);
    let refused = ",operation=\"unlink\",verdict=\"refused\"";
    assert!(
        sample("virtfs_requests_total", refused) >= 1.0,
        "{found:#?}"
    );

    let output = ours(["status", "--json", view]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = told["mediator"]["status"]["operations"].as_array().unwrap();
    let unlink = rows
        .iter()
        .find(|row| row["operation"] == "unlink")
        .unwrap();
    let buckets = unlink["buckets"].as_array().unwrap();
    let counted: u64 = buckets.iter().map(|one| one.as_u64().unwrap()).sum();
    assert!(
        counted >= 1 && unlink["nanoseconds"].as_u64().unwrap() > 0,
        "{unlink}"
    );
}

#[test]
fn metrics_file_is_written_whole_and_what_cannot_be_written_is_told() {
    let export = Export::new();
    let view = Start::new(&export).option("--readonly").mount();
    let file = export.beside("virtfs.prom");
    let output = ours(["metrics", &view.name, "--output", &shown(&file)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(&file).unwrap();
    let found = samples(&text);
    let sample = |name: &str| found.get(&format!("{name}{{view=\"{}\"}}", view.name));
    assert_eq!(sample("virtfs_readonly"), Some(&1.0), "{text}");
    assert!(sample("virtfs_uptime_seconds").is_some(), "{text}");
    let nowhere = shown(&export.beside("none/virtfs.prom"));
    let output = ours(["metrics", &view.name, "--output", &nowhere]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("--output"), "{}", stderr(&output));
    let output = ours(["metrics", "no-such-view"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
}
