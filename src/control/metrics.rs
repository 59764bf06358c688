//! `metrics`: a view's counters as Prometheus reads them.
//!
//! The numbers come from the mediator, which may be broken into: it can lie about them, and nothing
//! else. Every label is ours: the view's name as it was asked for, operations out of our own table.

use std::fmt;
use std::path::Path;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use virtfs_mediator_core::control::{OpCount, Status};
use virtfs_mediator_core::mediate::{BUCKETS, bound_micros};
use virtfs_mediator_core::op::Op;

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::files;
use crate::live::link;
use crate::output::out;
use crate::plan;

/// Prints a view's metrics, or writes them to a file.
///
/// # Errors
///
/// Configuration: no such view, or the file cannot be written. Mount: no answer, or one that no
/// mediator of ours gives.
pub(crate) fn metrics(view: &str, output: Option<&Path>) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    let text = exposition(&state.view, link::status(&state.view)?)?;
    match output {
        Some(file) => files::replace(file, &text).map_err(|error| {
            Error::new(
                Class::Configuration,
                format!("--output {}: {error}", file.display()),
                "name a file in a directory that exists and can be written",
            )
        }),
        None => {
            out!("{text}");
            Ok(())
        }
    }
}

/// The text for one view.
fn exposition(view: &str, status: Status) -> Result<String> {
    let mut registry = Registry::with_prefix("virtfs");
    registry.register_collector(Box::new(View::checked(view, status)?));
    let mut out = String::new();
    text::encode(&mut out, &registry)
        .map_err(|error| Error::step(Class::Mount, "encoding the metrics", error))?;
    Ok(out)
}

/// What a mediator answered, as far as it can be true.
#[derive(Debug)]
struct View {
    name: String,
    status: Status,
    operations: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    op: Op,
    count: OpCount,
    /// The requests with a duration; the sum of all buckets.
    timed: u64,
}

impl View {
    fn checked(view: &str, mut status: Status) -> Result<Self> {
        let mut operations: Vec<Row> = Vec::new();
        for count in std::mem::take(&mut status.operations) {
            let op = Op::ALL.iter().find(|op| op.raw_name() == count.operation);
            let known = op.filter(|op| operations.iter().all(|row| row.op != **op));
            let timed = count
                .buckets
                .iter()
                .try_fold(0_u64, |sum, bucket| sum.checked_add(*bucket));
            let (Some(op), Some(timed)) = (known, timed) else {
                let what = format!("what it tells of operation '{}'", count.operation);
                return Err(link::failed(view, &what));
            };
            if count.buckets.len() > BUCKETS {
                return Err(link::failed(view, &"more buckets than there are"));
            }
            operations.push(Row {
                op: *op,
                count,
                timed,
            });
        }
        Ok(Self {
            name: view.to_owned(),
            status,
            operations,
        })
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let what = "Requests by operation and how they ended";
        let mut family = encoder.encode_descriptor("requests", what, None, MetricType::Counter)?;
        for Row { op, count, .. } in &self.operations {
            for (verdict, number) in [
                ("done", count.done),
                ("refused", count.refused),
                ("failed", count.failed),
            ] {
                let labels = [
                    ("view", self.name.as_str()),
                    ("operation", op.raw_name()),
                    ("verdict", verdict),
                ];
                let one = family.encode_family(&labels)?;
                ConstCounter::new(number).encode(one)?;
            }
        }
        Ok(())
    }

