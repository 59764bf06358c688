//! B's QEMU itself: ptrace, its memory, its descriptors.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;

use super::look::{Way, told};
use super::pair::{Kind, Pair, kernels};
use crate::driver::Outcome;
use crate::driver::emulator::read;
use crate::lab::Lab;
use crate::raw;

/// `PTRACE_SEIZE` (linux/ptrace.h): as ATTACH, and stops nothing.
const SEIZE: libc::c_long = 0x4206;
/// More descriptors than QEMU has.
const DESCRIPTORS: i32 = 256;

/// Where a process has something mapped that can be read, by its own word or, since that is refused to
/// others, at any address.
fn somewhere(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let first = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(first, 16).unwrap_or(0x0040_0000)
}

fn number(errno: Errno) -> i32 {
    errno as i32
}

fn ways(pid: i32, name: &str) -> Vec<Way> {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(-1);
    let at = somewhere(pid);
    let memory = |writes: bool| -> Result<Vec<u8>, i32> {
        let mut bytes = vec![0; 16];
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .open(format!("/proc/{pid}/mem"))
            .map_err(errno)?;
        file.read_exact_at(&mut bytes, at).map_err(errno)?;
        Ok(bytes)
    };
    let vm = || -> Result<Vec<u8>, i32> {
        let mut bytes = vec![0_u8; 16];
        let local = [raw::pointer_to(bytes.as_mut_slice()), 16];
        let remote = [i64::from_ne_bytes(at.to_ne_bytes()), 16];
        let [local, remote] = [&local, &remote].map(|vector| raw::pointer(vector));
        raw::call(
            libc::SYS_process_vm_readv,
            [pid.into(), local, 1, remote, 1, 0],
        )
        .map_err(number)?;
        Ok(bytes)
    };
    let seize = || -> Result<Vec<u8>, i32> {
        raw::call(libc::SYS_ptrace, [SEIZE, pid.into(), 0, 0, 0, 0]).map_err(number)?;
        Ok(vec![1])
    };
    let pidfd = || -> Result<OwnedFd, i32> {
        raw::open(libc::SYS_pidfd_open, [pid.into(), 0, 0, 0, 0, 0]).map_err(number)
    };
    // A descriptor of B's export leads past every path.
    let steal = || -> Result<Vec<u8>, i32> {
        let pidfd = pidfd()?;
        let mut last = Err(0);
        for fd in 0..DESCRIPTORS {
            let stolen = raw::open(
                libc::SYS_pidfd_getfd,
                [raw::descriptor(&pidfd), fd.into(), 0, 0, 0, 0],
            );
            match stolen {
                Ok(stolen) => {
                    let path = format!("/proc/self/fd/{}/{name}", stolen.as_raw_fd());
                    match read(path.as_ref()) {
                        Ok(bytes) => return Ok(bytes),
                        Err(errno) => last = Err(errno),
                    }
                }
                Err(Errno::EBADF) => {}
                Err(errno) => last = Err(number(errno)),
            }
        }
        last
    };
    let open = |file: &str| -> Result<Vec<u8>, i32> {
        File::open(format!("/proc/{pid}/{file}")).map_err(errno)?;
        read(format!("/proc/{pid}/{file}").as_ref())
    };
    let ways: [(&str, Result<Vec<u8>, i32>); 7] = [
        ("/proc/PID/mem, to read", memory(false)),
        ("/proc/PID/mem, to write", memory(true)),
        ("process_vm_readv", vm()),
        ("PTRACE_SEIZE", seize()),
        ("pidfd_getfd of the export", steal()),
        ("/proc/PID/environ", open("environ")),
        ("/proc/PID/maps", open("maps")),
    ];
    ways.into_iter()
        .map(|(way, read)| Way {
            way: way.to_owned(),
            read,
        })
        .collect()
}

/// Row 32.
pub(super) fn memory(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [Kind::OneUser, Kind::Product] {
        let pair = Pair::started(lab, kind)?;
        pair.is_alive()?;
        let victim = pair.seat(&pair.b)?.qemu;
        for Way { way, read } in pair.as_a(|| ways(victim, "secret"))? {
            let got = match way.as_str() {
                "pidfd_getfd of the export" => {
                    read.as_ref().is_ok_and(|bytes| pair.b.place.betrays(bytes))
                }
                _ => read.is_ok(),
            };
            let what = told(&read);
            attempts.push(pair.attempt(&way, got, what, kernels()));
        }
        pair.is_alive()?;
    }
    Ok(attempts)
}
