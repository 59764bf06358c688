//! A stand-in for the kernel: raw FUSE messages over a SOCK_SEQPACKET pair. No mount, no root.
//! Layouts are those of include/uapi/linux/fuse.h.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use tempfile::TempDir;
use virtfs_mediator_core::policy::Policy;
use virtfs_mediator_core::{
    AuditTo, Cache, DataMode, ServeError, Service, Submounts, ViewMode, serve,
};

/// Opcodes (`enum fuse_opcode`).
pub(crate) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const BMAP: u32 = 37;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
}

pub(crate) const ROOT: u64 = 1;

/// A message's body, field by field.
#[derive(Default, Clone)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }
    /// A NUL-terminated name.
    pub(crate) fn name(self, value: &[u8]) -> Self {
        self.bytes(value).bytes(b"\0")
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    /// 0 or a positive errno.
    pub(crate) errno: i32,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn u64_at(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.body[at..at + 8].try_into().unwrap())
    }
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.body[at..at + 4].try_into().unwrap())
    }
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.errno, 0);
        self
    }
    /// The node id of an entry reply.
    #[track_caller]
    pub(crate) fn node(self) -> u64 {
        self.ok().u64_at(0)
    }
}

/// A served view without a kernel.
pub(crate) struct View {
    socket: OwnedFd,
    unique: Cell<u64>,
    /// Code and body of each notification (`enum fuse_notify_code`).
    pub(crate) notices: RefCell<Vec<(i32, Vec<u8>)>>,
    served: Option<JoinHandle<Result<(), ServeError>>>,
    dir: TempDir,
    run: TempDir,
}

impl View {
    pub(crate) fn start() -> Self {
        Self::with(Policy::parity(), Cache::Auto)
    }

