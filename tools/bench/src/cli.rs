//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::figures::Extent;

/// Measures virtfs-mediator against native access, bindfs, libfuse's passthrough_hp, QEMU as root
/// and virtfs-proxy-helper: contenders take turns on the same directory, in rounds.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Fewer rounds, fewer files, fewer modes: ten minutes.
    #[arg(long)]
    pub(crate) quick: bool,
    /// A million known files too.
    #[arg(long)]
    pub(crate) long: bool,
    /// One round of next to nothing: for the benchmark's own test.
    #[arg(long, hide = true)]
    pub(crate) tiny: bool,
    /// So many rounds (default 5, with --quick 2).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Only workloads whose name, group or row holds one of these texts.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these contenders, by name or its beginning (`native,view:auto,bindfs`).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) contenders: Vec<String>,
    /// List workloads and contenders and end.
    #[arg(long)]
    pub(crate) list: bool,
    /// The program that is measured; default: the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) mediator: Option<PathBuf>,
    /// Another build of it, measured beside it as `other:...`.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    /// Where the benchmark's directory is made; every user must be able to search it.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
    /// Work on an ext4 of its own, in memory, where no other user of a disk disturbs.
    #[arg(long)]
    pub(crate) disk_in_memory: bool,
    /// Write everything that was measured as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the README's tables as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Put those tables between their marks in an existing document.
    #[arg(long, value_name = "FILE")]
    pub(crate) readme: Option<PathBuf>,
    /// Write the README's plot.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Measure nothing: report what an earlier run wrote with --json.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

impl Cli {
    /// How many rounds.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(match (self.tiny, self.quick) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 5,
        })
    }

    /// How much the figures take.
    pub(crate) fn extent(&self) -> Extent {
        let mut known = if self.tiny {
            vec![10, 20]
        } else {
            vec![1000, 100_000]
        };
        if self.long {
            known.push(1_000_000);
        }
        Extent {
            few: if self.tiny { 20 } else { 1000 },
            known,
            floor_ms: if self.tiny { 1 } else { 300 },
            idle_ms: if self.tiny { 50 } else { 3000 },
        }
    }

    /// Whether a workload of these names is to be measured.
    pub(crate) fn wants<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let mut names = names.into_iter();
        self.only.is_empty()
            || names.any(|name| self.only.iter().any(|text| name.contains(text.as_str())))
    }
}
