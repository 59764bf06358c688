//! Raw messages of a client whose kernel does not keep to the protocol: names, `..`, numbers.

use std::fs;
use std::path::PathBuf;

use virtfs_mediator_core::weak::Wall;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::driver::raw::{Body, ROOT, Raw, Reply, op};
use crate::driver::{OrTell as _, Outcome, Tried, product, verdict, weaker};
use crate::lab::{Lab, Place};

const NO_NAMES: Arrangement = Arrangement::Walls("the core, without the check of names");
const NO_ARITHMETIC: Arrangement =
    Arrangement::Walls("the core, without the checks of counts and offsets");

/// The operations that take a name.
#[derive(Clone, Copy, Debug)]
enum Names {
    Lookup,
    Mknod,
    Mkdir,
    Symlink,
    Create,
    Unlink,
    Rmdir,
    RenameFrom,
    RenameTo,
    Link,
}

const OPERATIONS: [Names; 10] = [
    Names::Lookup,
    Names::Mknod,
    Names::Mkdir,
    Names::Symlink,
    Names::Create,
    Names::Unlink,
    Names::Rmdir,
    Names::RenameFrom,
    Names::RenameTo,
    Names::Link,
];

impl Names {
    /// What the log calls it.
    fn word(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Mknod => "mknod",
            Self::Mkdir => "mkdir",
            Self::Symlink => "symlink",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
            Self::RenameFrom | Self::RenameTo => "rename",
            Self::Link => "link",
        }
    }

    fn ask(self, raw: &Raw, name: &[u8]) -> Result<Reply, String> {
        let mode = |mode: u32| Body::new().u32(mode).u32(0);
        let rename = |from: &[u8], to: &[u8]| {
            let body = Body::new().u64(ROOT).u32(0).u32(0).name(from).name(to);
            raw.ask(op::RENAME2, ROOT, &body)
        };
        match self {
            Self::Lookup => raw.lookup(ROOT, name),
            Self::Mknod => {
                let body = mode(0o100_644).u32(0).u32(0).name(name);
                raw.ask(op::MKNOD, ROOT, &body)
            }
            Self::Mkdir => raw.ask(op::MKDIR, ROOT, &mode(0o755).name(name)),
            Self::Symlink => raw.ask(op::SYMLINK, ROOT, &Body::new().name(name).name(b"/")),
            Self::Create => {
                let flags = u32::try_from(libc::O_RDWR | libc::O_CREAT).or_tell("flags")?;
                let body = Body::new().u32(flags).u32(0o100_644).u32(0).u32(0);
                raw.ask(op::CREATE, ROOT, &body.name(name))
            }
            Self::Unlink => raw.ask(op::UNLINK, ROOT, &Body::new().name(name)),
            Self::Rmdir => raw.ask(op::RMDIR, ROOT, &Body::new().name(name)),
            Self::RenameFrom => rename(name, b"stolen"),
            Self::RenameTo => rename(b"inside", name),
            Self::Link => {
                let node = raw.lookup(ROOT, b"inside")?.node()?;
                raw.ask(op::LINK, ROOT, &Body::new().u64(node).name(name))
            }
        }
    }

    /// What of the outside is aimed at.
    fn leaf(self) -> &'static str {
        match self {
            Self::Lookup => "canary",
            Self::Unlink | Self::RenameFrom => "victim",
            Self::Rmdir => "victims",
            Self::Mknod
            | Self::Mkdir
            | Self::Symlink
            | Self::Create
            | Self::RenameTo
            | Self::Link => "planted",
        }
    }
}

/// A place with something to aim at on both sides.
fn place() -> Result<Place, String> {
    let place = Place::new().or_tell("a place")?;
    fs::create_dir(place.export().join("sub")).or_tell("mkdir")?;
    fs::write(place.export().join("inside"), "inside").or_tell("write")?;
    fs::write(place.outside().join("victim"), "victim").or_tell("write")?;
    fs::create_dir(place.outside().join("victims")).or_tell("mkdir")?;
    Ok(place)
}

