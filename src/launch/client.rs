//! From a fork to the client's first instruction: no capability, no descriptor of ours, the
//! working directory resolved again through the view.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::walls;
use crate::plan::ClientCommand;
use crate::plan::client::is_qemu;
use crate::{service, sys};

/// Becomes the client and executes its command; returns only on failure.
///
/// `reporter` tells of that; it is closed by exec.
pub(crate) fn execute(ids: &Ids, command: &ClientCommand, reporter: Option<RawFd>) -> Error {
    match prepare(ids, command, reporter) {
        Ok(()) => exec(&command.argv),
        Err(error) => error,
    }
}

fn prepare(ids: &Ids, command: &ClientCommand, reporter: Option<RawFd>) -> Result<()> {
    let failed =
        |call: &'static str| move |errno: Errno| Error::step(Class::ClientNotStarted, call, errno);
    let groups: Vec<Gid> = ids.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    // root's keys are not the client's. Where the kernel, or a filter that the client inherits, has
    // no keyrings, there are none to be had.
    match sys::new_session_keyring() {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        Err(error) => {
            let call = "keyctl(KEYCTL_JOIN_SESSION_KEYRING)";
            return Err(Error::step(Class::ClientNotStarted, call, error));
        }
    }
    // Bounding set first: it needs SETPCAP, which goes with the ids.
    setgroups(&groups).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    walls::before_client_ids()?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))?;
    walls::verify_nothing_left()?;
    // Only now: the kernel lets nobody but the client into the view, not even root; and the
    // directory that we inherited may be the original, below the view.
    if let Err(errno) = nix::unistd::chdir(&command.directory) {
        tracing::warn!(
            directory = %command.directory.display(), %errno,
            "the client may not enter the working directory; it starts in /"
        );
        nix::unistd::chdir("/").map_err(failed("chdir(/)"))?;
    }
    // Rust's runtime ignores it (in every process of ours), and exec(2) hands that on.
    sys::default_sigpipe()?;
    rustix::process::umask(command.umask);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(failed("sigprocmask"))?;
    let keep: Vec<RawFd> = command
        .descriptors
        .iter()
        .copied()
        .chain(reporter)
        .collect();
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::ClientNotStarted, "close_range", error))
}

fn exec(argv: &[OsString]) -> Error {
    let shown = argv
        .first()
        .map(|program| program.to_string_lossy().into_owned())
        .unwrap_or_default();
    let words: std::result::Result<Vec<CString>, _> = argv
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect();
    let (Ok(words), true) = (words, !argv.is_empty()) else {
        return Error::new(
            Class::ClientNotStarted,
            "the command has a NUL byte or is empty",
            "",
        );
    };
    // As execvp(3), which takes PATH from ours.
    let errno = match nix::unistd::execvpe(&words[0], &words, &service::environment_of_others()) {
        Ok(never) => match never {},
        Err(errno) => errno,
    };
    let (class, cure) = if errno == Errno::ENOENT || !is_anywhere(Path::new(&argv[0])) {
        (
            Class::ClientNotFound,
            if argv.first().is_some_and(|program| is_qemu(program)) {
                "install it (Debian: apt-get install qemu-system-x86), or give its path"
            } else {
                "install it, or give its path"
            },
        )
    } else {
        (
            Class::ClientNotStarted,
            "the client's user must be able to execute it",
        )
    };
    Error::new(
        class,
        format!(
            "cannot run '{shown}': {}",
            if class == Class::ClientNotFound {
                "not found"
            } else {
                errno.desc()
            }
        ),
        cure,
    )
}

/// Whether a command exists at all: execvp(3) answers EACCES for one that is nowhere, if the
/// client may not search one of the directories of PATH (root's own, often).
fn is_anywhere(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.exists();
    }
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()))
}
