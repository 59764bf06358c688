//! FUSE messages as the kernel lays them out (include/uapi/linux/fuse.h).

/// Opcodes (`enum fuse_opcode`).
pub mod op {
    #![allow(missing_docs, reason = "the names are the kernel's")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// Bytes of `struct fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// Bytes of `struct fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// Bytes of `struct fuse_entry_out`.
pub const ENTRY_OUT: usize = 128;
/// The root's node id (`FUSE_ROOT_ID`).
pub const ROOT: u64 = 1;

/// A message's body, field by field.
#[derive(Clone, Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Four bytes.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// Eight bytes.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// Bytes as they are.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    /// A NUL-terminated name. (One with a NUL in it ends there, as any message's does.)
    #[must_use]
    pub fn name(self, value: &[u8]) -> Self {
        self.bytes(value).bytes(b"\0")
    }

    /// What has been put together.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who a message says that it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A whole message with its header.
///
/// # Panics
///
/// If the body is longer than 32 bits can tell.
#[must_use]
pub fn message(opcode: u32, unique: u64, node: u64, from: Sender, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(IN_HEADER + body.len()).expect("a short body");
    Body::new()
        .u32(len)
        .u32(opcode)
        .u64(unique)
        .u64(node)
        .u32(from.uid)
        .u32(from.gid)
        .u32(0)
        .u32(0)
        .bytes(body)
        .0
}

/// Whether fuser 0.18 would panic, before the mediator sees anything, at a message that no kernel
/// sends: one whose lengths contradict each other, or a time beyond what a file system can hold.
/// Such messages are left out, or they would hide all that lies behind.
#[must_use]
pub fn contradicts_itself(message: &[u8]) -> bool {
    let Some(len) = u32_at(message, 0) else {
        return false;
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if message.len() < IN_HEADER || len > message.len() {
        return false;
    }
    let Some(body) = message.get(IN_HEADER..len) else {
        return true;
    };
    let is = |field: Option<u32>, len: usize| field.is_none_or(|it| usize::try_from(it) == Ok(len));
    match u32_at(message, 4) {
        Some(op::WRITE) => body
            .get(40..)
            .is_some_and(|data| !is(u32_at(body, 16), data.len())),
        Some(op::SETXATTR) => body.get(8..).is_some_and(|rest| {
            let name = rest.iter().position(|byte| *byte == 0);
            name.is_some_and(|end| !is(u32_at(body, 0), rest.len() - end - 1))
        }),
        Some(op::IOCTL) => body
            .get(32..)
            .is_some_and(|data| u32_at(body, 24).is_some_and(|size| size as usize > data.len())),
        Some(op::SETATTR) => [(32, 56), (40, 60), (48, 64)]
            .into_iter()
            .any(|(sec, nsec)| {
                let sec = u64_at(body, sec).unwrap_or(0).cast_signed();
                let nsec = u32_at(body, nsec).unwrap_or(0);
                // A carry of nanoseconds is four seconds at most.
                sec == i64::MIN || (nsec >= 1_000_000_000 && sec.unsigned_abs() > u64::MAX / 2 - 8)
            }),
        _ => false,
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 0 or a positive errno.
    pub errno: i32,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether it is no error.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errno == 0
    }

    /// The eight bytes at an offset, if there are that many.
    #[must_use]
    pub fn u64_at(&self, at: usize) -> Option<u64> {
        u64_at(&self.body, at)
    }

    /// The four bytes at an offset, if there are that many.
    #[must_use]
    pub fn u32_at(&self, at: usize) -> Option<u32> {
        u32_at(&self.body, at)
    }
}

/// One entry of a READDIR or READDIRPLUS reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// Where the next page starts.
    pub cookie: u64,
    /// READDIRPLUS: the node that was looked up; 0 for none.
    pub node: u64,
}

/// The entries of a listing (`struct fuse_dirent`, `struct fuse_direntplus`).
///
/// # Panics
///
/// If the reply is not made of whole entries.
#[must_use]
pub fn entries(mut body: &[u8], plus: bool) -> Vec<Listed> {
    let before = if plus { ENTRY_OUT } else { 0 };
    let mut found = Vec::new();
    while !body.is_empty() {
        let field = |at| u64_at(body, at).expect("an entry is cut short");
        let cookie = field(before + 8);
        let len = usize::try_from(field(before + 16) & 0xffff_ffff).expect("a length");
        let name = body.get(before + 24..before + 24 + len);
        found.push(Listed {
            name: name.expect("a name is cut short").to_vec(),
            cookie,
            node: if plus { field(0) } else { 0 },
        });
        let size = (before + 24 + len).next_multiple_of(8);
        body = body.get(size..).expect("an entry is not padded");
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_is_taken_apart() {
        let one = Body::new()
            .u64(9)
            .u64(77)
            .u32(1)
            .u32(8)
            .bytes(b"a\0\0\0\0\0\0\0");
        let two = Body::new().u64(9).u64(78).u32(8).u32(8).bytes(b"12345678");
        let both = [one.as_bytes(), two.as_bytes()].concat();
        let names: Vec<_> = entries(&both, false)
            .into_iter()
            .map(|at| (at.name, at.cookie))
            .collect();
        assert_eq!(names, [(b"a".to_vec(), 77), (b"12345678".to_vec(), 78)]);
    }

    #[test]
    #[should_panic(expected = "cut short")]
    fn half_an_entry_is_told() {
        let _never = entries(&[0; 23], false);
    }
}
