//! The policies that ship with the program: files to start from, for `policy init`.

/// As if QEMU were root on the directory itself.
pub const PARITY: &str = include_str!("../../../tools/policies/parity.toml");
/// Everything is seen, nothing is changed.
pub const READONLY: &str = include_str!("../../../tools/policies/readonly.toml");
/// Files are put down and not read back.
pub const DROPBOX: &str = include_str!("../../../tools/policies/dropbox.toml");

/// Every shipped policy, by its name on the command line.
pub const ALL: &[(&str, &str)] = &[
    ("parity", PARITY),
    ("readonly", READONLY),
    ("dropbox", DROPBOX),
];
