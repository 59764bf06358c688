//! QEMU's qtest server: text lines over a socket that read and write ports, and tell of interrupts.
//!
//! Source: QEMU `softmmu/qtest.c`. One line a command, one `OK [VALUE]` or `FAIL ...` line back in order; `IRQ raise N`
//! and `IRQ lower N` come in between at any time.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::error::{Error, Output, Result};

#[derive(Debug)]
pub(crate) struct Qtest {
    stream: UnixStream,
    limit: Duration,
    outbox: String,
    inbox: Vec<u8>,
    /// Replies to come.
    owed: usize,
    /// The interrupt line's level, as far as lines were read.
    level: bool,
}

enum Line {
    Reply(Option<u64>),
    Level(bool),
}

impl Qtest {
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> Result<Self> {
        stream
            .set_read_timeout(Some(limit))
            .map_err(Error::io("setting the qtest socket's time limit"))?;
        Ok(Self {
            stream,
            limit,
            outbox: String::new(),
            inbox: Vec::new(),
            owed: 0,
            level: false,
        })
    }

    /// Queues a command whose answer says nothing; it is sent with the next one that waits.
    pub(crate) fn post(&mut self, command: std::fmt::Arguments<'_>) -> Result<()> {
        writeln!(self.outbox, "{command}")
            .map_err(|_| Error::Protocol("a command cannot be formatted".to_owned()))?;
        self.owed += 1;
        Ok(())
    }

    /// Sends a command and waits for its value.
    pub(crate) fn call(&mut self, command: std::fmt::Arguments<'_>) -> Result<u64> {
        self.post(command)?;
        loop {
            if let Line::Reply(value) = self.next_line()?
                && self.owed == 0
            {
                return Ok(value.unwrap_or(0));
            }
        }
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.send()?;
        // So that no one's buffer ever fills: what was answered long ago is read away.
        while self.owed > 64 {
            self.next_line()?;
        }
        Ok(())
    }

    /// Sends what is queued and waits until all is answered.
    pub(crate) fn drain(&mut self) -> Result<()> {
        while self.owed > 0 {
            self.next_line()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if !self.outbox.is_empty() {
            self.stream
                .write_all(self.outbox.as_bytes())
                .map_err(closed("writing to the qtest socket"))?;
            self.outbox.clear();
        }
        Ok(())
    }

    /// Waits until the interrupt line is told to have changed, either way.
    pub(crate) fn wait_change(&mut self) -> Result<()> {
        while !matches!(self.next_line()?, Line::Level(_)) {}
        Ok(())
    }

    /// Whether the interrupt line is raised, as far as lines were read.
    pub(crate) fn is_raised(&self) -> bool {
        self.level
    }

    /// For who has posted what lowers the line, with no other device on it.
    pub(crate) fn assume_lowered(&mut self) {
        self.level = false;
    }

    fn next_line(&mut self) -> Result<Line> {
        self.send()?;
        let end = loop {
            if let Some(end) = self.inbox.iter().position(|&octet| octet == b'\n') {
                break end;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Error::Timeout {
                        step: "waiting for QEMU",
                        limit: self.limit,
                        output: Output::default(),
                    });
                }
                Err(error) => return Err(closed("reading from the qtest socket")(error)),
            }
        };
        let line = parse(&self.inbox[..end]);
        self.inbox.drain(..=end);
        match line? {
            Line::Level(level) => {
                self.level = level;
                Ok(Line::Level(level))
            }
            Line::Reply(_) if self.owed == 0 => {
                Err(Error::Protocol("qtest: a reply to no command".to_owned()))
            }
            Line::Reply(value) => {
                self.owed -= 1;
                Ok(Line::Reply(value))
            }
        }
    }
}

fn closed(step: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| {
        if matches!(
            source.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        ) {
            Error::Closed
        } else {
            Error::Io { step, source }
        }
    }
}

fn parse(line: &[u8]) -> Result<Line> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_whitespace();
    let strange = || Error::Protocol(format!("qtest: {text:?}"));
    match (words.next(), words.next()) {
        (Some("OK"), None) => Ok(Line::Reply(None)),
        (Some("OK"), Some(value)) => {
            let digits = value.strip_prefix("0x").ok_or_else(strange)?;
            u64::from_str_radix(digits, 16)
                .map(|value| Line::Reply(Some(value)))
                .map_err(|_| strange())
        }
        (Some("IRQ"), Some("raise")) => Ok(Line::Level(true)),
        (Some("IRQ"), Some("lower")) => Ok(Line::Level(false)),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Qtest, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Qtest::new(ours, Duration::from_secs(5)).unwrap(), theirs)
    }

    #[test]
    fn call_after_posts_returns_its_own_value() {
        let (mut qtest, mut qemu) = pair();
        qemu.write_all(b"OK\nIRQ raise 11\nOK 0x0002\nOK 0x00ff\n")
            .unwrap();
        qtest.post(format_args!("outw 0xc010 0x0")).unwrap();
        qtest.post(format_args!("inb 0xc013")).unwrap();
        assert_eq!(qtest.call(format_args!("inb 0xc012")).unwrap(), 0xff);
        assert!(qtest.is_raised());
        qemu.write_all(b"IRQ lower 11\nOK\n").unwrap();
        qtest.call(format_args!("inb 0xc013")).unwrap();
        assert!(!qtest.is_raised());
    }

    #[test]
    fn closed_socket_and_failed_command_are_errors() {
        let (mut qtest, mut qemu) = pair();
        qemu.write_all(b"FAIL Unknown command\n").unwrap();
        assert!(matches!(
            qtest.call(format_args!("x")),
            Err(Error::Protocol(_))
        ));
        drop(qemu);
        assert!(matches!(qtest.call(format_args!("x")), Err(Error::Closed)));
    }
}
