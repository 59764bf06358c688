//! Other file systems mounted inside an export: refused, hidden or shared, as they are at the start.

use std::path::{Path, PathBuf};

use virtfs_mediator_core::policy::SubmountsWord;

use crate::error::{Class, Error, Result};
use crate::mounts::{Mount, Table};

/// What is done with them, and which there are.
#[derive(Clone, Debug)]
pub(crate) struct Submounts {
    pub(crate) choice: SubmountsWord,
    /// None with [`SubmountsWord::Refuse`].
    mounts: Vec<Mount>,
    export: PathBuf,
}

impl Submounts {
    /// Looks at what is mounted below an export.
    ///
    /// # Errors
    ///
    /// Configuration: something is, and is to be refused; or it can never be inside an export.
    pub(crate) fn plan(choice: SubmountsWord, export: &Path, table: &Table) -> Result<Self> {
        let mounts: Vec<Mount> = table.below(export).cloned().collect();
        for mount in &mounts {
            refuse_never_shared(export, mount)?;
        }
        if choice == SubmountsWord::Refuse && !mounts.is_empty() {
            return Err(Error::new(
                Class::Configuration,
                format!(
                    "other file systems are mounted inside export {}: {}",
                    export.display(),
                    listed(&mounts)
                ),
                "share them one by one (several exports can be named), unmount them, or say \
                 `--submounts hide` or `--submounts follow`",
            ));
        }
        if choice == SubmountsWord::Follow && !mounts.is_empty() {
            tracing::info!(
                export = %export.display(), mounts = listed(&mounts),
                "shared too, as they are mounted now"
            );
        }
        Ok(Self {
            choice,
            mounts,
            export: export.to_owned(),
        })
    }

    /// Whether they are shared.
    pub(crate) fn are_followed(&self) -> bool {
        self.choice == SubmountsWord::Follow
    }

    /// Makes sure that a namespace in which nothing is mounted from outside any more has what was
    /// planned: what is cloned from it is that.
    ///
    /// # Errors
    ///
    /// Mount: something was mounted or unmounted meanwhile.
    pub(crate) fn check_unchanged(&self, table: &Table) -> Result<()> {
        if self.choice == SubmountsWord::Refuse {
            // They are not cloned.
            return Ok(());
        }
        let what = |mount: &Mount| {
            let Mount {
                device,
                root,
                point,
                kind,
                ..
            } = mount.clone();
            (point, root, device, kind)
        };
        let sorted = |mounts: &mut dyn Iterator<Item = &Mount>| {
            let mut all: Vec<_> = mounts.map(what).collect();
            all.sort_unstable();
            all
        };
        if sorted(&mut self.mounts.iter()) == sorted(&mut table.below(&self.export)) {
            return Ok(());
        }
        Err(Error::new(
            Class::Mount,
            format!(
                "file systems were mounted or unmounted inside export {} while starting",
                self.export.display()
            ),
            "start again when its mounts are settled",
        ))
    }

    /// Where they lie below the export, from its root, those below others left out.
    pub(crate) fn topmost(&self) -> Vec<&Path> {
        let mut points = self.below();
        points.sort_unstable();
        let mut topmost: Vec<&Path> = Vec::new();
        for point in points {
            if topmost.last().is_none_or(|above| !point.starts_with(above)) {
                topmost.push(point);
            }
        }
        topmost
    }

    fn below(&self) -> Vec<&Path> {
        let points = self.mounts.iter().map(|mount| mount.point.as_path());
        points
            .filter_map(|point| point.strip_prefix(&self.export).ok())
            .collect()
    }

    /// The mount points that a mediator sees below its root, in order.
    pub(crate) fn seen(&self) -> Vec<PathBuf> {
        let mut seen = match self.choice {
            SubmountsWord::Refuse => Vec::new(),
            SubmountsWord::Hide => self.topmost(),
            SubmountsWord::Follow => self.below(),
        };
        seen.sort_unstable();
        let root = Path::new("/");
        seen.into_iter().map(|point| root.join(point)).collect()
    }

    /// Every path on the host under which what is shared can be reached.
    pub(crate) fn places(&self, table: &Table) -> Vec<PathBuf> {
        let mut places = table.places_of(&self.export);
        if self.are_followed() {
            let points = self.mounts.iter().map(|mount| &mount.point);
            places.extend(points.flat_map(|point| table.places_of(point)));
        }
        places
    }
}

