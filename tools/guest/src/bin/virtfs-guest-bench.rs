//! Runs in the guest, for tools/bench/guest: the same file operations on a share, whatever serves it.
//!
//! `virtfs-guest-bench DIRECTORY`: one line for each operation to standard output, `@BENCH`, its
//! name, and nanoseconds for one. Needs root, to have the kernel forget what it knows.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Small files, of one page each.
const FILES: u32 = 300;
const PAGE: usize = 4096;
/// The large file, in bytes.
const LARGE: usize = 16 << 20;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        say("@ERROR usage: virtfs-guest-bench DIRECTORY");
        return ExitCode::from(2);
    };
    match measure(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("@ERROR {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(directory: &Path) -> io::Result<()> {
    let small = directory.join("small");
    fs::create_dir(&small)?;
    let names: Vec<PathBuf> = (0..FILES)
        .map(|n| small.join(format!("file-{n:06}")))
        .collect();
    let page = vec![b's'; PAGE];
    let stat = |name: &PathBuf| fs::symlink_metadata(name).map(black_box).map(drop);
    each("create+write 4k+close", &names, |name| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(name)?;
        file.write_all(&page)
    })?;
    forget()?;
    each("stat, first time", &names, stat)?;
    each("stat, again", &names, stat)?;
    forget()?;
    let read = |name: &PathBuf| {
        let mut buffer = vec![0; PAGE];
        File::open(name)?.read_exact(&mut buffer)?;
        black_box(buffer);
        Ok(())
    };
    each("open+read+close 4k, first time", &names, read)?;
    each("open+read+close 4k, again", &names, read)?;
    each("rename", &names, |name| {
        fs::rename(name, name.with_extension("new"))
    })?;
    let names: Vec<PathBuf> = names
        .iter()
        .map(|name| name.with_extension("new"))
        .collect();
    each("unlink", &names, |name| fs::remove_file(name))?;
    let large = directory.join("large");
    for (size, write, read) in [
        (PAGE, "write 4k", "read 4k"),
        (128 << 10, "write 128k", "read 128k"),
    ] {
        let mut buffer = vec![b'l'; size];
        let pieces: Vec<usize> = (0..LARGE / size).collect();
        let mut file = File::create(&large)?;
        each(write, &pieces, |_piece| file.write_all(&buffer))?;
        file.sync_all()?;
        drop(file);
        forget()?;
        let mut file = File::open(&large)?;
        each(read, &pieces, |_piece| file.read_exact(&mut buffer))?;
    }
    Ok(())
}

/// Does something with each, and tells how long one took.
fn each<T>(title: &str, all: &[T], mut work: impl FnMut(&T) -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    for one in all {
        work(one).map_err(|error| io::Error::new(error.kind(), format!("{title}: {error}")))?;
    }
    let count = u128::try_from(all.len()).unwrap_or(u128::MAX).max(1);
    say(&format!(
        "@BENCH {title}\t{}",
        start.elapsed().as_nanos() / count
    ));
    Ok(())
}

/// Names, attributes and pages: the next look at them asks the host. What is written is there
/// already: neither 9p nor virtiofs keeps it back as they are mounted.
fn forget() -> io::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "3")
}

fn say(line: &str) {
    // A console that is gone has no reader to tell.
    let _gone = io::stdout().write_all(format!("{line}\n").as_bytes());
}
