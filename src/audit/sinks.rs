//! Where records go: what `--audit` says, looked up and opened before any privileged act.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::audit::journal;
use crate::error::{Class, Error, Result};

/// One place that keeps records, and what it is called in an error.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
}

/// How a sink takes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file, opened to append: a line of JSON.
    File,
    /// journald's socket, connected: a datagram of fields.
    Journal,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Sinks {
    /// Refusals are told on standard error too, for people.
    pub(crate) stderr: bool,
    open: Vec<Sink>,
}

impl Sinks {
    /// Opens what `--audit` names; nothing named is standard error. No file may lie below one of
    /// `forbidden`: there a client, or a mediator that was broken into, could change it.
    ///
    /// # Errors
    ///
    /// Usage: a word that is no sink. Configuration: a file that is not root's own, or journald
    /// does not run.
    pub(crate) fn open(words: &[OsString], forbidden: &[PathBuf]) -> Result<Self> {
        let mut sinks = Self {
            stderr: words.is_empty(),
            open: Vec::new(),
        };
        for word in words {
            match word.as_bytes() {
                b"stderr" => sinks.stderr = true,
                b"journald" => sinks.open.push(journald(Path::new(journal::SOCKET))?),
                // A slip in one of the words above must not become a file.
                name if name.contains(&b'/') => sinks.open.push(file(word, forbidden)?),
                _ => {
                    return Err(Error::new(
                        Class::Usage,
                        format!("--audit {}: no such sink", shown(word)),
                        "use stderr, journald, or a file with a / in its name (./audit.log)",
                    ));
                }
            }
        }
        Ok(sinks)
    }

    /// Those that are open, for the processes that write to them; none is left here.
    pub(super) fn all(&self) -> &[Sink] {
        &self.open
    }

    /// Closes them: in the process whose children have them.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}

fn journald(socket: &Path) -> Result<Sink> {
    let fd = journal::connect(socket).map_err(|errno| {
        Error::new(
            Class::Configuration,
            format!("--audit journald: connect({}): {errno}", socket.display()),
            "start systemd-journald, or name a file instead",
        )
    })?;
    Ok(Sink {
        name: "journald".to_owned(),
        fd,
        kind: Kind::Journal,
    })
}

/// Opened once, and what is looked at is what is written to: a link that someone else put there is
/// not followed, and a file of someone else's, or one that others may write to, is not used.
fn file(word: &OsStr, forbidden: &[PathBuf]) -> Result<Sink> {
    let name = shown(word);
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(
            Class::Configuration,
            format!("--audit {name}: {why}"),
            "name a file of root's own that nobody else may write to, in a directory that exists",
        )
    };
    // Without waiting for the other end, should it be a FIFO.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(CWD, word, flags, Mode::RUSR | Mode::WUSR).map_err(
            |errno| match errno {
                rustix::io::Errno::LOOP => failed(&"it is a symbolic link"),
                other => failed(&other),
            },
        )?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(&errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(&"it is not a regular file"));
    }
    if stat.st_uid != nix::unistd::geteuid().as_raw() {
        return Err(failed(&format!("it belongs to user {}", stat.st_uid)));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(failed(&"others may write to it"));
    }
    if stat.st_nlink != 1 {
        return Err(failed(&"it has another name besides"));
    }
    let place = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
        .map_err(|errno| failed(&errno))?;
    let place = Path::new(OsStr::from_bytes(place.as_bytes()));
    if let Some(above) = forbidden.iter().find(|above| place.starts_with(above)) {
        let why = format!("it lies in {}, which is shared", above.display());
        return Err(failed(&why));
    }
    Ok(Sink {
        name,
        fd,
        kind: Kind::File,
    })
}

fn shown(word: &OsStr) -> String {
    word.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn open(word: &Path, forbidden: &[PathBuf]) -> Result<Sinks> {
        Sinks::open(&[word.as_os_str().to_owned()], forbidden)
    }

    #[track_caller]
    fn refused(word: &Path, forbidden: &[PathBuf], why: &str) {
        let error = open(word, forbidden).unwrap_err().to_string();
        assert!(error.contains("--audit") && error.contains(why), "{error}");
    }

    #[test]
    fn nothing_named_is_standard_error_and_a_name_takes_its_place() {
        assert!(Sinks::open(&[], &[]).unwrap().stderr);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.log");
        assert!(!open(&file, &[]).unwrap().stderr);
        let both = [OsString::from("stderr"), file.into()];
        let sinks = Sinks::open(&both, &[]).unwrap();
        assert!(sinks.stderr && sinks.all().len() == 1);
        let error = Sinks::open(&["jurnald".into()], &[]).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
    }

    #[test]
    fn file_is_made_for_its_owner_alone_and_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.log");
        drop(open(&file, &[]).unwrap());
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&file, "before\n").unwrap();
        let sinks = open(&file, &[]).unwrap();
        nix::unistd::write(&sinks.all()[0].fd, b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "before\nafter\n");
        // As logrotate's copytruncate does.
        fs::write(&file, "").unwrap();
        nix::unistd::write(&sinks.all()[0].fd, b"again\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "again\n");
    }

    #[test]
    fn file_that_others_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        refused(&link, &[], "symbolic link");
        let inside = [directory.path().canonicalize().unwrap()];
        refused(&file, &inside, "which is shared");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        refused(&file, &[], "others may write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&file, directory.path().join("other")).unwrap();
        refused(&file, &[], "another name");
        refused(directory.path(), &[], "directory");
        refused(&directory.path().join("none/file"), &[], "No such file");
        refused(Path::new("/dev/null"), &[], "not a regular file");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        refused(&fifo, &[], "");
    }

    #[test]
    fn journald_that_does_not_run_is_told() {
        let error = journald(Path::new("/nonexistent/socket")).unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("/nonexistent/socket") && told.contains("start"),
            "{told}"
        );
    }
}