    pub(crate) fn with(policy: Policy, cache: Cache) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        Self::of(dir, &root, policy, cache)
    }

    /// Whose data may go past the mediator, by this registrar; its end, too, where the kernel does
    /// not offer that.
    pub(crate) fn passing(
        data: DataMode,
        cache: Cache,
        registrar: OwnedFd,
        offered: bool,
    ) -> (Self, Reply) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let view = Self::serving(
            dir,
            &root,
            (Policy::parity(), cache),
            (data, Some(registrar)),
        );
        let init = view.init(if offered { u32::MAX } else { !(1 << 5) });
        (view, init)
    }

    /// Of a directory that was there before.
    pub(crate) fn over(root: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::of(dir, root, Policy::parity(), Cache::Auto)
    }

    fn of(dir: TempDir, root: &Path, policy: Policy, cache: Cache) -> Self {
        let view = Self::serving(dir, root, (policy, cache), (DataMode::Mediated, None));
        view.init(u32::MAX);
        view
    }

    fn serving(
        dir: TempDir,
        root: &Path,
        (policy, cache): (Policy, Cache),
        (data, registrar): (DataMode, Option<OwnedFd>),
    ) -> Self {
        let run = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(run.path().join("control")).unwrap();
        let (socket, device) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let patience = Some(std::time::Duration::from_secs(20));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience).unwrap();
        let path = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).unwrap()
        };
        let service = Service {
            device,
            root: path(root),
            proc_fd: path(Path::new("/proc/self/fd")),
            control: Some(listener.into()),
            policy,
            submounts: Submounts::Refuse,
            cache,
            mode: ViewMode::Client,
            debug: false,
            audit: AuditTo::Log,
            view: "test".to_owned(),
            max_descriptors: 64,
            threads: 1,
            data,
            registrar,
        };
        let served = std::thread::spawn(move || serve(service, || ()));
        Self {
            socket,
            unique: Cell::new(0),
            notices: RefCell::default(),
            served: Some(served),
            dir,
            run,
        }
    }

    /// `second`: the flags from bit 32 on.
    fn init(&self, second: u32) -> Reply {
        let mut init = Body::new()
            .u32(7)
            .u32(40)
            .u32(1 << 17)
            .u32(u32::MAX)
            .u32(second);
        for _ in 0..11 {
            init = init.u32(0);
        }
        let reply = self.ask(op::INIT, 0, init).ok();
        assert_eq!(reply.u32_at(0), 7);
        reply
    }

    /// How it ends where the mediator ends by itself.
    pub(crate) fn ended(mut self) -> Result<(), ServeError> {
        self.served.take().unwrap().join().unwrap()
    }

    /// A connection to the control socket.
    pub(crate) fn control(&self) -> UnixStream {
        UnixStream::connect(self.run.path().join("control")).unwrap()
    }

    /// A file's path on the host's side.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a request and returns its number.
    pub(crate) fn send(&self, opcode: u32, node: u64, body: &Body) -> u64 {
        let unique = self.unique.get() + 2;
        self.unique.set(unique);
        let len = u32::try_from(40 + body.0.len()).unwrap();
        // The ids are our own, so that the export accepts what we make.
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let message = Body::new()
            .u32(len)
            .u32(opcode)
            .u64(unique)
            .u64(node)
            .u32(uid.as_raw())
            .u32(gid.as_raw())
            .u32(0)
            .u32(0)
            .bytes(&body.0);
        send(&self.socket, &message.0, SendFlags::NOSIGNAL).unwrap();
        unique
    }

    pub(crate) fn ask(&self, opcode: u32, node: u64, body: Body) -> Reply {
        let unique = self.send(opcode, node, &body);
        let (answered, reply) = self.receive();
        assert_eq!(answered, unique, "answer to another request than {opcode}");
        reply
    }

    /// The next answer, and which request it is to. Notifications are put aside.
    pub(crate) fn receive(&self) -> (u64, Reply) {
        loop {
            let mut buf = vec![0; 1 << 21];
            let (count, _) = recv(&self.socket, &mut buf[..], RecvFlags::empty()).unwrap();
            buf.truncate(count);
            assert!(count >= 16, "the connection ended");
            let error = i32::from_ne_bytes(buf[4..8].try_into().unwrap());
            let answered = u64::from_ne_bytes(buf[8..16].try_into().unwrap());
            let body = buf.split_off(16);
            if answered != 0 {
                let errno = -error;
                return (answered, Reply { errno, body });
            }
            self.notices.borrow_mut().push((error, body));
        }
    }

    /// FORGET has no answer.
    pub(crate) fn forget(&self, node: u64, count: u64) {
        self.send(op::FORGET, node, &Body::new().u64(count));
    }

    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Reply {
        self.ask(op::LOOKUP, parent, Body::new().name(name))
    }

    pub(crate) fn getattr(&self, node: u64) -> Reply {
        self.ask(op::GETATTR, node, Body::new().u32(0).u32(0).u64(0))
    }

    /// Node and handle of a new file.
    pub(crate) fn create(&self, name: &[u8]) -> (u64, u64) {
        let flags = u32::try_from(libc::O_RDWR | libc::O_CREAT).unwrap();
        let body = Body::new()
            .u32(flags)
            .u32(0o100_644)
            .u32(0o22)
            .u32(0)
            .name(name);
        let reply = self.ask(op::CREATE, ROOT, body).ok();
        // fuse_entry_out is 128 bytes.
        (reply.u64_at(0), reply.u64_at(128))
    }

    pub(crate) fn write(&self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Reply {
        let size = u32::try_from(data.len()).unwrap();
        let body = Body::new()
            .u64(handle)
            .u64(offset)
            .u32(size)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        self.ask(op::WRITE, node, body.bytes(data))
    }

    pub(crate) fn read(&self, node: u64, handle: u64, offset: u64, size: u32) -> Reply {
        let body = Body::new()
            .u64(handle)
            .u64(offset)
            .u32(size)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        self.ask(op::READ, node, body)
    }

    /// The root's handle, or 0 where READDIR does without.
    pub(crate) fn open_root(&self) -> u64 {
        let reply = self.ask(op::OPENDIR, ROOT, Body::new().u32(0).u32(0));
        if reply.errno == libc::ENOSYS {
            return 0;
        }
        reply.ok().u64_at(0)
    }

    /// Part of the root's listing.
    pub(crate) fn readdir(&self, opcode: u32, handle: u64, cookie: u64, size: u32) -> Reply {
        let body = Body::new()
            .u64(handle)
            .u64(cookie)
            .u32(size)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        self.ask(opcode, ROOT, body)
    }

    /// Proves that the view still answers.
    #[track_caller]
    pub(crate) fn still_serves(&self) {
        self.getattr(ROOT).ok();
    }

    /// Ends the connection and returns how serving ended.
    pub(crate) fn end(mut self) -> Result<(), ServeError> {
        self.ask(op::DESTROY, 0, Body::new());
        self.served.take().unwrap().join().unwrap()
    }
}
