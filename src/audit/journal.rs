//! journald's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram of
//! fields.
//!
//! The socket is systemd's own, so that one that is connected outlives a restart of journald.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as to, socket};
use serde_json::Value;
use virtfs_mediator_core::mediate::AuditEvent;

use crate::audit::entry::Entry;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// syslog(3): warning, informational.
const WARNING: &str = "4";
const INFO: &str = "6";

/// Connects to journald.
///
/// # Errors
///
/// ENOENT, ECONNREFUSED: nobody listens.
pub(super) fn connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    to(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// A record as a datagram. Every field has its length before it, so that no value can end one and
/// begin another.
pub(super) fn datagram(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let priority = match entry.line.event {
        AuditEvent::Allowed | AuditEvent::Pretended => INFO,
        AuditEvent::Refused | AuditEvent::Observed | AuditEvent::ByHand | AuditEvent::Dropped => {
            WARNING
        }
    };
    put(&mut out, "MESSAGE", &entry.message());
    put(&mut out, "PRIORITY", priority);
    put(&mut out, "SYSLOG_IDENTIFIER", "virtfs-mediator");
    // The names are those of our own type.
    let fields = serde_json::to_value(entry).unwrap_or_default();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let name = format!("VIRTFS_{}", name.to_ascii_uppercase());
        match value {
            Value::String(text) => put(&mut out, &name, text),
            // A field may come several times.
            Value::Array(all) => {
                for text in all.iter().filter_map(Value::as_str) {
                    put(&mut out, &name, text);
                }
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                put(&mut out, &name, &other.to_string());
            }
        }
    }
    out
}

fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    let length = u64::try_from(value.len()).unwrap_or_default();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::errno::Errno;
    use virtfs_mediator_core::mediate::AuditLine;

    use super::*;

    /// The fields of a datagram, as journald reads them.
    pub(crate) fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
            let name = std::str::from_utf8(&datagram[..end]).unwrap();
            assert!(!name.contains('='), "not the binary form: {name}");
            let (length, rest) = datagram[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap());
            let (value, rest) = rest.split_at(usize::try_from(length).unwrap());
            assert_eq!(rest[0], b'\n');
            let value = std::str::from_utf8(value).unwrap();
            found.push((name.to_owned(), value.to_owned()));
            datagram = &rest[1..];
        }
        found
    }

    fn entry(line: &AuditLine) -> Entry<'_> {
        Entry {
            time: "2026-01-02T03:04:05.000006Z".to_owned(),
            view: "v",
            line,
        }
    }

    #[test]
    fn record_is_a_datagram_of_fields_and_no_value_forges_another() {
        let text = concat!(
            r#"{"event":"refused","operation":"unlink","path":"/a\\nPRIORITY=0","#,
            r#""other_paths":["/b","/c"],"type":"regular","uid":1,"gid":2,"pid":3,"rule_number":4,"#,
            r#""rule_line":9,"why":"no","errno":"EACCES","errno_number":13}"#,
        );
        let line = AuditLine::parse(text.as_bytes()).unwrap();
        let found = fields(&datagram(&entry(&line)));
        let all = |name: &str| -> Vec<&str> {
            let fitting = found.iter().filter(|(field, _)| field == name);
            fitting.map(|(_, value)| value.as_str()).collect()
        };
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "virtfs-mediator"),
            ("VIRTFS_TIME", "2026-01-02T03:04:05.000006Z"),
            ("VIRTFS_VIEW", "v"),
            ("VIRTFS_EVENT", "refused"),
            ("VIRTFS_OPERATION", "unlink"),
            ("VIRTFS_PATH", "/a\\nPRIORITY=0"),
            ("VIRTFS_TYPE", "regular"),
            ("VIRTFS_UID", "1"),
            ("VIRTFS_GID", "2"),
            ("VIRTFS_PID", "3"),
            ("VIRTFS_RULE_NUMBER", "4"),
            ("VIRTFS_RULE_LINE", "9"),
            ("VIRTFS_WHY", "no"),
            ("VIRTFS_ERRNO", "EACCES"),
            ("VIRTFS_ERRNO_NUMBER", "13"),
        ] {
            assert_eq!(all(name), [value], "{name}");
        }
        assert_eq!(all("VIRTFS_OTHER_PATHS"), ["/b", "/c"]);
        assert_eq!(all("MESSAGE").len(), 1);
        assert_eq!(found.len(), 19, "{found:#?}");
    }

    #[test]
    fn value_with_a_newline_stays_one_field() {
        let mut out = Vec::new();
        put(&mut out, "A", "x\nPRIORITY=0\n");
        put(&mut out, "B", "");
        let expected = [("A", "x\nPRIORITY=0\n"), ("B", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(&out), expected);
    }

    #[test]
    fn connection_takes_datagrams_to_who_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert_eq!(connect(&path).unwrap_err(), Errno::ENOENT);
        let listening = UnixDatagram::bind(&path).unwrap();
        let fd = connect(&path).unwrap();
        let line = AuditLine::dropped(5);
        nix::unistd::write(&fd, &datagram(&entry(&line))).unwrap();
        let mut received = [0; 4096];
        let length = listening.recv(&mut received).unwrap();
        let found = fields(&received[..length]);
        assert!(found.contains(&("VIRTFS_RECORDS".to_owned(), "5".to_owned())));
    }
}
