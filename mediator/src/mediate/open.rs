//! Opening and closing: open, opendir, flush, fsync, release.

use rustix::io::Errno;

use super::data::Opened;
use super::funnel::{Act, Case, Mediator, Trail};
use crate::ids::{HandleId, NodeId};
use crate::op::{Op, OpenAs, rows};
use crate::policy::Requester;

impl Mediator {
    /// Opens a regular file. Nothing else is ever opened: a FIFO would block, a device act.
    ///
    /// # Errors
    ///
    /// EINVAL for flags that make no sense, or O_DIRECT where the export has none and the file is
    /// open past this process; EBUSY if it is and its data is judged; ESTALE, a refusal's errno, or what the export answers.
    pub fn open(&self, who: Requester, node: NodeId, flags: i32) -> Result<Opened, Errno> {
        self.run(Op::Open, who, |trail| {
            let open = OpenAs {
                // O_EXCL without O_CREAT says nothing about a regular file (open(2)).
                exclusive: false,
                ..open_as(flags)?
            };
            self.open_node(trail, node, open)
        })
    }

    pub(super) fn open_node(&self, trail: &Trail, node: NodeId, open: OpenAs) -> Act<Opened> {
        let pin = self.export.pin(node)?;
        let case = Case {
            words: Some(open.words()),
            kind: Some(pin.kind()),
            ..Case::node(&pin)
        };
        let permit = self.decide::<rows::Open>(trail, &case, open)?;
        let wish = self.wish(trail, &pin, open)?;
        let handle = self.export.open_file(permit, &pin)?;
        self.enter_file(trail, &pin, (handle, open), wish)
    }

    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// ENOTDIR, ESTALE, a refusal's errno, or what the export answers.
    pub fn opendir(&self, who: Requester, node: NodeId) -> Result<HandleId, Errno> {
        self.run(Op::Opendir, who, |trail| {
            let pin = self.export.pin(node)?;
            let permit = self.decide::<rows::Opendir>(trail, &Case::node(&pin), ())?;
            Ok(self.export.opendir(permit, &pin)?)
        })
    }

    /// OPENDIR, where READDIR asks what it would have been asked: ENOSYS tells the kernel so once
    /// and for all (`fuse_file_open`, fs/fuse/file.c), and is counted as any other failure.
    pub fn opendir_needless(&self, who: Requester) -> Errno {
        let told: Result<(), Errno> = self.run(Op::Opendir, who, |_| Err(Errno::NOSYS.into()));
        told.err().unwrap_or(Errno::NOSYS)
    }

    /// Whether FLUSH has nothing to tell, so that the kernel need not send it.
    #[must_use]
    pub fn closes_silently(&self) -> bool {
        self.export.closes_silently()
    }

    /// A descriptor of the client was closed: errors that the export tells only at close.
    ///
    /// # Errors
    ///
    /// EBADF, or what the export answers (EDQUOT, EIO, ENOSPC on some file systems).
    pub fn flush(&self, who: Requester, handle: HandleId) -> Result<(), Errno> {
        self.run(Op::Flush, who, |trail| {
            let permit = self.decide::<rows::Flush>(trail, &Case::handle(handle), ())?;
            Ok(self.export.flush(permit, handle)?)
        })
    }

    /// Brings a file or directory to disk.
    ///
    /// # Errors
    ///
    /// EBADF, or what the export answers.
    pub fn fsync(&self, who: Requester, handle: HandleId, data_only: bool) -> Result<(), Errno> {
        self.run(Op::Fsync, who, |trail| {
            let permit = self.decide::<rows::Fsync>(trail, &Case::handle(handle), ())?;
            Ok(self.export.fsync(permit, handle, data_only)?)
        })
    }

    /// Brings a directory that was not opened to disk.
    ///
    /// # Errors
    ///
    /// ENOTDIR, ESTALE, a refusal's errno, or what the export answers.
    pub fn fsync_directory(
        &self,
        who: Requester,
        node: NodeId,
        data_only: bool,
    ) -> Result<(), Errno> {
        self.run(Op::Fsync, who, |trail| {
            let pin = self.export.pin(node)?;
            let permit = self.decide::<rows::Fsync>(trail, &Case::node(&pin), ())?;
            Ok(self.export.fsync_directory(permit, &pin, data_only)?)
        })
    }

    /// Closes a file or directory; a forged handle closes nothing.
    pub fn release(&self, handle: HandleId) {
        // While the handle keeps the node's number from being given to another file.
        if self.backings.counts() {
            self.backings.leave(handle);
        }
        self.export.release(handle);
    }
}

/// What is left of a client's open flags. They are never forwarded: QEMU's O_NONBLOCK and
/// O_NOFOLLOW mean nothing here, and O_DIRECT would put the backing file's alignment rules on a
/// client that cannot know them.
pub(super) fn open_as(flags: i32) -> Result<OpenAs, Errno> {
    let has = |flag: i32| flags & flag == flag;
    // Neither reaches a FUSE server from a kernel; O_TMPFILE is an operation of its own there.
    if has(libc::O_PATH) || has(libc::O_TMPFILE) {
        return Err(Errno::INVAL);
    }
    let (read, write) = match flags & libc::O_ACCMODE {
        libc::O_RDONLY => (true, false),
        libc::O_WRONLY => (false, true),
        libc::O_RDWR => (true, true),
        _ => return Err(Errno::INVAL),
    };
    Ok(OpenAs {
        read,
        write,
        append: has(libc::O_APPEND),
        truncate: has(libc::O_TRUNC),
        exclusive: has(libc::O_EXCL),
        sync: has(libc::O_DSYNC),
        direct: has(libc::O_DIRECT),
        no_atime: has(libc::O_NOATIME),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Word, Words};

    #[test]
    fn truncation_asks_for_write_whatever_the_access_mode() {
        let open = open_as(libc::O_RDONLY | libc::O_TRUNC).unwrap();
        assert!(open.words().meets(Words::of(Word::Write)));
    }

    #[test]
    fn odd_open_flags_are_refused() {
        for flags in [
            libc::O_PATH,
            libc::O_TMPFILE | libc::O_RDWR,
            libc::O_ACCMODE,
        ] {
            assert_eq!(open_as(flags), Err(Errno::INVAL), "{flags:o}");
        }
    }

    #[test]
    fn flags_of_qemu_become_a_plain_read() {
        let open = open_as(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC).unwrap();
        let plain = OpenAs {
            read: true,
            ..OpenAs::default()
        };
        assert_eq!(open, plain);
    }
}
