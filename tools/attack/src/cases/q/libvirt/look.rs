//! Into B's view through what `/proc` has of its QEMU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::pair::{Kind, Pair, kernels};
use crate::driver::Outcome;
use crate::driver::emulator::read;
use crate::lab::Lab;

/// One way: what was read, or the errno.
#[derive(Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) way: String,
    pub(super) read: Result<Vec<u8>, i32>,
}

/// Every way through one process.
fn ways(pid: i32, secret: &Path) -> Vec<Way> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let below = |link: &str| {
        let path = secret.strip_prefix("/").unwrap_or(secret);
        read(&proc.join(link).join(path))
    };
    let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(-1);
    // The first entry that leads there, or why the last did not.
    let each = |directory: &str, lead: &dyn Fn(&Path) -> Result<Vec<u8>, i32>| {
        let mut last = Err(0);
        for entry in fs::read_dir(proc.join(directory)).map_err(errno)? {
            last = lead(&entry.map_err(errno)?.path());
            if last.is_ok() {
                break;
            }
        }
        last
    };
    let name = secret.file_name().unwrap_or_default();
    let path = secret.strip_prefix("/").unwrap_or(secret);
    let enter = || -> Result<Vec<u8>, i32> {
        let mounts = File::open(proc.join("ns/mnt")).map_err(errno)?;
        setns(mounts, CloneFlags::CLONE_NEWNS).map_err(|errno| errno as i32)?;
        read(secret)
    };
    let way = |way: &str, read| Way {
        way: way.to_owned(),
        read,
    };
    vec![
        way("root", below("root")),
        way("cwd", below("cwd")),
        way(
            "task/TID/root",
            each("task", &|task| read(&task.join("root").join(path))),
        ),
        way(
            "task/TID/cwd",
            each("task", &|task| read(&task.join("cwd").join(path))),
        ),
        // QEMU holds the directory that it shares.
        way("fd/N", each("fd", &|fd| read(&fd.join(name)))),
        way("map_files", each("map_files", &|file| read(file))),
        way("ns/mnt", enter()),
    ]
}

/// Row 32.
pub(super) fn view(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [Kind::OneUser, Kind::Product] {
        let pair = Pair::started(lab, kind)?;
        pair.is_alive()?;
        let (victim, secret) = (pair.seat(&pair.b)?.qemu, pair.b.secret());
        for Way { way, read } in pair.as_a(|| ways(victim, &secret))? {
            let got = read.as_ref().is_ok_and(|bytes| pair.b.place.betrays(bytes));
            let what = told(&read);
            attempts.push(pair.attempt(&way, got, what, kernels()));
        }
        pair.is_alive()?;
    }
    Ok(attempts)
}

/// A read in words: errno first.
pub(super) fn told(read: &Result<Vec<u8>, i32>) -> String {
    match read {
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(0) => "nothing was there".to_owned(),
        Err(errno) => format!("{:?}", nix::errno::Errno::from_raw(*errno)),
    }
}
