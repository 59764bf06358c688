//! Globs over path components, compiled once into a small automaton each.
//!
//! A pattern is a row of segments. `**` stands for any number of components, none included, so
//! that `/secret/**` covers `/secret` itself: a rule for a tree holds for the tree's top too, and
//! moving the top away is judged as moving the tree. `/secret/*/**` covers only what is below.
//! Within a component `*` is any run of bytes, `?` one byte, `[a-z]` and `[!a-z]` a byte of a set,
//! `\xNN` a byte by number and `\` before anything else that character itself. Nothing but `**`
//! crosses a `/`. Names are bytes, never text.

/// The most segments a pattern may have: its states fit one word.
const SEGMENTS_MAX: usize = 62;

/// The glob that one path, or one component, alone matches: only letters, digits and what means
/// nothing to a glob, to TOML or to a terminal stands for itself.
#[must_use]
pub fn glob_of(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' => text.push(char::from(*byte)),
            b'.' | b'_' | b'-' | b'+' | b'@' | b',' | b'=' | b':' | b'~' | b'%' | b' ' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text
}

/// Why a pattern is not one: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadGlob {
    /// What is wrong.
    pub(super) what: String,
    /// What to write instead.
    pub(super) hint: &'static str,
}

impl BadGlob {
    fn new(what: impl Into<String>, hint: &'static str) -> Self {
        let what = what.into();
        Self { what, hint }
    }
}

/// A piece of a component's glob.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    AnyByte,
    AnyRun,
    /// One bit a byte value.
    Set(Box<[bool; 256]>),
}

/// The glob of one component, or of a whole name (extended attributes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameGlob {
    pieces: Vec<Piece>,
}

impl NameGlob {
    /// Compiles one component's glob.
    pub(super) fn new(text: &str) -> Result<Self, BadGlob> {
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                b'*' if pieces.last() == Some(&Piece::AnyRun) => {
                    return Err(BadGlob::new(
                        "`**` must be a component by itself",
                        "write `/dir/**` or `/**/name`; within a name one `*` is enough",
                    ));
                }
                b'*' => pieces.push(Piece::AnyRun),
                b'?' => pieces.push(Piece::AnyByte),
                b'[' => {
                    let (set, tail) = byte_set(rest)?;
                    rest = tail;
                    pieces.push(Piece::Set(set));
                }
                b'\\' => {
                    let (byte, tail) = escaped(rest)?;
                    rest = tail;
                    pieces.push(Piece::Byte(byte));
                }
                byte => pieces.push(Piece::Byte(byte)),
            }
        }
        Ok(Self { pieces })
    }

    /// Whether the glob is `name`'s.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        // The usual two-pointer walk: on a mismatch the last `*` takes one byte more. It is
        // bounded by pieces times bytes, whatever an attacker names a file.
        let (mut at, mut pos) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while pos < name.len() {
            let step = match (self.pieces.get(at), name.get(pos)) {
                (Some(Piece::AnyRun), _) => {
                    retry = Some((at, pos));
                    at += 1;
                    continue;
                }
                (Some(Piece::Byte(want)), Some(got)) => want == got,
                (Some(Piece::AnyByte), Some(_)) => true,
                (Some(Piece::Set(set)), Some(got)) => set[usize::from(*got)],
                (None, _) | (_, None) => false,
            };
            if step {
                (at, pos) = (at + 1, pos + 1);
            } else if let Some((star, from)) = retry {
                retry = Some((star, from + 1));
                (at, pos) = (star + 1, from + 1);
            } else {
                return false;
            }
        }
        let rest = self.pieces.get(at..).unwrap_or_default();
        rest.iter().all(|piece| *piece == Piece::AnyRun)
    }

    /// The only name that matches, if there is just one.
    fn literal(&self) -> Option<Vec<u8>> {
        let byte = |piece: &Piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            Piece::AnyByte | Piece::AnyRun | Piece::Set(_) => None,
        };
        self.pieces.iter().map(byte).collect()
    }

    /// A name that matches; `None` if there is none (a set of nothing that a name can hold).
    pub(super) fn witness(&self) -> Option<Vec<u8>> {
        let byte = |piece: &Piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            Piece::AnyByte | Piece::AnyRun => Some(b'x'),
            Piece::Set(set) => {
                let mut letters = (b'a'..=b'z').chain(b'0'..=b'9').chain(1..=u8::MAX);
                letters.find(|byte| set[usize::from(*byte)] && *byte != b'/')
            }
        };
        self.pieces.iter().map(byte).collect()
    }

    /// Whether every name that `other` matches is surely matched here too; "no" may be wrong.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self == other
            || self.pieces == [Piece::AnyRun]
            || other.literal().is_some_and(|name| self.matches(&name))
    }
}

