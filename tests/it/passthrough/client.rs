//! The client of these tests: this test binary itself, started again in a view.
#![allow(clippy::print_stdout, reason = "what the test reads")]

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;

use crate::common::{Export, Running, Start, shown};

/// What [`inside`] is to do, and where.
const CASE: &str = "VIRTFS_IT_PASSTHROUGH";
const VIEW: &str = "VIRTFS_IT_VIEW";

type Case = (&'static str, fn(&Path) -> std::io::Result<()>);

const CASES: [Case; 7] = [
    ("everything", everything),
    ("small", small),
    ("write-one", write_one),
    ("hold", hold),
    ("race", race),
    ("reopen", reopen),
    ("cut-a-program", cut_a_program),
];

/// Not a test by itself: the client. Prints `ready` when its case is done, and stays.
#[test]
fn inside() {
    let (Some(case), Some(view)) = (std::env::var_os(CASE), std::env::var_os(VIEW)) else {
        return;
    };
    let (_, run) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    // Seen by the test, since the pipe ends.
    run(Path::new(&view)).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    println!("\nready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

/// Starts a view whose client does a case.
pub(super) fn start(export: &Export, start: &Start, case: &str) -> Running {
    let copy: PathBuf = export.beside("client");
    if !copy.exists() {
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut words = vec!["env".to_owned()];
    words.push(format!("{CASE}={case}"));
    words.push(format!("{VIEW}={}", shown(export.path())));
    words.push(shown(&copy));
    let rest = "--exact passthrough::client::inside --nocapture --test-threads 1";
    words.extend(rest.split(' ').map(str::to_owned));
    let mut command = start.command(words);
    command.stdin(Stdio::piped());
    Running::spawn(command, start.name().to_owned())
}

/// A program that runs is cut short by nobody, not by a descriptor for reading either.
fn cut_a_program(at: &Path) -> std::io::Result<()> {
    let path = at.join("program");
    let mut running = std::process::Command::new(&path)
        .args(["-c", "read line"])
        .stdin(Stdio::piped())
        .spawn()?;
    for (access, flags) in [
        ("write", libc::O_WRONLY),
        ("cut", libc::O_WRONLY | libc::O_TRUNC),
        ("cut, for reading", libc::O_RDONLY | libc::O_TRUNC),
    ] {
        let tried = fs::File::options()
            .read(flags & libc::O_ACCMODE == libc::O_RDONLY)
            .write(flags & libc::O_ACCMODE == libc::O_WRONLY)
            .custom_flags(flags & libc::O_TRUNC)
            .open(&path);
        let errno = tried.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::ETXTBSY), "{access}");
    }
    drop(running.stdin.take());
    // By itself, and not by a signal.
    assert_eq!(running.wait()?.code(), Some(1));
    Ok(())
}

/// What files hold at first.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at / 7 % 251).unwrap())
        .collect()
}

/// The size of a file that is large.
pub(super) const LARGE: usize = 1 << 20;

fn open(path: &Path) -> std::io::Result<fs::File> {
    fs::File::options().read(true).write(true).open(path)
}

/// Everything that can be done with the data of `large`, which [`expected`] says once more.
fn everything(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let mut file = open(&path)?;
    let mut read = Vec::new();
    file.read_to_end(&mut read)?;
    assert_eq!(read, pattern(LARGE));
    file.write_all_at(b"written", 5000)?;
    let mut back = [0; 9];
    file.read_exact_at(&mut back, 4999)?;
    assert_eq!(&back[1..8], b"written");
    // Behind the end, by a descriptor of its own.
    let mut end = fs::File::options().append(true).open(&path)?;
    end.write_all(b"appended")?;
    assert_eq!(file.metadata()?.len(), LARGE as u64 + 8);
    assert_eq!(file.seek(SeekFrom::End(0))?, LARGE as u64 + 8);
    mapped(&file, 8192, b"mapped")?;
    // A hole, and a shorter file: requests of their own, seen by whoever reads past the mediator.
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 65_536, 65_536)?;
    let mut zero = vec![1; 65_536];
    file.read_exact_at(&mut zero, 65_536)?;
    assert!(zero.iter().all(|byte| *byte == 0));
    file.set_len(LARGE as u64 - 4096)?;
    assert_eq!(file.metadata()?.len(), LARGE as u64 - 4096);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &file, Some(&mut 200_000), 4096)?;
    assert_eq!(copied, 4096);
    direct(&path)?;
    // Without a name.
    fs::rename(&path, at.join("moved"))?;
    let other = open(&at.join("moved"))?;
    fs::remove_file(at.join("moved"))?;
    file.write_all_at(b"nameless", 0)?;
    let mut same = [0; 8];
    other.read_exact_at(&mut same, 0)?;
    assert_eq!(&same, b"nameless");
    file.sync_all()?;
    // What is left of it, for the host to compare: cached, since it is new.
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut rest)?;
    fs::write(at.join("result"), rest)
}

