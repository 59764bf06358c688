//! The lines in which the guest reports over its serial console.
//!
//! The console also carries the kernel's and the firmware's words, so every line of ours begins
//! with a mark of its own and holds printable ASCII only.
//!
//! ```text
//! @BOOT 6.1.0-56-amd64 8.31      the shares are mounted, seconds since boot
//! @BEGIN chown/file_to_user      a probe starts: if nothing follows, this one killed the guest
//! @PROBE chown/file_to_user ok reg 0644 1000:1000
//! @ERROR mount share             the guest could not be set up
//! @END 14.02                     the end was reached
//! ```

use std::fmt;

/// One line of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The guest is up: kernel release and seconds.
    Boot(String),
    /// A probe starts.
    Begin(String),
    /// A probe's name and outcome.
    Probe(String, String),
    /// Something that makes the rest meaningless.
    Error(String),
    /// The guest reached its end.
    End(String),
}

impl Record {
    /// Reads a console line; `None` for everybody else's. The mark may stand behind leftovers of
    /// firmware output that did not end its line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = &line[line.find('@')?..];
        let line = line.trim_end_matches(['\r', '\n']);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        match mark {
            "@BOOT" => Some(Self::Boot(rest)),
            "@BEGIN" => Some(Self::Begin(rest)),
            "@ERROR" => Some(Self::Error(rest)),
            "@END" => Some(Self::End(rest)),
            "@PROBE" => {
                let (name, outcome) = rest.split_once(' ')?;
                Some(Self::Probe(name.to_owned(), outcome.to_owned()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(rest) => write!(f, "@BOOT {rest}"),
            Self::Begin(name) => write!(f, "@BEGIN {name}"),
            Self::Probe(name, outcome) => write!(f, "@PROBE {name} {outcome}"),
            Self::Error(what) => write!(f, "@ERROR {what}"),
            Self::End(rest) => write!(f, "@END {rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_display_writes() {
        for record in [
            Record::Boot("6.1 3.0".into()),
            Record::Begin("a/b".into()),
            Record::Probe("a/b".into(), "ok reg 0644".into()),
            Record::Error("mount".into()),
            Record::End("9".into()),
        ] {
            assert_eq!(
                Record::parse(&format!("\u{1b}[2J{record}\r\n")),
                Some(record)
            );
        }
    }

    #[test]
    fn parse_ignores_others() {
        assert_eq!(Record::parse("[    1.0] user@host"), None);
        assert_eq!(Record::parse(""), None);
    }
}