fn escaped(rest: &[u8]) -> Result<(u8, &[u8]), BadGlob> {
    const HINT: &str = "write `\\x2a` for a byte by number, `\\*` for a character as it is";
    match rest {
        [b'x', high, low, tail @ ..] => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let byte = digit(high).zip(digit(low)).map(|(h, l)| h * 16 + l);
            let byte = byte.and_then(|byte| u8::try_from(byte).ok());
            match byte {
                Some(0) => Err(BadGlob::new("no name contains a zero byte", HINT)),
                Some(byte) => Ok((byte, tail)),
                None => Err(BadGlob::new("`\\x` needs two hexadecimal digits", HINT)),
            }
        }
        [b'x', ..] | [] => Err(BadGlob::new("an escape is cut short", HINT)),
        [byte, tail @ ..] => Ok((*byte, tail)),
    }
}

type ByteSet = Box<[bool; 256]>;

fn byte_set(rest: &[u8]) -> Result<(ByteSet, &[u8]), BadGlob> {
    const HINT: &str = "write `[a-z]`, `[!0-9]`, or `\\[` for the bracket itself";
    let (negated, mut rest) = match rest {
        [b'!' | b'^', tail @ ..] => (true, tail),
        _ => (false, rest),
    };
    let mut set = Box::new([false; 256]);
    let mut first = true;
    loop {
        let low = match rest {
            [] => return Err(BadGlob::new("`[` is never closed", HINT)),
            [b']', tail @ ..] if !first => {
                rest = tail;
                break;
            }
            [b'\\', tail @ ..] => {
                let (byte, tail) = escaped(tail)?;
                rest = tail;
                byte
            }
            [byte, tail @ ..] => {
                rest = tail;
                *byte
            }
        };
        first = false;
        let high = match rest {
            [b'-', high, tail @ ..] if *high != b']' => {
                rest = tail;
                *high
            }
            _ => low,
        };
        if high < low {
            return Err(BadGlob::new("a range runs backwards", HINT));
        }
        set[usize::from(low)..=usize::from(high)].fill(true);
    }
    if negated {
        set.iter_mut().for_each(|bit| *bit = !*bit);
    }
    Ok((set, rest))
}

/// A segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`.
    AnyDepth,
    One(NameGlob),
}

/// Where a pattern may be after some components: bit *i* means that segments from *i* on are
/// still to be matched. No bit: it can match nothing from here on down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct States(u64);

impl States {
    /// Whether no continuation can match.
    pub(super) fn is_dead(self) -> bool {
        self.0 == 0
    }

    fn each(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |bit| self.0 & (1 << bit) != 0)
    }
}

/// A compiled path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    segments: Vec<Segment>,
    /// The components that every match starts with, `/a/b`: compared before the automaton runs.
    prefix: Vec<u8>,
    /// How many segments they are.
    leading: usize,
}

