//! Names to put into requests.

use std::os::unix::ffi::OsStrExt;

use crate::input::Input;
use crate::scratch::Scratch;

const GOOD: [&[u8]; 18] = [
    b"f",
    b"d",
    b"e",
    b"h",
    b"p",
    b"out",
    b"abs",
    b"s.key",
    b"many",
    b"m00",
    b"new",
    b"new2",
    b"x.key",
    b"\xff\xfe",
    b"a\nb\x1b[2J",
    &[b'n'; 51],
    &[b'n'; 52],
    &[b'n'; 255],
];

const BAD: [&[u8]; 11] = [
    b"",
    b".",
    b"..",
    b"/",
    b"a/b",
    b"../outside/canary",
    b"../../outside/canary",
    b"d/../../outside/canary",
    b"../elsewhere",
    b"d/f",
    &[b'n'; 256],
];

/// Whether it is one component: what the mediator must not let pass anything else for.
#[must_use]
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= 255 && name != b"." && name != b".." && !name.contains(&b'/')
}

/// A name: of a file that may be there, one that no file can have, or any bytes.
pub fn pick(input: &mut Input<'_>, scratch: &Scratch) -> Vec<u8> {
    match input.byte() {
        good @ 0..=143 => GOOD[usize::from(good) % GOOD.len()].to_vec(),
        144..=147 => scratch
            .path()
            .join("outside/canary")
            .as_os_str()
            .as_bytes()
            .to_vec(),
        bad @ 148..=215 => BAD[usize::from(bad) % BAD.len()].to_vec(),
        216..=255 => {
            let bytes = input.bytes(255);
            // A NUL ends a name on the wire.
            bytes
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec()
        }
    }
}
