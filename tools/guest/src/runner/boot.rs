//! One boot of the guest: start, read its console, and leave no process whatever happens.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::Error;
use super::column::Plan;
use super::interrupt;
use crate::record::Record;

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest reached its end.
    Complete,
    /// It did not: in which words, and the probe it was in.
    Broken {
        /// What was seen.
        what: String,
        /// The probe that had begun.
        during: Option<String>,
    },
}

/// Limits of one boot.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start to the guest's end.
    pub total: Duration,
    /// Between two lines of the console.
    pub silence: Duration,
}

/// How often a wait looks up.
const GLANCE: Duration = Duration::from_millis(100);

/// A child that is ended, with its process group, when dropped.
#[derive(Debug)]
struct Owned(Child);

impl Owned {
    fn spawn(command: &mut Command) -> Result<Self, Error> {
        let what = command.get_program().to_string_lossy().into_owned();
        command
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(Error::io(what))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // Gone already is what we want.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.ended() {
            // The mediator takes its processes and mounts with it when it is asked to.
            self.signal(Signal::TERM);
            let patience = Instant::now() + Duration::from_secs(5);
            while !self.ended() && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Runs `plan`, hands each record to `seen`, appends the raw console to `console`.
///
/// # Errors
/// A program that cannot be started, or a console file that cannot be written.
pub fn run(
    mut plan: Plan,
    limits: Limits,
    console: &Path,
    mut seen: impl FnMut(&Record),
) -> Result<End, Error> {
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(console)
        .map_err(Error::io(format!("{}", console.display())))?;
    let errors = log.try_clone().map_err(Error::io("console"))?;
    let mut helpers = Vec::new();
    for (mut command, socket) in plan.helpers {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        helpers.push(Owned::spawn(&mut command)?);
        let patience = Instant::now() + Duration::from_secs(5);
        while !socket.exists() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    plan.qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    let mut qemu = Owned::spawn(&mut plan.qemu)?;
    let output = qemu
        .0
        .stdout
        .take()
        .ok_or_else(|| Error::io("QEMU's output")(std::io::ErrorKind::BrokenPipe.into()))?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + limits.total;
    let mut during = None;
    let mut reached_end = false;
    let mut trouble = None;
    let mut heard = Instant::now();
    loop {
        if interrupt::asked() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= deadline {
            trouble = Some("the guest took too long".to_owned());
            break;
        }
        let line = match lines.recv_timeout(GLANCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if heard.elapsed() < limits.silence => {
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                trouble = Some("the guest fell silent".to_owned());
                break;
            }
        };
        heard = Instant::now();
        let _ = log.write_all(&line).and_then(|()| log.write_all(b"\n"));
        let Some(record) = Record::parse(&String::from_utf8_lossy(&line)) else {
            continue;
        };
        // A helper that is gone answers nothing: what follows would be the same error for ever.
        if !reached_end && helpers.iter_mut().any(Owned::ended) {
            trouble = Some("virtfs-proxy-helper died".to_owned());
            break;
        }
        match &record {
            Record::Begin(name) => during = Some(name.clone()),
            Record::Probe(..) => during = None,
            Record::End(_) => reached_end = true,
            Record::Error(what) => trouble = Some(what.clone()),
            Record::Boot(_) => {}
        }
        seen(&record);
    }
    Ok(match trouble {
        Some(what) => End::Broken { what, during },
        None if reached_end => End::Complete,
        None => End::Broken {
            what: "the guest ended early".to_owned(),
            during,
        },
    })
}

/// Hands the terminal to QEMU until it ends.
///
/// # Errors
/// A program that cannot be started.
pub fn interactive(mut plan: Plan) -> Result<(), Error> {
    // In the runner's own process group: QEMU must be in the terminal's foreground.
    let mut qemu = plan.qemu.spawn().map_err(Error::io("QEMU"))?;
    loop {
        if let Some(status) = qemu.try_wait().map_err(Error::io("QEMU"))? {
            if status.success() {
                return Ok(());
            }
            return Err(Error::io("QEMU")(std::io::Error::other(status.to_string())));
        }
        if interrupt::asked() {
            if let Some(pid) = i32::try_from(qemu.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = qemu.wait();
            return Err(Error::Interrupted);
        }
        std::thread::sleep(GLANCE);
    }
}
