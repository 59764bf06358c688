//! A QEMU that runs, its devices found: from here a session is opened for each mount tag.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::Process;
use crate::qemu::{FIRST_ADDRESS, Qemu};
use crate::qtest::Qtest;
use crate::scratch::{Ids, Scratch};
use crate::session::Session;
use crate::sys::GuestMemory;
use crate::virtio::{Device, footprint};
use crate::{pci, virtio};

/// How QEMU is started.
#[derive(Debug, Clone)]
pub struct Launch {
    wrapper: Vec<OsString>,
    drop_to: Option<Ids>,
    owner: Option<Ids>,
    parent: PathBuf,
    limit: Duration,
}

impl Default for Launch {
    fn default() -> Self {
        Self::new()
    }
}

impl Launch {
    /// As this process' user, directly.
    #[must_use]
    pub fn new() -> Self {
        let limit = Duration::from_secs(30);
        Self {
            wrapper: Vec::new(),
            drop_to: None,
            owner: None,
            parent: std::env::temp_dir(),
            limit,
        }
    }

    /// As another user and group, without supplementary groups; needs root.
    #[must_use]
    pub fn user(mut self, ids: Ids) -> Self {
        (self.drop_to, self.owner) = (Some(ids), Some(ids));
        self
    }

    /// Through another program, which is started as this process' user, is given QEMU's command line after its own
    /// arguments, and runs QEMU as `qemu_user`.
    #[must_use]
    pub fn wrapper<T: Into<OsString>>(
        mut self,
        command: impl IntoIterator<Item = T>,
        qemu_user: Ids,
    ) -> Self {
        self.wrapper = command.into_iter().map(Into::into).collect();
        (self.drop_to, self.owner) = (None, Some(qemu_user));
        self
    }

    /// Below which directory the scratch directory is made.
    #[must_use]
    pub fn scratch_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = parent.into();
        self
    }

    /// How long to wait for QEMU's connection, and for any answer later; 30 s if not said.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// What the machine and its sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) qtest: RefCell<Qtest>,
    process: RefCell<Process>,
    interrupt_ports: Vec<u16>,
}

impl Shared {
    /// Waits until the interrupt line changes. Its fall counts too: a request that was done between the posting of
    /// [`Shared::lower_with_next`] and its execution had its interrupt taken back with the older one.
    pub(crate) fn wait_change(&self) -> Result<()> {
        self.qtest.borrow_mut().wait_change()
    }

    /// Takes back an interrupt that is raised; false if none is.
    pub(crate) fn lower(&self) -> Result<bool> {
        let mut qtest = self.qtest.borrow_mut();
        if !qtest.is_raised() {
            return Ok(false);
        }
        self.ask_devices(&mut qtest)?;
        qtest.drain()?;
        Ok(true)
    }

    /// As [`Shared::lower`], on the way of another command. With several devices on the line it may stay raised, and
    /// the answers must be seen.
    pub(crate) fn lower_with_next(&self, qtest: &mut Qtest) -> Result<()> {
        if qtest.is_raised() && self.interrupt_ports.len() == 1 {
            self.ask_devices(qtest)?;
            qtest.assume_lowered();
        }
        Ok(())
    }

    /// Reading a device's ISR takes its interrupt back.
    fn ask_devices(&self, qtest: &mut Qtest) -> Result<()> {
        self.interrupt_ports
            .iter()
            .try_for_each(|port| qtest.post(format_args!("inb {port:#x}")))
    }

    /// Tells of QEMU's end and its words where an error is only the echo of that.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let mut process = self.process.borrow_mut();
        if let Error::Closed = error {
            let status = process.wait_end(Duration::from_secs(5)).ok().flatten();
            Error::Ended {
                status,
                output: process.output(),
            }
        } else if let Error::Timeout { step, limit, .. } = error {
            Error::Timeout {
                step,
                limit,
                output: process.output(),
            }
        } else {
            error
        }
    }
}

/// The process that made the qtest connection, in this process' namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id: QEMU's own, whatever it was started through.
    pub pid: i32,
    /// What it runs as.
    pub ids: Ids,
}

/// A running QEMU. Ended when dropped; sessions then answer [`Error::Ended`].
///
/// Machine and sessions stay in the thread that made them: QEMU gets SIGTERM when that thread ends.
#[derive(Debug)]
pub struct Machine {
    shared: Rc<Shared>,
    memory: Rc<GuestMemory>,
    devices: RefCell<Vec<Device>>,
    next_address: RefCell<u64>,
    msize: u32,
    peer: Peer,
    scratch: Scratch,
}

