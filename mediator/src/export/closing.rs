//! Whether close(2) can tell anything on the export's file system.
//!
//! Only a file system whose `file_operations` have a `flush` is asked at close (`filp_flush`,
//! fs/open.c): NFS, CIFS, FUSE, overlayfs, AFS, Ceph and others write back then, and tell of what
//! failed. Where there is none, close returns 0 whatever was written.

use std::os::fd::BorrowedFd;

/// `f_type` (statfs(2), linux/magic.h) of file systems without `flush` for regular files:
/// `ext4_file_operations` (ext2 and ext3 have the same number and none either),
/// `xfs_file_operations`, `btrfs_file_operations`, `shmem_file_operations`,
/// `ramfs_file_operations`. f2fs has one.
const SILENT: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x8584_58f6];

/// Whether close(2) is known to tell nothing; not if the file system does not say what it is.
pub(super) fn is_silent(root: BorrowedFd<'_>) -> bool {
    // f_type is a signed word, and some of the numbers have the highest of 32 bits set.
    let known = |magic: &u32| {
        rustix::fs::fstatfs(root).is_ok_and(|fs| fs.f_type & 0xffff_ffff == i64::from(*magic))
    };
    SILENT.iter().any(known)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn file_system_that_is_not_on_the_list_is_asked_at_close() {
        for (path, silent) in [("/dev/shm", true), ("/proc", false), ("/sys", false)] {
            let dir = std::fs::File::open(path).unwrap();
            assert_eq!(is_silent(dir.as_fd()), silent, "{path}");
        }
    }
}
