//! Errnos by the names that errno(3) gives them.

use rustix::io::Errno;

const SYMBOLS: &[(Errno, &str)] = &[
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::INTR, "EINTR"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::XDEV, "EXDEV"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::TXTBSY, "ETXTBSY"),
    (Errno::FBIG, "EFBIG"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::ROFS, "EROFS"),
    (Errno::MLINK, "EMLINK"),
    (Errno::RANGE, "ERANGE"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOTEMPTY, "ENOTEMPTY"),
    (Errno::LOOP, "ELOOP"),
    (Errno::NODATA, "ENODATA"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    // Linux has one number for it and EOPNOTSUPP.
    (Errno::NOTSUP, "ENOTSUP"),
    (Errno::STALE, "ESTALE"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::NOTCONN, "ENOTCONN"),
];

/// An errno's name, `EACCES`; `None` if no file operation answers it.
#[must_use]
pub fn errno_name(errno: Errno) -> Option<&'static str> {
    let found = SYMBOLS.iter().find(|(known, _)| *known == errno);
    found.map(|(_, symbol)| *symbol)
}

/// An errno's name, `EACCES`; by number, `errno 255`, if no file operation answers it.
#[must_use]
pub fn errno_symbol(errno: Errno) -> String {
    errno_name(errno).map_or_else(|| format!("errno {}", errno.raw_os_error()), str::to_owned)
}

/// The errno of a name.
#[must_use]
pub fn errno_named(symbol: &str) -> Option<Errno> {
    let symbol = if symbol == "EOPNOTSUPP" {
        "ENOTSUP"
    } else {
        symbol
    };
    let found = SYMBOLS.iter().find(|(_, known)| *known == symbol);
    found.map(|(errno, _)| *errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_and_its_name_lead_to_each_other() {
        for (errno, symbol) in SYMBOLS {
            assert_eq!(errno_symbol(*errno), *symbol);
            assert_eq!(errno_named(symbol), Some(*errno));
        }
        assert_eq!(errno_named("EOPNOTSUPP"), Some(Errno::NOTSUP));
        assert_eq!(errno_named("EWHATEVER"), None);
        assert_eq!(errno_symbol(Errno::from_raw_os_error(4000)), "errno 4000");
    }
}
