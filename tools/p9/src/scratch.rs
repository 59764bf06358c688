//! Where QEMU and its client meet: a directory with the qtest socket, the guest's memory and QEMU's output.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Result};

/// A user and a group of the host, or of the guest where a guest's are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Ids {
    /// User and group 0.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// A user's id and that of the user's primary group, by name or number. A number that no user has is the group's
    /// as well.
    ///
    /// # Errors
    /// [`Error::Protocol`] if there is no such user.
    pub fn of_user(user: &str) -> Result<Self> {
        use nix::unistd::{Uid, User};
        let number = user.parse::<u32>().ok();
        let found = match number {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(user),
        };
        match (found.ok().flatten(), number) {
            (Some(user), _) => Ok(Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            }),
            (None, Some(number)) => Ok(Self {
                uid: number,
                gid: number,
            }),
            (None, None) => Err(Error::Protocol(format!("there is no user {user:?}"))),
        }
    }
}

/// The directory; removed with all that is in it when dropped. Both ends may be other users: QEMU's user owns it, and
/// the client, root or the same user, made it.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    listener: UnixListener,
    socket: PathBuf,
    memory: PathBuf,
    owner: Option<Ids>,
}

impl Scratch {
    /// Makes one in the default directory for temporary files, for a QEMU that runs as `owner`, or as this process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(owner: Option<Ids>) -> Result<Self> {
        Self::new_in(&std::env::temp_dir(), owner)
    }

    /// Makes one below `parent`, which QEMU must be able to reach under the same name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new_in(parent: &Path, owner: Option<Ids>) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("virtfs-p9-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(Error::io("making a scratch directory"))?;
        let socket = directory.path().join("qtest.sock");
        let memory = directory.path().join("memory");
        // We listen and QEMU connects: so there is an event to wait for.
        let listener =
            UnixListener::bind(&socket).map_err(Error::io("binding the qtest socket"))?;
        give(&socket, owner).map_err(Error::io("giving the qtest socket to QEMU's user"))?;
        give(directory.path(), owner)
            .map_err(Error::io("giving the scratch directory to QEMU's user"))?;
        Ok(Self {
            directory,
            listener,
            socket,
            memory,
            owner,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The qtest socket, which QEMU connects to.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// The file that is the guest's memory.
    #[must_use]
    pub fn memory_path(&self) -> &Path {
        &self.memory
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Makes the guest's memory, sparse, of that many octets.
    pub(crate) fn create_memory(&self, octets: u64) -> Result<File> {
        let create = || -> io::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&self.memory)?;
            file.set_len(octets)?;
            give(&self.memory, self.owner)?;
            Ok(file)
        };
        create().map_err(Error::io("making the guest's memory"))
    }

    /// Makes the file that takes what QEMU prints.
    pub(crate) fn create_output(&self) -> Result<File> {
        let path = self.directory.path().join("output");
        OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("making QEMU's output file"))
    }
}

fn give(path: &Path, owner: Option<Ids>) -> io::Result<()> {
    owner.map_or(Ok(()), |ids| chown(path, Some(ids.uid), Some(ids.gid)))
}
