//! From a fuzzer's bytes to requests.

use super::known::Known;
use crate::export::{ACTS, Act};
use crate::input::Input;
use crate::names;
use crate::scratch::Scratch;
use crate::wire::{Body, message, op};

/// Larger replies would not fit into the socket.
const READ_MAX: u32 = 128 << 10;
const LIST_MAX: u32 = 64 << 10;
const WRITE_MAX: u32 = 64 << 10;

/// One step of an input.
#[derive(Debug)]
pub(super) enum Step {
    /// A request that is answered.
    Ask(Request),
    /// FORGET or BATCH_FORGET: nodes with counts.
    Forget(Vec<(u64, u64)>, bool),
    /// Bytes in place of a message.
    Raw(Vec<u8>),
    /// The host's doing.
    Host(Act, usize, usize),
}

/// A request, and what the judge has to know of it.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) opcode: u32,
    pub(super) node: u64,
    pub(super) body: Body,
    /// The names in it.
    pub(super) names: Vec<Vec<u8>>,
    /// The nodes that it is about.
    pub(super) nodes: Vec<u64>,
    /// The handles that it works through.
    pub(super) handles: Vec<u64>,
    /// The most bytes that may be answered or told as done.
    pub(super) most: u64,
    /// Not one that the mediator serves: fuser's ENOSYS is in order.
    pub(super) foreign: bool,
}

/// Takes requests out of an input.
pub(super) struct Maker<'i, 'd> {
    pub(super) input: &'i mut Input<'d>,
    pub(super) known: &'i Known,
    pub(super) scratch: &'i Scratch,
    /// Whether bytes in place of messages are wanted: they cost a view each.
    pub(super) with_raw: bool,
}

impl Maker<'_, '_> {
    pub(super) fn step(&mut self) -> Step {
        match self.input.byte() {
            249..=253 if self.with_raw => Step::Raw(self.any_body()),
            254..=255 if self.with_raw => Step::Raw(self.input.bytes(255).to_vec()),
            asked @ (0..=219 | 249..=255) => Step::Ask(self.request(asked)),
            220..=229 => Step::Forget(vec![(self.node(), self.input.number())], false),
            230..=233 => {
                let count = self.input.choose(4);
                let one = |_| (self.known.pick_node(self.input), self.input.number());
                Step::Forget((0..count).map(one).collect(), true)
            }
            234..=248 => {
                let act = self.input.of(&ACTS);
                Step::Host(act, self.input.choose(256), self.input.choose(256))
            }
        }
    }