    /// Requests that ended otherwise than the client believes, or than the rules say.
    fn asides(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let pretended: fn(&OpCount) -> u64 = |count| count.pretended;
        let would_refuse: fn(&OpCount) -> u64 = |count| count.would_refuse;
        for (name, what, number) in [
            (
                "requests_pretended",
                "Requests told as done without being so",
                pretended,
            ),
            (
                "requests_observed",
                "Requests that the rules refuse, let through since they are only observed",
                would_refuse,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, what, None, MetricType::Counter)?;
            for Row { op, count, .. } in &self.operations {
                let labels = [("view", self.name.as_str()), ("operation", op.raw_name())];
                let one = family.encode_family(&labels)?;
                ConstCounter::new(number(count)).encode(one)?;
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let what = "Time in the mediator, without the kernel's way to it and back";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut family = encoder.encode_descriptor("request_duration", what, unit, kind)?;
        for Row { op, count, timed } in &self.operations {
            let labels = [("view", self.name.as_str()), ("operation", op.raw_name())];
            let mut one = family.encode_family(&labels)?;
            let buckets: Vec<(f64, u64)> = (0..BUCKETS)
                // f64::MAX is the encoder's word for no bound.
                .map(|at| bound_micros(at).map_or(f64::MAX, |micros| real(micros) / 1e6))
                .zip(count.buckets.iter().copied().chain(std::iter::repeat(0)))
                .collect();
            let sum = real(count.nanoseconds) / 1e9;
            one.encode_histogram::<NoLabelSet>(sum, *timed, &buckets, None)?;
        }
        Ok(())
    }

    fn counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let label = self.label();
        for (name, what, number) in [
            (
                "verdicts_judged",
                "Decisions for which the rules were looked at",
                self.status.verdicts_judged,
            ),
            (
                "verdicts_remembered",
                "Decisions by what was remembered with the file",
                self.status.verdicts_remembered,
            ),
            (
                "audit_records_written",
                "Audit records written",
                self.status.audit_records_written,
            ),
            (
                "audit_records_dropped",
                "Audit records that came faster than they could be written",
                self.status.audit_records_dropped,
            ),
            (
                "passthrough_opened",
                "Files opened whose data goes past the mediator",
                self.status.data.opened,
            ),
            (
                "passthrough_registrations",
                "Files registered with the kernel",
                self.status.data.registrations,
            ),
            (
                "policy_reloads",
                "How often the policy was replaced",
                self.status.epoch,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, what, None, MetricType::Counter)?;
            let one = family.encode_family(&label)?;
            ConstCounter::new(number).encode(one)?;
        }
        Ok(())
    }

    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let label = self.label();
        let Status {
            uptime_seconds,
            known_nodes,
            open_handles,
            descriptors,
            descriptor_budget,
            rules,
            readonly,
            stepping,
            held,
            data,
            ..
        } = &self.status;
        for (name, what, unit, number) in [
            (
                "uptime",
                "Since the view answers",
                Some(&Unit::Seconds),
                *uptime_seconds,
            ),
            (
                "known_nodes",
                "Inodes that the kernel knows",
                None,
                *known_nodes,
            ),
            (
                "open_handles",
                "Open files and directories",
                None,
                *open_handles,
            ),
            (
                "descriptors",
                "Descriptors held for inodes and open files",
                None,
                *descriptors,
            ),
            (
                "descriptor_budget",
                "Descriptors that may be held",
                None,
                *descriptor_budget,
            ),
            (
                "passthrough",
                "Whether files are registered for their data to go past the mediator",
                None,
                u64::from(data.passthrough),
            ),
            (
                "passthrough_open",
                "Open files whose data goes past the mediator",
                None,
                data.open,
            ),
            (
                "passthrough_backing_ids",
                "Files that are registered with the kernel",
                None,
                data.backing_ids,
            ),
            ("rules", "Rules of the policy", None, *rules),
            (
                "stepping",
                "Whether a stepping console is attached",
                None,
                u64::from(*stepping),
            ),
            (
                "held_requests",
                "Requests that a stepping console holds",
                None,
                *held,
            ),
            (
                "readonly",
                "Whether every change is refused",
                None,
                u64::from(*readonly),
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, what, unit, MetricType::Gauge)?;
            let one = family.encode_family(&label)?;
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            ConstGauge::new(number).encode(one)?;
        }
        Ok(())
    }

