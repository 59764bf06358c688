//! The messages of 9P2000.L, a row each: name, number, fields, and the fields of the reply.
//!
//! A reply's number is its request's plus one. Fields bear the protocol's names; ids, modes, flags and errno values are
//! the guest's, which for 9P2000.L means Linux's.

use crate::error::{Error, Result};
use crate::wire::{Data, Decoder, Fid, Get, HEADER, Payload, Put, Qid};

const RLERROR: u8 = 7;

/// A T-message.
pub trait Request {
    /// The protocol's name.
    const NAME: &'static str;
    /// The protocol's number.
    const NUMBER: u8;
    /// The R-message that answers it.
    type Reply: Reply;

    /// Appends the fields, without the header.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a string or list that the protocol's counts cannot express.
    fn put_fields(&self, out: &mut Vec<u8>) -> Result<()>;
}

/// An R-message.
pub trait Reply: Sized {
    /// Reads the fields, which are what follows the header.
    ///
    /// # Errors
    /// [`Error::Protocol`] if octets are missing or left over.
    fn from_fields(fields: &[u8]) -> Result<Self>;
}

macro_rules! messages {
    ($( $(#[$doc:meta])* $request:ident $(<$life:lifetime>)? = $number:literal { $($field:ident: $type:ty),* }
        => $reply:ident { $($back:ident: $back_type:ty),* } )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[allow(missing_docs, reason = "the fields are the protocol's own")]
        pub struct $request $(<$life>)? { $(pub $field: $type),* }

        #[doc = concat!("Answers [`", stringify!($request), "`].")]
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields are the protocol's own")]
        pub struct $reply { $(pub $back: $back_type),* }

        impl $(<$life>)? Request for $request $(<$life>)? {
            const NAME: &'static str = stringify!($request);
            const NUMBER: u8 = $number;
            type Reply = $reply;
            fn put_fields(&self, _out: &mut Vec<u8>) -> Result<()> {
                $( self.$field.put(_out)?; )*
                Ok(())
            }
        }

        impl Reply for $reply {
            #[allow(unused_mut, reason = "replies without fields read nothing")]
            fn from_fields(fields: &[u8]) -> Result<Self> {
                let mut decoder = Decoder::new(fields);
                let reply = Self { $($back: Get::get(&mut decoder)?),* };
                if decoder.is_empty() {
                    Ok(reply)
                } else {
                    Err(Error::Protocol(concat!(stringify!($reply), " has octets left over").to_owned()))
                }
            }
        }
    )* };
}

messages! {
    /// The file system's size and use.
    Tstatfs = 8 { fid: Fid }
        => Rstatfs { kind: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, fsid: u64, namelen: u32 }
    /// Opens; `flags` are open(2)'s.
    Tlopen = 12 { fid: Fid, flags: u32 } => Rlopen { qid: Qid, iounit: u32 }
    /// Creates a regular file and opens it: `fid` is the directory before and the file after.
    Tlcreate<'a> = 14 { fid: Fid, name: &'a [u8], flags: u32, mode: u32, gid: u32 } => Rlcreate { qid: Qid, iounit: u32 }
    /// symlink(2).
    Tsymlink<'a> = 16 { dfid: Fid, name: &'a [u8], symtgt: &'a [u8], gid: u32 } => Rsymlink { qid: Qid }
    /// mknod(2).
    Tmknod<'a> = 18 { dfid: Fid, name: &'a [u8], mode: u32, major: u32, minor: u32, gid: u32 } => Rmknod { qid: Qid }
    /// Renames what `fid` names.
    Trename<'a> = 20 { fid: Fid, dfid: Fid, name: &'a [u8] } => Rrename {}
    /// readlink(2).
    Treadlink = 22 { fid: Fid } => Rreadlink { target: Vec<u8> }
    /// stat(2); `request_mask` of `GETATTR_*`.
    Tgetattr = 24 { fid: Fid, request_mask: u64 }
        => Rgetattr {
            valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, nlink: u64, rdev: u64, size: u64, blksize: u64, blocks: u64,
            atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64, ctime_sec: u64, ctime_nsec: u64,
            btime_sec: u64, btime_nsec: u64, generation: u64, data_version: u64
        }
    /// chmod, chown, truncate, utimensat in one; `valid` tells which, see [`crate::SetAttr`].
    Tsetattr = 26 {
            fid: Fid, valid: u32, mode: u32, uid: u32, gid: u32, size: u64,
            atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64
        } => Rsetattr {}
    /// Prepares reading an extended attribute through `newfid`; with an empty name the list of names.
    Txattrwalk<'a> = 30 { fid: Fid, newfid: Fid, name: &'a [u8] } => Rxattrwalk { size: u64 }
    /// Prepares writing one through `fid`: Twrite of `attr_size` octets, then Tclunk, which sets it.
    Txattrcreate<'a> = 32 { fid: Fid, name: &'a [u8], attr_size: u64, flags: u32 } => Rxattrcreate {}
    /// Entries of an open directory from `offset` on, `count` octets at most; see [`crate::DirEntry`].
    Treaddir = 40 { fid: Fid, offset: u64, count: u32 } => Rreaddir { data: Payload }
    /// fsync(2), or fdatasync(2) with `datasync` not 0.
    Tfsync = 50 { fid: Fid, datasync: u32 } => Rfsync {}
    /// A POSIX record lock; `kind` 0 read, 1 write, 2 unlock.
    Tlock<'a> = 52 { fid: Fid, kind: u8, flags: u32, start: u64, length: u64, proc_id: u32, client_id: &'a [u8] }
        => Rlock { status: u8 }
    /// Which lock stands in the way; `kind` 2 in the reply if none does.
    Tgetlock<'a> = 54 { fid: Fid, kind: u8, start: u64, length: u64, proc_id: u32, client_id: &'a [u8] }
        => Rgetlock { kind: u8, start: u64, length: u64, proc_id: u32, client_id: Vec<u8> }
    /// link(2) of `fid` as `name` in `dfid`.
    Tlink<'a> = 70 { dfid: Fid, fid: Fid, name: &'a [u8] } => Rlink {}
    /// mkdir(2).
    Tmkdir<'a> = 72 { dfid: Fid, name: &'a [u8], mode: u32, gid: u32 } => Rmkdir { qid: Qid }
    /// renameat(2).
    Trenameat<'a> = 74 { olddirfid: Fid, oldname: &'a [u8], newdirfid: Fid, newname: &'a [u8] } => Rrenameat {}
    /// unlinkat(2); `flags` 0x200 (AT_REMOVEDIR) for a directory.
    Tunlinkat<'a> = 76 { dirfd: Fid, name: &'a [u8], flags: u32 } => Runlinkat {}
    /// Agrees on the message size and the dialect; ends every fid and request there was.
    Tversion<'a> = 100 { msize: u32, version: &'a [u8] } => Rversion { msize: u32, version: Vec<u8> }
    /// `fid` becomes the root as the guest's user `n_uname` sees it.
    Tattach<'a> = 104 { fid: Fid, afid: Fid, uname: &'a [u8], aname: &'a [u8], n_uname: u32 } => Rattach { qid: Qid }
    /// Cancels the request with that tag if it still runs.
    Tflush = 108 { oldtag: u16 } => Rflush {}
    /// `newfid` becomes what `wnames` lead to from `fid`: 16 at most.
    Twalk<'a> = 110 { fid: Fid, newfid: Fid, wnames: &'a [&'a [u8]] } => Rwalk { qids: Vec<Qid> }
    /// pread(2).
    Tread = 116 { fid: Fid, offset: u64, count: u32 } => Rread { data: Payload }
    /// pwrite(2).
    Twrite<'a> = 118 { fid: Fid, offset: u64, data: Data<'a> } => Rwrite { count: u32 }
    /// The fid is no longer needed.
    Tclunk = 120 { fid: Fid } => Rclunk {}
    /// Removes what the fid names, and clunks it in any case.
    Tremove = 122 { fid: Fid } => Rremove {}
}

