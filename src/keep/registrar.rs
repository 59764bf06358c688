//! The registrar: makes files of the export known to the kernel, so that it reads and writes them
//! itself (FUSE passthrough). One a view whose file data may go past its mediator.
//!
//! `FUSE_DEV_IOC_BACKING_OPEN` needs CAP_SYS_ADMIN in the first user namespace, so this process has
//! it, and nothing else: no other capability, no file but the view's device and one end of a socket,
//! and no system call but those of [`calls::REGISTRAR`]. It takes a descriptor, looks at what
//! statx(2) says of it, and asks the kernel. It reads no file and sees no name.
//!
//! The kernel reads and writes a file that was registered with the credentials of whoever registered
//! it (`backing_file_open`, fs/backing-file.c), hence these: not fsuid 0, which may use the blocks
//! that ext4 keeps for root; no FSETID, so that a write clears set-id bits; no RESOURCE, so that
//! quotas hold; and a Landlock domain in which files below the export alone can be opened.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use caps::{CapSet, Capability};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags};
use virtfs_mediator_core::backing::protocol::{self, QUESTION, Question};

use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::landlock::{self, Room};
use crate::launch::seccomp::{self, Verdict};
use crate::launch::walls::{self, Silence};
use crate::launch::{calls, namespace};
use crate::report::Reporter;
use crate::sys;

/// The most files that are known to the kernel at once.
const IDS_MAX: usize = 4096;

/// How long a mediator waits for its registrar. A registration takes microseconds; one that was
/// stopped must not stop the view.
const PATIENCE: TimeVal = TimeVal::new(1, 0);

/// A socket between mediator and registrar, in this order; datagrams, so that a question and its
/// descriptor stay together.
pub(crate) fn channel() -> Result<(OwnedFd, OwnedFd)> {
    let failed = |call: &'static str| {
        move |errno: nix::errno::Errno| Error::step(Class::Confinement, call, errno)
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let (mediator, registrar) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(failed("socketpair(AF_UNIX)"))?;
    setsockopt(&mediator, sockopt::ReceiveTimeout, &PATIENCE)
        .and_then(|()| setsockopt(&mediator, sockopt::SendTimeout, &PATIENCE))
        .map_err(failed("setsockopt(SO_RCVTIMEO, SO_SNDTIMEO)"))?;
    Ok((mediator, registrar))
}

/// What a registrar is started with.
pub(crate) struct Start<'a> {
    pub(crate) common: &'a Common<'a>,
    /// The export: what may be registered lies below it.
    pub(crate) tree: BorrowedFd<'a>,
    /// The view's connection.
    pub(crate) device: BorrowedFd<'a>,
    /// Its end of the socket to the mediator.
    pub(crate) socket: OwnedFd,
}

/// The same for all registrars of a start.
pub(crate) struct Common<'a> {
    /// The mediator's: backing I/O has them.
    pub(crate) ids: &'a Ids,
    pub(crate) log: BorrowedFd<'a>,
    pub(crate) reporter: &'a Reporter,
    pub(crate) verdict: Verdict,
    /// Whose child it is.
    pub(crate) keeper: Pid,
    /// Whether what comes in is looked at.
    pub(crate) looks: bool,
}

/// Runs in the process that the keeper forked; never returns. It ends when its mediator is gone. A
/// byte to `walled` says that all walls stand but the last.
pub(crate) fn registrar(start: Start<'_>, walled: OwnedFd) -> ! {
    let raised = raise_walls(&start, &walled);
    let ended = raised.and_then(|export| {
        confine(&start, walled)?;
        let mut connection = Connection {
            device: start.device,
            registered: [0; IDS_MAX],
            count: 0,
        };
        serve(
            &start.socket,
            &mut connection,
            start.common.looks.then_some(export),
        );
        Ok(())
    });
    // Nothing is dropped on the way: `close` is allowed for what comes in alone.
    sys::exit_now(ended.map_or_else(|error| error.class().status(), |()| 0))
}

