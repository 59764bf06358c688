//! The seat of QEMU: the client's user, no capability, in the client's namespaces, on the view;
//! and of a client's kernel that does not keep to the protocol.

mod flood;
mod held;
mod leak;
pub(super) mod libvirt;
mod logs;
mod names;
mod older;
mod rules;
mod walk;

use crate::case::{Case, Seat};

pub(crate) const CASES: &[Case] = &[
    Case {
        row: 2,
        id: "names",
        seat: Seat::Q,
        what: "names that lead out of a directory, in every operation that takes one",
        stopped_by: "names are single components, checked once, centrally",
        run: names::names,
    },
    Case {
        row: 3,
        id: "above",
        seat: Seat::Q,
        what: "`..` above the view's root",
        stopped_by: "`..` of the root is the root; no other name with dots is one",
        run: names::above,
    },
    Case {
        row: 4,
        id: "storm",
        seat: Seat::Q,
        what: "a tree renamed, walked and unlinked by sixteen threads and by the host",
        stopped_by: "nodes are known by identity, not by path",
        run: walk::storms,
    },
    Case {
        row: 6,
        id: "device-zero",
        seat: Seat::Q,
        what: "the character device 0:0, which the kernel lets anyone make",
        stopped_by: "the policy's floor",
        run: rules::device,
    },
    Case {
        row: 6,
        id: "floor",
        seat: Seat::Q,
        what: "a policy that would permit what none may",
        stopped_by: "the policy's floor, which no configuration lifts",
        run: rules::floor,
    },
    Case {
        row: 7,
        id: "many",
        seat: Seat::Q,
        what: "more files walked than there are descriptors",
        stopped_by: "a budget of descriptors, re-opened by name when they are needed",
        run: walk::many,
    },
    Case {
        row: 15,
        id: "processes",
        seat: Seat::Q,
        what: "signals to the processes behind the view, their memory, their roots",
        stopped_by: "other users, other pid namespaces, not dumpable",
        run: leak::processes,
    },
    Case {
        row: 17,
        id: "link",
        seat: Seat::Q,
        what: "a protected file linked into an open place, then changed by its new name",
        stopped_by: "a link may carry nothing out of the rules that hold for it",
        run: rules::link,
    },
    Case {
        row: 18,
        id: "carry",
        seat: Seat::Q,
        what: "a directory renamed, or exchanged, out of the rules that hold for it; a whiteout",
        stopped_by: "both names are judged, and the subtree; rename flags are an allow list",
        run: rules::carry,
    },
    Case {
        row: 20,
        id: "numbers",
        seat: Seat::Q,
        what: "counts, offsets, ranges and cookies that wrap or are forged; random messages",
        stopped_by: "checked arithmetic, opaque cookies, ids with generations",
        run: names::numbers,
    },
    Case {
        row: 21,
        id: "flood",
        seat: Seat::Q,
        what: "a flood of one view, so that another starves",
        stopped_by: "a mediator of its own for each view; opens that never block",
        run: flood::floods,
    },
    Case {
        row: 21,
        id: "nameless",
        seat: Seat::Q,
        what: "removed files, held by O_PATH, that take the server's last descriptors",
        stopped_by: "a bound on files that are known, have no name and are not open: the next is not removed",
        run: flood::nameless,
    },
    Case {
        row: 22,
        id: "held",
        seat: Seat::Q,
        what: "requests held by a stepping console that does not answer, is gone, or reads nothing",
        stopped_by: "a time limit, a number, and the console's connection; then refusal, or the policy",
        run: held::held,
    },
    Case {
        row: 29,
        id: "older",
        seat: Seat::Q,
        what: "answers of an older policy behind a reload, from all that a kernel remembers",
        stopped_by: "every name, attribute, page and listing is dropped before the reload returns",
        run: older::older,
    },
    Case {
        row: 29,
        id: "older-race",
        seat: Seat::Q,
        what: "a file looked up, opened and read while the policy is reloaded to and fro",
        stopped_by: "the swap, then the end of older requests, then the kernel's caches",
        run: older::race,
    },
    Case {
        row: 29,
        id: "older-answer",
        seat: Seat::Q,
        what: "a long request that is under way while the policy is reloaded",
        stopped_by: "a reload waits for the requests of the older policy",
        run: older::under_way,
    },
    Case {
        row: 30,
        id: "original",
        seat: Seat::Q,
        what: "the original export by working directory, descriptor, /proc or another mount",
        stopped_by: "all resolved again or closed before exec; own pid namespace; --isolate",
        run: leak::original,
    },
    Case {
        row: 31,
        id: "logs",
        seat: Seat::Q,
        what: "file names that forge log lines or command a terminal",
        stopped_by: "names are escaped in the log",
        run: logs::logs,
    },
    Case {
        row: 32,
        id: "neighbour",
        seat: Seat::Q,
        what: "another client's view through /proc/PID/root, both of the same user",
        stopped_by: "a pid namespace for each client",
        run: leak::neighbour,
    },
];