/// What lies outside, by name.
fn listing(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.outside())
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// One operation with a name that leads outside; what was reached there, or the refusals.
fn reach(walls: &[Wall], what: Names) -> Result<Tried, String> {
    let mut refusals = Vec::new();
    let mut told = None;
    for form in ["absolute", "../", "sub/../../"] {
        let place = place()?;
        let before = listing(&place);
        let raw = Raw::start(&place.export(), walls, "")?;
        let outside = place.outside().join(what.leaf());
        let name = match form {
            "absolute" => outside.to_string_lossy().into_owned(),
            up => format!("{up}outside/{}", what.leaf()),
        };
        let reply = what.ask(&raw, name.as_bytes())?;
        let reached = match what {
            Names::Lookup => {
                reply.errno == 0
                    && raw
                        .fetch(ROOT, name.as_bytes())
                        .is_ok_and(|bytes| place.betrays(&bytes))
            }
            Names::Mknod
            | Names::Mkdir
            | Names::Symlink
            | Names::Create
            | Names::Unlink
            | Names::Rmdir
            | Names::RenameFrom
            | Names::RenameTo
            | Names::Link => listing(&place) != before,
        };
        if reached {
            return Ok(Tried {
                got: true,
                what: format!("{form}: {} outside", what.word()),
                told: None,
            });
        }
        if !place.is_untouched() || reply.errno == 0 {
            return Err(format!("{form}: neither reached nor refused: {reply:?}"));
        }
        told = told.or_else(|| raw.told(&["refused", what.word()]));
        refusals.push(format!("{form}: errno {}", reply.errno));
    }
    Ok(Tried {
        got: false,
        what: refusals.join(", "),
        told,
    })
}

/// Row 2.
pub(super) fn names(_lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for what in OPERATIONS {
        let way = format!("{what:?}");
        attempts.push(reach(&[Wall::Names], what)?.weaker(NO_NAMES, way.clone()));
        attempts.push(reach(&[], what)?.product(way));
    }
    attempts.push(odd_names()?);
    Ok(attempts)
}

/// Names that lead nowhere, and must not: empty, `.`, too long; what follows a NUL is not a name.
fn odd_names() -> Result<Attempt, String> {
    let place = place()?;
    let raw = Raw::start(&place.export(), &[], "")?;
    let long = [b'a'; 256];
    let mut answered = Vec::new();
    for (shown, name, wanted) in [
        ("empty", &b""[..], libc::EINVAL),
        (".", b".", libc::EINVAL),
        ("256 bytes", &long, libc::ENAMETOOLONG),
        ("sub NUL /x", b"sub\0/x", libc::EEXIST),
    ] {
        for what in [Names::Mknod, Names::Mkdir, Names::Symlink] {
            let reply = what.ask(&raw, name)?;
            if reply.errno != wanted {
                let what = format!("{what:?} of {shown}: errno {}, not {wanted}", reply.errno);
                return Ok(product("odd names", Verdict::Succeeded(what), None));
            }
        }
        answered.push(format!("{shown}: errno {wanted}"));
    }
    let untouched = place.is_untouched() && raw.serves();
    let told = raw.told(&["refused", "floor: a name"]);
    Ok(product(
        "odd names",
        verdict(!untouched, answered.join(", ")),
        told,
    ))
}

/// Row 3.
pub(super) fn above(_lab: &Lab) -> Outcome {
    let tried = |got, what, told| Ok(Tried { got, what, told });
    let climb = |walls: &[Wall]| -> Result<Tried, String> {
        let place = place()?;
        let raw = Raw::start(&place.export(), walls, "")?;
        let parent = raw.lookup(ROOT, b"..")?.node()?;
        if parent != ROOT {
            return tried(true, format!("`..` of the root is node {parent}"), None);
        }
        let reply = raw.lookup(ROOT, b"../")?;
        if reply.errno != 0 {
            let what = format!("`..` of the root is the root; `../`: errno {}", reply.errno);
            return tried(false, what, raw.told(&["refused", "lookup"]));
        }
        let outside = raw.lookup(reply.node()?, b"outside")?.node()?;
        let bytes = raw.fetch(outside, b"canary")?;
        tried(
            place.betrays(&bytes),
            "the canary, by `../`".to_owned(),
            None,
        )
    };
    let way = "LOOKUP of .. and ../";
    Ok(vec![
        climb(&[Wall::Names])?.weaker(NO_NAMES, way),
        climb(&[])?.product(way),
    ])
}