/// Everything that it gives up; the id of the view's own mount of the export.
fn raise_walls(start: &Start<'_>, walled: &OwnedFd) -> Result<u64> {
    let raised = give_up(start);
    if let Err(error) = &raised {
        start.common.reporter.fail(error);
    }
    let mount = raised?;
    let keep = [
        start.socket.as_raw_fd(),
        start.device.as_raw_fd(),
        walled.as_raw_fd(),
    ];
    sys::close_all_but(&keep)
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    Ok(mount)
}

fn give_up(start: &Start<'_>) -> Result<u64> {
    let failed =
        |call: &'static str| move |errno: Errno| Error::step(Class::Confinement, call, errno);
    walls::leave_terminal()?;
    sys::forget_environment();
    let (_, mount) = look(start.tree).map_err(failed("statx(export)"))?;
    let root = namespace::empty_root()?;
    namespace::enter_empty(&root)?;
    take_ids(start.common.ids)?;
    walls::limit_resources()?;
    walls::reduce_to(&[Capability::CAP_SYS_ADMIN])?;
    walls::not_dumpable()?;
    // Behind the change of ids, which clears it (prctl(2)). Whoever died before that is not noticed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| Error::step(Class::Confinement, "prctl(PR_SET_PDEATHSIG)", errno))?;
    if nix::unistd::getppid() != start.common.keeper {
        return Err(Error::new(Class::Confinement, "the keeper is gone", ""));
    }
    // With --debug a call that is not listed is told: in the log, not to the caller's own file.
    walls::silence(Silence::of(start.common.verdict))?;
    if start.common.verdict == Verdict::Tell {
        rustix::stdio::dup2_stderr(start.common.log).map_err(failed("dup2(log)"))?;
    }
    // What this kernel lacks, the mediator tells.
    landlock::restrict_to(Room::Backing(start.tree), &root)?;
    Ok(mount)
}

/// The last wall, around what is left.
fn confine(start: &Start<'_>, walled: OwnedFd) -> Result<()> {
    let failed = |errno: Errno| Error::step(Class::Confinement, "write(pipe)", errno);
    rustix::io::write(&walled, b"w").map_err(failed)?;
    drop(walled);
    let came_in = next_number()?;
    // A second one has no number: the kernel lets go of it.
    walls::limit_descriptors_to(came_in)?;
    let given = [start.socket.as_raw_fd(), start.device.as_raw_fd(), came_in];
    seccomp::confine_around(&calls::REGISTRAR, &given, start.common.verdict)
}

/// The number that the next descriptor gets: the lowest that is free.
fn next_number() -> Result<RawFd> {
    let probe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0)
        .map_err(|errno| Error::step(Class::Confinement, "fcntl(F_DUPFD_CLOEXEC)", errno))?;
    Ok(probe.as_raw_fd())
}

/// Real and saved uid 0, so that the keeper may kill it without a capability (kill(2)); effective
/// and file system's uid and all gids the mediator's.
fn take_ids(ids: &Ids) -> Result<()> {
    let failed = |call: &'static str| {
        move |errno: nix::errno::Errno| Error::step(Class::Confinement, call, errno)
    };
    let (root, uid, gid) = (
        Uid::from_raw(0),
        Uid::from_raw(ids.uid),
        Gid::from_raw(ids.gid),
    );
    setgroups(&[]).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    // The permitted set stays, since the real uid does; the effective one goes (capabilities(7)).
    setresuid(root, uid, root).map_err(failed("setresuid"))?;
    let permitted = caps::read(None, CapSet::Permitted)
        .map_err(|error| Error::step(Class::Confinement, "capget", error))?;
    caps::set(None, CapSet::Effective, &permitted)
        .map_err(|error| Error::step(Class::Confinement, "capset", error))
}

/// The view's connection as the registrar uses it.
struct Connection<'a> {
    device: BorrowedFd<'a>,
    /// Ids that were handed out and not taken back: the first `count`.
    registered: [u32; IDS_MAX],
    count: usize,
}