    fn request(&mut self, asked: u8) -> Request {
        match asked % 43 {
            0..=2 => self.named(op::LOOKUP, Body::new()),
            3 => self.getattr(),
            4 | 5 => self.setattr(),
            6 => self.of_node(op::READLINK, |_| Body::new()),
            7 => {
                let mut made = self.named(op::SYMLINK, Body::new());
                let target = names::pick(self.input, self.scratch);
                made.body = made.body.name(&target);
                made
            }
            8 => {
                let mode = self.mode();
                let rdev = self.input.number32();
                self.named(op::MKNOD, Body::new().u32(mode).u32(rdev).u32(0).u32(0))
            }
            9 => {
                let mode = self.input.number32();
                self.named(op::MKDIR, Body::new().u32(mode).u32(0))
            }
            10 => self.named(op::UNLINK, Body::new()),
            11 => self.named(op::RMDIR, Body::new()),
            12 => self.rename(op::RENAME),
            13 => self.rename(op::RENAME2),
            14 => {
                let old = self.node();
                let mut made = self.named(op::LINK, Body::new().u64(old));
                made.nodes.push(old);
                made
            }
            15 | 16 => {
                let flags = self.open_flags();
                self.of_node(op::OPEN, |_| Body::new().u32(flags).u32(0))
            }
            17 => self.read(op::READ, READ_MAX),
            18 => self.write(),
            19 => self.of_node(op::STATFS, |_| Body::new()),
            20 => self.release(op::RELEASE),
            21 => self.by_handle(op::FSYNC, |it, fh| {
                Body::new().u64(fh).u32(it.number32()).u32(0)
            }),
            22 => self.setxattr(),
            23 => {
                let size = self.value_size();
                let mut made = self.xattr(op::GETXATTR, Body::new().u32(size).u32(0));
                made.most = size.into();
                made
            }
            24 => {
                let size = self.value_size();
                let mut made = self.of_node(op::LISTXATTR, |_| Body::new().u32(size).u32(0));
                made.most = size.into();
                made
            }
            25 => self.xattr(op::REMOVEXATTR, Body::new()),
            26 => self.by_handle(op::FLUSH, |_, fh| Body::new().u64(fh).u32(0).u32(0).u64(0)),
            27 | 28 => self.of_node(op::OPENDIR, |_| Body::new().u32(0).u32(0)),
            29 => self.read(op::READDIR, LIST_MAX),
            30 => self.read(op::READDIRPLUS, LIST_MAX),
            31 => self.release(op::RELEASEDIR),
            32 => self.by_handle(op::FSYNCDIR, |it, fh| {
                Body::new().u64(fh).u32(it.number32()).u32(0)
            }),
            33 => self.of_node(op::ACCESS, |it| Body::new().u32(it.number32()).u32(0)),
            34 | 35 => self.create(),
            36 => self.by_handle(op::FALLOCATE, |it, fh| {
                let (offset, length) = (it.number(), it.number());
                Body::new()
                    .u64(fh)
                    .u64(offset)
                    .u64(length)
                    .u32(it.number32())
                    .u32(0)
            }),
            37 => self.by_handle(op::LSEEK, |it, fh| {
                let offset = it.number();
                Body::new().u64(fh).u64(offset).u32(it.number32()).u32(0)
            }),
            38 => self.copy(),
            39 => self.lock(),
            40 => self.ioctl(),
            41 => self.of_node(op::BMAP, |it| {
                Body::new().u64(it.number()).u32(it.number32()).u32(0)
            }),
            _ => self.foreign(),
        }
    }

    fn node(&mut self) -> u64 {
        self.known.pick_node(self.input)
    }

