//! The policies that ship with the program: files to start from, for `policy init`. What each is
//! meant to answer stands beside it, in `NAME.cases.toml`.

macro_rules! shipped {
    ($($(#[$doc:meta])* $constant:ident $name:literal,)*) => {
        $($(#[$doc])*
        pub const $constant: &str =
            include_str!(concat!("../../../tools/policies/", $name, ".toml"));)*

        /// Every shipped policy, by its name on the command line.
        pub const ALL: &[(&str, &str)] = &[$(($name, $constant),)*];
    };
}

shipped! {
    /// As if QEMU were root on the directory itself.
    PARITY "parity",
    /// Everything is seen, nothing is changed.
    READONLY "readonly",
    /// Files are put down and not read back.
    DROPBOX "dropbox",
    /// The guest's root is nobody.
    ROOT_SQUASH "root-squash",
    /// The guest's ids lie in a range of their own.
    ID_RANGE "id-range",
    /// All can be read, uploads written.
    WEB_ROOT "web-root",
    /// Some names are not there.
    HIDDEN_SECRETS "hidden-secrets",
    /// A file's owner is given when it is made, and stays.
    OWNER_AT_BIRTH "owner-at-birth",
    /// Files that are added to and nothing else.
    APPEND_ONLY "append-only",
    /// The guest's extended attributes are kept apart.
    XATTRS "xattrs",
    /// What a package manager cannot do is told as done.
    PACKAGES "packages",
}