/// The whole message with its header.
pub(crate) fn encode<R: Request>(request: &R, tag: u16, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.push(R::NUMBER);
    tag.put(out)?;
    request.put_fields(out)?;
    let size = u32::try_from(out.len())
        .map_err(|_| Error::Protocol(format!("{} is too large", R::NAME)))?;
    out[..4].copy_from_slice(&size.to_le_bytes());
    Ok(())
}

/// A whole reply: its fields, the server's errno, or that it does not belong to the request.
pub(crate) fn decode<R: Request>(tag: u16, bytes: &[u8]) -> Result<R::Reply> {
    let mut header = Decoder::new(bytes.get(..HEADER).unwrap_or(bytes));
    let (size, number, got) = (
        u32::get(&mut header)?,
        u8::get(&mut header)?,
        u16::get(&mut header)?,
    );
    if usize::try_from(size) != Ok(bytes.len()) || got != tag {
        let length = bytes.len();
        return Err(Error::Protocol(format!(
            "{}: reply of {length} octets says size {size}, tag {got}, not {tag}",
            R::NAME
        )));
    }
    let fields = &bytes[HEADER..];
    if number == RLERROR {
        let code = i32::try_from(u32::get(&mut Decoder::new(fields))?).unwrap_or(0);
        return Err(Error::Remote {
            message: R::NAME,
            errno: nix::errno::Errno::from_raw(code),
        });
    }
    if number != R::NUMBER + 1 {
        return Err(Error::Protocol(format!(
            "{} answered by message number {number}",
            R::NAME
        )));
    }
    R::Reply::from_fields(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tlcreate_is_laid_out_as_the_protocol_says() {
        let mut out = Vec::new();
        encode(
            &Tlcreate {
                fid: Fid(1),
                name: b"ab",
                flags: 2,
                mode: 0o644,
                gid: 7,
            },
            9,
            &mut out,
        )
        .unwrap();
        let expected = [
            27, 0, 0, 0, 14, 9, 0, 1, 0, 0, 0, 2, 0, b'a', b'b', 2, 0, 0, 0, 0xa4, 1, 0, 0, 7, 0,
            0, 0,
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn rlerror_becomes_the_errno_of_its_message() {
        let error = decode::<Tclunk>(3, &[11, 0, 0, 0, 7, 3, 0, 13, 0, 0, 0]).unwrap_err();
        assert_eq!(
            (error.errno(), error.to_string()),
            (
                Some(nix::errno::Errno::EACCES),
                "Tclunk: EACCES: Permission denied".into()
            )
        );
    }

    #[test]
    fn reply_of_another_request_is_refused() {
        assert!(decode::<Tclunk>(4, &[7, 0, 0, 0, 121, 3, 0]).is_err());
        assert!(decode::<Tclunk>(3, &[7, 0, 0, 0, 111, 3, 0]).is_err());
        assert!(decode::<Tclunk>(3, &[8, 0, 0, 0, 121, 3, 0]).is_err());
        assert!(decode::<Tclunk>(3, &[8, 0, 0, 0, 121, 3, 0, 0]).is_err());
        assert!(decode::<Tclunk>(3, &[7, 0, 0]).is_err());
        assert!(decode::<Tclunk>(3, &[7, 0, 0, 0, 121, 3, 0]).is_ok());
    }
}
