//! A record as it is kept: what the mediator wrote, behind what it cannot say for itself.

use std::time::SystemTime;

use serde::Serialize;
use virtfs_mediator_core::mediate::{AuditEvent, AuditLine};

/// One record of one view.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    /// UTC, as RFC 3339 has it, with microseconds: when it was read, a moment after the request.
    pub(super) time: String,
    /// The view's name, which its mediator cannot choose.
    pub(super) view: &'a str,
    #[serde(flatten)]
    pub(super) line: &'a AuditLine,
}

impl<'a> Entry<'a> {
    /// A record that was read at `time`.
    pub(super) fn new(view: &'a str, line: &'a AuditLine, time: SystemTime) -> Self {
        let time = humantime::format_rfc3339_micros(time).to_string();
        Self { time, view, line }
    }

    /// A line of JSON, with its newline.
    pub(super) fn json(&self) -> Vec<u8> {
        // Strings and numbers: nothing that could fail.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// One sentence for people.
    pub(super) fn message(&self) -> String {
        let line = self.line;
        if let AuditEvent::Dropped = line.event {
            let records = line.records.unwrap_or_default();
            let view = self.view;
            return format!("{view}: {records} audit records are missing here: they came too fast");
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let operation = line.operation.map_or("", |op| op.raw_name());
        let event = match line.event {
            AuditEvent::Refused => "refused",
            AuditEvent::Allowed => "allowed",
            AuditEvent::Observed => "would refuse",
            AuditEvent::Pretended => "pretended",
            AuditEvent::ByHand => "allowed by hand",
            AuditEvent::Dropped => "dropped",
        };
        let second = line.second_path.as_ref();
        let second = second.map_or_else(String::new, |path| format!(" -> {path}"));
        let rule = match (&line.rule, line.rule_number) {
            (Some(name), _) => format!(" by rule {name}"),
            (None, Some(number)) => format!(" by rule #{number}"),
            (None, None) => String::new(),
        };
        let at = line.rule_line;
        let at = at.map_or_else(String::new, |at| format!(" (line {at})"));
        let why = match &line.errno {
            Some(errno) => format!(": {} ({errno})", text(&line.why)),
            None => String::new(),
        };
        let (view, path) = (self.view, text(&line.path));
        format!("{view}: {event} {operation} {path}{second}{rule}{at}{why}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REFUSED: &str = concat!(
        r#"{"event":"refused","operation":"rename","path":"/a","second_path":"/b","uid":1,"#,
        r#""gid":2,"pid":3,"rule":"keep","rule_number":1,"rule_line":7,"why":"a rule denies it","#,
        r#""errno":"EACCES","errno_number":13}"#,
    );

    #[test]
    fn entry_begins_with_time_and_view() {
        let line = AuditLine::parse(REFUSED.as_bytes()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        let json = String::from_utf8(Entry::new("v", &line, time).json()).unwrap();
        let start = r#"{"time":"2023-11-14T22:13:20.000001Z","view":"v","event":"refused","#;
        assert!(json.starts_with(start) && json.ends_with("13}\n"), "{json}");
        assert_eq!(json.matches('\n').count(), 1);
    }

    #[test]
    fn message_names_the_rule_and_where_it_stands() {
        let mut line = AuditLine::parse(REFUSED.as_bytes()).unwrap();
        let message = |line: &AuditLine| Entry::new("v", line, SystemTime::UNIX_EPOCH).message();
        let told = "v: refused rename /a -> /b by rule keep (line 7): a rule denies it (EACCES)";
        assert_eq!(message(&line), told);
        (line.rule, line.second_path) = (None, None);
        let told = "v: refused rename /a by rule #1 (line 7): a rule denies it (EACCES)";
        assert_eq!(message(&line), told);
        let told = "v: 3 audit records are missing here: they came too fast";
        assert_eq!(message(&AuditLine::dropped(3)), told);
    }
}