    fn label(&self) -> [(&'static str, &str); 1] {
        [("view", self.name.as_str())]
    }
}

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.counters(&mut encoder)?;
        self.asides(&mut encoder)?;
        self.gauges(&mut encoder)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "seconds to 15 digits are enough"
)]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            view: "liar".to_owned(),
            cache: "auto".to_owned(),
            mode: "client".to_owned(),
            readonly: true,
            observes: false,
            rules: 2,
            epoch: 8,
            stepping: true,
            held: 9,
            uptime_seconds: 7,
            known_nodes: 3,
            open_handles: 1,
            descriptors: 4,
            descriptor_budget: u64::MAX,
            data: Box::default(),
            verdicts_judged: 31,
            verdicts_remembered: 32,
            audit_records_written: 5,
            audit_records_dropped: 6,
            operations: vec![OpCount {
                operation: "unlink".to_owned(),
                done: 2,
                refused: 1,
                failed: 0,
                pretended: 2,
                would_refuse: 0,
                nanoseconds: 1_500_000_000,
                buckets: vec![0, 2, 0, 1],
            }],
        }
    }

    #[test]
    fn counters_are_told_as_prometheus_reads_them() {
        let text = exposition("v", status()).unwrap();
        for line in [
            "# TYPE virtfs_requests counter",
            "virtfs_requests_total{view=\"v\",operation=\"unlink\",verdict=\"done\"} 2",
            "virtfs_requests_total{view=\"v\",operation=\"unlink\",verdict=\"refused\"} 1",
            "virtfs_requests_total{view=\"v\",operation=\"unlink\",verdict=\"failed\"} 0",
            "# TYPE virtfs_request_duration_seconds histogram",
            "virtfs_request_duration_seconds_sum{view=\"v\",operation=\"unlink\"} 1.5",
            "virtfs_request_duration_seconds_count{view=\"v\",operation=\"unlink\"} 3",
            "virtfs_request_duration_seconds_bucket{le=\"0.000001\",view=\"v\",operation=\"unlink\"} 0",
            "virtfs_request_duration_seconds_bucket{le=\"0.000002\",view=\"v\",operation=\"unlink\"} 2",
            "virtfs_request_duration_seconds_bucket{le=\"0.000008\",view=\"v\",operation=\"unlink\"} 3",
            "virtfs_request_duration_seconds_bucket{le=\"+Inf\",view=\"v\",operation=\"unlink\"} 3",
            "virtfs_verdicts_judged_total{view=\"v\"} 31",
            "virtfs_verdicts_remembered_total{view=\"v\"} 32",
            "virtfs_audit_records_written_total{view=\"v\"} 5",
            "virtfs_audit_records_dropped_total{view=\"v\"} 6",
            "virtfs_uptime_seconds{view=\"v\"} 7",
            "virtfs_known_nodes{view=\"v\"} 3",
            "virtfs_open_handles{view=\"v\"} 1",
            "virtfs_descriptors{view=\"v\"} 4",
            "virtfs_descriptor_budget{view=\"v\"} 9223372036854775807",
            "virtfs_rules{view=\"v\"} 2",
            "virtfs_policy_reloads_total{view=\"v\"} 8",
            "virtfs_stepping{view=\"v\"} 1",
            "virtfs_held_requests{view=\"v\"} 9",
            "virtfs_requests_pretended_total{view=\"v\",operation=\"unlink\"} 2",
            "virtfs_readonly{view=\"v\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("liar"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn answer_of_no_mediator_is_refused() {
        let changes: [fn(&mut Status); 5] = [
            |status| status.operations[0].operation = "un\"link\n".to_owned(),
            |status| status.operations[0].operation = "mount".to_owned(),
            |status| status.operations.push(status.operations[0].clone()),
            |status| status.operations[0].buckets = vec![u64::MAX, 1],
            |status| status.operations[0].buckets = vec![0; BUCKETS + 1],
        ];
        for change in changes {
            let mut told = status();
            change(&mut told);
            let error = exposition("v", told).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error:?}");
        }
    }
}
