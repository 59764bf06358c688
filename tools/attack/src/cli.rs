//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::case::{Case, Seat};

/// Attacks on virtfs-mediator and on weaker arrangements, each in a place of its own. Nothing
/// outside of it changes, on this host or in its kernel.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Races with fewer rounds; every case all the same.
    #[arg(long)]
    pub(crate) short: bool,
    /// Only cases of this row of the table of attacks.
    #[arg(long, value_name = "N")]
    row: Vec<u8>,
    /// Only the case of this name.
    #[arg(long, value_name = "ID")]
    case: Vec<String>,
    /// Only cases of this seat.
    #[arg(long, value_enum, value_name = "SEAT", ignore_case = true)]
    seat: Option<SeatWord>,
    /// List the cases and end.
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the table as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the table as Markdown too.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write a line for each row as Markdown, as the README has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// The product's program; default: the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) mediator: Option<PathBuf>,
}

/// A seat as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SeatWord {
    /// Root in the guest.
    G,
    /// Owns QEMU.
    Q,
    /// Runs code in the mediator.
    M,
    /// Another local user of the host.
    L,
    /// Races on the export, from the host.
    R,
}

impl From<SeatWord> for Seat {
    fn from(word: SeatWord) -> Self {
        match word {
            SeatWord::G => Self::G,
            SeatWord::Q => Self::Q,
            SeatWord::M => Self::M,
            SeatWord::L => Self::L,
            SeatWord::R => Self::R,
        }
    }
}

impl Cli {
    /// The cases that were asked for.
    ///
    /// # Errors
    ///
    /// In words: something was asked for that there is not.
    pub(crate) fn chosen(&self, all: Vec<&'static Case>) -> Result<Vec<&'static Case>, String> {
        for id in &self.case {
            if !all.iter().any(|case| case.id == id) {
                return Err(format!("there is no case '{id}': see --list"));
            }
        }
        for row in &self.row {
            if !all.iter().any(|case| case.row == *row) {
                return Err(format!("there is no case of row {row}: see --list"));
            }
        }
        let mut chosen = all;
        chosen.retain(|case| {
            (self.row.is_empty() || self.row.contains(&case.row))
                && (self.case.is_empty() || self.case.iter().any(|id| id == case.id))
                && self.seat.is_none_or(|seat| Seat::from(seat) == case.seat)
        });
        if chosen.is_empty() {
            return Err("no case is left of what was asked for: see --list".to_owned());
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn chosen(arguments: &[&str]) -> Result<Vec<&'static Case>, String> {
        let arguments = ["virtfs-attack"].iter().chain(arguments);
        Cli::try_parse_from(arguments).unwrap().chosen(cases::all())
    }

    #[test]
    fn cases_are_chosen_by_row_name_and_seat() {
        assert_eq!(chosen(&[]).unwrap().len(), cases::all().len());
        let handle = chosen(&["--row", "11", "--case", "handle", "--seat", "m"]).unwrap();
        assert_eq!(
            handle.iter().map(|case| case.id).collect::<Vec<_>>(),
            ["handle"]
        );
        let two = chosen(&["--row", "11", "--row", "13"]).unwrap();
        assert!(two.iter().all(|case| [11, 13].contains(&case.row)) && two.len() > 2);
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for bad in [["--case", "no-such"], ["--row", "99"]] {
            assert!(chosen(&bad).is_err(), "{bad:?}");
        }
        assert!(chosen(&["--row", "11", "--case", "follow"]).is_err());
    }
}
