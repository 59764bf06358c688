//! Files that a policy lets be appended to, and nothing else: whatever the client does with its open
//! file afterwards.
#![allow(clippy::print_stdout, reason = "what the test reads")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rustix::fs::OFlags;

use crate::common::{Export, Start, ours, shown, stderr, stdout};
use crate::workload::itself;

/// Where the view is, for [`inside`].
const AT: &str = "VIRTFS_IT_APPEND";

const POLICY: &str = "default = \"allow\"
[[rule]]
path = \"/log/**\"
do = [\"open\", \"create\"]
when = { flags = { any = \"write\", none = \"append\" } }
action = \"deny\"
";

fn errno<T>(result: io::Result<T>) -> i32 {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .unwrap_or(0)
}

#[allow(unsafe_code, reason = "no crate here maps files without it")]
fn map(file: &File, flags: i32) -> io::Result<()> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which nothing touches before it is unmapped.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            4096,
            rights,
            flags,
            file.as_raw_fd(),
            0,
        );
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(map, 4096);
    }
    Ok(())
}

/// Not a test by itself: the client, which tries to change what is there.
#[test]
fn inside() {
    let Some(at) = std::env::var_os(AT) else {
        return;
    };
    let at = Path::new(&at);
    let mut told = Vec::new();
    for name in ["log/small", "log/large", "log/new", "free", "attribute"] {
        let path = at.join(name);
        let reader = File::open(&path);
        let plain = File::options().read(true).write(true).open(&path);
        told.push(format!("{name}: write {}", errno(plain)));
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all_at(b"1", 0).unwrap();
        let flags = rustix::fs::fcntl_getfl(&file).unwrap();
        rustix::fs::fcntl_setfl(&file, flags - OFlags::APPEND).unwrap();
        let before = file.metadata().unwrap().len();
        file.write_all_at(b"2", 0).unwrap();
        told.push(format!(
            "appended {}",
            file.metadata().unwrap().len() - before
        ));
        told.push(format!(
            "shared map {}",
            errno(map(&file, libc::MAP_SHARED))
        ));
        told.push(format!(
            "private map {}",
            errno(map(&file, libc::MAP_PRIVATE))
        ));
        let source = File::open(at.join("source")).unwrap();
        let copy = rustix::fs::copy_file_range(&source, None, &file, Some(&mut 0), 1);
        told.push(format!("copy {}", errno(copy.map_err(io::Error::from))));
        drop(reader);
    }
    println!("\n| {}", told.join(", "));
    io::stdout().flush().unwrap();
}

#[test]
fn log_is_appended_to_alone_whatever_becomes_of_the_flag() {
    for data in ["auto", "mediated"] {
        let export = Export::new();
        let at = |name: &str| export.path().join(name);
        fs::create_dir(at("log")).unwrap();
        fs::set_permissions(at("log"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(at("source"), "s").unwrap();
        for (name, size) in [
            ("log/small", 8192),
            ("log/large", 200_000),
            ("free", 200_000),
            ("attribute", 200_000),
        ] {
            fs::write(at(name), vec![b'a'; size]).unwrap();
        }
        let attribute = |change: &str| {
            let mut chattr = Command::new("chattr");
            let done = chattr.arg(change).arg(at("attribute")).status();
            assert!(done.unwrap().success(), "chattr {change}");
        };
        attribute("+a");
        let policy = export.beside("policy.toml");
        fs::write(&policy, POLICY).unwrap();
        let start = Start::new(&export)
            .option(format!("--policy={}", shown(&policy)))
            .option(format!("--data={data}"));
        let view = start.mount();
        let words = itself(&export, "append::inside", &[(AT, &shown(export.path()))]);
        let output = ours(
            ["enter", &view.name, "--"]
                .into_iter()
                .map(str::to_owned)
                .chain(words),
        );
        // Nobody could remove it.
        attribute("-a");
        assert!(
            output.status.success(),
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
        let text = stdout(&output);
        let told = text
            .lines()
            .find_map(|line| line.strip_prefix("| "))
            .unwrap();
        // EACCES, ENODEV, EBADF.
        let held = "appended 1, shared map 19, private map 0, copy 9";
        assert_eq!(
            told,
            format!(
                "log/small: write 13, {held}, log/large: write 13, {held}, log/new: write 2, {held}, \
                 free: write 0, appended 0, shared map 0, private map 0, copy 0, \
                 attribute: write 1, {held}"
            ),
            "{data}"
        );
        for (name, size) in [
            ("log/small", 8192),
            ("log/large", 200_000),
            ("log/new", 0),
            ("attribute", 200_000),
        ] {
            let kept = [vec![b'a'; size], b"12".to_vec()].concat();
            assert!(fs::read(at(name)).unwrap() == kept, "{name} {data}");
        }
        assert_eq!(fs::read(at("free")).unwrap()[..2], *b"sa");
    }
}
