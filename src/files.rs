//! Files that a user names: read with a bound, replaced whole.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// More than any policy or script has: `/dev/zero` has an end here.
const TEXT_MAX: u64 = 16 << 20;

/// The text of a file, which may be a pipe.
///
/// # Errors
///
/// Why not, in words, with the line of what is not UTF-8.
pub(crate) fn text(file: &Path) -> Result<String, String> {
    text_of(File::open(file).map_err(|error| error.to_string())?)
}

/// As [`text`], of a file that is open.
pub(crate) fn text_of(file: File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(TEXT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > TEXT_MAX {
        return Err(format!("it has more than {} MiB", TEXT_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..good];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8 (byte {good} of the file)")
    })
}

/// Puts a file with this text (0644) in place of what has its name, or nothing at all: whoever
/// reads meanwhile has the old one. A symbolic link of that name is replaced, not followed.
///
/// # Errors
///
/// Those of creating, writing and renaming a file in that directory.
pub(crate) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => return Err(io::ErrorKind::IsADirectory.into()),
    };
    // Its errors name the directory and not a name that nobody has given.
    directory.metadata()?;
    // Hidden, so that whoever collects files by their ending passes it over.
    let mut fresh = tempfile::Builder::new()
        .prefix(".virtfs-mediator-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    fresh.write_all(text.as_bytes())?;
    fresh.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn text_has_an_end_and_is_utf_8() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(text(&path).unwrap(), "one\ntwo\n");
        fs::write(&path, b"one\ntwo \xff\n").unwrap();
        assert_eq!(
            text(&path).unwrap_err(),
            "line 2 is not UTF-8 (byte 8 of the file)"
        );
        let endless = text(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(endless, "it has more than 16 MiB");
        let none = text(&directory.path().join("none")).unwrap_err();
        assert!(none.starts_with("No such file"), "{none}");
    }

    #[test]
    fn replaced_whole_and_through_no_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        replace(&at("link"), "1\n").unwrap();
        assert_eq!(fs::read_to_string(at("link")).unwrap(), "1\n");
        let mode = at("link").symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "precious");
        let error = replace(&at("none/file"), "1\n").unwrap_err();
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        // Nothing else was left there.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
