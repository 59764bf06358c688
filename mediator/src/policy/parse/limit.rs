//! `limit`, of a rule or of the view.

use toml::de::DeValue;

use super::super::areas::Totals;
use super::Reader;
use super::read::{self, Value};

const KEYS: &[&str] = &["file_size", "total", "entries"];

/// What a size may end in, in powers of 1024.
const UNITS: [(char, u32); 4] = [('K', 1), ('M', 2), ('G', 3), ('T', 4)];

/// What one `limit` says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) file_size: Option<u64>,
    pub(super) totals: Totals,
}

impl Reader<'_, '_> {
    /// `None` only if a mistake was noted.
    pub(super) fn limit(&mut self, value: &Value<'_>) -> Option<Limits> {
        let table = read::table(value, "limit", &mut self.report)?;
        read::check_keys(table, KEYS, "`limit`", &mut self.report);
        if table.is_empty() {
            let hint = "write `limit = { file_size = \"10M\" }`, or drop it";
            self.report
                .add(&value.span(), "`limit` limits nothing", hint);
        }
        let mut size = |key| match table.get(key) {
            Some(value) => self.size(value, key).map(Some),
            None => Some(None),
        };
        let (file_size, bytes) = (size("file_size")?, size("total")?);
        let entries = match table.get("entries") {
            Some(value) => {
                let bounds = (0, u64::MAX);
                Some(read::number(value, "entries", bounds, &mut self.report)?)
            }
            None => None,
        };
        Some(Limits {
            file_size,
            totals: Totals { bytes, entries },
        })
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
