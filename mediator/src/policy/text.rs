//! Names and paths on the wire: bytes, which a text format shows escaped as in a log
//! (`slice::escape_ascii`: `\n`, `\\`, `\x1b`), and others as they are.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

use super::parse::unescaped;

fn write<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        to.collect_str(&bytes.escape_ascii())
    } else {
        to.serialize_bytes(bytes)
    }
}

fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    if from.is_human_readable() {
        let text = String::deserialize(from)?;
        unescaped(&text).map_err(|bad| D::Error::custom(bad.what))
    } else {
        Vec::<u8>::deserialize(from)
    }
}

/// One name, for collections and pairs of them.
struct Escaped(Vec<u8>);

impl serde::Serialize for Escaped {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        write(&self.0, to)
    }
}

impl<'de> Deserialize<'de> for Escaped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read(from).map(Self)
    }
}

macro_rules! shape {
    ($module:ident, $type:ty, $wire:ty, $to:expr, $from:expr) => {
        #[allow(clippy::ptr_arg, reason = "serde names the field's own type")]
        pub(crate) mod $module {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(
                value: &$type,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                let wire: $wire = $to(value.clone());
                serde::Serialize::serialize(&wire, to)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<$type, D::Error> {
                <$wire>::deserialize(from).map($from)
            }
        }
    };
}

shape!(one, Vec<u8>, Escaped, Escaped, |wire: Escaped| wire.0);
shape!(
    some,
    Option<Vec<u8>>,
    Option<Escaped>,
    |value: Option<Vec<u8>>| value.map(Escaped),
    |wire: Option<Escaped>| wire.map(|wire| wire.0)
);
shape!(
    many,
    Vec<Vec<u8>>,
    Vec<Escaped>,
    |value: Vec<Vec<u8>>| value.into_iter().map(Escaped).collect(),
    |wire: Vec<Escaped>| wire.into_iter().map(|wire| wire.0).collect()
);
shape!(
    sized,
    Option<(Vec<u8>, usize)>,
    Option<(Escaped, usize)>,
    |value: Option<(Vec<u8>, usize)>| value.map(|(name, size)| (Escaped(name), size)),
    |wire: Option<(Escaped, usize)>| wire.map(|(name, size)| (name.0, size))
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_survive_a_text_format(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = serde_json::to_string(&Escaped(bytes.clone())).unwrap();
            prop_assert!(text.is_ascii());
            let read: Escaped = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read.0, bytes);
        }
    }
}
