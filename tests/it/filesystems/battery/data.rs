//! What becomes of a file's data, and of the room for it.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use super::{create, outcome};

pub(super) fn large(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    let file = create(&path)?;
    file.write_all_at(b"far away", 5 << 30)?;
    tell!(told, "size {}", file.metadata()?.size());
    let mut read = [0; 8];
    file.read_exact_at(&mut read, 5 << 30)?;
    tell!(told, "{}", String::from_utf8_lossy(&read));
    file.read_exact_at(&mut read, 4 << 30)?;
    tell!(told, "{read:?}");
    file.set_len(1 << 32)?;
    tell!(told, "size {}", file.metadata()?.size());
    file.set_len(10)?;
    tell!(
        told,
        "too far: {}",
        outcome(file.write_all_at(b"x", i64::MAX.unsigned_abs()))
    );
    chown(&path, Some(0), Some(0))
}

pub(super) fn holes(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    let file = create(&path)?;
    let whole = FallocateFlags::empty();
    tell!(
        told,
        "allocate {}",
        outcome(rustix::fs::fallocate(&file, whole, 0, 1 << 20))
    );
    file.write_all_at(&[1; 1 << 20], 0)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    tell!(
        told,
        "punch {}",
        outcome(rustix::fs::fallocate(&file, punch, 1 << 18, 1 << 18))
    );
    rustix::fs::fsync(&file)?;
    let mut read = [9; 2];
    file.read_exact_at(&mut read, (1 << 18) - 1)?;
    tell!(told, "at its edge {read:?}");
    for (name, from) in [
        ("hole", SeekFrom::Hole(0)),
        ("data in hole", SeekFrom::Data(1 << 18)),
        ("hole behind", SeekFrom::Hole(1 << 19)),
        ("data at end", SeekFrom::Data(1 << 20)),
    ] {
        match rustix::fs::seek(&file, from) {
            Ok(place) => {
                tell!(told, "{name} {place}");
            }
            Err(errno) => {
                tell!(told, "{name} {errno}");
            }
        }
    }
    let keep = FallocateFlags::KEEP_SIZE;
    tell!(
        told,
        "behind {}",
        outcome(rustix::fs::fallocate(&file, keep, 1 << 20, 1 << 16))
    );
    tell!(told, "size {}", file.metadata()?.size());
    let other = create(&at.join("copy"))?;
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &other, Some(&mut 0), 1 << 16);
    tell!(told, "copied {}", outcome(copied));
    chown(at.join("copy"), Some(0), Some(0))?;
    chown(&path, Some(0), Some(0))
}

/// Large enough to go past the mediator once it is opened again.
pub(super) fn data(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    let pattern: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    create(&path)?.write_all(&pattern)?;
    chown(&path, Some(0), Some(0))?;
    let file = File::options().read(true).write(true).open(&path)?;
    let mut read = Vec::new();
    (&file).read_to_end(&mut read)?;
    tell!(told, "the same {}", read == pattern);
    file.write_all_at(b"in the middle", 300_001)?;
    File::options()
        .append(true)
        .open(&path)?
        .write_all(b"at the end")?;
    tell!(told, "size {}", file.metadata()?.size());
    file.set_len(700_000)?;
    rustix::fs::fsync(&file)?;
    let mut end = [0; 20];
    tell!(told, "read {}", file.read_at(&mut end, 699_990)?);
    Ok(())
}

pub(super) fn nameless(at: &Path, told: &mut String) -> io::Result<()> {
    let path = at.join("file");
    let file = create(&path)?;
    fs::remove_file(&path)?;
    file.write_all_at(b"still there", 0)?;
    file.set_permissions(Permissions::from_mode(0o640))?;
    std::os::unix::fs::fchown(&file, Some(1000), Some(1000))?;
    let meta = file.metadata()?;
    tell!(
        told,
        "{:o} {} links={} size={}",
        meta.mode(),
        meta.uid(),
        meta.nlink(),
        meta.size()
    );
    create(&path)?.write_all(b"another")?;
    let mut read = [0; 11];
    file.read_exact_at(&mut read, 0)?;
    tell!(told, "{}", String::from_utf8_lossy(&read));
    chown(&path, Some(0), Some(0))
}

pub(super) fn room(at: &Path, told: &mut String) -> io::Result<()> {
    let stat = rustix::fs::statvfs(at)?;
    tell!(
        told,
        "blocks {} of {} names {}, room {}",
        stat.f_blocks,
        stat.f_frsize,
        stat.f_namemax,
        stat.f_bavail > 0
    );
    Ok(())
}

/// A small file, and one that is large enough to go past the mediator.
pub(super) fn append(at: &Path, told: &mut String) -> io::Result<()> {
    for size in [8192, 200_000] {
        let path = at.join(size.to_string());
        create(&path)?.write_all(&vec![b'a'; size])?;
        chown(&path, Some(0), Some(0))?;
        let open = || File::options().read(true).append(true).open(&path);
        let tell = |told: &mut String, what: &str| -> io::Result<()> {
            let data = fs::read(&path)?;
            let places = data.iter().enumerate().filter(|(_, byte)| **byte != b'a');
            let others: Vec<_> = places.map(|(at, byte)| (at, *byte as char)).collect();
            tell!(told, "{what}: {} octets, {others:?}", data.len());
            Ok(())
        };
        let file = open()?;
        map_and_write(&file, 5, b"M")?;
        tell(told, "mapped")?;
        // pwrite(2), BUGS: at the end.
        file.write_all_at(b"E", 0)?;
        tell(told, "written")?;
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::APPEND)?;
        file.write_all_at(b"P", 1)?;
        tell(told, "not appending any more")?;
        rustix::fs::fcntl_setfl(&file, flags | OFlags::APPEND)?;
        file.write_all_at(b"F", 0)?;
        tell(told, "again")?;
        let plain = File::options().read(true).write(true).open(&path)?;
        file.write_all_at(b"G", 0)?;
        plain.write_all_at(b"Q", 2)?;
        let flags = rustix::fs::fcntl_getfl(&plain)?;
        rustix::fs::fcntl_setfl(&plain, flags | OFlags::APPEND)?;
        plain.write_all_at(b"H", 0)?;
        tell(told, "two open files")?;
        drop((file, plain));
        let _past = File::options().read(true).write(true).open(&path)?;
        let file = open()?;
        file.write_all_at(b"I", 0)?;
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::APPEND)?;
        file.write_all_at(b"R", 3)?;
        map_and_write(&file, 6, b"N")?;
        tell(told, "opened behind another")?;
    }
    Ok(())
}

#[allow(unsafe_code, reason = "a mapping is memory that others change")]
fn map_and_write(file: &File, at: usize, data: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (len, rights) = (4096, libc::PROT_READ | libc::PROT_WRITE);
    assert!(at + data.len() <= len);
    let (flags, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: a new mapping, of no more than the file has; nothing else knows its address, it is
    // written inside its bounds and unmapped before the address is forgotten.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), len, rights, flags, fd, 0);
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(data.as_ptr(), map.cast::<u8>().add(at), data.len());
        let synced = libc::msync(map, len, libc::MS_SYNC);
        let error = io::Error::last_os_error();
        libc::munmap(map, len);
        if synced == 0 { Ok(()) } else { Err(error) }
    }
}
