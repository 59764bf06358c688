//! The differences between the view and root that are expected, each with its reason.
//!
//! Neither direction is forgiven: a difference that is not listed fails, and so does a listed one
//! that does not occur.

use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;

use super::Error;
use super::column::Column;
use super::matrix::Results;

/// `expected.toml`.
#[derive(Debug)]
pub struct Expectations {
    path: PathBuf,
    differences: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    difference: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Globs over probe names; `*` matches `/` too.
    probe: Vec<String>,
    /// A glob over the view's outcome.
    view: String,
    /// The rule of the kernel, QEMU or fuser.
    reason: String,
    /// A glob over the plain FUSE mount's outcome, if that differs from the view's.
    plainfuse: Option<String>,
}

#[derive(Debug)]
struct Difference {
    probes: Vec<(String, GlobMatcher)>,
    view: GlobMatcher,
    plainfuse: GlobMatcher,
    reason: String,
}

impl Expectations {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that cannot be read, a key that nobody knows, a glob that is none, an empty reason.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(format!("{}", path.display())))?;
        let bad = |what: String| Error::Expectations {
            path: path.to_owned(),
            what,
        };
        let file: FileText = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let glob = |text: &str| {
            GlobBuilder::new(text)
                .backslash_escape(true)
                .build()
                .map(|glob| glob.compile_matcher())
                .map_err(|e| bad(e.to_string()))
        };
        let mut differences = Vec::new();
        for entry in file.difference {
            if entry.reason.trim().is_empty() {
                return Err(bad(format!("{:?} has no reason", entry.probe)));
            }
            let probes = entry
                .probe
                .iter()
                .map(|text| Ok((text.clone(), glob(text)?)))
                .collect::<Result<_, Error>>()?;
            differences.push(Difference {
                probes,
                view: glob(&entry.view)?,
                plainfuse: glob(entry.plainfuse.as_deref().unwrap_or(&entry.view))?,
                reason: entry.reason,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            differences,
        })
    }

    /// Compares the view with root; one sentence for each thing that is not as listed.
    #[must_use]
    pub fn check(&self, results: &Results) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut used: Vec<Vec<bool>> = self
            .differences
            .iter()
            .map(|d| vec![false; d.probes.len()])
            .collect();
        for probe in &results.names {
            let root = results.outcome(probe, Column::Root);
            let view = results.outcome(probe, Column::View);
            let plain = results
                .has(Column::Plainfuse)
                .then(|| results.outcome(probe, Column::Plainfuse));
            let mut listed = false;
            for (difference, used) in self.differences.iter().zip(&mut used) {
                for ((_, glob), used) in difference.probes.iter().zip(used) {
                    if !glob.is_match(probe) {
                        continue;
                    }
                    *used = true;
                    listed = true;
                    if root == view {
                        wrong.push(format!(
                            "{probe}: expected to differ from root and does not"
                        ));
                    } else if !difference.view.is_match(view) {
                        wrong.push(format!("{probe}: {view:?} is not the expected difference"));
                    } else if plain.is_some_and(|plain| !difference.plainfuse.is_match(plain)) {
                        wrong.push(format!(
                            "{probe}: the plain FUSE mount does not show the reason ({}): {:?}",
                            difference.reason,
                            plain.unwrap_or_default()
                        ));
                    }
                }
            }
            if !listed && root != view {
                wrong.push(format!("{probe}: root {root:?}, view {view:?}"));
            }
        }
        for (difference, used) in self.differences.iter().zip(&used) {
            for ((text, _), used) in difference.probes.iter().zip(used) {
                if !used {
                    wrong.push(format!("{}: {text} matches no probe", self.path.display()));
                }
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(rows: &[(&str, &str, &str)]) -> Results {
        let mut results = Results::default();
        for (name, root, view) in rows {
            results.add(Column::Root, name, root);
            results.add(Column::View, name, view);
        }
        results
    }

    fn expectations(text: &str) -> Expectations {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("expected.toml");
        fs::write(&path, text).unwrap();
        Expectations::read(&path).unwrap()
    }

    const CHAR: &str =
        "[[difference]]\nprobe = [\"mknod/char_*\"]\nview = \"EPERM *\"\nreason = \"mknod(2)\"\n";

    #[test]
    fn check_listed_difference_passes() {
        let results = results(&[("a/b", "ok", "ok"), ("mknod/char_x", "ok", "EPERM mknod")]);
        assert_eq!(expectations(CHAR).check(&results), Vec::<String>::new());
    }

    #[test]
    fn check_unlisted_difference_fails() {
        let results = results(&[
            ("a/b", "ok", "EIO x"),
            ("mknod/char_x", "ok", "EPERM mknod"),
        ]);
        assert_eq!(expectations(CHAR).check(&results).len(), 1);
    }

    #[test]
    fn check_unexpected_pass_fails() {
        let results = results(&[("mknod/char_x", "ok", "ok")]);
        assert_eq!(expectations(CHAR).check(&results).len(), 1);
    }

    #[test]
    fn check_other_outcome_and_idle_entry_fail() {
        assert_eq!(
            expectations(CHAR)
                .check(&results(&[("mknod/char_x", "ok", "EIO")]))
                .len(),
            1
        );
        assert_eq!(
            expectations(CHAR)
                .check(&results(&[("a/b", "ok", "ok")]))
                .len(),
            1
        );
    }
}
