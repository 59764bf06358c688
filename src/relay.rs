//! The way of the mediators' log to the caller's standard error.
//!
//! A mediator has the writing end of a pipe for its standard error, never what the caller has: by
//! `/proc/self/fd/2` it could open that, and change the mode and owner of a file that lies outside
//! of the export, as far as its user namespace reaches.
//!
//! The relay is a process of its own: uid 0 without any capability. What it copies was written by a
//! process that may be broken into, so nothing that a terminal obeys gets through.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Class, Error, Result};
use crate::launch::child::Child;
use crate::launch::{calls, seccomp, walls};
use crate::pipes::pipe;
use crate::sys::{self, Forked};

/// Bytes that are copied at once.
const PIECE: usize = 1024;
/// How long the caller may take to read what is left.
const LAST_WORDS_MS: u16 = 2000;

/// The process that copies.
pub(crate) struct Relay(Child);

impl Relay {
    /// Starts it; returns the writing end for the mediators.
    ///
    /// # Errors
    ///
    /// Confinement: fork(2) or pipe2(2) failed.
    pub(crate) fn start() -> Result<(Self, OwnedFd)> {
        let (from, to) = pipe()?;
        let forked = sys::clone_process(0);
        match forked.map_err(|error| Error::step(Class::Confinement, "fork(relay)", error))? {
            Forked::Child => {
                // Its own copy would keep it waiting for ever.
                drop(to);
                // What fails here is told by what is missing in the log: nobody else listens.
                let status = u8::from(confine(&from).is_err());
                if status == 0 {
                    copy(&from);
                }
                sys::exit_now(status)
            }
            Forked::Parent(relay) => Ok((Self(Child::hold(relay)?), to)),
        }
    }

    /// Waits for the last words, once every mediator is gone; not for ever, should the caller not
    /// read them.
    pub(crate) fn finish(&self) {
        self.0.await_end(LAST_WORDS_MS);
        self.stop();
    }

    /// Ends it: nobody reads on. Whoever waits for the end of the caller's standard error need not
    /// wait for the view's.
    pub(crate) fn stop(&self) {
        let _status = self.0.end();
    }
}

fn confine(from: &OwnedFd) -> Result<()> {
    sys::close_all_but(&[from.as_raw_fd()])
        .map_err(|error| Error::step(Class::Confinement, "close_range", error))?;
    // The terminal's keys are for the client.
    nix::unistd::setsid().map_err(|errno| Error::step(Class::Confinement, "setsid", errno))?;
    sys::forget_environment();
    walls::limit_resources()?;
    walls::reduce_to(&[])?;
    walls::not_dumpable()?;
    walls::silence(walls::Silence::AllButErrors)?;
    seccomp::confine(&calls::RELAY, from, seccomp::Verdict::Kill)
}

fn copy(from: &OwnedFd) {
    // Four bytes for one, and what may have been held back from the piece before.
    let (mut piece, mut shown) = ([0; PIECE], [0; 4 * PIECE + 64]);
    let mut filter = Filter::default();
    while let Ok(count @ 1..) = nix::unistd::read(from, &mut piece) {
        let mut length = 0;
        for byte in piece.iter().take(count) {
            length += filter.put(*byte, shown.get_mut(length..).unwrap_or_default());
        }
        let mut rest = shown.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            match nix::unistd::write(std::io::stderr(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(nix::errno::Errno::EINTR) => {}
                // Nobody reads; what comes is taken off the pipe all the same.
                Err(_) => rest = &[],
            }
        }
    }
}

/// Lets text, newlines, tabs and colours (`ESC [ digits ; digits m`) through; writes other control
/// bytes as `\xNN`.
#[derive(Default)]
struct Filter {
    /// Of a sequence that may become a colour.
    held: [u8; 12],
    length: usize,
    last: u8,
}

impl Filter {
    /// Takes one byte; tells how many were put out, at most four for each byte taken.
    fn put(&mut self, byte: u8, out: &mut [u8]) -> usize {
        let goes_on = match self.length {
            0 => byte == 0x1b,
            1 => byte == b'[',
            _ => byte.is_ascii_digit() || byte == b';' || byte == b'm',
        };
        if goes_on && let Some(place) = self.held.get_mut(self.length) {
            *place = byte;
            self.length += 1;
            if byte != b'm' || self.length < 3 {
                return 0;
            }
            let length = std::mem::take(&mut self.length);
            for (to, from) in out.iter_mut().zip(self.held.iter().take(length)) {
                *to = *from;
            }
            return length;
        }
        let held = std::mem::take(&mut self.length);
        let mut length = 0;
        for one in self.held.into_iter().take(held).chain([byte]) {
            length += self.escape(one, out.get_mut(length..).unwrap_or_default());
        }
        length
    }

    fn escape(&mut self, byte: u8, out: &mut [u8]) -> usize {
        let last = std::mem::replace(&mut self.last, byte);
        // 0x80 to 0x9f are controls, alone or behind 0xc2 (UTF-8); elsewhere they go on with a letter.
        let letter = last >= 0x80 && last != 0xc2;
        let control = (byte < 0x20 && byte != b'\n' && byte != b'\t')
            || byte == 0x7f
            || ((0x80..=0x9f).contains(&byte) && !letter);
        put_out(byte, control, out)
    }
}

fn put_out(byte: u8, control: bool, out: &mut [u8]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
    let shown = [b'\\', b'x', digit(byte >> 4), digit(byte & 0xf)];
    let shown = if control { &shown[..] } else { &[byte][..] };
    for (to, from) in out.iter_mut().zip(shown) {
        *to = *from;
    }
    shown.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(bytes: &[u8]) -> Vec<u8> {
        let mut filter = Filter::default();
        let mut shown = Vec::new();
        for byte in bytes {
            let mut out = [0; 64];
            let length = filter.put(*byte, &mut out);
            shown.extend_from_slice(&out[..length]);
        }
        shown
    }

    #[test]
    fn text_and_colours_pass_and_nothing_else_that_a_terminal_obeys() {
        for (given, shown) in [
            (&b"plain\ttext\n"[..], &b"plain\ttext\n"[..]),
            (b"\x1b[33m WARN\x1b[0m x", b"\x1b[33m WARN\x1b[0m x"),
            (b"\x1b[2mdim\x1b[1;31mred", b"\x1b[2mdim\x1b[1;31mred"),
            (b"\x1b]0;title\x07", b"\\x1b]0;title\\x07"),
            (b"\x1b[2Jgone", b"\\x1b[2Jgone"),
            (b"\x1b\x1b[31mx", b"\\x1b\\x1b[31mx"),
            (b"\x1b[1;2;3;4;5;6;7m", b"\\x1b[1;2;3;4;5;6;7m"),
            (b"a\rb\x00\x7f", b"a\\x0db\\x00\\x7f"),
            (b"\xc2\x9b31m", b"\xc2\\x9b31m"),
            (b"\x9b31m", b"\\x9b31m"),
            ("\u{2013} \u{c5}".as_bytes(), "\u{2013} \u{c5}".as_bytes()),
        ] {
            assert_eq!(filtered(given), shown, "{given:?}");
        }
    }
}
