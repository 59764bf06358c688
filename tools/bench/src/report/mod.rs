//! What was measured, for people.

pub(crate) mod markdown;
pub(crate) mod plot;
pub(crate) mod text;

use crate::results::{Group, Row, Unit};

/// What a group's ratios are to.
pub(crate) const REFERENCE: &str = "native";

/// A group in a word.
fn word(group: Group) -> &'static str {
    match group {
        Group::Mount => "mount",
        Group::P9 => "9p",
    }
}

/// What a contender is called in a group.
fn called(group: Group, contender: &str) -> String {
    match (group, contender) {
        (Group::P9, REFERENCE) => "QEMU as root".to_owned(),
        (Group::P9, "proxy") => "proxy helper".to_owned(),
        (Group::P9, "bindfs" | "passthrough_hp") => format!("QEMU as root on {contender}"),
        _ => contender.to_owned(),
    }
}

/// A rate in the row's own way of telling it.
fn rate(row: &Row, rate: f64) -> String {
    match (row.group, row.unit) {
        (Group::Mount, Unit::Operations) => format!("{:.2} us", 1e6 / rate),
        (Group::Mount, Unit::Whole) => format!("{:.3} s", 1.0 / rate),
        (Group::Mount | Group::P9, Unit::Octets) => {
            format!("{:.0} MiB/s", rate / f64::from(1 << 20))
        }
        (Group::P9, Unit::Operations | Unit::Whole) => format!("{:.1} k/s", rate / 1e3),
    }
}

/// A ratio with the digits that mean something.
fn ratio(ratio: f64) -> String {
    if ratio < 0.1 {
        format!("{ratio:.3}")
    } else {
        format!("{ratio:.2}")
    }
}
