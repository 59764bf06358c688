//! Directories above one that is shared: who but root decides what its path leads to.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// The outermost directory on the way in which somebody other than root may rename or remove the next
/// step, if there is one. `path` is canonical.
///
/// A mount moves with the directory that it lies over: by such a rename in any mount namespace, the path
/// leads elsewhere in all of them, past a view.
pub(crate) fn others_may_rename(path: &Path) -> Option<PathBuf> {
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    steps.windows(2).find_map(|pair| {
        let [above, below] = pair else { return None };
        let directory = rustix::fs::lstat(*above).ok()?;
        let entry = rustix::fs::lstat(*below).ok()?;
        let mode = Mode::from_raw_mode(directory.st_mode);
        // Of a directory with an ACL, the group's bits are the most that the ACL gives anybody.
        let open = mode.intersects(Mode::WGRP | Mode::WOTH);
        let kept = mode.contains(Mode::SVTX) && entry.st_uid == 0;
        (directory.st_uid != 0 || (open && !kept)).then(|| (*above).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn directory_that_others_than_root_may_rename_in_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let above = top.join("above");
        let path = above.join("share");
        fs::create_dir_all(&path).unwrap();
        let mode = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        for (bits, found) in [
            (0o755, false),
            (0o775, true),
            (0o757, true),
            (0o1777, false),
        ] {
            mode(bits);
            let told = others_may_rename(&path);
            assert_eq!(told.as_ref() == Some(&above), found, "{bits:o}: {told:?}");
        }
        // What is sticky keeps each owner's entries from the others, not from the owner.
        chown(&path, Some(61_399), None).unwrap();
        assert_eq!(others_may_rename(&path).as_ref(), Some(&above));
        mode(0o755);
        assert_eq!(others_may_rename(&path), None);
        chown(&above, Some(61_399), None).unwrap();
        assert_eq!(others_may_rename(&path).as_ref(), Some(&above));
    }
}
