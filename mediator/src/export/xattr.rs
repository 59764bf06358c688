//! Extended attributes, by the descriptor's number in the working directory: the path-based calls
//! follow the magic link to the very inode (a symbolic link's too), and the descriptor-based ones
//! refuse `O_PATH`. A value is read from a file that is open through its own descriptor, since the
//! kernel asks for one before each first write. Which names a client may see or set is the policy's.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::fault::Call;
use super::{Export, Fault, Pin};
use crate::op::{XattrChange, XattrName, rows};
use crate::policy::Permit;

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` (linux/limits.h), in bytes.
const MAX: usize = 64 * 1024;
/// Most values fit, so that one call does.
const USUAL: usize = 256;

impl Export {
    /// Sets an attribute, or does nothing if that is what was granted.
    ///
    /// # Errors
    ///
    /// E2BIG beyond 64 KiB; EINVAL for flags other than create (1) and replace (2); EEXIST,
    /// ENODATA as those say; ENOTSUP from the file system.
    pub fn setxattr(
        &self,
        permit: Permit<rows::Setxattr>,
        pin: &Pin,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Fault> {
        let flags = u32::try_from(flags).ok().and_then(XattrFlags::from_bits);
        let known = XattrFlags::CREATE | XattrFlags::REPLACE;
        let flags = flags.filter(|flags| known.contains(*flags));
        let flags = flags.ok_or((Errno::INVAL, "setxattr"))?;
        if value.len() > MAX {
            return Err((Errno::TOOBIG, "setxattr").into());
        }
        let XattrChange::Act(name) = permit.grant() else {
            return Ok(());
        };
        let path = self.proc_name(pin);
        let set = || rustix::fs::setxattr(path.as_c_str(), name.as_c_str(), value, flags);
        self.with_room(set).call("setxattr")
    }

    /// An attribute's value.
    ///
    /// # Errors
    ///
    /// ENODATA if there is none; ENOTSUP from the file system.
    pub fn getxattr(&self, permit: Permit<rows::Getxattr>, pin: &Pin) -> Result<Vec<u8>, Fault> {
        self.value(pin, &permit.grant()).call("getxattr")
    }

    fn value(&self, pin: &Pin, name: &XattrName) -> Result<Vec<u8>, Errno> {
        if let Some(open) = self.open_of(pin) {
            return fetch(|buf| rustix::fs::fgetxattr(open.fd(), name.as_c_str(), buf));
        }
        let path = self.proc_name(pin);
        fetch(|buf| rustix::fs::getxattr(path.as_c_str(), name.as_c_str(), buf))
    }

    /// A POSIX ACL as it is stored: a fact, as attributes are, which a request's mode may follow
    /// from. `None` if there is none, and where the file system keeps none.
    ///
    /// # Errors
    ///
    /// What getxattr(2) says besides.
    pub fn acl(&self, pin: &Pin, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let name = XattrName::new(name).ok_or((Errno::RANGE, "getxattr"))?;
        match self.value(pin, &name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err((errno, "getxattr").into()),
        }
    }

    /// The names of all attributes, each followed by NUL.
    ///
    /// # Errors
    ///
    /// ENOTSUP from the file system; E2BIG beyond 64 KiB.
    pub fn listxattr(&self, _permit: Permit<rows::Listxattr>, pin: &Pin) -> Result<Vec<u8>, Fault> {
        let path = self.proc_name(pin);
        fetch(|buf| rustix::fs::listxattr(path.as_c_str(), buf)).call("listxattr")
    }

    /// Removes an attribute, or does nothing if that is what was granted.
    ///
    /// # Errors
    ///
    /// ENODATA if there is none.
    pub fn removexattr(&self, permit: Permit<rows::Removexattr>, pin: &Pin) -> Result<(), Fault> {
        let XattrChange::Act(name) = permit.grant() else {
            return Ok(());
        };
        let path = self.proc_name(pin);
        rustix::fs::removexattr(path.as_c_str(), name.as_c_str()).call("removexattr")
    }
}

/// Into a small buffer first, then into the largest.
fn fetch(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; USUAL];
    let len = match call(&mut buf) {
        Err(Errno::RANGE) => {
            buf.resize(MAX, 0);
            call(&mut buf)?
        }
        result => result?,
    };
    buf.truncate(len);
    Ok(buf)
}
