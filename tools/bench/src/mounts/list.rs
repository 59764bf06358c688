//! The workloads, a line or so each.

use super::ground::GIT_OPTIONS;
use super::{Ground, Size, Workload};
use crate::results::Unit;
use crate::task::{Transfer, Work};

/// All of them.
pub(crate) fn all(size: Size) -> Vec<Workload> {
    let mut all = metadata(size);
    all.extend(data(size));
    all.extend(trees(size));
    all
}

type Rows = Vec<(&'static str, String)>;

fn twice(first: impl Into<String>, again: impl Into<String>) -> Rows {
    vec![("first", first.into()), ("again", again.into())]
}

fn metadata(size: Size) -> Vec<Workload> {
    let names = size.names;
    let mut all = Vec::new();
    for threads in [1, 4] {
        let suffix = on_threads(threads);
        let twice = |title: &str| {
            twice(
                format!("{title}, first time{suffix}"),
                format!("{title}, again{suffix}"),
            )
        };
        let mut add = |name, work, ground, rows| {
            all.push(Workload {
                names: ["metadata", name],
                work,
                threads,
                ground,
                rows,
                unit: Unit::Operations,
            });
        };
        let small = Ground::Small;
        add("stat", Work::Stat { names }, small, twice("stat"));
        add(
            "missing",
            Work::Missing { names },
            small,
            twice("missing name"),
        );
        add(
            "open",
            Work::Open { names },
            small,
            twice("open+read+close 4k"),
        );
        let created = Work::Create {
            names: size.created,
        };
        let parts = [
            ("create", "create+chown+chmod+write+close"),
            ("rename", "rename"),
            ("unlink", "unlink"),
        ];
        let rows = parts.map(|(part, title)| (part, format!("{title}{suffix}")));
        add("create", created, Ground::Empty, rows.into());
        if threads == 1 {
            add("list", Work::List, small, twice("readdir+lstat"));
        }
    }
    all
}

fn on_threads(threads: usize) -> String {
    if threads == 1 {
        String::new()
    } else {
        format!(", {threads} threads")
    }
}

fn data(size: Size) -> Vec<Workload> {
    let (small, large) = (4 << 10, 1 << 20);
    // write, random, direct, octets a call, threads
    let kinds = [
        (false, false, false, small, 1),
        (false, false, false, large, 1),
        (false, true, false, small, 1),
        (false, true, false, large, 1),
        (false, true, false, small, 4),
        (false, false, false, large, 4),
        (false, true, true, small, 1),
        (false, false, true, large, 1),
        (true, false, false, small, 1),
        (true, false, false, large, 1),
        (true, true, false, small, 1),
        (true, true, false, large, 1),
        (true, true, false, small, 4),
        (true, true, true, small, 1),
        (true, false, true, large, 1),
    ];
    let mut all: Vec<_> = kinds
        .into_iter()
        .map(|(write, random, direct, block, threads)| {
            let octets = match (direct, block == small) {
                // A disk's time, not a cache's.
                (true, true) => size.large / 64,
                (true, false) => size.large / 4,
                (false, true) => size.large / 4,
                (false, false) => size.large,
            };
            let (ground, file) = match (write, direct) {
                (_, true) => (Ground::Large, "direct"),
                (true, false) => (Ground::Written, "written"),
                (false, false) => (Ground::Large, "read"),
            };
            let transfer = Transfer {
                file: file.to_owned(),
                octets,
                block,
                random,
                write,
                direct,
            };
            transfer_of(transfer, threads, ground)
        })
        .collect();
    all.push(Workload {
        names: ["data", "mmap"],
        work: Work::Map {
            file: "read".to_owned(),
        },
        threads: 1,
        ground: Ground::Large,
        rows: vec![("pass", "mmap read".to_owned())],
        unit: Unit::Octets,
    });
    all
}

fn transfer_of(transfer: Transfer, threads: usize, ground: Ground) -> Workload {
    let title = format!(
        "{} {}, {}{}{}",
        if transfer.write { "write" } else { "read" },
        if transfer.block == 4 << 10 {
            "4k"
        } else {
            "1M"
        },
        if transfer.random {
            "random"
        } else {
            "sequential"
        },
        if transfer.direct { ", O_DIRECT" } else { "" },
        on_threads(threads)
    );
    Workload {
        names: ["data", if transfer.write { "write" } else { "read" }],
        work: Work::Transfer(transfer),
        threads,
        ground,
        rows: vec![("pass", title)],
        unit: Unit::Octets,
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn trees(size: Size) -> Vec<Workload> {
    let files = format!("{} files", size.tree);
    let tree = |name, work, ground, rows, unit| Workload {
        names: ["tree", name],
        work,
        threads: 1,
        ground,
        rows,
        unit,
    };
    let program = |name, argv: Vec<String>, ground| {
        let rows = twice(
            format!("{name}, {files}, first time"),
            format!("{name}, {files}, again"),
        );
        tree(name, Work::Program { argv }, ground, rows, Unit::Whole)
    };
    let change = |name: &'static str, argv, ground| {
        let rows = vec![("once", format!("{name}, {files}"))];
        let operations = 1;
        tree(
            name,
            Work::Change { argv, operations },
            ground,
            rows,
            Unit::Whole,
        )
    };
    let status = [&["git"], &GIT_OPTIONS[..], &["status", "--porcelain"]].concat();
    let database = Work::Change {
        argv: words("sqlite3 -batch -bail database")
            .into_iter()
            .chain([script(size.transactions)])
            .collect(),
        operations: size.transactions,
    };
    vec![
        change(
            "tar x",
            // The archive lies beside the export, two levels above the worker's directory.
            words("tar -xpf ../../tree.tar --same-owner --numeric-owner"),
            Ground::Empty,
        ),
        program(
            "find -size",
            words("find . -type f -size +1000k"),
            Ground::Tree,
        ),
        program("du", words("du -s ."), Ground::Tree),
        change(
            "rm -r",
            ["sh", "-c", "rm -r directory-*"].map(str::to_owned).into(),
            Ground::TreeToRemove,
        ),
        program(
            "git status",
            status.into_iter().map(str::to_owned).collect(),
            Ground::Repository,
        ),
        tree(
            "sqlite",
            database,
            Ground::Empty,
            vec![("once", "sqlite transaction".to_owned())],
            Unit::Operations,
        ),
    ]
}

/// One insertion a transaction, each of them safe on the disk before the next one.
fn script(transactions: usize) -> String {
    let insert = "INSERT INTO t VALUES (NULL, hex(randomblob(100)));";
    format!(
        "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; \
         CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); {}",
        insert.repeat(transactions)
    )
}
