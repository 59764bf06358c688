//! Names as their directory spells them.
//!
//! Where a file system ignores case (ext4's and others' casefold directories, FAT, NTFS, CIFS),
//! one file answers to many spellings, and a rule that goes by name would hold for one of them.
//! Under such rules a name is therefore good only as it is listed. To list is dear, so first it is
//! asked whether the name in the other case leads to the same file: where case counts, which is
//! nearly everywhere, it does not, and that one call is all.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::attr::Seen;
use super::fault::Call;
use super::{Export, Fault};
use crate::name::Name;
use crate::sys;
use crate::weak;

/// What a [`Fault`] of this check bears in place of a call.
pub(crate) const SPELLING: &str = "spelling";

impl Export {
    /// Whether `name`, which led to `seen`, is spelled as its directory lists it; only where rules
    /// go by name.
    ///
    /// # Errors
    ///
    /// EACCES if it is not: not ENOENT, so that nobody takes the name for free.
    pub(super) fn check_spelling(
        &self,
        parent: BorrowedFd<'_>,
        name: &Name,
        seen: &Seen,
    ) -> Result<(), Fault> {
        if !self.exact_names.load(Ordering::SeqCst) || !weak::stands(weak::Wall::Spelling) {
            return Ok(());
        }
        let suspicious = match other_case(name.as_bytes()) {
            Some(other) => sys::stat_at(parent, &other, AtFlags::empty())
                .and_then(|st| Seen::new(&st))
                .is_ok_and(|other| other.identity == seen.identity),
            None => !name.as_bytes().is_ascii(),
        };
        if suspicious && !lists(parent, name)? {
            return Err((Errno::ACCESS, SPELLING).into());
        }
        Ok(())
    }
}

/// The name with each ASCII letter in the other case; `None` if it has no such letter.
fn other_case(name: &[u8]) -> Option<CString> {
    let other: Vec<u8> = name
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' => byte.to_ascii_uppercase(),
            other => other.to_ascii_lowercase(),
        })
        .collect();
    CString::new(other)
        .ok()
        .filter(|other| other.as_bytes() != name)
}

/// Whether a directory lists a name, byte by byte.
fn lists(parent: BorrowedFd<'_>, name: &Name) -> Result<bool, Fault> {
    let dir = sys::open_directory(parent).call("openat")?;
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut found = false;
    while !found
        && sys::read_entries(dir.as_fd(), &mut buffer, &mut |entry| {
            found |= entry.file_name() == name.as_c_str();
        })
        .call("getdents64")?
    {}
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_case_changes_each_letter_and_nothing_else() {
        let other = |name: &[u8]| other_case(name).map(CString::into_bytes);
        assert_eq!(other(b"Secret.TXT").unwrap(), b"sECRET.txt");
        assert_eq!(other(b"a\xc3\xa9~1").unwrap(), b"A\xc3\xa9~1");
        assert_eq!(other(b"2024-01_\xff"), None);
    }

    #[test]
    fn listing_knows_a_name_by_its_bytes_alone() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..2000 {
            std::fs::write(dir.path().join(format!("name{number}")), "").unwrap();
        }
        let fd = std::fs::File::open(dir.path()).unwrap();
        for (name, listed) in [("name0", true), ("name1999", true), ("NAME7", false)] {
            let name = Name::new(name.as_bytes()).unwrap();
            assert_eq!(lists(fd.as_fd(), &name).unwrap(), listed, "{name:?}");
        }
    }
}
