//! `limit`, of a rule or of the view.

use toml::de::DeValue;

use super::Reader;
use super::read::{self, Value};

const KEYS: &[&str] = &["file_size", "total", "entries"];

/// What a size may end in, in powers of 1024.
const UNITS: [(char, u32); 4] = [('K', 1), ('M', 2), ('G', 3), ('T', 4)];

impl Reader<'_, '_> {
    /// `None` only if a mistake was noted; the limit in bytes, if it is one on a file's size.
    pub(super) fn limit(&mut self, value: &Value<'_>) -> Option<Option<u64>> {
        let table = read::table(value, "limit", &mut self.report)?;
        read::check_keys(table, KEYS, "`limit`", &mut self.report);
        if table.is_empty() {
            let hint = "write `limit = { file_size = \"10M\" }`, or drop it";
            self.report
                .add(&value.span(), "`limit` limits nothing", hint);
        }
        for key in ["total", "entries"] {
            if let Some((key, _)) = table.get_key_value(key) {
                let what = format!("a limit of `{}` is not built yet", key.get_ref());
                let hint = "leave it out, and limit what the export's file system holds";
                self.report.add(&key.span(), what, hint);
            }
        }
        match table.get("file_size") {
            Some(value) => self.size(value, "file_size").map(Some),
            None => Some(None),
        }
    }

    /// Bytes as a number, or with a unit of 1024: "10M".
    fn size(&mut self, value: &Value<'_>, key: &str) -> Option<u64> {
        let DeValue::String(text) = value.get_ref() else {
            return read::number(value, key, (0, u64::MAX), &mut self.report);
        };
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(unit, power)| Some((text.strip_suffix(*unit)?, *power)))
            .unwrap_or((text, 0));
        let number = Some(digits).filter(|digits| digits.bytes().all(|at| at.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse::<u64>().ok());
        let bytes = number.and_then(|number| number.checked_mul(1024u64.pow(unit)));
        if bytes.is_none() {
            let what = format!("`{key} = \"{}\"` is no size", text.escape_debug());
            let hint = "write bytes, or \"10M\": K, M, G and T are powers of 1024";
            self.report.add(&value.span(), what, hint);
        }
        bytes
    }
}