impl Machine {
    /// Starts QEMU and finds its 9p devices.
    ///
    /// # Errors
    /// [`Error::Spawn`], [`Error::Ended`] with what QEMU printed, [`Error::Timeout`].
    pub fn boot(qemu: &Qemu, launch: &Launch) -> Result<Self> {
        let scratch = Scratch::new_in(&launch.parent, launch.owner)?;
        let mut command = launch.wrapper.clone();
        command.extend(qemu.command(&scratch));
        // Made first: QEMU opens it as soon as it runs.
        let file = scratch.create_memory(qemu.memory())?;
        let length = usize::try_from(qemu.memory())
            .map_err(|_| Error::Protocol("msize is too large".to_owned()))?;
        let memory = Rc::new(GuestMemory::map(&file, length)?);
        let mut process = Process::start(&command, launch.drop_to, scratch.create_output()?)?;
        if !process.wait_readable(scratch.listener(), launch.limit)? {
            let status = process.wait_end(Duration::ZERO)?;
            return Err(Error::Ended {
                status,
                output: process.output(),
            });
        }
        let (stream, _) = scratch
            .listener()
            .accept()
            .map_err(Error::io("accepting QEMU's connection"))?;
        let credentials =
            rustix::net::sockopt::socket_peercred(&stream).map_err(|errno| Error::Io {
                step: "SO_PEERCRED",
                source: errno.into(),
            })?;
        let ids = Ids {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        };
        let peer = Peer {
            pid: credentials.pid.as_raw_pid(),
            ids,
        };

        let mut qtest = Qtest::new(stream, launch.limit)?;
        let found = find_devices(&mut qtest);
        let (devices, found) = found.map_or_else(
            |error| (Vec::new(), Err(error)),
            |devices| (devices, Ok(())),
        );
        let interrupt_ports = devices.iter().map(Device::interrupt_port).collect();
        let shared = Shared {
            qtest: RefCell::new(qtest),
            process: RefCell::new(process),
            interrupt_ports,
        };
        found.map_err(|error| shared.explain(error))?;
        Ok(Self {
            shared: Rc::new(shared),
            memory,
            devices: RefCell::new(devices),
            next_address: RefCell::new(FIRST_ADDRESS),
            msize: qemu.largest_message(),
            peer,
            scratch,
        })
    }

    /// Starts the device with that mount tag and agrees on the version: once for each tag.
    ///
    /// # Errors
    /// [`Error::NoSuchTag`]; any fault of the transport.
    pub fn session(&self, tag: &str) -> Result<Session> {
        let mut devices = self.devices.borrow_mut();
        let index = devices.iter().position(|device| device.tag() == tag);
        let device = index
            .map(|index| devices.swap_remove(index))
            .ok_or_else(|| Error::NoSuchTag(tag.to_owned()))?;
        let base = self
            .next_address
            .replace_with(|&mut base| base + footprint(self.msize));
        let started = device.start(
            &mut self.shared.qtest.borrow_mut(),
            Rc::clone(&self.memory),
            base,
            self.msize,
        );
        let queue: virtio::Queue = started.map_err(|error| self.shared.explain(error))?;
        Session::open(Rc::clone(&self.shared), queue)
    }

    /// Mount tags without a session so far.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.devices
            .borrow()
            .iter()
            .map(|device| device.tag().to_owned())
            .collect()
    }

    /// QEMU, as the kernel saw it connect.
    #[must_use]
    pub fn qemu(&self) -> Peer {
        self.peer
    }

    /// The pid of the process that was started: the wrapper's where there is one, else QEMU's.
    #[must_use]
    pub fn child_pid(&self) -> u32 {
        self.shared.process.borrow().id()
    }

    /// Where the socket, the guest's memory and QEMU's output are.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// What QEMU and its wrapper have printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.shared.process.borrow().output().0
    }

    /// Waits for the end of what was started: none if it does not come in time.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait(&self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.shared.process.borrow_mut().wait_end(limit)
    }

    /// Ends it by SIGTERM, after 5 s by SIGKILL, to the process that was started and no other.
    ///
    /// # Errors
    /// [`Error::Timeout`] if even SIGKILL does not end it.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.shared.process.borrow_mut().stop()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Sessions may outlive the machine; QEMU may not.
        let _ = self.stop();
    }
}

fn find_devices(qtest: &mut Qtest) -> Result<Vec<Device>> {
    let ports = pci::enable_9p_devices(qtest)?;
    ports
        .into_iter()
        .map(|port| Device::probe(qtest, port))
        .collect()
}
