//! The short set of `tools/try`, as a table for a person.

use std::fmt::Write as _;

use super::Error;
use super::column::Column;
use super::matrix::Results;
use crate::probe;

/// One row per thing tried: the columns' outcomes and what the host sees of the view's result.
///
/// # Errors
/// A built-in script with a mistake.
pub fn table(results: &Results) -> Result<String, Error> {
    let mut rows = vec![vec!["the guest tried to".to_owned()]];
    for run in &results.columns {
        rows[0].push(
            match run.column {
                Column::Root => "QEMU as root",
                Column::User => "QEMU as user",
                Column::View => "user + mediator",
                Column::Libvirt => "mediator, libvirt",
                Column::Proxy => "user + proxy",
                Column::Plainfuse => "user + plain FUSE",
            }
            .to_owned(),
        );
    }
    let host = if results.has(Column::View) {
        Column::View
    } else {
        Column::Root
    };
    rows[0].push(format!("the host sees ({})", host.name()));
    for probe in probe::load("try").map_err(Error::Script)? {
        let title = probe.name.trim_start_matches("try/").replace('_', " ");
        let mut row = vec![title];
        row.extend(
            results
                .columns
                .iter()
                .map(|run| plain(results.outcome(&probe.name, run.column))),
        );
        row.push(host_fact(results, host, &probe.name));
        rows.push(row);
    }
    Ok(aligned(&rows))
}

/// `ok file 0644 0:0 links=1` is `yes`, a refusal its name in words.
fn plain(outcome: &str) -> String {
    let word = outcome.split(' ').next().unwrap_or_default();
    let text = match word {
        "ok" if outcome.contains("CANARY") => "ESCAPED",
        "ok" => "yes",
        "EPERM" => "not permitted",
        "EACCES" => "denied",
        "ENOENT" => "nothing there",
        "ENXIO" => "fails (ENXIO)",
        "absent" => "-",
        other => other,
    };
    text.to_owned()
}

/// The last path that the probe left, as the host sees it.
fn host_fact(results: &Results, column: Column, probe: &str) -> String {
    // Names on the host's side are escaped.
    let prefix = format!("host/{}/", probe.as_bytes().escape_ascii());
    let facts = results
        .names
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .map(|name| results.outcome(name, column))
        .rfind(|fact| *fact != "absent");
    let Some(fact) = facts else {
        return "nothing".to_owned();
    };
    let mut words = fact.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(kind), Some(mode), Some(owner)) => format!("{} {owner}", letters(kind, mode)),
        _ => fact.to_owned(),
    }
}

/// As ls(1) writes it.
fn letters(kind: &str, mode: &str) -> String {
    let mode = u32::from_str_radix(mode, 8).unwrap_or_default();
    let mut text = String::from(match kind {
        "dir" => "d",
        "symlink" => "l",
        "fifo" => "p",
        "socket" => "s",
        "chr" => "c",
        "blk" => "b",
        _ => "-",
    });
    for (shift, special, with, without) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)))
            .collect();
        let line = cells.join("  ");
        let _ = writeln!(out, "{}", line.trim_end());
        if index == 0 {
            let _ = writeln!(out, "{}", "-".repeat(line.chars().count()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_write_special_bits_as_ls_does() {
        assert_eq!(letters("file", "4755"), "-rwsr-xr-x");
        assert_eq!(letters("dir", "3774"), "drwxrwsr-T");
        assert_eq!(letters("file", "0600"), "-rw-------");
    }

    #[test]
    fn plain_tells_an_escape_from_a_success() {
        assert_eq!(plain("ok \"CANARY\\n\""), "ESCAPED");
        assert_eq!(plain("ok file 0644 0:0"), "yes");
        assert_eq!(plain("EPERM chown"), "not permitted");
    }
}
