//! Where a policy came from: a file that a guest or a stranger may change is no word of root's.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::plan::others_may_rename;

/// The file that was read, as it was open.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// What messages call it.
    file: String,
    /// Its path, without links. Of a pipe it is none.
    place: PathBuf,
    uid: u32,
    mode: u32,
}

impl Origin {
    /// Of an open file.
    pub(super) fn of(name: &str, file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            file: name.to_owned(),
            place: std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?,
            uid: meta.uid(),
            mode: meta.mode(),
        })
    }

    /// A policy below one of `places`, which are shared, would be whoever uses the view's to rewrite
    /// for its next start.
    ///
    /// # Errors
    ///
    /// Configuration: it lies there.
    pub(crate) fn refuse_shared(&self, places: &[PathBuf]) -> Result<()> {
        match places.iter().find(|above| self.place.starts_with(above)) {
            None => Ok(()),
            Some(above) => Err(Error::new(
                Class::Configuration,
                format!(
                    "policy {} lies in {}, which is shared: a guest could change it",
                    self.file,
                    above.display()
                ),
                "move it out of there, such as to /etc/virtfs-mediator",
            )),
        }
    }

    /// A policy that is read at each start of a domain, long after root has named it, must stay root's.
    ///
    /// # Errors
    ///
    /// Configuration: others may write to it, or put another in its place.
    pub(crate) fn refuse_others(&self) -> Result<()> {
        let file = &self.file;
        if self.uid != 0 || self.mode & 0o022 != 0 {
            return Err(Error::new(
                Class::Configuration,
                format!(
                    "policy {file} belongs to uid {} with mode {:04o}: others than root may write to it",
                    self.uid,
                    self.mode & 0o7777
                ),
                format!("chown root {file}; chmod go-w {file}"),
            ));
        }
        match others_may_rename(&self.place) {
            None => Ok(()),
            Some(above) => Err(replaceable(file, &above)),
        }
    }
}

fn replaceable(file: &str, above: &Path) -> Error {
    Error::new(
        Class::Configuration,
        format!(
            "policy {file}: others than root may put another in its place, in {}",
            above.display()
        ),
        "move it to a directory of root's alone, such as /etc/virtfs-mediator",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::live::in_force::Text;

    #[test]
    fn policy_is_told_by_where_it_lies_and_who_may_write_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let (inside, link) = (top.join("shared"), top.join("link"));
        fs::create_dir(&inside).unwrap();
        let file = inside.join("policy.toml");
        fs::write(&file, "default = \"allow\"\n").unwrap();
        symlink(&file, &link).unwrap();
        let origin = |path: &Path| Text::read(path).unwrap().origin.unwrap();
        for path in [&file, &link] {
            let refused = origin(path).refuse_shared(&[top.join("other"), inside.clone()]);
            assert!(refused.unwrap_err().to_string().contains("which is shared"));
            origin(path).refuse_shared(&[top.join("sha")]).unwrap();
            origin(path).refuse_others().unwrap();
        }
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&file, 0o664);
        let told = origin(&file).refuse_others().unwrap_err().to_string();
        assert!(told.contains("others than root may write"), "{told}");
        mode(&file, 0o644);
        mode(&inside, 0o777);
        let told = origin(&link).refuse_others().unwrap_err().to_string();
        assert!(told.contains("in its place"), "{told}");
    }
}
