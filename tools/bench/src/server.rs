//! Another FUSE file system than ours, mounted.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::contender::Contender;
use crate::error::{Error, Result, at, step};
use crate::place::Place;
use crate::seat::{LIMIT, tail, wait};

/// The command that mounts it; ends with this process, whatever happens to it.
fn words(contender: &Contender, export: &Path, mount_point: &Path) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "TERM"].map(Into::into).into();
    match contender {
        Contender::Bindfs => words.extend(["bindfs".into(), "-f".into()]),
        Contender::PassthroughHp => {
            let program = passthrough_hp().ok_or_else(|| {
                Error::Usage("passthrough_hp is not built: tools/bench/run builds it".to_owned())
            })?;
            words.extend([program.into(), "--foreground".into()]);
        }
        Contender::Native | Contender::View(_) | Contender::Proxy => {
            return Err(Error::Usage(format!("{contender} mounts nothing")));
        }
    }
    words.extend([export.into(), mount_point.into()]);
    Ok(words)
}

/// Where `tools/bench/run` has put libfuse's example, if it could be built.
pub(crate) fn passthrough_hp() -> Option<PathBuf> {
    let path = std::env::var_os("VIRTFS_BENCH_PASSTHROUGH_HP").map(PathBuf::from)?;
    path.exists().then_some(path)
}

/// Its process and its mount: both end when this is dropped.
pub(crate) struct Server {
    process: Child,
    mount_point: PathBuf,
}

impl Server {
    /// Mounts the export at a directory; `log` is the place's.
    pub(crate) fn start(
        contender: &Contender,
        place: &Place,
        mount_point: PathBuf,
        log: &File,
    ) -> Result<Self> {
        let words = words(contender, &place.export(), &mount_point)?;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        let before = device(&mount_point).map_err(at("looking at", &mount_point))?;
        let copy = || log.try_clone().map_err(step("sharing a log"));
        let process = Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .map_err(step(format!("starting {contender}")))?;
        let mut server = Self {
            process,
            mount_point,
        };
        let start = Instant::now();
        // Nothing tells that it is mounted but the mount.
        while device(&server.mount_point).is_ok_and(|now| now == before) {
            let ended = wait(&mut server.process, Duration::from_millis(2));
            if ended || start.elapsed() > LIMIT {
                return Err(Error::Contender {
                    contender: contender.to_string(),
                    what: format!("did not mount\n{}", tail(&place.log())),
                });
            }
        }
        Ok(server)
    }

    /// Unmounts, and waits for the process.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        use nix::mount::{MntFlags, umount2};
        let unmounted = umount2(&self.mount_point, MntFlags::MNT_DETACH);
        if !wait(&mut self.process, LIMIT) {
            let _gone = self.process.kill();
            let _status = self.process.wait();
        }
        unmounted.map_err(at("unmounting", &self.mount_point))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing left to be done, and nothing mounted any more.
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _told_elsewhere = self.end();
        }
    }
}
