//! Names and paths on the wire: bytes, which a text format shows escaped as in a log
//! (`slice::escape_ascii`: `\n`, `\\`, `\x1b`), and others as they are.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// The bytes behind an escaped text; `None` if it is not one.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, tail) = rest.split_first()?;
        rest = tail;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'\'' | b'"' => kind,
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

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
        unescape(&text).ok_or_else(|| D::Error::custom("not an escaped name"))
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

    #[test]
    fn text_that_no_escape_made_is_refused() {
        for bad in ["\\", "\\q", "\\x", "\\x1", "\\xg0"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive_their_escaped_form(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(unescape(&bytes.escape_ascii().to_string()), Some(bytes));
        }
    }
}
