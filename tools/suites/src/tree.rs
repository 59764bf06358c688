//! A tree as one process sees it: every name with what stat, readlink, the attributes and the bytes say.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Result, at};

/// The word that makes this program walk a directory and tell it as JSON.
pub(crate) const WORD: &str = "walk-a-tree";

/// What is known of each name below a directory; names with bytes that are no UTF-8 are escaped.
pub(crate) type Walked = BTreeMap<String, String>;

/// Everything below a directory and it itself. Access times and inode numbers are left out: reading
/// changes the ones, and the others are the view's own.
pub(crate) fn walk(root: &Path) -> Result<Walked> {
    let mut walked = Walked::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).map_err(at("stat of", &path))?;
        let mut told = format!(
            "mode {:o} uid {} gid {} nlink {} rdev {} size {} blocks {} mtime {}.{:09} ctime {}.{:09}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.nlink(),
            found.rdev(),
            found.size(),
            found.blocks(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        );
        if found.is_symlink() {
            let target = fs::read_link(&path).map_err(at("readlink of", &path))?;
            told.push_str(&format!(
                " to {}",
                target.as_os_str().as_bytes().escape_ascii()
            ));
        } else if found.is_dir() {
            for entry in fs::read_dir(&path).map_err(at("reading", &path))? {
                left.push(entry.map_err(at("reading", &path))?.path());
            }
        } else if found.is_file() {
            told.push_str(&format!(" content {:016x}", content(&path)?));
        }
        told.push_str(&attributes(&path)?);
        let name = path.strip_prefix(root).unwrap_or(&path);
        walked.insert(name.as_os_str().as_bytes().escape_ascii().to_string(), told);
    }
    Ok(walked)
}

fn content(path: &Path) -> Result<u64> {
    let mut file = File::open(path).map_err(at("opening", path))?;
    // Without keys: two processes get the same.
    let mut hash = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut buffer).map_err(at("reading", path))?;
        if length == 0 {
            return Ok(hash.finish());
        }
        hash.write(&buffer[..length]);
    }
}

/// But for `trusted.*`, which only a process with CAP_SYS_ADMIN sees.
fn attributes(path: &Path) -> Result<String> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names).map_err(at("attributes of", path))?;
    let mut told = String::new();
    let mut names: Vec<&[u8]> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted."))
        .collect();
    names.sort();
    for name in names {
        let mut value = vec![0; 1 << 16];
        let wanted = CString::new(name).unwrap_or_default();
        let length = rustix::fs::lgetxattr(path, wanted.as_c_str(), &mut value)
            .map_err(at("an attribute of", path))?;
        let value = OsStr::from_bytes(&value[..length]).to_owned().into_vec();
        told.push_str(&format!(
            " {}={}",
            name.escape_ascii(),
            value.escape_ascii()
        ));
    }
    Ok(told)
}

/// A line for each name that is not the same in both.
pub(crate) fn differences(shown: &Walked, own: &Walked) -> Vec<String> {
    let mut different = Vec::new();
    for (name, told) in own {
        match shown.get(name) {
            Some(seen) if seen == told => {}
            Some(seen) => different.push(format!("{name}: {seen}, but on the export {told}")),
            None => different.push(format!("{name}: only on the export")),
        }
    }
    let extra = shown.keys().filter(|name| !own.contains_key(*name));
    different.extend(extra.map(|name| format!("{name}: not on the export")));
    different
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_one_bit_and_one_name_are_differences() {
        let make = |content: &str| {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("d")).unwrap();
            fs::write(directory.path().join("d/f"), content).unwrap();
            directory
        };
        let (one, two) = (make("bytes"), make("bytez"));
        let walked = walk(one.path()).unwrap();
        assert_eq!(walked.len(), 3);
        assert!(differences(&walked, &walk(one.path()).unwrap()).is_empty());
        let other = walk(two.path()).unwrap();
        assert!(
            differences(&walked, &other)
                .iter()
                .any(|line| line.starts_with("d/f: "))
        );
        fs::write(one.path().join("new"), "").unwrap();
        let more = walk(one.path()).unwrap();
        assert_eq!(
            differences(&walked, &more).last().map(String::as_str),
            Some("new: only on the export")
        );
        assert_eq!(
            differences(&more, &walked).last().map(String::as_str),
            Some("new: not on the export")
        );
    }
}
