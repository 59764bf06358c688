//! QEMU 7.2's virtfs-proxy-helper, the file server that `-fsdev proxy` talks to (deprecated in 8.1, gone in 9.2).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::process::Process;
use crate::scratch::Ids;

/// Where Debian has it; it is not in the search path.
const PROGRAM: &str = "/usr/lib/qemu/virtfs-proxy-helper";

const LIMIT: Duration = Duration::from_secs(10);

/// A helper that listens, serving one directory to one QEMU. Ended when dropped.
#[derive(Debug)]
pub struct ProxyHelper {
    socket: PathBuf,
    // Fields are dropped in this order: the process before the directory its socket lies in.
    _process: Process,
    _directory: TempDir,
}

impl ProxyHelper {
    /// Starts it as this process' user, root, for a QEMU that runs as `qemu_user`.
    ///
    /// # Errors
    /// [`Error::Spawn`] if it is not installed, [`Error::Ended`] with what it printed, [`Error::Timeout`].
    pub fn start(export: &Path, qemu_user: Ids) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::Builder::new()
            .prefix("virtfs-p9-proxy-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .map_err(Error::io("making the proxy helper's directory"))?;
        let socket = directory.path().join("proxy.sock");
        let output = fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(directory.path().join("output"))
            .map_err(Error::io("making the proxy helper's output file"))?;
        let mut command: Vec<OsString> =
            vec![PROGRAM.into(), "-n".into(), "-p".into(), export.into()];
        command.extend(["-s".into(), socket.clone().into_os_string()]);
        let Ids { uid, gid } = qemu_user;
        command.extend([format!("-u{uid}"), format!("-g{gid}")].map(OsString::from));
        let mut process = Process::start(&command, None, output)?;

        // No event tells that a socket listens: the table of sockets is looked at.
        let start = Instant::now();
        while !listens(&socket)? {
            if let Some(status) = process.wait_end(Duration::from_millis(1))? {
                return Err(Error::Ended {
                    status: Some(status),
                    output: process.output(),
                });
            }
            if start.elapsed() > LIMIT {
                let step = "waiting for virtfs-proxy-helper to listen";
                return Err(Error::Timeout {
                    step,
                    limit: LIMIT,
                    output: process.output(),
                });
            }
        }
        Ok(Self {
            socket,
            _process: process,
            _directory: directory,
        })
    }

    /// For [`crate::Export::proxy`].
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Whether a socket of that name accepts connections: flag 0x10000 in `/proc/net/unix` (proc(5)).
fn listens(socket: &Path) -> Result<bool> {
    let table =
        fs::read_to_string("/proc/net/unix").map_err(Error::io("reading /proc/net/unix"))?;
    Ok(table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some("00010000") && fields.nth(3).map(Path::new) == Some(socket)
    }))
}
