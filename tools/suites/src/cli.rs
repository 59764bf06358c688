//! The command line.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Parser;
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::place::{Mode, Place};

/// Runs public file-system suites on an ext4, on views of it in every mode, on bindfs and libfuse's
/// passthrough_hp, and tells every difference that is not listed with its reason.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Every mode, the default views at full length, the other mirrors, and inside of a guest.
    #[arg(long)]
    pub(crate) full: bool,
    /// Only these suites, by the beginning of their names.
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these places (globs: `shared:*`); what they are compared with comes along.
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    pub(crate) places: Vec<String>,
    /// How many places are at work at once.
    #[arg(long, value_name = "N", default_value = "2")]
    pub(crate) at_once: NonZeroUsize,
    /// Write every outcome as JSON; of an interrupted run, those of the places that are done.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Run nothing, and judge by the list of differences what an earlier run with --json has found.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "only", "places"])]
    pub(crate) judge: Option<PathBuf>,
    /// Where the scratch disk is mounted; every user must be able to search it.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
    /// The program under test; default: the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    mediator: Option<PathBuf>,
    /// Where `tools/suites/run` has put the suites.
    #[arg(long, value_name = "DIR", default_value = "target/tools")]
    tools: PathBuf,
    /// Where it has put the other mirrors.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    bench: PathBuf,
    /// Where it has put the guest.
    #[arg(long, value_name = "DIR", default_value = "target/guest/suites")]
    guest: PathBuf,
    /// The differences that are known.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tools/suites/expected.toml"
    )]
    pub(crate) expected: PathBuf,
}

/// The programs that are run.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) mediator: PathBuf,
    tools: PathBuf,
    bench: PathBuf,
    guest: PathBuf,
}

impl Tools {
    /// Where `tools/suites/run` has put the suites.
    pub(crate) fn directory(&self) -> &Path {
        &self.tools
    }

    /// A file of the guest's.
    pub(crate) fn in_guest(&self, file: &str) -> PathBuf {
        self.guest.join(file)
    }

    /// A file that `tools/suites/run` has put there.
    pub(crate) fn at(&self, path: &str) -> String {
        self.tools.join(path).to_string_lossy().into_owned()
    }

    /// One of the other mirrors.
    pub(crate) fn in_bench(&self, program: &str) -> String {
        self.bench.join(program).to_string_lossy().into_owned()
    }
}

impl Cli {
    pub(crate) fn tools(&self, places: &[Place]) -> Result<Tools> {
        let absolute = |path: &PathBuf| {
            path.canonicalize().map_err(|error| {
                Error::Usage(format!(
                    "{}: {error}; tools/suites/run makes it",
                    path.display()
                ))
            })
        };
        let mediator = match &self.mediator {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .map_err(crate::error::step("finding this program"))?
                .with_file_name("virtfs-mediator"),
        };
        Ok(Tools {
            mediator: absolute(&mediator)?,
            tools: absolute(&self.tools)?,
            bench: absolute(&self.bench)?,
            // Only a full run makes one.
            guest: if places.iter().any(|place| place.is_guests()) {
                absolute(&self.guest)?
            } else {
                self.guest.clone()
            },
        })
    }

    /// Whether a suite of this name is wanted.
    pub(crate) fn wants(&self, suite: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|word| suite.starts_with(word.as_str()))
    }

    /// The places, in the order of the table.
    pub(crate) fn places(&self) -> Result<Vec<Place>> {
        let all = Place::all();
        let chosen: Vec<Place> = if self.places.is_empty() {
            let short = [
                Place::Shared(Mode::DEFAULT),
                Place::Shared(Mode {
                    cache: "none",
                    data: "mediated",
                }),
                Place::Shared(Mode {
                    cache: "exclusive",
                    data: "passthrough",
                }),
                Place::Client(Mode::DEFAULT),
            ];
            all.iter()
                .copied()
                .filter(|place| self.full || short.contains(place))
                .collect()
        } else {
            let globs = globs(&self.places)?;
            all.iter()
                .copied()
                .filter(|place| globs.is_match(place.to_string()))
                .collect()
        };
        if chosen.is_empty() {
            let names: Vec<_> = all.iter().map(ToString::to_string).collect();
            return Err(Error::Usage(format!(
                "--places names none; there are {}",
                names.join(", ")
            )));
        }
        Ok(all
            .into_iter()
            .filter(|place| {
                chosen.contains(place) || chosen.iter().any(|other| other.reference() == *place)
            })
            .collect())
    }
}

/// `*` matches `/` too.
pub(crate) fn globs(words: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for word in words {
        let glob = Glob::new(word).map_err(|error| Error::Usage(error.to_string()))?;
        set.add(glob);
    }
    set.build().map_err(|error| Error::Usage(error.to_string()))
}
