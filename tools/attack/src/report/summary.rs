//! The README's table: a line for each row of the table of attacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::judge::{Judged, Outcome};

/// What each row is, in few words.
const ROWS: [(u8, &str); 33] = [
    (
        1,
        "a component swapped for a symbolic link between check and use",
    ),
    (2, "names such as `../x`, in every operation that takes one"),
    (3, "`..` above the root of the view"),
    (4, "rename, walk and unlink of one tree at once"),
    (5, "FIFOs and devices that the server is made to open"),
    (6, "the device 0:0; lifting the floor by policy"),
    (7, "more files than descriptors"),
    (8, "set-group-id inherited from the helper's groups"),
    (9, "set-id bits that survive a write"),
    (10, "set-user-id programs planted on the host"),
    (11, "`open_by_handle_at`"),
    (12, "chroot in chroot; a leaked descriptor"),
    (13, "new namespaces from inside the mediator"),
    (14, "`/proc` magic links"),
    (15, "signals, ptrace, memory of other processes"),
    (
        16,
        "mount, reboot, clock, sockets, keys, bpf, io_uring, mknod, exec, ...",
    ),
    (17, "a hard link into an open place"),
    (18, "rename, exchange, whiteout out of the rules"),
    (19, "a link whose content leads outside"),
    (20, "forged counts, offsets, cookies"),
    (21, "request floods"),
    (22, "requests held by a stepping console"),
    (23, "other users in the view"),
    (24, "export or PATH swapped before the mount"),
    (25, "hostile view names"),
    (26, "`/`, a mount inside, a view of a view"),
    (27, "a mount under the export later"),
    (28, "a rule dodged by spelling"),
    (29, "answers of a policy that was replaced"),
    (30, "the original, leaked to QEMU or by the log"),
    (31, "escape sequences in logs and answers"),
    (
        32,
        "another machine's view, its QEMU, files and sockets; libvirt's service and hook",
    ),
    (33, "what the registrar could be made to register"),
];

#[derive(Default)]
struct Line {
    /// Tries that succeeded, and all, by column.
    tries: [(usize, usize); 5],
    cases: usize,
    passed: usize,
}

fn column(arrangement: &Arrangement) -> usize {
    match arrangement {
        Arrangement::RootInChroot => 0,
        Arrangement::UidWithCapabilities => 1,
        Arrangement::ProxyHelper => 2,
        Arrangement::Other(_) | Arrangement::Walls(_) => 3,
        Arrangement::Product => 4,
    }
}

fn count(line: &mut Line, attempt: &Attempt) {
    let Some((succeeded, all)) = line.tries.get_mut(column(&attempt.arrangement)) else {
        return;
    };
    match attempt.verdict {
        Verdict::Succeeded(_) => {
            *succeeded += 1;
            *all += 1;
        }
        Verdict::Refused(_) => *all += 1,
        Verdict::Untried(_) => {}
    }
}

/// Markdown: how many tries succeeded of how many, in each arrangement.
pub(crate) fn table(all: &[Judged]) -> String {
    let mut lines: BTreeMap<u8, Line> = BTreeMap::new();
    for judged in all {
        let line = lines.entry(judged.case.row).or_default();
        line.cases += 1;
        line.passed += usize::from(matches!(judged.outcome, Outcome::Passed));
        for attempt in &judged.attempts {
            count(line, attempt);
        }
    }
    let mut text = "| # | attack (number of cases) | root in a chroot | uid + four capabilities \
                    + DAC_READ_SEARCH | proxy helper's set | other weaker arrangements, single walls \
                    | virtfs-mediator |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (row, line) in &lines {
        let title = ROWS.iter().find(|(known, _)| known == row);
        let title = title.map_or("", |(_, title)| *title);
        let _infallible = write!(text, "| {row} | {title} ({}) |", line.cases);
        for (at, (succeeded, tried)) in line.tries.iter().enumerate() {
            let cell = match (succeeded, tried) {
                (_, 0) => "—".to_owned(),
                (0, _) => "refused".to_owned(),
                (1, 1) => "succeeds".to_owned(),
                (some, tried) => format!("succeeds ({some} of {tried})"),
            };
            let proved = at < 4 || line.passed == line.cases || line.passed > 0;
            let _infallible = write!(
                text,
                " {cell}{} |",
                if proved { "" } else { ", not proved" }
            );
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples::{attempt, judged, refused, succeeded};
    use super::*;

    #[test]
    fn rows_count_what_succeeded_where() {
        let table = table(&[judged(vec![
            attempt(Arrangement::RootInChroot, "", succeeded("x")),
            attempt(Arrangement::Walls("a"), "", succeeded("x")),
            attempt(Arrangement::Walls("b"), "", refused("EPERM")),
            attempt(Arrangement::Product, "", refused("EACCES")),
        ])]);
        let row = table.lines().nth(2).unwrap();
        assert!(
            row.ends_with("| succeeds | — | — | succeeds (1 of 2) | refused |"),
            "{row}"
        );
    }

    #[test]
    fn every_row_that_has_a_case_has_a_title() {
        for case in crate::cases::all() {
            let known = ROWS.iter().any(|(row, _)| *row == case.row);
            assert!(known, "{}", case.row);
        }
    }
}
