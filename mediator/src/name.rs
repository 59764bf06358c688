//! One checked path component. The only form in which a name reaches the export.

use std::ffi::{CStr, CString};
use std::fmt;

use rustix::io::Errno;

/// The longest component in bytes (`NAME_MAX`, limits.h).
pub const NAME_MAX: usize = 255;

/// One component: not empty, no `/`, no NUL, not `.` or `..`, at most 255 bytes; any other bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(CString);

impl Name {
    /// Checks a name as it came from the kernel, or from an attacker who plays the kernel.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG beyond 255 bytes; EINVAL for an empty name, one with `/` or NUL, `.` or `..`.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let checks = crate::weak::stands(crate::weak::Wall::Names);
        if checks && (bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/'))
        {
            return Err(Errno::INVAL);
        }
        CString::new(bytes).map(Self).map_err(|_nul| Errno::INVAL)
    }

    /// The bytes without a terminator.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The name as system calls want it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_could_leave_its_directory_is_refused() {
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"/",
            b"a/b",
            b"/etc",
            b"../x",
            b"a\0b",
        ] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(Name::new(&[b'a'; 256]), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn name_of_any_other_bytes_is_kept() {
        for good in [&b"..."[..], b"\xff\xfe", b"a\nb", &[b'a'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }
}
