//! sqlite: transactions that are synced one by one, in each journal mode, with its own check at the end.

use crate::error::Result;
use crate::outcome::Case;
use crate::seat::Seat;
use crate::suites::{Extent, scripted};

const SUITE: &str = "sqlite";

pub(crate) fn run(seat: &Seat<'_>, extent: Extent) -> Result<Vec<Case>> {
    let transactions = match extent {
        Extent::Short => "100",
        Extent::Full => "500",
    };
    let mut cases = Vec::new();
    for (mode, mapped) in [
        ("delete", "0"),
        ("truncate", "0"),
        ("persist", "0"),
        ("wal", "0"),
        ("memory", "0"),
        ("wal-mapped", "268435456"),
    ] {
        let journal = mode.trim_end_matches("-mapped");
        cases.push(scripted(
            seat,
            SUITE,
            mode,
            // The second program has it open while the first writes, so that locks have work to do.
            "file=$1.db; all=$4\n\
             sql() { printf 'pragma journal_mode=%s; pragma synchronous=full; pragma mmap_size=%s;\n' \"$1\" \"$2\"; }\n\
             { sql \"$2\" \"$3\"; echo 'create table t(a integer primary key, b text);'\n\
             i=0; while [ $i -lt \"$all\" ]; do i=$((i + 1))\n\
             echo 'insert into t(b) select hex(randomblob(1000));'\n\
             [ $((i % 10)) -ne 0 ] || echo \"update t set b = hex(randomblob(2000)) where a % 7 = $((i % 7));\"\n\
             done; } | sqlite3 -bail -cmd '.timeout 20000' \"$file\" >/dev/null &\n\
             writer=$!\n\
             while kill -0 $writer 2>/dev/null; do sqlite3 -cmd '.timeout 20000' \"$file\" 'select count(*) from sqlite_master;' >/dev/null; done\n\
             wait $writer\n\
             test \"$(sqlite3 \"$file\" 'pragma integrity_check;')\" = ok\n\
             test \"$(sqlite3 \"$file\" 'select count(*) from t;')\" = \"$all\"",
            &[mode, journal, mapped, transactions],
            600,
        )?);
    }
    Ok(cases)
}
