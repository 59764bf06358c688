//! The child: QEMU itself, or a wrapper that leads to it. Started, watched by descriptor, ended by its own pid.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Output, Result};
use crate::scratch::Ids;

/// How long a child gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A child that runs, or ran.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    output: File,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, as another user where one is given, its output going to `output`.
    pub(crate) fn start(command: &[OsString], user: Option<Ids>, output: File) -> Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Error::Protocol("the command line is empty".to_owned()))?;
        let copy = || {
            output
                .try_clone()
                .map_err(Error::io("sharing QEMU's output file"))
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(copy()?)
            .stderr(copy()?);
        if let Some(ids) = user {
            // The standard library drops the supplementary groups with it.
            command.uid(ids.uid).gid(ids.gid);
        }
        crate::sys::die_with_parent(&mut command);
        let child = command.spawn().map_err(|source| Error::Spawn {
            program: program.to_string_lossy().into_owned(),
            hint: if source.kind() == ErrorKind::NotFound {
                install_hint(program)
            } else {
                ""
            },
            source,
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|errno| Error::Io {
                step: "pidfd_open of QEMU",
                source: errno.into(),
            })?;
        Ok(Self {
            child,
            pidfd,
            output,
            status: None,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child has printed so far.
    pub(crate) fn output(&self) -> Output {
        let mut text = Vec::new();
        let mut file = &self.output;
        // Best effort: this explains another error, and must not hide it.
        if file.rewind().is_ok() {
            let _ = file.take(1 << 16).read_to_end(&mut text);
        }
        Output(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits until `other` can be read or the child ends; true for the former.
    pub(crate) fn wait_readable(&mut self, other: impl AsFd, limit: Duration) -> Result<bool> {
        let mut descriptors = [
            PollFd::new(&other, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        if wait(&mut descriptors, limit)? == 0 {
            let step = "waiting for QEMU to connect";
            return Err(Error::Timeout {
                step,
                limit,
                output: self.output(),
            });
        }
        Ok(!descriptors[0].revents().is_empty())
    }

    /// Waits for the child's end; none if it did not come in time.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if self.status.is_none() && wait(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], limit)? > 0
        {
            self.status = Some(self.child.wait().map_err(Error::io("waiting for QEMU"))?);
        }
        Ok(self.status)
    }

    /// SIGTERM, and SIGKILL after a grace period. Does nothing to a child that ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        for (signal, grace) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
            if let Some(status) = self.wait_end(Duration::ZERO)? {
                return Ok(status);
            }
            // A child that ended just now is no error: it is what was wanted.
            let _ = pidfd_send_signal(&self.pidfd, signal);
            if let Some(status) = self.wait_end(grace)? {
                return Ok(status);
            }
        }
        Err(Error::Timeout {
            step: "ending QEMU",
            limit: GRACE,
            output: self.output(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn install_hint(program: &OsStr) -> &'static str {
    let name = Path::new(program)
        .file_name()
        .map_or(&[][..], OsStr::as_encoded_bytes);
    if name.starts_with(b"qemu-system-") {
        " (install it: apt-get install qemu-system-x86)"
    } else if name == b"virtfs-proxy-helper" {
        " (QEMU before 9.2 has it: apt-get install qemu-system-common)"
    } else {
        ""
    }
}

fn wait(descriptors: &mut [PollFd<'_>], limit: Duration) -> Result<usize> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left)
            .map_err(|_| Error::Protocol("the limit is too long".to_owned()))?;
        match poll(descriptors, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Io {
                    step: "poll",
                    source: errno.into(),
                });
            }
            Ok(count) => return Ok(count),
        }
    }
}
