//! The file that `--pidfile` names: the client's process number, as the host numbers it.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};
use crate::files;

/// A file that is an old pid file, or none yet.
#[derive(Clone, Debug)]
pub(crate) struct Pidfile {
    path: PathBuf,
    /// What was written: only that is removed.
    written: Option<String>,
}

impl Pidfile {
    /// Looks at it before anything starts.
    ///
    /// # Errors
    ///
    /// Configuration: what has that name is no pid file, and would be lost.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::new(
                Class::Configuration,
                format!("--pidfile {}: {why}", path.display()),
                "name a file that is not there yet, or an old pid file, in a directory that can be written",
            )
        };
        match content(path) {
            Ok(text) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) => {}
            Ok(_) => {
                return Err(failed(
                    &"it holds something else than the number of a process",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(failed(&"it is a symbolic link"));
            }
            Err(error) => return Err(failed(&error)),
        }
        Ok(Self {
            path: path.to_owned(),
            written: None,
        })
    }

    /// Writes a process's number, in place of an older one.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be written.
    pub(crate) fn write(&mut self, pid: &str) -> Result<()> {
        let text = format!("{pid}\n");
        files::replace(&self.path, &text).map_err(|error| {
            Error::new(
                Class::Configuration,
                format!("--pidfile {}: {error}", self.path.display()),
                "name a file that can be written",
            )
        })?;
        self.written = Some(text);
        Ok(())
    }

    /// Removes what was written, unless another has written to it since.
    pub(crate) fn remove(&self) {
        if let Some(written) = &self.written
            && content(&self.path).is_ok_and(|text| text == *written)
        {
            let _may_be_gone = std::fs::remove_file(&self.path);
        }
    }
}

/// As much of a regular file's text as tells whether it is a pid file.
fn content(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        // A FIFO has no other end.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn old_pid_file_is_replaced_and_what_is_none_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("none", None), ("empty", Some("")), ("old", Some("123\n"))] {
            if let Some(text) = text {
                fs::write(at(name), text).unwrap();
            }
            let mut pidfile = Pidfile::new(&at(name)).unwrap();
            pidfile.write("456").unwrap();
            assert_eq!(fs::read_to_string(at(name)).unwrap(), "456\n");
            pidfile.remove();
            assert!(!at(name).exists());
        }
        fs::write(at("notes"), "buy milk\n").unwrap();
        symlink(at("notes"), at("link")).unwrap();
        for (name, why) in [
            ("notes", "something else"),
            ("link", "a symbolic link"),
            (".", "no regular file"),
        ] {
            let error = Pidfile::new(&at(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert_eq!(fs::read_to_string(at("notes")).unwrap(), "buy milk\n");
    }

    #[test]
    fn what_another_wrote_since_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut pidfile = Pidfile::new(&path).unwrap();
        pidfile.write("456").unwrap();
        fs::write(&path, "789\n").unwrap();
        pidfile.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "789\n");
    }
}
