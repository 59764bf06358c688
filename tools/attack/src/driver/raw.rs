//! A stand-in for the kernel: raw FUSE messages over a SOCK_SEQPACKET pair, to the core in a
//! process of its own. Layouts are those of include/uapi/linux/fuse.h.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use virtfs_mediator_core::weak::Wall;

use super::OrTell as _;
use super::process::{Spawned, holds_within, scratch};
use super::role::{CORE, word};
use super::start::line_with;

/// Opcodes (`enum fuse_opcode`).
pub(crate) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
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
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
}

pub(crate) const ROOT: u64 = 1;

/// A message's body, field by field.
#[derive(Default, Clone)]
pub(crate) struct Body(pub(crate) Vec<u8>);

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
        let bytes = self.body.get(at..at + 8);
        bytes.map_or(0, |bytes| {
            u64::from_ne_bytes(bytes.try_into().unwrap_or_default())
        })
    }

    /// The errno as a refusal, or nothing.
    pub(crate) fn ok(self) -> Result<Self, String> {
        match self.errno {
            0 => Ok(self),
            errno => Err(nix::errno::Errno::from_raw(errno).to_string()),
        }
    }

    /// The node id of an entry reply.
    pub(crate) fn node(self) -> Result<u64, String> {
        Ok(self.ok()?.u64_at(0))
    }
}

/// The core, served without a kernel and without a sandbox, as this process's user.
pub(crate) struct Raw {
    socket: OwnedFd,
    unique: Cell<u64>,
    spawned: Spawned,
}

impl Raw {
    /// With these walls switched off; `policy` is the text of a policy file, or empty.
    pub(crate) fn start(export: &Path, walls: &[Wall], policy: &str) -> Result<Self, String> {
        let (socket, device) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .or_tell("socketpair")?;
        let patience = Some(Duration::from_secs(10));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, patience)
            .or_tell("setsockopt")?;
        let words: Vec<&str> = walls.iter().map(|wall| word(*wall)).collect();
        let mut command = Command::new(std::env::current_exe().or_tell("this program's path")?);
        command
            .env(CORE, words.join(","))
            .arg(export)
            .arg(policy)
            .stdin(Stdio::from(device));
        let spawned = Spawned::start(command, scratch()?, true)?;
        let raw = Self {
            socket,
            unique: Cell::new(0),
            spawned,
        };
        let mut init = Body::new()
            .u32(7)
            .u32(40)
            .u32(1 << 17)
            .u32(u32::MAX)
            .u32(u32::MAX);
        for _ in 0..11 {
            init = init.u32(0);
        }
        raw.ask(op::INIT, 0, &init)?.ok()?;
        Ok(raw)
    }

    fn send(&self, opcode: u32, node: u64, body: &Body) -> Result<u64, String> {
        let unique = self.unique.get() + 2;
        self.unique.set(unique);
        let len = u32::try_from(40 + body.0.len()).or_tell("length")?;
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
        send(&self.socket, &message.0, SendFlags::NOSIGNAL).or_tell("send")?;
        Ok(unique)
    }

    /// One request and its answer.
    ///
    /// # Errors
    ///
    /// The core ended, or does not answer.
    pub(crate) fn ask(&self, opcode: u32, node: u64, body: &Body) -> Result<Reply, String> {
        let unique = self.send(opcode, node, body)?;
        let mut buf = vec![0; 1 << 21];
        loop {
            let (count, _) = recv(&self.socket, &mut buf[..], RecvFlags::empty())
                .or_tell("no answer from the core")?;
            let header = buf.get(..count).unwrap_or_default();
            let (Some(error), Some(answered)) = (header.get(4..8), header.get(8..16)) else {
                return Err("the core ended".to_owned());
            };
            let error = i32::from_ne_bytes(error.try_into().unwrap_or_default());
            // An older answer: of a message that the core was not expected to answer.
            if u64::from_ne_bytes(answered.try_into().unwrap_or_default()) == unique {
                return Ok(Reply {
                    errno: error.wrapping_neg(),
                    body: header.get(16..).unwrap_or_default().to_vec(),
                });
            }
        }
    }

    /// FORGET has no answer.
    pub(crate) fn forget(&self, node: u64, count: u64) -> Result<(), String> {
        self.send(op::FORGET, node, &Body::new().u64(count))
            .map(|_unique| ())
    }

    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Reply, String> {
        self.ask(op::LOOKUP, parent, &Body::new().name(name))
    }

    pub(crate) fn getattr(&self, node: u64) -> Result<Reply, String> {
        self.ask(op::GETATTR, node, &Body::new().u32(0).u32(0).u64(0))
    }

    /// OPEN; the handle.
    pub(crate) fn open(&self, node: u64, flags: i32) -> Result<Reply, String> {
        let flags = u32::try_from(flags).or_tell("flags")?;
        self.ask(op::OPEN, node, &Body::new().u32(flags).u32(0))
    }

    pub(crate) fn read(&self, node: u64, handle: u64, offset: u64) -> Result<Reply, String> {
        let body = Body::new()
            .u64(handle)
            .u64(offset)
            .u32(4096)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        self.ask(op::READ, node, &body)
    }

    /// Looks up, opens and reads a file, and gives all of it back: handles are a budget.
    pub(crate) fn fetch(&self, parent: u64, name: &[u8]) -> Result<Vec<u8>, String> {
        let node = self.lookup(parent, name)?.node()?;
        let opened = self.open(node, libc::O_RDONLY)?.ok();
        let read = opened.and_then(|opened| {
            let handle = opened.u64_at(0);
            let read = self.read(node, handle, 0)?.ok();
            let release = Body::new().u64(handle).u32(0).u32(0).u64(0);
            self.ask(op::RELEASE, node, &release)?.ok()?;
            read
        });
        self.forget(node, 1)?;
        Ok(read?.body)
    }

    /// What was told on standard error; see [`super::start::View::told`].
    pub(crate) fn told(&self, words: &[&str]) -> Option<String> {
        let mut found = None;
        holds_within(Duration::from_secs(2), || {
            found = line_with(&self.spawned.err(), words);
            found.is_some()
        });
        found
    }

    /// Whether the core still serves.
    pub(crate) fn serves(&self) -> bool {
        self.getattr(ROOT).is_ok_and(|reply| reply.errno == 0)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.spawned.pid()
    }
}
