//! Signals, and what else ends or starves another process.

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::export::roots_own;
use super::pair::{Kind, Pair, kernels};
use crate::driver::Outcome;
use crate::driver::actor::try_signal;
use crate::lab::Lab;
use crate::raw;

/// Row 32.
pub(super) fn signals(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [Kind::OneUser, Kind::Product] {
        let pair = Pair::started(lab, kind)?;
        pair.is_alive()?;
        let qemu = pair.seat(&pair.b)?.qemu;
        let mut victims = roots_own(&pair)?;
        victims.push(("B's QEMU".to_owned(), qemu));
        let tries: Vec<(String, i32)> = pair.as_a(|| {
            let mut tries = Vec::new();
            let no_files = [0_u64; 2];
            let limit = raw::call(
                libc::SYS_prlimit64,
                [
                    qemu.into(),
                    i64::from(libc::RLIMIT_NOFILE),
                    raw::pointer(&no_files),
                    0,
                    0,
                    0,
                ],
            );
            let limit = limit.err().map_or(0, |errno| errno as i32);
            tries.push(("prlimit of B's QEMU".to_owned(), limit));
            for (name, pid) in &victims {
                for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
                    let errno = try_signal(*pid, Some(signal)).err().unwrap_or(0);
                    tries.push((format!("{signal} to {name}"), errno));
                }
            }
            tries
        })?;
        for (way, errno) in tries {
            let what = match errno {
                0 => "it was let".to_owned(),
                errno => format!("{:?}", Errno::from_raw(errno)),
            };
            attempts.push(pair.attempt(&way, errno == 0, what, kernels()));
        }
        if kind == Kind::Product {
            pair.is_alive()?;
        }
    }
    Ok(attempts)
}