    fn of_node(&mut self, opcode: u32, body: impl FnOnce(&mut Input<'_>) -> Body) -> Request {
        let node = self.node();
        Request {
            opcode,
            node,
            body: body(self.input),
            nodes: vec![node],
            ..Request::default()
        }
    }

    fn named(&mut self, opcode: u32, body: Body) -> Request {
        let name = names::pick(self.input, self.scratch);
        let mut made = self.of_node(opcode, |_| body.name(&name));
        made.names.push(name);
        made
    }

    fn rename(&mut self, opcode: u32) -> Request {
        let to = self.node();
        let mut body = Body::new().u64(to);
        if opcode == op::RENAME2 {
            body = body
                .u32(self.input.of(&[0, 1, 2, 3, 4, 8, u32::MAX]))
                .u32(0);
        }
        let mut made = self.named(opcode, body);
        let new = names::pick(self.input, self.scratch);
        made.body = made.body.name(&new);
        made.names.push(new);
        made.nodes.push(to);
        made
    }

    /// The handle's own node goes into the header, as the kernel has it; where a node is read by itself (0), any.
    fn by_handle(
        &mut self,
        opcode: u32,
        body: impl FnOnce(&mut Input<'_>, u64) -> Body,
    ) -> Request {
        let handle = self.known.pick_handle(self.input);
        let by_node = matches!(opcode, op::READDIR | op::READDIRPLUS | op::FSYNCDIR);
        let any = (handle == 0 && by_node).then(|| self.node());
        let own = self.known.by_handle(handle).map(|open| open.node);
        Request {
            opcode,
            node: any.or(own).unwrap_or(1),
            body: body(self.input, handle),
            nodes: any.into_iter().collect(),
            handles: vec![handle],
            ..Request::default()
        }
    }

    fn release(&mut self, opcode: u32) -> Request {
        self.by_handle(opcode, |it, fh| {
            Body::new().u64(fh).u32(0).u32(it.number32()).u64(0)
        })
    }

    fn getattr(&mut self) -> Request {
        if self.input.byte() & 1 == 0 {
            return self.of_node(op::GETATTR, |_| Body::new().u32(0).u32(0).u64(0));
        }
        let handle = self.known.pick_handle(self.input);
        let mut made = self.of_node(op::GETATTR, |_| Body::new().u32(1).u32(0).u64(handle));
        made.handles.push(handle);
        made
    }

    fn setattr(&mut self) -> Request {
        // FATTR_MODE to FATTR_CTIME.
        let valid = u32::from(self.input.byte()) | u32::from(self.input.byte() & 7) << 8;
        let handle = self.known.pick_handle(self.input);
        let size = if valid & 8 == 0 {
            0
        } else {
            self.input.number()
        };
        let mut time = |asked: u32| {
            if valid & asked == 0 {
                return (0, 0);
            }
            let seconds = self.input.number();
            // fuser negates the seconds: the kernel does not let the one through that has no
            // negative (it keeps times within what the file system can hold, and whole at the end).
            let seconds = if seconds == 1 << 63 { 0 } else { seconds };
            (seconds, self.input.number32() % 1_000_000_000)
        };
        let (atime, mtime, ctime) = (time(16), time(32), time(1024));
        let mode = self.mode();
        let owner = |it: &mut Input<'_>| match it.byte() {
            0..=99 => crate::scratch::client().uid,
            100..=149 => 0,
            150..=199 => u32::MAX,
            200..=255 => it.number32(),
        };
        let (uid, gid) = (owner(self.input), owner(self.input));
        let body = Body::new().u32(valid).u32(0).u64(handle).u64(size).u64(0);
        let body = body
            .u64(atime.0)
            .u64(mtime.0)
            .u64(ctime.0)
            .u32(atime.1)
            .u32(mtime.1)
            .u32(ctime.1);
        let body = body.u32(mode).u32(0).u32(uid).u32(gid).u32(0);
        let mut made = self.of_node(op::SETATTR, |_| body);
        // FATTR_FH
        if valid & 64 != 0 {
            made.handles.push(handle);
        }
        made
    }

    fn mode(&mut self) -> u32 {
        let kind = self.input.of(&[
            0o100_000, 0, 0o010_000, 0o140_000, 0o020_000, 0o060_000, 0o040_000, 0o120_000,
            0o170_000,
        ]);
        let low = u32::from(self.input.byte());
        kind | low << 4 | low & 0o7
    }

    fn open_flags(&mut self) -> u32 {
        let usual = [
            0,
            1,
            2,
            0o1002,
            0o2002,
            0o3001,
            3,
            0o4000,
            0o200_000,
            0o10_000_000,
            0o4_010_002,
        ];
        match self.input.byte() {
            flags @ 0..=250 => usual[usize::from(flags) % usual.len()],
            251..=255 => self.input.number32(),
        }
    }

    fn create(&mut self) -> Request {
        let flags = self.open_flags() | self.input.of(&[0o100, 0o300]);
        let mode = self.mode();
        self.named(op::CREATE, Body::new().u32(flags).u32(mode).u32(0).u32(0))
    }

    fn read(&mut self, opcode: u32, max: u32) -> Request {
        let offset = self.input.number();
        let size = match self.input.number32() {
            // More than a mediator answers is refused; in between, it would not fit the socket.
            size if size > max && (opcode != op::READ || size <= 1 << 20) => size % max,
            size => size,
        };
        let mut made = self.by_handle(opcode, |_, fh| {
            Body::new()
                .u64(fh)
                .u64(offset)
                .u32(size)
                .u32(0)
                .u64(0)
                .u32(0)
                .u32(0)
        });
        made.most = size.into();
        made
    }

    fn write(&mut self) -> Request {
        let offset = self.input.number();
        let size = self.input.number32() % (WRITE_MAX + 1);
        let data = vec![self.input.byte(); size as usize];
        let mut made = self.by_handle(op::WRITE, |_, fh| {
            Body::new()
                .u64(fh)
                .u64(offset)
                .u32(size)
                .u32(0)
                .u64(0)
                .u32(0)
                .u32(0)
                .bytes(&data)
        });
        made.most = size.into();
        made
    }

    fn copy(&mut self) -> Request {
        let (from, to) = (
            self.known.pick_handle(self.input),
            self.known.pick_handle(self.input),
        );
        let (off_in, off_out, len) = (
            self.input.number(),
            self.input.number(),
            self.input.number(),
        );
        let flags = self.input.number();
        let mut made = self.of_node(op::COPY_FILE_RANGE, |_| {
            Body::new()
                .u64(from)
                .u64(off_in)
                .u64(0)
                .u64(to)
                .u64(off_out)
                .u64(len)
                .u64(flags)
        });
        // Nodes are not looked at: the handles name the files.
        made.nodes.clear();
        made.handles = vec![from, to];
        made.most = len;
        made
    }

    fn xattr(&mut self, opcode: u32, body: Body) -> Request {
        let names: [&[u8]; 6] = [
            b"user.a",
            b"user.b",
            b"security.capability",
            b"trusted.x",
            b"system.posix_acl_access",
            b"",
        ];
        let name = match self.input.byte() {
            usual @ 0..=199 => names[usize::from(usual) % names.len()].to_vec(),
            200..=255 => names::pick(self.input, self.scratch),
        };
        self.of_node(opcode, |_| body.name(&name))
    }

    /// Room for an attribute: none, for the last one that was set but for a byte, or any.
    fn value_size(&mut self) -> u32 {
        match self.input.byte() {
            0..=63 => 0,
            near @ 64..=127 => (self.known.value_size + u32::from(near % 3)).saturating_sub(1),
            128..=255 => self.input.number32(),
        }
    }

    fn setxattr(&mut self) -> Request {
        let size = self.input.number32() % 70_000;
        let flags = self.input.of(&[0, 1, 2, 3, 4, u32::MAX]);
        let mut made = self.xattr(op::SETXATTR, Body::new().u32(size).u32(flags));
        made.body = made.body.bytes(&vec![b'v'; size as usize]);
        made.most = size.into();
        made
    }

    fn lock(&mut self) -> Request {
        let opcode = self.input.of(&[op::GETLK, op::SETLK, op::SETLKW]);
        self.by_handle(opcode, |it, fh| {
            let (owner, start, end) = (it.number(), it.number(), it.number());
            let body = Body::new().u64(fh).u64(owner).u64(start).u64(end);
            body.u32(it.number32()).u32(0).u32(0).u32(0)
        })
    }

    fn ioctl(&mut self) -> Request {
        self.by_handle(op::IOCTL, |it, fh| {
            // FUSE_IOCTL_UNRESTRICTED (2) is for character devices of user space.
            let flags = it.number32() & !2;
            let (command, data) = (it.number32(), it.bytes(64));
            let size = u32::try_from(data.len()).unwrap_or(0);
            let body = Body::new().u64(fh).u32(flags).u32(command).u64(it.number());
            body.u32(size).u32(it.number32()).bytes(data)
        })
    }

    /// What the mediator does not serve.
    fn foreign(&mut self) -> Request {
        let opcode = match self.input.byte() {
            0..=39 => op::INIT,
            40..=79 => op::INTERRUPT,
            80..=119 => op::POLL,
            120..=159 => op::NOTIFY_REPLY,
            // SETUPMAPPING to STATX, those between and beyond.
            160..=219 => 48 + u32::from(self.input.byte() % 16),
            220..=255 => self.input.number32().max(48),
        };
        let mut made = self.of_node(opcode, |it| Body::new().bytes(it.bytes(96)));
        made.nodes.clear();
        made.foreign = true;
        made
    }

    /// A header that is right and a body that is anything.
    fn any_body(&mut self) -> Vec<u8> {
        let opcode = u32::from(self.input.byte() % 48);
        let node = self.node();
        message(
            opcode,
            2,
            node,
            crate::scratch::client(),
            self.input.bytes(255),
        )
    }
}
