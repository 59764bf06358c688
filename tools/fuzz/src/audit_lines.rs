//! Bytes where the process that keeps a view's audit records expects a line: what a broken-into
//! mediator may write.
//!
//! Held: no panic and no hang. What is taken for a record is one: its strings are printable ASCII
//! and no longer than a record's, its fields belong to its event, its errno is the number's; written
//! again, it is one line, no longer than it came, that reads as the same record.

use virtfs_mediator_core::mediate::{AUDIT_LINE_MAX, AuditEvent, AuditLine};

/// The longest path, and the longest words, of a record (the README's table).
const PATH_MAX: usize = 3000;
const WORDS_MAX: usize = 200;
/// The most further names.
const OTHERS_MAX: usize = 4;

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    let Ok(record) = AuditLine::parse(data) else {
        return;
    };
    assert!(
        data.len() < AUDIT_LINE_MAX,
        "a line of {} bytes",
        data.len()
    );
    check_strings(&record);
    check_fields(&record);
    let again = serde_json::to_vec(&record).expect("a record is written");
    assert!(
        again.len() <= data.len(),
        "{} bytes have become {}",
        data.len(),
        again.len()
    );
    assert!(
        again.iter().all(|byte| matches!(byte, b' '..=b'~')),
        "not one line of ASCII: {}",
        again.escape_ascii()
    );
    assert_eq!(AuditLine::parse(&again).as_ref(), Ok(&record));
}

fn check_strings(record: &AuditLine) {
    let paths = [&record.path, &record.second_path].into_iter().flatten();
    for path in paths.chain(&record.other_paths) {
        check_text(path, PATH_MAX);
    }
    for words in [&record.rule, &record.why].into_iter().flatten() {
        check_text(words, WORDS_MAX);
    }
    assert!(record.other_paths.len() <= OTHERS_MAX, "too many names");
    if let Some(errno) = &record.errno {
        let symbol = errno.bytes().all(|byte| byte.is_ascii_uppercase());
        assert!(
            errno == "other" || (symbol && errno.starts_with('E')),
            "errno {errno:?}"
        );
    }
}

fn check_text(text: &str, most: usize) {
    assert!(text.len() <= most, "a text of {} bytes", text.len());
    assert!(
        text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
        "not printable: {text:?}"
    );
}

/// By the event, as the README's table has it.
fn check_fields(record: &AuditLine) {
    let who = [
        record.operation.is_some(),
        record.uid.is_some(),
        record.gid.is_some(),
        record.pid.is_some(),
    ];
    let errno = record.errno.is_some();
    assert_eq!(errno, record.errno_number.is_some(), "half an errno");
    match record.event {
        AuditEvent::Refused | AuditEvent::Observed => {
            assert!(errno && record.why.is_some(), "a refusal without a reason");
            assert_eq!(who, [true; 4], "nobody asked");
            assert_eq!(record.records, None);
        }
        AuditEvent::Allowed | AuditEvent::Pretended | AuditEvent::ByHand => {
            assert!(!errno, "an errno of what was done");
            assert_eq!(who, [true; 4], "nobody asked");
            assert_eq!(record.records, None);
        }
        AuditEvent::Dropped => {
            assert!(record.records.is_some(), "none are missing");
            let count = record.records.unwrap_or_default();
            assert_eq!(
                *record,
                AuditLine::dropped(count),
                "it is about nothing else"
            );
        }
    }
}
