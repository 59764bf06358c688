//! The manual page: its tables are the parser's, its examples have no mistake. That each of its
//! statements has a test is looked at in the program's tests (tests/it/manual).

use std::collections::BTreeSet;

use super::*;

const PAGE: &str = include_str!("../../../../tools/man/virtfs-mediator-policy.5");

/// The lines of a section, its subsections included.
fn section(name: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!(".Sh {name}");
    let lines = PAGE
        .lines()
        .skip_while(move |line| **line != heading)
        .skip(1);
    lines.take_while(|line| !line.starts_with(".Sh "))
}

/// What a section's tables list.
fn listed(name: &str, how: &str) -> Vec<&'static str> {
    let lines = section(name);
    lines.filter_map(|line| line.strip_prefix(how)).collect()
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    names.into_iter().collect()
}

#[test]
fn keys_and_errnos_of_the_manual_are_the_parser_s() {
    let [top, rule, when, errnos] = super::super::parse::known();
    let file = listed("THE FILE", ".It Ic ");
    // Of a rule, known to the parser only to be told of.
    let rule = rule.into_iter().filter(|key| *key != "strict");
    let documented = top.into_iter().chain(rule);
    assert_eq!(sorted(file), sorted(documented));
    assert_eq!(sorted(listed("CONDITIONS", ".It Ic ")), sorted(when));
    let actions: Vec<&str> = section("ACTIONS").collect();
    let actions = actions.join(" ");
    for errno in errnos {
        assert!(actions.contains(errno), "{errno}");
    }
}

#[test]
fn words_of_the_manual_speak_of_what_the_table_of_operations_says() {
    let lines: Vec<&str> = section("WORDS").collect();
    let mut words = BTreeSet::new();
    for pair in lines.windows(2) {
        let [word, operations] = pair else { continue };
        let Some(word) = word.strip_prefix(".It Cm ") else {
            continue;
        };
        words.insert(word);
        let text = format!("default = \"deny\"\n[[rule]]\ndo = \"{word}\"\naction = \"allow\"\n");
        let rule = policy(&text).rules.remove(0);
        let speaks = Op::ALL.iter().filter(|op| rule.speaks_of(**op, op.words()));
        let speaks = sorted(speaks.map(|op| op.raw_name()));
        assert_eq!(sorted(operations.split(", ")), speaks, "{word}");
    }
    assert_eq!(words.len(), 12, "every word but lock: {words:?}");
}

#[test]
fn examples_of_the_manual_have_no_mistake() {
    let examples: Vec<&str> = PAGE
        .split("\n.Bd -literal -offset indent\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("\n.Ed\n")?.0))
        .collect();
    assert!(examples.len() >= 5, "{}", examples.len());
    for example in examples {
        if let Err(mistakes) = Policy::parse("example", example, &Nobody) {
            panic!("{example}\n{mistakes}");
        }
    }
}

#[test]
fn group_change_takes_every_change_and_nothing_else() {
    let frozen = policy("default = \"allow\"\n[[rule]]\ndo = \"change\"\naction = \"deny\"\n");
    let at = &["/a"];
    let xattr = XattrName::new(b"user.a").unwrap();
    assert!(decide::<rows::Write>(&frozen, at, ()).is_err());
    assert!(decide::<rows::Unlink>(&frozen, at, ()).is_err());
    assert!(decide::<rows::Mkdir>(&frozen, at, birth(FileKind::Directory, 0)).is_err());
    assert!(rename(&frozen, "/a", "/b", FileKind::Regular).is_err());
    assert!(decide::<rows::Setxattr>(&frozen, at, xattr).is_err());
    assert!(decide::<rows::Removexattr>(&frozen, at, xattr).is_err());
    for ask in [
        ChangesAsk {
            uid: Some(GuestUid(1)),
            ..ChangesAsk::NOTHING
        },
        ChangesAsk {
            mode: Some(Mode::new(0)),
            ..ChangesAsk::NOTHING
        },
        ChangesAsk {
            size: Some(0),
            ..ChangesAsk::NOTHING
        },
        ChangesAsk {
            mtime: SetTime::Now,
            ..ChangesAsk::NOTHING
        },
    ] {
        assert!(
            setattr(&frozen, "/a", FileKind::Regular, ask).is_err(),
            "{ask:?}"
        );
    }
    assert_eq!(decide::<rows::Getxattr>(&frozen, at, xattr), Ok(xattr));
    assert_eq!(decide::<rows::Listxattr>(&frozen, at, ()), Ok(()));
    assert_eq!(decide::<rows::Read>(&frozen, at, ()), Ok(()));
    assert_eq!(decide::<rows::Readdir>(&frozen, at, ()), Ok(()));
    let nothing = policy("default = \"allow\"\n[[rule]]\ndo = \"any\"\naction = \"deny\"\n");
    assert!(decide::<rows::Getattr>(&nothing, at, ()).is_err());
    assert!(decide::<rows::Readdir>(&nothing, at, ()).is_err());
}

#[test]
fn name_of_a_request_speaks_of_it_alone_unless_it_is_a_word() {
    let denying = |word: &str| {
        policy(&format!(
            "default = \"allow\"\n[[rule]]\ndo = \"{word}\"\naction = \"deny\"\n"
        ))
    };
    let at = &["/a"];
    let unlink = denying("unlink");
    assert!(decide::<rows::Unlink>(&unlink, at, ()).is_err());
    assert_eq!(decide::<rows::Rmdir>(&unlink, at, ()), Ok(()));
    let read = denying("read");
    assert!(
        decide::<rows::Lseek>(&read, at, ()).is_err(),
        "the word, not the request"
    );
    assert_eq!(decide::<rows::Fsync>(&denying("any"), at, ()), Ok(()));
    assert!(decide::<rows::Fsync>(&denying("fsync"), at, ()).is_err());
}

#[test]
fn span_is_a_fact_of_what_has_one() {
    let policy = policy(
        "default = \"allow\"\n[[rule]]\nwhen = { offset = { min = 5 } }\naction = \"deny\"\n",
    );
    let at = |op, offset| Facts {
        offset: Some(offset),
        length: Some(1),
        ..Facts::of(op, CLIENT)
    };
    let write = |offset| {
        policy
            .decide::<rows::Write>(&at(Op::Write, offset), ())
            .is_ok()
    };
    assert!(write(4) && !write(5));
    let allocate = |offset| {
        let facts = at(Op::Fallocate, offset);
        policy.decide::<rows::Fallocate>(&facts, ()).is_ok()
    };
    assert!(allocate(4) && !allocate(5));
    assert_eq!(decide::<rows::Unlink>(&policy, &["/a"], ()), Ok(()));
}

#[test]
fn condition_on_an_attribute_goes_by_the_guest_s_name() {
    let policy = policy(
        "default = \"allow\"\n\
         [[rule]]\ndo = \"xattr\"\nwhen = { xattr = \"user.no*\" }\naction = \"deny\"\n\
         [[rule]]\ndo = \"xattr\"\nwhen = { xattr_size = { min = 9 } }\naction = \"deny\"\n\
         [[xattr]]\nmatch = \"user.*\"\naction = \"rename\"\nto = \"user.no.\"\n",
    );
    let set = |name: &str, size| {
        let ask = XattrName::new(name.as_bytes()).unwrap();
        let facts = Facts {
            xattr: Some((name.as_bytes(), size)),
            ..Facts::of(Op::Setxattr, CLIENT)
        };
        policy.decide::<rows::Setxattr>(&facts, ask).is_ok()
    };
    assert!(set("user.a", 8) && !set("user.a", 9) && !set("user.no", 1));
}
