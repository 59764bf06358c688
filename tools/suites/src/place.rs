//! The places that suites run in, by name.

use std::fmt;

/// How long a view's kernel remembers: `--cache`.
const CACHES: [&str; 3] = ["auto", "none", "exclusive"];
/// How a view's file data goes: `--data`.
const DATA: [&str; 3] = ["auto", "mediated", "passthrough"];

/// A directory as somebody shows it to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The directory itself, as root: what a shared view is compared with.
    Ext4,
    /// The directory itself, as a plain user: what a client's view is compared with.
    Ext4User,
    /// A general mount (`--shared`), as root.
    Shared(Mode),
    /// A client's own view, as the client.
    Client(Mode),
    /// bindfs, as root.
    Bindfs,
    /// libfuse's example `passthrough_hp`, as root.
    PassthroughHp,
    /// libfuse's example `passthrough_ll` as a server that may make no devices, on a general mount
    /// where the kernel checks no mode bits; what any such server meets, as root.
    Plain,
    /// The same, as a plain user.
    PlainUser,
    /// A guest's 9p share of the directory itself, from a QEMU that is root: what a guest sees of a view
    /// is compared with it.
    GuestRaw,
    /// A guest's 9p share of a client's own view, from a QEMU that is the client.
    GuestView,
    /// A guest's 9p share of the mount that [`Place::Plain`] is, from a QEMU that is a plain user.
    GuestPlain,
}

/// A view's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mode {
    pub(crate) cache: &'static str,
    pub(crate) data: &'static str,
}

impl Mode {
    /// Every cache mode with every data mode.
    fn all() -> impl Iterator<Item = Self> {
        CACHES
            .into_iter()
            .flat_map(|cache| DATA.into_iter().map(move |data| Self { cache, data }))
    }

    /// Whether it is one of three that have each cache and each way of data among them.
    pub(crate) fn is_telling(self) -> bool {
        [
            ("auto", "auto"),
            ("none", "mediated"),
            ("exclusive", "passthrough"),
        ]
        .contains(&(self.cache, self.data))
    }

    /// The one that is in force if nothing is said.
    pub(crate) const DEFAULT: Self = Self {
        cache: "auto",
        data: "auto",
    };
}

impl Place {
    /// All of them, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Ext4];
        all.extend(Mode::all().map(Self::Shared));
        all.extend([Self::Bindfs, Self::PassthroughHp, Self::Plain]);
        all.push(Self::Ext4User);
        // Data goes the same way as in a shared view.
        all.extend(
            Mode::all()
                .filter(|mode| mode.is_telling())
                .map(Self::Client),
        );
        all.push(Self::PlainUser);
        all.extend([Self::GuestRaw, Self::GuestView, Self::GuestPlain]);
        all
    }

    /// Whether it is a view, which has to be like its reference.
    pub(crate) fn is_view(self) -> bool {
        matches!(self, Self::Shared(_) | Self::Client(_) | Self::GuestView)
    }

    /// Whether suites run there inside of a guest, as its root.
    pub(crate) fn is_guests(self) -> bool {
        matches!(self, Self::GuestRaw | Self::GuestView | Self::GuestPlain)
    }

    /// Whether it is another mirror, and that a view which has to pass all that it passes.
    pub(crate) fn is_matched_by(self, view: Self) -> bool {
        matches!(self, Self::Bindfs | Self::PassthroughHp) && matches!(view, Self::Shared(_))
    }

    /// Whether suites run there as a plain user.
    pub(crate) fn is_users(self) -> bool {
        matches!(self, Self::Ext4User | Self::Client(_) | Self::PlainUser)
    }

    /// What it has to be like.
    pub(crate) fn reference(self) -> Self {
        if self.is_guests() {
            Self::GuestRaw
        } else if self.is_users() {
            Self::Ext4User
        } else {
            Self::Ext4
        }
    }

    /// The mode of a view on the host.
    pub(crate) fn mode(self) -> Option<Mode> {
        match self {
            Self::Shared(mode) | Self::Client(mode) => Some(mode),
            Self::Ext4
            | Self::Ext4User
            | Self::Bindfs
            | Self::PassthroughHp
            | Self::Plain
            | Self::PlainUser
            | Self::GuestRaw
            | Self::GuestView
            | Self::GuestPlain => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext4 => f.write_str("ext4"),
            Self::Ext4User => f.write_str("ext4/user"),
            Self::Shared(mode) => write!(f, "shared:{}/{}", mode.cache, mode.data),
            Self::Client(mode) => write!(f, "client:{}/{}", mode.cache, mode.data),
            Self::Bindfs => f.write_str("bindfs"),
            Self::GuestRaw => f.write_str("guest/raw"),
            Self::GuestView => f.write_str("guest:view"),
            Self::GuestPlain => f.write_str("guest/plain"),
            Self::PassthroughHp => f.write_str("passthrough_hp"),
            Self::Plain => f.write_str("plain"),
            Self::PlainUser => f.write_str("plain/user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own_and_a_reference_that_is_no_view() {
        let all = Place::all();
        let mut names: Vec<_> = all.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for place in all {
            assert!(!place.reference().is_view());
            assert_eq!(place.is_users(), place.reference().is_users());
            assert_eq!(place.is_guests(), place.reference().is_guests());
            assert_eq!(
                place.is_view() && !place.is_guests(),
                place.mode().is_some()
            );
        }
    }
}