fn listed(mounts: &[Mount]) -> String {
    let points = mounts.iter().map(|mount| mount.point.display().to_string());
    points.collect::<Vec<_>>().join(", ")
}

/// File systems whose files are the kernel's own state: to write to one is to command the kernel.
pub(crate) fn is_kernels_own(kind: &str) -> bool {
    const KINDS: [&str; 18] = [
        "proc",
        "sysfs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "debugfs",
        "tracefs",
        "cgroup",
        "cgroup2",
        "bpf",
        "configfs",
        "efivarfs",
        "pstore",
        "fusectl",
        "binfmt_misc",
        "nfsd",
        "devpts",
        "nsfs",
    ];
    KINDS.contains(&kind)
}

/// Whether a mount is a view of ours.
pub(crate) fn is_view(kind: &str) -> bool {
    kind.starts_with("fuse.virtfs-mediator")
}

/// What may not be inside an export, shared or hidden.
fn refuse_never_shared(export: &Path, mount: &Mount) -> Result<()> {
    let (what, cure) = if is_kernels_own(&mount.kind) {
        let cure = "kernel file systems cannot be shared: choose another directory";
        (format!("a {} mount", mount.kind), cure)
    } else if is_view(&mount.kind) {
        ("itself a view".to_owned(), "share the original")
    } else if mount.kind == "autofs" {
        let cure = "it would mount for whoever asks: share a directory without automatic mounts";
        ("an autofs mount".to_owned(), cure)
    } else {
        return Ok(());
    };
    Err(Error::new(
        Class::Configuration,
        format!(
            "export {} contains {}, {what}",
            export.display(),
            mount.point.display()
        ),
        cure,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 8:2 / /srv/share/a rw - xfs /dev/sdb rw
31 30 0:9 / /srv/share/a/b rw - tmpfs none rw
32 20 8:1 /data /srv/share/c rw - ext4 /dev/sda1 rw
33 20 8:1 / /srv/share-two/x rw - ext4 /dev/sda1 rw
";

    fn plan(choice: SubmountsWord, text: &[u8]) -> Result<Submounts> {
        Submounts::plan(choice, Path::new("/srv/share"), &Table::parse(text))
    }

    #[test]
    fn mounts_are_refused_with_their_names_hidden_at_the_top_or_followed() {
        let refused = plan(SubmountsWord::Refuse, TEXT).unwrap_err().to_string();
        assert!(
            refused.contains("/srv/share/a, /srv/share/a/b, /srv/share/c"),
            "{refused}"
        );
        let hidden = plan(SubmountsWord::Hide, TEXT).unwrap();
        assert_eq!(hidden.seen(), [Path::new("/a"), Path::new("/c")]);
        let followed = plan(SubmountsWord::Follow, TEXT).unwrap();
        let all = ["/a", "/a/b", "/c"].map(PathBuf::from);
        assert_eq!(followed.seen(), all);
        let places = followed.places(&Table::parse(TEXT));
        assert!(places.contains(&PathBuf::from("/data")), "{places:?}");
    }

    #[test]
    fn kernel_file_systems_views_and_automatic_mounts_are_refused_whatever_is_chosen() {
        for kind in ["proc", "sysfs", "cgroup2", "fuse.virtfs-mediator", "autofs"] {
            let text = format!("30 20 0:9 / /srv/share/a/b rw - {kind} none rw\n");
            for choice in [
                SubmountsWord::Refuse,
                SubmountsWord::Hide,
                SubmountsWord::Follow,
            ] {
                let refused = plan(choice, text.as_bytes()).unwrap_err().to_string();
                assert!(refused.contains("contains /srv/share/a/b"), "{refused}");
            }
        }
    }

    #[test]
    fn mount_that_came_or_went_while_starting_is_noticed() {
        let later = [TEXT, b"40 20 0:9 / /srv/share/d rw - tmpfs none rw\n"].concat();
        let fewer = &TEXT[..TEXT.len() - 70];
        // Ids differ from namespace to namespace.
        let same = String::from_utf8(TEXT.to_vec())
            .unwrap()
            .replace("\n3", "\n7");
        for choice in [SubmountsWord::Hide, SubmountsWord::Follow] {
            let planned = plan(choice, TEXT).unwrap();
            assert!(
                planned
                    .check_unchanged(&Table::parse(same.as_bytes()))
                    .is_ok()
            );
            for other in [later.as_slice(), fewer] {
                assert!(planned.check_unchanged(&Table::parse(other)).is_err());
            }
        }
    }
}
