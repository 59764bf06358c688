//! What becomes of a file's data, and of the room for it.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom};

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