/// What makes files known and lets go of them; the kernel, but for tests.
trait Kernel {
    fn open(&mut self, file: BorrowedFd<'_>) -> std::result::Result<u32, Errno>;
    fn close(&mut self, id: u32);
}

impl Kernel for Connection<'_> {
    /// EMFILE when there are as many as there may be.
    fn open(&mut self, file: BorrowedFd<'_>) -> std::result::Result<u32, Errno> {
        let free = self.registered.get_mut(self.count).ok_or(Errno::MFILE)?;
        let id = sys::backing_open(self.device, file)?;
        *free = id;
        self.count += 1;
        Ok(id)
    }

    /// An id that was not handed out is nobody's to close.
    fn close(&mut self, id: u32) {
        let held = self.registered.get(..self.count).unwrap_or_default();
        let Some(at) = held.iter().position(|held| *held == id) else {
            return;
        };
        self.count -= 1;
        self.registered.swap(at, self.count);
        // It was open: the kernel has no reason to refuse.
        let _refused = sys::backing_close(self.device, id);
    }
}

/// Registers files of this mount, if it is to look at that. Answers until the other end is closed, or speaks in a way that no mediator does.
fn serve(socket: &OwnedFd, kernel: &mut impl Kernel, mount: Option<u64>) {
    loop {
        let asked = match receive(socket) {
            Ok(Some(asked)) => asked,
            Ok(None) => return,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let answer = match asked {
            Asked::Open(file) => mount
                .map_or(Ok(()), |mount| is_file_of(&file, mount))
                .and_then(|()| kernel.open(file.as_fd())),
            Asked::Close(id) => {
                kernel.close(id);
                continue;
            }
            Asked::Nonsense => Err(Errno::INVAL),
        };
        let answer = protocol::answer(answer.map_err(Errno::raw_os_error));
        if rustix::net::send(socket, &answer, SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

/// One message.
enum Asked {
    Open(OwnedFd),
    Close(u32),
    /// No question, or with more or fewer descriptors than it takes.
    Nonsense,
}

/// `None` when the mediator is gone.
fn receive(socket: &OwnedFd) -> std::result::Result<Option<Asked>, Errno> {
    // One more than a question has, so that a longer message is seen to be one.
    let mut bytes = [0; QUESTION + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut came = None;
    let mut too_many = message.flags.contains(ReturnFlags::CTRUNC);
    for part in rights.drain() {
        // Credentials come only to a socket that asked for them.
        let RecvAncillaryMessage::ScmRights(files) = part else {
            too_many = true;
            continue;
        };
        for file in files {
            too_many |= came.replace(file).is_some();
        }
    }
    if message.bytes == 0 && came.is_none() && !too_many {
        return Ok(None);
    }
    let question = bytes.get(..message.bytes).and_then(Question::parse);
    Ok(Some(match (question, came) {
        _ if too_many => Asked::Nonsense,
        (Some(Question::Open), Some(file)) => Asked::Open(file),
        (Some(Question::Close(id)), None) => Asked::Close(id),
        (Some(_) | None, _) => Asked::Nonsense,
    }))
}

/// EBADF for a descriptor that was opened by name only (`O_PATH`), EINVAL for anything but a regular
/// file, EXDEV for one that was not opened on the view's own mount of the export, be it of the same
/// file system.
fn is_file_of(file: &OwnedFd, mount: u64) -> std::result::Result<(), Errno> {
    if rustix::fs::fcntl_getfl(file)?.contains(OFlags::PATH) {
        return Err(Errno::BADF);
    }
    match look(file.as_fd())? {
        (FileType::RegularFile, its) if its == mount => Ok(()),
        (FileType::RegularFile, _) => Err(Errno::XDEV),
        _ => Err(Errno::INVAL),
    }
}

/// Type and mount of what is open. ENOSYS before Linux 5.8.
fn look(fd: BorrowedFd<'_>) -> std::result::Result<(FileType, u64), Errno> {
    let wanted = StatxFlags::TYPE | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)?;
    if found.stx_mask & wanted.bits() != wanted.bits() {
        return Err(Errno::NOSYS);
    }
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    Ok((kind, found.stx_mnt_id))
}

#[cfg(test)]
mod tests;
