//! Workloads of 9p requests to stock QEMU, driven without a guest.

mod chains;
mod work;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use virtfs_p9::{Export, Ids, Launch, Machine, ProxyHelper, Qemu, Session};

use crate::contender::Contender;
use crate::error::{Error, Result, at};
use crate::mounts::{Size, make_open, small_files};
use crate::place::{Place, set_mode};
use crate::results::{Group, Unit};
use crate::seat::{CLIENT, run_words};
use crate::server::Server;

pub(crate) use work::Kind;

/// Requests in flight, of each workload.
pub(crate) const DEPTHS: [usize; 4] = [1, 8, 32, 128];

/// Small files to walk to.
const FILES: usize = 1000;

/// Where a row belongs.
pub(crate) const GROUP: Group = Group::P9;

/// A workload at one depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    pub(crate) depth: usize,
}

impl Workload {
    /// The row's title; a create's is also its unlink's.
    pub(crate) fn titles(self) -> Vec<String> {
        let depth = self.depth;
        let titles = self.kind.titles();
        titles
            .iter()
            .map(|title| format!("{title}, depth {depth}"))
            .collect()
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Workload> {
    let kinds = Kind::ALL.into_iter();
    kinds
        .flat_map(|kind| DEPTHS.map(|depth| Workload { kind, depth }))
        .collect()
}

/// What the workloads find: a directory for each contender, since they are there at the same time,
/// and none may change what another one's kernel remembers.
pub(crate) fn prepare(place: &Place, contenders: &[Contender], size: Size) -> Result<()> {
    contenders
        .iter()
        .try_for_each(|contender| prepare_home(&place.export().join(home(contender)), size))
}

/// The directory of one contender.
pub(crate) fn prepare_home(home: &Path, size: Size) -> Result<()> {
    make_open(home)?;
    make_open(&home.join("new"))?;
    small_files(&home.join("small"), FILES)?;
    let large = home.join("large");
    let octets = usize::try_from(size.large_9p()).unwrap_or(usize::MAX);
    fs::write(&large, vec![b'l'; octets]).map_err(at("writing", &large))?;
    set_mode(&large, 0o666)
}

fn home(contender: &Contender) -> PathBuf {
    PathBuf::from(format!("p9-{contender}").replace(['/', ':'], "-"))
}

/// A QEMU that serves the export in a contender's way, and a session with it.
pub(crate) struct Seat {
    contender: String,
    home: PathBuf,
    session: Session,
    machine: Machine,
    view: Option<String>,
    // After the machine: dropped when QEMU is gone.
    _helper: Option<ProxyHelper>,
    mirror: Option<Server>,
}

impl Seat {
    /// Starts it.
    pub(crate) fn take(contender: &Contender, place: &Place) -> Result<Self> {
        let failed = |source| Error::P9 {
            contender: contender.to_string(),
            source,
        };
        let export = place.export();
        let mut launch = Launch::new();
        let (mut helper, mut view, mut mirror) = (None, None, None);
        let share = match contender {
            Contender::Proxy => {
                let started = ProxyHelper::start(&export, Ids::ROOT).map_err(failed)?;
                let share = Export::proxy("share", started.socket());
                helper = Some(started);
                share
            }
            Contender::Bindfs | Contender::PassthroughHp => {
                // All are there at the same time.
                let at_point = place.root().join(home(contender));
                fs::create_dir_all(&at_point).map_err(at("making", &at_point))?;
                let log = File::create(place.log()).map_err(at("making", &place.log()))?;
                mirror = Some(Server::start(contender, place, at_point.clone(), &log)?);
                Export::local("share", at_point)
            }
            Contender::Native | Contender::View(_) => Export::local("share", export.clone()),
        };
        if let Contender::View(mode) = contender {
            let (words, name): (Vec<OsString>, _) = run_words(mode, &export, &[]);
            launch = launch.wrapper(words, CLIENT);
            view = Some(name);
        }
        // The guest's memory is a file: it should not be written to a disk meanwhile.
        if is_tmpfs(Path::new("/dev/shm")) {
            launch = launch.scratch_in("/dev/shm");
        }
        let qemu = Qemu::new().export(share).arg("-msg").arg("timestamp=off");
        let machine = Machine::boot(&qemu, &launch).map_err(failed)?;
        let session = machine.session("share").map_err(failed)?;
        Ok(Self {
            contender: contender.to_string(),
            home: home(contender),
            session,
            machine,
            view,
            _helper: helper,
            mirror,
        })
    }

    /// The view's name, of ours.
    pub(crate) fn view(&self) -> Option<&str> {
        self.view.as_deref()
    }

    /// Does a workload: a rate for each row.
    pub(crate) fn perform(
        &mut self,
        workload: Workload,
        size: Size,
    ) -> Result<Vec<(String, Unit, f64)>> {
        let samples = work::perform(&mut self.session, &self.home, workload, size);
        let samples = samples.map_err(|source| Error::P9 {
            contender: self.contender.clone(),
            source,
        })?;
        let unit = Unit::Operations;
        let rates = samples.iter().map(crate::task::Sample::rate);
        Ok(workload
            .titles()
            .into_iter()
            .zip(rates)
            .map(|(title, rate)| (title, unit, rate))
            .collect())
    }

    /// Has something done with the session.
    pub(crate) fn drive(
        &mut self,
        work: impl FnOnce(&mut Session) -> virtfs_p9::Result<()>,
    ) -> Result<()> {
        work(&mut self.session).map_err(|source| Error::P9 {
            contender: self.contender.clone(),
            source,
        })
    }

    /// Ends QEMU and what it works on, and waits for both.
    pub(crate) fn leave(self) -> Result<()> {
        let ended = self.machine.stop();
        ended.map_err(|source| Error::P9 {
            contender: self.contender,
            source,
        })?;
        self.mirror.map_or(Ok(()), Server::stop)
    }
}

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}