/// Row 20.
pub(super) fn numbers(lab: &Lab) -> Outcome {
    let (kept, what) = forget(&[Wall::Arithmetic])?;
    let mut attempts = vec![weaker(
        NO_ARITHMETIC,
        "FORGET of more than there were",
        verdict(kept, what),
    )];
    let (kept, what) = forget(&[])?;
    let told = (!kept).then(|| format!("{what} (nothing is refused: FORGET has no answer)"));
    attempts.push(product(
        "FORGET of more than there were",
        verdict(kept, what),
        told,
    ));
    attempts.push(far_off()?);
    attempts.push(fuzz(lab)?);
    Ok(attempts)
}

/// Whether a node that was forgotten once too often is kept for good: the client can have the
/// mediator's memory fill up so.
fn forget(walls: &[Wall]) -> Result<(bool, String), String> {
    let place = place()?;
    let raw = Raw::start(&place.export(), walls, "")?;
    for count in [2, u64::MAX] {
        let node = raw.lookup(ROOT, b"inside")?.node()?;
        raw.forget(node, count)?;
        let reply = raw.getattr(node)?;
        if reply.errno == 0 {
            return Ok((
                true,
                format!("after FORGET of {count} the node is kept for good"),
            ));
        }
    }
    Ok((
        false,
        "the node is gone: errno 116 (ESTALE) afterwards".to_owned(),
    ))
}

const FAR: [u64; 6] = [
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 4095,
    u64::MAX,
];

/// Offsets and cookies that no file has.
fn far_off() -> Result<Attempt, String> {
    let place = place()?;
    let raw = Raw::start(&place.export(), &[], "")?;
    let node = raw.lookup(ROOT, b"inside")?.node()?;
    let handle = raw.open(node, libc::O_RDWR)?.ok()?.u64_at(0);
    // By its node, as a kernel that opens directories by itself.
    let dir = 0;
    for far in FAR {
        let io = |size: u32| {
            let body = Body::new().u64(handle).u64(far).u32(size).u32(0);
            body.u64(0).u32(0).u32(0)
        };
        let copy = Body::new().u64(handle).u64(far).u64(node).u64(handle);
        for (opcode, at, body) in [
            (op::READ, node, io(4096)),
            (op::WRITE, node, io(4).bytes(b"data")),
            (
                op::LSEEK,
                node,
                Body::new().u64(handle).u64(far).u32(3).u32(0),
            ),
            (
                op::COPY_FILE_RANGE,
                node,
                copy.u64(far).u64(u64::MAX).u64(0),
            ),
        ] {
            let reply = raw.ask(opcode, at, &body)?;
            if reply.errno == 0 && !reply.body.is_empty() && opcode != op::LSEEK {
                let what = format!("opcode {opcode} at {far:#x} was done");
                return Ok(product("offsets near 2^63", Verdict::Succeeded(what), None));
            }
        }
        for opcode in [op::READDIR, op::READDIRPLUS] {
            let body = Body::new().u64(dir).u64(far).u32(4096).u32(0);
            let reply = raw.ask(opcode, ROOT, &body.u64(0).u32(0).u32(0))?;
            if place.betrays(&reply.body) {
                let what = format!("cookie {far:#x} told the canary");
                return Ok(product("offsets near 2^63", Verdict::Succeeded(what), None));
            }
        }
    }
    let same = fs::read(place.export().join("inside")).is_ok_and(|now| now == b"inside");
    let fine = same && place.is_untouched() && raw.serves();
    let what = "EINVAL, EFBIG or an empty answer for each; the view serves on";
    Ok(product(
        "offsets near 2^63",
        verdict(!fine, what),
        fine.then(|| what.to_owned()),
    ))
}