impl Glob {
    /// Compiles a pattern of paths within the view: `/a/*.log`, `/data/**`, `/` for the root.
    pub(super) fn path(text: &str) -> Result<Self, BadGlob> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(BadGlob::new(
                "a path starts with `/`, the top of the view",
                "write `/name`, or `/**/name` for that name at any depth",
            ));
        };
        if rest.is_empty() {
            return Self::of(Vec::new());
        }
        let mut segments = Vec::new();
        for component in rest.split('/') {
            match component {
                "" => {
                    return Err(BadGlob::new(
                        "a component is empty",
                        "write one `/` between names and none at the end",
                    ));
                }
                "." | ".." => {
                    return Err(BadGlob::new(
                        "`.` and `..` are never names",
                        "write the path as seen from the view's top, without detours",
                    ));
                }
                "**" => segments.push(Segment::AnyDepth),
                one => segments.push(Segment::One(NameGlob::new(one)?)),
            }
        }
        Self::of(segments)
    }

    /// Compiles a pattern of symbolic links' targets, which may be relative and have `..`.
    pub(super) fn target(text: &str) -> Result<Self, BadGlob> {
        let mut segments = Vec::new();
        for component in text.split('/') {
            segments.push(match component {
                "**" => Segment::AnyDepth,
                one => Segment::One(NameGlob::new(one)?),
            });
        }
        Self::of(segments)
    }

    fn of(mut segments: Vec<Segment>) -> Result<Self, BadGlob> {
        // `**/**` means no more than `**`; the shorter form keeps residual states comparable.
        segments.dedup_by(|a, b| *a == Segment::AnyDepth && *b == Segment::AnyDepth);
        if segments.len() > SEGMENTS_MAX {
            return Err(BadGlob::new(
                format!("more than {SEGMENTS_MAX} components"),
                "shorten the path with `**`",
            ));
        }
        let (mut prefix, mut leading) = (Vec::new(), 0);
        for segment in &segments {
            let Segment::One(glob) = segment else { break };
            // What no component can be must not be found across two.
            let name = glob.literal().filter(|name| !name.contains(&b'/'));
            let Some(name) = name else { break };
            prefix.push(b'/');
            prefix.extend_from_slice(&name);
            leading += 1;
        }
        Ok(Self {
            segments,
            prefix,
            leading,
        })
    }

    fn start(&self) -> States {
        self.closed(1)
    }

    /// Adds what `**` allows by standing for nothing.
    fn closed(&self, mut bits: u64) -> States {
        for (at, segment) in self.segments.iter().enumerate() {
            if *segment == Segment::AnyDepth && bits & (1 << at) != 0 {
                bits |= 1 << (at + 1);
            }
        }
        States(bits)
    }

    fn step(&self, states: States, takes: impl Fn(&NameGlob) -> bool) -> States {
        let mut bits = 0;
        for at in states.each() {
            match self.segments.get(at) {
                Some(Segment::AnyDepth) => bits |= 1 << at,
                Some(Segment::One(glob)) if takes(glob) => bits |= 1 << (at + 1),
                Some(Segment::One(_)) | None => {}
            }
        }
        self.closed(bits)
    }

    /// Where the pattern stands after `path` (`/a/b`; the root is `/`).
    pub(super) fn after(&self, path: &[u8]) -> States {
        self.run(path.strip_prefix(b"/").unwrap_or(path))
    }

    fn run(&self, joined: &[u8]) -> States {
        self.run_from(self.start(), joined)
    }

    /// The components of `a/b`; of nothing there are none.
    fn run_from(&self, mut states: States, joined: &[u8]) -> States {
        if joined.is_empty() {
            return states;
        }
        for component in joined.split(|byte| *byte == b'/') {
            states = self.step(states, |glob| glob.matches(component));
            if states.is_dead() {
                break;
            }
        }
        states
    }

    /// Whether the pattern has matched where it stands.
    pub(super) fn accepts(&self, states: States) -> bool {
        states.0 & (1 << self.segments.len()) != 0
    }

    /// Whether the pattern can match something strictly below where it stands.
    pub(super) fn reaches_below(&self, states: States) -> bool {
        states.each().any(|at| at < self.segments.len())
    }

    /// Paths that match: with each `**` standing for nothing, and for `between`.
    pub(super) fn witnesses(&self, between: &[u8]) -> Vec<Vec<u8>> {
        let names = [self.named(None), self.named(Some(between))];
        let paths = names.into_iter().flatten();
        let mut found: Vec<Vec<u8>> = paths
            .map(|names| [b"/".as_slice(), &names.join(&b'/')].concat())
            .collect();
        found.dedup();
        // A set can make a name that cannot be one: `.`.
        found.retain(|path| super::check_path(path).is_ok() && self.matches(path));
        found
    }

    /// A symbolic link's target that matches; for patterns of [`Glob::target`].
    pub(super) fn target_witness(&self) -> Option<Vec<u8>> {
        let target = self.named(None)?.join(&b'/');
        (!target.is_empty() && self.matches_target(&target)).then_some(target)
    }

    /// A name for each segment; `None` if there is none for one.
    fn named(&self, between: Option<&[u8]>) -> Option<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::AnyDepth => names.extend(between.map(<[u8]>::to_vec)),
                Segment::One(glob) => names.push(glob.witness()?),
            }
        }
        Some(names)
    }

    /// Whether `path` matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(self.prefix.as_slice()) else {
            return false;
        };
        // Behind the prefix a component begins, or nothing is left.
        let within = match rest.split_first() {
            None => rest,
            Some((b'/', within)) => within,
            Some(_) => return false,
        };
        match self.segments.get(self.leading..).unwrap_or_default() {
            [] => within.is_empty(),
            [Segment::AnyDepth] => true,
            _ => {
                let start = self.closed(1 << self.leading);
                self.accepts(self.run_from(start, within))
            }
        }
    }

    /// The only path that matches, if there is just one; `/` for the root.
    pub(super) fn literal(&self) -> Option<Vec<u8>> {
        let mut path = Vec::new();
        for segment in &self.segments {
            let Segment::One(glob) = segment else {
                return None;
            };
            path.push(b'/');
            path.extend(glob.literal()?);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    /// The names that every match begins with, one by one.
    pub(super) fn leading_names(&self) -> impl Iterator<Item = Vec<u8>> {
        self.segments.iter().map_while(|segment| match segment {
            Segment::One(glob) => glob.literal(),
            Segment::AnyDepth => None,
        })
    }

    /// Whether a symbolic link's target matches; for patterns of [`Glob::target`].
    pub(super) fn matches_target(&self, target: &[u8]) -> bool {
        self.accepts(self.run(target))
    }

    /// Whether all that can still match here is among what can still match in one of `others`:
    /// each of `other`'s states names a rest of its pattern, and equal rests match the same.
    pub(super) fn rests_within<'a, I>(&self, states: States, others: I) -> bool
    where
        I: Iterator<Item = (&'a Self, States)> + Clone,
    {
        states.each().all(|at| {
            let rest = self.segments.get(at..).unwrap_or_default();
            others.clone().any(|(other, there)| {
                there
                    .each()
                    .any(|at| other.segments.get(at..).unwrap_or_default() == rest)
            })
        })
    }

    /// Whether every path that `other` matches is surely matched here too; "no" may be wrong.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // Most patterns are about different places.
        if !other.prefix.starts_with(&self.prefix) {
            return false;
        }
        // Walks `other`'s segments and keeps the states that this pattern is in for certain,
        // whichever names were taken.
        let mut seen = std::collections::HashSet::new();
        let mut todo: Vec<(usize, States)> = vec![(0, self.start())];
        while let Some((at, states)) = todo.pop() {
            if !seen.insert((at, states)) {
                continue;
            }
            match other.segments.get(at) {
                None if !self.accepts(states) => return false,
                None => {}
                Some(Segment::AnyDepth) => {
                    todo.push((at + 1, states));
                    let any = |glob: &NameGlob| glob.pieces == [Piece::AnyRun];
                    todo.push((at, self.step(states, any)));
                }
                Some(Segment::One(name)) => {
                    todo.push((at + 1, self.step(states, |glob| glob.covers(name))));
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::path(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn glob_of_components_matches_as_documented() {
        for (pattern, yes, no) in [
            ("/", &["/"][..], &["/a"][..]),
            ("/**", &["/", "/a", "/a/b/c"], &[]),
            ("/a", &["/a"], &["/", "/ab", "/a/b", "/b"]),
            ("/a/**", &["/a", "/a/b", "/a/b/c"], &["/ab", "/", "/b/a"]),
            ("/a/*/**", &["/a/b", "/a/b/c"], &["/a", "/ab"]),
            ("/**/x", &["/x", "/a/x", "/a/b/x"], &["/x/a", "/ax"]),
            ("/*.log", &["/.log", "/a.log"], &["/a/b.log", "/a.logs"]),
            ("/a?c", &["/abc", "/a*c"], &["/ac", "/abbc"]),
            ("/[a-c]x", &["/ax", "/cx"], &["/dx", "/x"]),
            ("/[!a]", &["/b"], &["/a", "/"]),
            ("/[]]", &["/]"], &["/["]),
            (r"/\*", &["/*"], &["/a"]),
            ("/*a*b", &["/ab", "/xaxxb", "/aab"], &["/aba"]),
            (
                "/a/**/b/**/c",
                &["/a/b/c", "/a/x/b/y/z/c"],
                &["/a/c", "/a/b/c/d"],
            ),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} should match {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn glob_of_bytes_matches_names_that_are_not_text() {
        let glob = Glob::path(r"/\xff*").unwrap();
        assert!(glob.matches(b"/\xff\xfe"));
        assert!(!glob.matches(b"/\xfe"));
        assert!(Glob::path("/?").unwrap().matches(b"/\x80"));
    }

    #[test]
    fn glob_with_a_fault_is_refused() {
        for bad in [
            "a", "", "/a/", "//", "/a//b", "/./a", "/../a", "/a**", "/[a", "/[b-a]", r"/\x4",
            r"/\xzz", r"/a\", r"/\x00",
        ] {
            assert!(Glob::path(bad).is_err(), "{bad}");
        }
        assert!(Glob::path(&"/a".repeat(SEGMENTS_MAX + 1)).is_err());
        assert!(Glob::path(&"/a".repeat(SEGMENTS_MAX)).is_ok());
    }

    #[test]
    fn glob_that_covers_another_is_recognised() {
        let covers = |a, b| Glob::path(a).unwrap().covers(&Glob::path(b).unwrap());
        for (wide, narrow) in [
            ("/**", "/a/*/c"),
            ("/a/**", "/a"),
            ("/a/**", "/a/b/**"),
            ("/**/*.log", "/var/**/x.log"),
            ("/*", "/abc"),
            ("/a*", "/abc"),
            ("/**/x/**", "/a/x/b"),
        ] {
            assert!(covers(wide, narrow), "{wide} covers {narrow}");
        }
        for (one, other) in [
            ("/a/*", "/a/**"),
            ("/a", "/b"),
            ("/a/*/**", "/a/**"),
            ("/*/b", "/**/b"),
        ] {
            assert!(!covers(one, other), "{one} does not cover {other}");
        }
    }

    #[test]
    fn glob_of_a_long_hostile_name_ends_soon() {
        let glob = Glob::path("/*a*a*a*a*a*a*a*b").unwrap();
        assert!(!glob.matches(&[b"/".as_slice(), &[b'a'; 255]].concat()));
    }

    #[test]
    fn what_every_match_begins_with_ends_at_a_component() {
        let matches = |glob: &str, path: &str| Glob::path(glob).unwrap().matches(path.as_bytes());
        for glob in ["/a/**", "/a", "/a/*b"] {
            assert!(!matches(glob, "/ab") && !matches(glob, "/abb/b"), "{glob}");
        }
        assert!(matches("/a/**", "/a") && matches("/a/**", "/a/b/c"));
        assert!(matches("/a", "/a") && !matches("/a", "/a/b") && !matches("/a", "/"));
        assert!(matches("/a/*b", "/a/xb") && !matches("/a/*b", "/a"));
        assert!(matches("/**", "/") && matches("/", "/") && !matches("/", "/a"));
        // A name that cannot be is no way to find two.
        assert!(!matches("/a\\x2fb/**", "/a/b") && !matches("/a\\x2fb", "/a/b"));
    }
}
