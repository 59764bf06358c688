//! The policies that ship with the program, for `policy init`.

/// A policy file to start from.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its name on the command line.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

/// Every shipped policy.
pub const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "parity",
        text: include_str!("../../../tools/policies/parity.toml"),
    },
    Shipped {
        name: "readonly",
        text: include_str!("../../../tools/policies/readonly.toml"),
    },
    Shipped {
        name: "dropbox",
        text: include_str!("../../../tools/policies/dropbox.toml"),
    },
];