/// xorshift64*: a seed's messages are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        let len = u64::try_from(list.len()).unwrap_or(1).max(1);
        let at = usize::try_from(self.next() % len).unwrap_or(0);
        list[at]
    }

    fn number(&mut self, known: &[u64]) -> u64 {
        match self.next() % 4 {
            0 => self.of(&FAR),
            1 => self.next(),
            2 => self.next() % 8,
            _ => self.of(known),
        }
    }
}

/// Messages whose layout is right and whose content is not.
fn fuzz(lab: &Lab) -> Result<Attempt, String> {
    let place = place()?;
    let outside = listing(&place);
    let raw = Raw::start(&place.export(), &[], "")?;
    let count = if lab.short { 20_000 } else { 200_000 };
    let (mut random, mut known) = (Random(0x5eed), vec![0, ROOT]);
    let names: [&[u8]; 9] = [
        b"inside",
        b"sub",
        b"n1",
        b"n2",
        b"..",
        b"../outside/canary",
        b"/etc",
        b"a/b",
        b"",
    ];
    for number in 0..count {
        let node = random.number(&known);
        let (name, other) = (random.of(&names), random.of(&names));
        let (one, two, three) = (
            random.number(&known),
            random.number(&known),
            random.number(&known),
        );
        let flags = u32::try_from(random.next() % (1 << 20)).unwrap_or(0);
        let body = Body::new();
        let io = body
            .clone()
            .u64(one)
            .u64(two)
            .u32(4096)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        let (opcode, body) = match random.next() % 19 {
            0 => (op::LOOKUP, body.name(name)),
            1 => (op::GETATTR, body.u32(flags & 1).u32(0).u64(one)),
            2 => (op::SYMLINK, body.name(name).name(other)),
            3 => (op::MKNOD, body.u32(flags).u32(0).u32(0).u32(0).name(name)),
            4 => (op::MKDIR, body.u32(flags).u32(0).name(name)),
            5 => (op::UNLINK, body.name(name)),
            6 => (op::RMDIR, body.name(name)),
            7 => (op::RENAME, body.u64(one).name(name).name(other)),
            8 => (
                op::RENAME2,
                body.u64(one).u32(flags & 7).u32(0).name(name).name(other),
            ),
            9 => (op::LINK, body.u64(one).name(name)),
            10 => (op::OPEN, body.u32(flags).u32(0)),
            11 => (op::READ, io),
            12 => (op::OPENDIR, body.u32(flags).u32(0)),
            13 => (op::READDIR, io),
            14 => (op::READDIRPLUS, io),
            // Twice as often as an open: handles are a budget.
            16 | 17 => (op::RELEASE, body.u64(one).u32(flags).u32(0).u64(0)),
            15 => (op::LSEEK, body.u64(one).u64(two).u32(flags % 6).u32(0)),
            _ => (
                op::COPY_FILE_RANGE,
                body.u64(one)
                    .u64(two)
                    .u64(node)
                    .u64(three)
                    .u64(two)
                    .u64(three)
                    .u64(0),
            ),
        };
        let reply = raw
            .ask(opcode, node, &body)
            .map_err(|why| format!("message {number}, opcode {opcode}: {why}"))?;
        if place.betrays(&reply.body) {
            let what = format!("message {number}, opcode {opcode}, told the canary");
            return Ok(product("random messages", Verdict::Succeeded(what), None));
        }
        if reply.errno == 0 && matches!(opcode, op::LOOKUP | op::OPEN | op::OPENDIR) {
            known.push(reply.u64_at(0));
            if known.len() > 64 {
                known.swap_remove(2);
            }
        }
        if random.next().is_multiple_of(8) {
            raw.forget(node, random.number(&known))?;
        }
    }
    let fine = place.is_untouched() && listing(&place) == outside && raw.serves();
    let what = format!("{count} messages; the view serves on");
    Ok(product(
        "random messages",
        verdict(!fine, what),
        raw.told(&["refused"]),
    ))
}
