//! What a running view and the kernel tell of its processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use serde_json::Value;

use crate::contender::Program;
use crate::error::{Error, Result, step};

/// How long the launcher may take to say that the view is there.
const LIMIT: Duration = Duration::from_secs(5);

/// `status VIEW --json`.
pub(super) struct Status(Value);

impl Status {
    /// Asks; the launcher may record the view a moment after the client has begun.
    pub(super) fn ask(program: &Program, view: &str) -> Result<Self> {
        let start = Instant::now();
        loop {
            let output = Command::new(&program.path)
                .args(["status", view, "--json"])
                .output()
                .map_err(step("running status"))?;
            let parsed = serde_json::from_slice(&output.stdout);
            match parsed {
                Ok(value) if output.status.success() => return Ok(Self(value)),
                _ if start.elapsed() < LIMIT => thread::sleep(Duration::from_millis(5)),
                _ => {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    return Err(Error::Usage(format!("status {view}: {said}")));
                }
            }
        }
    }

    fn number(&self, pointer: &str) -> Result<f64> {
        let found = self.0.pointer(pointer).and_then(Value::as_f64);
        found.ok_or_else(|| Error::Usage(format!("status has no {pointer}")))
    }

    /// Inodes that the mediator knows.
    pub(super) fn known_nodes(&self) -> Result<f64> {
        self.number("/mediator/status/known_nodes")
    }

    /// Descriptors that it holds.
    pub(super) fn descriptors(&self) -> Result<f64> {
        self.number("/mediator/status/descriptors")
    }

    /// The mediator's process.
    pub(super) fn mediator(&self) -> Result<Process> {
        let pid = self.0.pointer("/processes/mediator/pid");
        let pid = pid.and_then(Value::as_u64);
        pid.map(Process)
            .ok_or_else(|| Error::Usage("status names no mediator".to_owned()))
    }
}

/// Counters of a process' threads.
pub(super) struct Instructions(Vec<Counter>);

impl Instructions {
    /// How many there were since counting began.
    pub(super) fn so_far(&mut self) -> Option<f64> {
        let each = self.0.iter_mut().map(|counter| counter.read().ok());
        // Exact to some 10^15.
        each.sum::<Option<u64>>().map(|sum| sum as f64)
    }
}

/// A process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(u64);

impl Process {
    /// Resident memory in octets.
    pub(super) fn resident(self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))
            .map_err(step("reading a process' status"))?;
        field(&status, "VmRSS:")
            .map(|kib| kib * 1024.0)
            .ok_or_else(|| Error::Usage("a process without VmRSS".to_owned()))
    }

    /// Time on a CPU of all its threads, in seconds.
    pub(super) fn cpu(self) -> Result<f64> {
        let nanoseconds = self.threads("schedstat", |text| {
            text.split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
        })?;
        Ok(nanoseconds / 1e9)
    }

    /// Counts the instructions of its threads, the kernel's for them among them; `None` where the
    /// machine, or who it belongs to, has no counter for that.
    pub(super) fn instructions(self) -> Option<Instructions> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).ok()?;
        let counters = threads.map(|thread| {
            let thread = thread.ok()?.file_name().to_str()?.parse().ok()?;
            let mut counter = Builder::new(Hardware::INSTRUCTIONS)
                .observe_pid(thread)
                .include_kernel()
                .build()
                .ok()?;
            counter.enable().ok()?;
            Some(counter)
        });
        counters.collect::<Option<_>>().map(Instructions)
    }

    /// How often its threads gave up a CPU: each time they had been woken before.
    pub(super) fn switches(self) -> Result<f64> {
        self.threads("status", |text| {
            let (own, other) = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:");
            Some(field(text, own)? + field(text, other)?)
        })
    }

    fn threads(self, file: &str, of: impl Fn(&str) -> Option<f64>) -> Result<f64> {
        let threads = format!("/proc/{}/task", self.0);
        let mut sum = 0.0;
        for thread in fs::read_dir(&threads).map_err(step("listing threads"))? {
            let path = thread.map_err(step("listing threads"))?.path().join(file);
            // A thread may end meanwhile.
            let text = fs::read_to_string(&path).unwrap_or_default();
            sum += of(&text).unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// The processes below that one, and itself, without `but`.
    pub(super) fn family(root: u32, but: impl Fn(&Path) -> bool) -> Result<Vec<Self>> {
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").map_err(step("listing processes"))? {
            let path = entry.map_err(step("listing processes"))?.path();
            let pid = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u64>().ok());
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let executable = fs::read_link(path.join("exe")).unwrap_or_default();
            if let Some((pid, parent)) = pid.zip(parent_of(&status))
                && !but(&executable)
            {
                parents.insert(pid, parent);
            }
        }
        let mut family = vec![u64::from(root)];
        let mut index = 0;
        while let Some(&parent) = family.get(index) {
            family.extend(
                parents
                    .iter()
                    .filter(|(_, of)| **of == parent)
                    .map(|(pid, _)| *pid),
            );
            index += 1;
        }
        Ok(family.into_iter().map(Self).collect())
    }
}

fn parent_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Requests by operation, from `metrics VIEW`.
pub(super) fn requests(program: &Program, view: &str) -> Result<BTreeMap<String, f64>> {
    let output = Command::new(&program.path)
        .args(["metrics", view])
        .output()
        .map_err(step("running metrics"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Usage(format!("metrics {view}: {said}")));
    }
    Ok(counted(&String::from_utf8_lossy(&output.stdout)))
}

fn counted(text: &str) -> BTreeMap<String, f64> {
    let mut requests = BTreeMap::new();
    for line in text.lines() {
        let found = line
            .strip_prefix("virtfs_requests_total{")
            .and_then(|line| line.rsplit_once("} "));
        let Some((labels, value)) = found else {
            continue;
        };
        let operation = labels
            .split(',')
            .find_map(|label| label.strip_prefix("operation=\"")?.strip_suffix('"'));
        if let Some((operation, value)) = operation.zip(value.parse::<f64>().ok()) {
            *requests.entry(operation.to_owned()).or_insert(0.0) += value;
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_over_verdicts() {
        let text = "# TYPE virtfs_requests counter\n\
            virtfs_requests_total{view=\"v\",operation=\"lookup\",verdict=\"done\"} 3\n\
            virtfs_requests_total{view=\"v\",operation=\"lookup\",verdict=\"failed\"} 1\n\
            virtfs_requests_total{view=\"v\",operation=\"create\",verdict=\"done\"} 2\n\
            virtfs_known_nodes{view=\"v\"} 7\n";
        let expected = [("create".to_owned(), 2.0), ("lookup".to_owned(), 4.0)];
        assert_eq!(counted(text), BTreeMap::from(expected));
    }

    #[test]
    fn fields_of_proc_are_found_by_their_whole_name() {
        let text = "PPid:\t7\nVmRSS:\t  12 kB\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(parent_of(text), Some(7));
        assert_eq!(field(text, "VmRSS:"), Some(12.0));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5.0));
    }

    #[test]
    fn own_process_has_memory_and_time_and_is_of_its_own_family() {
        let own = Process(u64::from(std::process::id()));
        assert!(own.resident().unwrap() > 0.0);
        assert!(own.cpu().unwrap() >= 0.0);
        let family = Process::family(std::process::id(), |_| false).unwrap();
        assert!(family.contains(&own));
    }
}