/// What [`everything`] leaves.
pub(super) fn expected() -> Vec<u8> {
    let mut data = pattern(LARGE);
    data[5000..5007].copy_from_slice(b"written");
    data[8192..8198].copy_from_slice(b"mapped");
    data[65_536..131_072].fill(0);
    data.truncate(LARGE - 4096);
    let start = data[..4096].to_vec();
    data[200_000..204_096].copy_from_slice(&start);
    data[300_000 / 4096 * 4096..][..4096].fill(b'd');
    data[..8].copy_from_slice(b"nameless");
    data
}

/// Writes by a shared mapping and reads the same place by read(2), and the other way round.
#[allow(unsafe_code, reason = "a mapping is raw memory")]
fn mapped(file: &fs::File, offset: usize, text: &[u8]) -> std::io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping, where the kernel likes it.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LARGE,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the mapping is LARGE bytes long, the file is longer, and nobody else has it.
    let memory = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), LARGE) };
    assert_eq!(&memory[5000..5007], b"written");
    memory[offset..offset + text.len()].copy_from_slice(text);
    let mut read = vec![0; text.len()];
    file.read_exact_at(&mut read, offset as u64)?;
    assert_eq!(read, text);
    // SAFETY: mapped above, and not used again.
    unsafe { libc::munmap(at, LARGE) };
    Ok(())
}

/// `O_DIRECT`, where the file system has it, which asks for aligned memory.
fn direct(path: &Path) -> std::io::Result<()> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let file = fs::File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    file.write_all_at(&Page([b'd'; 4096]).0, 300_000 / 4096 * 4096)
}

fn small(at: &Path) -> std::io::Result<()> {
    fs::write(at.join("new"), b"made")?;
    let mut file = open(&at.join("small"))?;
    file.write_all(b"changed")?;
    let mut text = String::new();
    fs::File::open(at.join("new"))?.read_to_string(&mut text)?;
    assert_eq!(text, "made");
    Ok(())
}

/// Writes one byte where it was told to, and looks at the mode before and after.
fn write_one(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let file = open(&path)?;
    println!("\nmode {:o}", file.metadata()?.mode() & 0o7777);
    file.write_all_at(b"x", 100)?;
    println!("mode {:o}", file.metadata()?.mode() & 0o7777);
    println!("mode {:o}", fs::metadata(&path)?.mode() & 0o7777);
    Ok(())
}

/// Opens `large`, and at each line that comes from the test, opens it once more and tells what
/// came of that and of a read by the first.
fn hold(at: &Path) -> std::io::Result<()> {
    let path = at.join("large");
    let first = open(&path)?;
    println!("\nheld");
    for _line in std::io::stdin().lines() {
        let again = open(&path).map(|_file| ());
        let mut byte = [0];
        let read = first.read_at(&mut byte, 4097);
        let told = |result: std::io::Result<String>| {
            result.unwrap_or_else(|error| error.raw_os_error().unwrap_or(0).to_string())
        };
        let again = told(again.map(|()| "ok".to_owned()));
        println!("again {again} read {}", told(read.map(|n| n.to_string())));
    }
    Ok(())
}

/// Holds `large` open, and opens `other` twice when it is told to.
fn reopen(at: &Path) -> std::io::Result<()> {
    let large = open(&at.join("large"))?;
    println!("\nheld");
    std::io::stdin().read_line(&mut String::new())?;
    for name in ["other", "other", "large"] {
        let mut read = Vec::new();
        open(&at.join(name))?.read_to_end(&mut read)?;
        assert_eq!(read, pattern(LARGE));
    }
    let mut byte = [0];
    large.read_exact_at(&mut byte, 70_000)
}

/// Four threads open, read, write, truncate and grow the same two files, until the test says enough;
/// none of it may fail.
fn race(at: &Path) -> std::io::Result<()> {
    println!("\nheld");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4_u64)
            .map(|number| {
                let enough = &enough;
                scope.spawn(move || -> std::io::Result<u64> {
                    let mut rounds = 0;
                    while !enough.load(Ordering::Relaxed) {
                        let name = if (rounds + number).is_multiple_of(2) {
                            "large"
                        } else {
                            "other"
                        };
                        one_round(&at.join(name), rounds + number)?;
                        rounds += 1;
                    }
                    Ok(rounds)
                })
            })
            .collect();
        std::io::stdin().read_line(&mut String::new())?;
        enough.store(true, Ordering::Relaxed);
        for racer in racers {
            let rounds = racer.join().unwrap()?;
            println!("{rounds} rounds");
        }
        Ok(())
    })
}

fn one_round(path: &Path, round: u64) -> std::io::Result<()> {
    let truncate = round.is_multiple_of(7);
    let mut options = fs::File::options();
    options.read(true).write(true).truncate(truncate);
    let file = options.open(path)?;
    let second = fs::File::open(path)?;
    if truncate {
        file.set_len(if round.is_multiple_of(2) {
            200_000
        } else {
            100
        })?;
    }
    file.write_all_at(b"race", round % 50_000)?;
    let mut read = [0; 4];
    second.read_at(&mut read, round % 50_000)?;
    Ok(())
}
