//! Where it was measured, and what was measured there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Program};

/// This host, as far as it matters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// Of the benchmark's directory.
    pub(crate) file_system: String,
    /// Processes that ran or wanted to, over the minute before.
    pub(crate) load_before: f64,
    /// The same at the end, the benchmark's own included.
    pub(crate) load_after: f64,
    /// Programs and what they call themselves.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look(
        directory: &Path,
        contenders: &[Contender],
        programs: &[Arc<Program>],
    ) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after_colon = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: after_colon(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib.unwrap_or(0) >> 10,
            file_system: file_system(directory),
            load_before: load(),
            load_after: 0.0,
            versions: versions(contenders, programs),
        }
    }

    /// A sentence.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "Linux {}, {} ({} CPUs, {} MiB), {}; load {:.1} before, {:.1} after",
            self.kernel,
            self.cpu,
            self.cores,
            self.memory_mib,
            self.file_system,
            self.load_before,
            self.load_after
        )
    }

    /// Another one.
    pub(crate) fn versions_sentence(&self) -> String {
        let named = self.versions.iter();
        let words: Vec<_> = named
            .map(|(who, version)| format!("{who}: {version}"))
            .collect();
        words.join("; ")
    }
}

/// Its type, and the device that it is on.
fn file_system(directory: &Path) -> String {
    let target = directory.to_string_lossy();
    let found = said(&["findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", &target]);
    let words: Vec<_> = found.split_whitespace().collect();
    words.join(" on ")
}

/// Of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or(0.0)
}

fn versions(contenders: &[Contender], programs: &[Arc<Program>]) -> Vec<(String, String)> {
    let mut versions: Vec<_> = programs
        .iter()
        .map(|program| (program.label.to_owned(), program.version.clone()))
        .collect();
    let mut add = |who: &str, words: &[&str]| {
        versions.push((who.to_owned(), version(&said(words))));
    };
    if contenders.contains(&Contender::Bindfs) {
        add("bindfs", &["bindfs", "--version"]);
    }
    if contenders.contains(&Contender::PassthroughHp) {
        add("passthrough_hp", &["pkg-config", "--modversion", "fuse3"]);
    }
    add("QEMU", &["qemu-system-x86_64", "--version"]);
    add("sqlite3", &["sqlite3", "--version"]);
    add("git", &["git", "--version"]);
    versions
}

fn said(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// The first word with a digit in front: of a version, whatever stands around it.
fn version(said: &str) -> String {
    let begins = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    let found = said.split_whitespace().find(begins);
    found.unwrap_or("not here").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_found_in_what_programs_say() {
        let qemu = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright 2003";
        assert_eq!(version(qemu), "7.2.22");
        assert_eq!(version("3.40.1 2022-12-28 14:03:47 df5c"), "3.40.1");
        assert_eq!(version(""), "not here");
    }
}
