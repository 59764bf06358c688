//! What a start cannot know to be wrong, and whoever reads the command line would ask about.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::cli::ViewOptions;

/// What every isolated client sees, or some of it.
const SEEN: [&str; 8] = [
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc",
];

/// Tells of files that an isolated client's command line names and that it will not see: QEMU would
/// only say that its disk is not there.
pub(crate) fn tell_of_unseen_files(
    options: &ViewOptions,
    exports: &[OsString],
    command: &[OsString],
) {
    if !options.isolate {
        return;
    }
    // The part before `=` may be the directory, or all of it.
    let exports = exports.iter().flat_map(|export| {
        let directory = export.as_bytes().split(|byte| *byte == b'=').next();
        [OsStr::from_bytes(directory.unwrap_or_default()), export]
    });
    let bound = options.bind.iter().chain(&options.bind_ro);
    let seen: Vec<PathBuf> = exports
        .map(Path::new)
        .chain(bound.map(PathBuf::as_path))
        .chain(SEEN.map(Path::new))
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    for path in unseen(command, &seen) {
        tracing::info!(
            "the command names {0}, which it does not see with --isolate: if it needs it, say \
             --bind {0} or --bind-ro {0}",
            path.display()
        );
    }
}

/// Files, disks and sockets that are named by words, or by parts of words as in `file=disk.img,if=virtio`,
/// and lie below no path of `seen`.
fn unseen(command: &[OsString], seen: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    // The program itself is looked for where the client will be.
    for word in command.iter().skip(1) {
        for part in word.as_bytes().split(|byte| b",=".contains(byte)) {
            let path = Path::new(OsStr::from_bytes(part));
            let is_file = fs::metadata(path).is_ok_and(|meta| {
                let kind = meta.file_type();
                kind.is_file() || kind.is_block_device() || kind.is_socket()
            });
            let hidden = is_file
                && fs::canonicalize(path)
                    .is_ok_and(|path| !seen.iter().any(|seen| path.starts_with(seen)));
            if hidden && !found.iter().any(|known| known == path) {
                found.push(path.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_parts_of_words_and_only_where_they_are_not_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("export")).unwrap();
        for name in ["disk.img", "kernel", "export/inside"] {
            fs::write(at(name), "").unwrap();
        }
        let shown = |name: &str| at(name).into_os_string().into_string().unwrap();
        let command = [
            shown("kernel"),
            "-drive".into(),
            format!("file={},format=raw", shown("disk.img")),
            format!("local,path={},mount_tag=t", shown("export")),
            shown("export/inside"),
            shown("disk.img"),
            "/none/such".into(),
        ];
        let command = command.map(OsString::from);
        let export = fs::canonicalize(at("export")).unwrap();
        let found = unseen(&command, std::slice::from_ref(&export));
        assert_eq!(found, [at("disk.img")]);
        let all = [export, fs::canonicalize(directory.path()).unwrap()];
        assert_eq!(unseen(&command, &all), [] as [PathBuf; 0]);
    }
}
