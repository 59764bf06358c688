//! What is known of QEMU's 9p server by version: a table, each row with its source.
//!
//! Debian's changelogs name the upstream commits of each stable release. A row speaks of the
//! branches that its source speaks of; what is not listed is not known to be free of it.

use crate::doctor::catalogue::Level;

/// Major, minor, micro.
pub(super) type Version = (u32, u32, u32);

/// The first version without `-fsdev proxy` (docs/about/removed-features.rst).
pub(super) const PROXY_REMOVED: Version = (9, 2, 0);

/// One known fault.
#[derive(Debug)]
pub(super) struct Fault {
    /// The versions that have it: from the first on, and before the second.
    has: &'static [(Version, Version)],
    /// `Warn`: a guest or an attacker can use it; `Note`: something does not work.
    pub(super) level: Level,
    pub(super) what: &'static str,
    pub(super) cure: &'static str,
    pub(super) source: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        has: &[((7, 2, 4), (8, 0, 0)), ((8, 0, 3), (10, 0, 0))],
        level: Level::Note,
        what: "a guest cannot make FIFOs or sockets (ENXIO): a regression of the fix of \
               CVE-2023-2861, unless this build carries the fix of that too",
        cure: "nothing in the view can change that; take QEMU 10.0 or later if the guest needs them",
        source: "tried with 7.2.22; Debian changelog, 8.0.3 and 9.2.0+ds-1; hw/9pfs/9p-util.h of \
                 7.2.4 and 10.0.13",
    },
    Fault {
        has: &[((0, 0, 0), (7, 2, 4)), ((8, 0, 0), (8, 0, 3))],
        level: Level::Warn,
        what: "QEMU opens special files of the export for a guest (CVE-2023-2861), unless this \
               build carries the fix; a view does not open them either way",
        cure: "take 7.2.4, 8.0.3 or later",
        source: "Debian changelog, 7.2.4 and 8.0.3",
    },
    Fault {
        has: &[((7, 2, 22), (7, 2, 23))],
        level: Level::Warn,
        what: "a guest that creates and removes files at the same time (overlapping Tlcreate and \
               Tunlinkat) crashes QEMU now and then",
        cure: "expect the VM to need a restart; whether another version does so was not tried",
        source: "seen with 7.2.22, as root on a plain directory too",
    },
    Fault {
        has: &[((7, 2, 0), (7, 2, 15))],
        level: Level::Warn,
        what: "a guest can crash QEMU by listing what is no directory (Treaddir)",
        cure: "take 7.2.15 or later",
        source: "Debian changelog, 7.2.15: 9pfs: fix crash on 'Treaddir' request",
    },
    Fault {
        has: &[((7, 2, 0), (7, 2, 16))],
        level: Level::Note,
        what: "fstat of a file that was removed while open fails in the guest",
        cure: "take 7.2.16 or later",
        source: "Debian changelog, 7.2.16: 9pfs: fix 'Tgetattr' after unlink",
    },
    Fault {
        has: &[((7, 2, 0), (7, 2, 18)), ((10, 0, 0), (10, 0, 2))],
        level: Level::Note,
        what: "QEMU leaks descriptors when a guest holds very many files",
        cure: "take 7.2.18, 10.0.2 or later",
        source: "Debian changelog, 7.2.18 and 10.0.2: 9pfs: fix FD leak ... of v9fs_reclaim_fd()",
    },
    Fault {
        has: &[((10, 0, 0), (10, 0, 11))],
        level: Level::Warn,
        what: "a guest can abort QEMU with an illegal name (Twstat), and race a listing against a \
               rename (CVE-2026-48004)",
        cure: "take 10.0.11 or later",
        source: "Debian changelog, 10.0.11",
    },
    Fault {
        has: &[((10, 0, 0), (10, 0, 12))],
        level: Level::Warn,
        what: "a guest can make QEMU use up memory (CVE-2026-8348, CVE-2026-9238)",
        cure: "take 10.0.12 or later",
        source: "Debian changelog, 10.0.12",
    },
    Fault {
        has: &[((10, 0, 0), (10, 0, 13))],
        level: Level::Warn,
        what: "`readonly=on` of -virtfs does not stop a guest's O_TRUNC (CVE-2026-63318)",
        cure: "let the view refuse changes (`run --readonly`), or take 10.0.13 or later",
        source: "Debian changelog, 10.0.13",
    },
];

/// The faults of a version.
pub(super) fn of(version: Version) -> impl Iterator<Item = &'static Fault> {
    let has = move |fault: &&Fault| {
        let within = |(first, fixed): &(Version, Version)| *first <= version && version < *fixed;
        fault.has.iter().any(within)
    };
    FAULTS.iter().filter(has)
}

/// From the first line of `--version`: `QEMU emulator version 7.2.22 (Debian ...)`.
pub(super) fn parse(text: &str) -> Option<Version> {
    let line = text
        .lines()
        .find(|line| line.starts_with("QEMU emulator version"))?;
    let word = line.split_whitespace().nth(3)?;
    let mut parts = word.split('.').map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok())
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    // A development snapshot may leave it out.
    Some((major, minor, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_as_builds_print_it() {
        for (text, version) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright",
                Some((7, 2, 22)),
            ),
            (
                "QEMU emulator version 10.0.50 (v10.0.0-1-gabc)",
                Some((10, 0, 50)),
            ),
            ("warning: x\nQEMU emulator version 9.1.0", Some((9, 1, 0))),
            ("QEMU emulator version 8.2", Some((8, 2, 0))),
            ("QEMU emulator version x.y", None),
            ("qemu-img version 7.2.22", None),
            ("", None),
        ] {
            assert_eq!(parse(text), version, "{text}");
        }
    }

    #[test]
    fn faults_hold_from_the_first_to_before_the_fixed_version() {
        let has = |version, word: &str| of(version).any(|fault| fault.what.contains(word));
        for (word, version, expected) in [
            ("ENXIO", (7, 2, 3), false),
            ("ENXIO", (7, 2, 4), true),
            ("ENXIO", (8, 0, 2), false),
            ("ENXIO", (8, 2, 0), true),
            ("ENXIO", (10, 0, 0), false),
            ("special files", (6, 2, 0), true),
            ("special files", (7, 2, 4), false),
            ("Tlcreate", (7, 2, 21), false),
            ("Tlcreate", (7, 2, 22), true),
            ("Treaddir", (7, 2, 14), true),
            ("Treaddir", (7, 2, 15), false),
            ("O_TRUNC", (10, 0, 12), true),
            ("O_TRUNC", (10, 0, 13), false),
        ] {
            assert_eq!(has(version, word), expected, "{word} in {version:?}");
        }
    }

    #[test]
    fn rows_are_whole() {
        for fault in FAULTS {
            assert!(!fault.what.is_empty() && !fault.cure.is_empty() && !fault.source.is_empty());
            assert!(
                matches!(fault.level, Level::Warn | Level::Note),
                "{fault:?}"
            );
            assert!(
                fault.has.iter().all(|(first, fixed)| first < fixed),
                "{fault:?}"
            );
        }
    }
}
