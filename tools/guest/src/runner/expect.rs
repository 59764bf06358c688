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
    libvirt: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    difference: Vec<Entry>,
    /// Where the view under libvirt differs from the view.
    #[serde(default)]
    libvirt: Vec<LibvirtEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LibvirtEntry {
    /// Globs over probe names; `*` matches `/` too.
    probe: Vec<String>,
    /// A glob over the outcome under libvirt.
    outcome: String,
    /// What libvirt does otherwise.
    reason: String,
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
        let difference = |entry: Entry| -> Result<Difference, Error> {
            if entry.reason.trim().is_empty() {
                return Err(bad(format!("{:?} has no reason", entry.probe)));
            }
            let probes = entry
                .probe
                .iter()
                .map(|text| Ok((text.clone(), glob(text)?)))
                .collect::<Result<_, Error>>()?;
            Ok(Difference {
                probes,
                view: glob(&entry.view)?,
                plainfuse: glob(entry.plainfuse.as_deref().unwrap_or(&entry.view))?,
                reason: entry.reason,
            })
        };
        let under_libvirt = |entry: LibvirtEntry| {
            difference(Entry {
                probe: entry.probe,
                view: entry.outcome,
                reason: entry.reason,
                plainfuse: None,
            })
        };
        let differences = file.difference.into_iter().map(difference);
        let differences = differences.collect::<Result<_, Error>>()?;
        let libvirt = file.libvirt.into_iter().map(under_libvirt);
        let libvirt = libvirt.collect::<Result<_, Error>>()?;
        Ok(Self {
            path: path.to_owned(),
            differences,
            libvirt,
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
        if results.has(Column::Libvirt) {
            wrong.extend(self.check_libvirt(results));
        }
        wrong
    }

    /// Compares the view under libvirt with the view that needs none: the same, but for what is listed.
    fn check_libvirt(&self, results: &Results) -> Vec<String> {
        let mut wrong = Vec::new();
        for probe in &results.names {
            let view = results.outcome(probe, Column::View);
            let libvirt = results.outcome(probe, Column::Libvirt);
            let listed = self.libvirt.iter().find(|difference| {
                let mut globs = difference.probes.iter();
                globs.any(|(_, glob)| glob.is_match(probe))
            });
            match listed {
                None if view == libvirt => {}
                None => wrong.push(format!("{probe}: view {view:?}, under libvirt {libvirt:?}")),
                Some(_) if view == libvirt => wrong.push(format!(
                    "{probe}: expected to differ from view under libvirt and does not"
                )),
                Some(difference) if difference.view.is_match(libvirt) => {}
                Some(_) => wrong.push(format!(
                    "{probe}: {libvirt:?} is not the expected difference under libvirt"
                )),
            }
        }
        for (text, glob) in self
            .libvirt
            .iter()
            .flat_map(|difference| &difference.probes)
        {
            if !results.names.iter().any(|probe| glob.is_match(probe)) {
                wrong.push(format!("{}: {text} matches no probe", self.path.display()));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Run;
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

    /// The same two probes in a view and under libvirt.
    fn under_libvirt(view: &str, libvirt: &str, text: &str) -> Vec<String> {
        let mut results = results(&[("a/b", view, view)]);
        results.add(Column::Libvirt, "a/b", libvirt);
        results.columns.push(Run {
            column: Column::Libvirt,
            time: std::time::Duration::ZERO,
            broken: Vec::new(),
        });
        expectations(text).check(&results)
    }

    #[test]
    fn check_libvirt_is_compared_with_view() {
        const LISTED: &str =
            "[[libvirt]]\nprobe = [\"a/*\"]\noutcome = \"EPERM *\"\nreason = \"x\"\n";
        const IDLE: &str = "[[libvirt]]\nprobe = [\"c\"]\noutcome = \"ok\"\nreason = \"x\"\n";
        assert_eq!(under_libvirt("ok", "ok", ""), Vec::<String>::new());
        assert_eq!(under_libvirt("ok", "EPERM x", LISTED), Vec::<String>::new());
        for (libvirt, text) in [
            ("EPERM x", ""),
            ("ok", LISTED),
            ("EIO x", LISTED),
            ("ok", IDLE),
        ] {
            let wrong = under_libvirt("ok", libvirt, text);
            assert_eq!(wrong.len(), 1, "{libvirt} {text}: {wrong:?}");
        }
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
