//! Rules that are judged and not enforced, by table.

use super::*;

const OBSERVED: &str = "default = \"deny\"\nmode = \"observe\"\nset_id = \"deny\"\n\
    map = [{ guest = 0, host = 0, count = 100000 }]\n\
    [[rule]]\nname = \"gone\"\npath = \"/gone/**\"\naction = \"hide\"\n\
    [[rule]]\nname = \"frozen\"\npath = \"/frozen/**\"\ndo = [\"change\"]\naction = \"deny\"\n\
    [[rule]]\npath = \"/dir/**\"\ndo = [\"look\", \"rename\"]\naction = \"allow\"\n\
    [[xattr]]\nmatch = \"user.no\"\naction = \"unsupported\"\n";

fn observed<O: Judged>(
    policy: &Policy,
    facts: &Facts<'_>,
    ask: O::Ask,
) -> Result<Option<Refusal>, Errno> {
    let decided = policy.decide::<O>(facts, ask);
    decided
        .map(|permit| permit.observed())
        .map_err(|no| no.errno)
}

#[test]
fn what_rules_refuse_is_let_through_and_told_under_observe() {
    let policy = policy(OBSERVED);
    assert!(policy.observes() && !policy.goes_by_name());
    let told = |path: &str| {
        let names = [path.as_bytes()];
        let facts = Facts {
            names: &names,
            ..Facts::of(Op::Unlink, CLIENT)
        };
        let told = observed::<rows::Unlink>(&policy, &facts, ());
        told.map(|refusal| refusal.map(|it| (it.errno, it.rule)))
    };
    assert_eq!(told("/gone/a"), Ok(Some((Errno::NOENT, Some(0)))));
    assert_eq!(told("/frozen/a"), Ok(Some((Errno::ACCESS, Some(1)))));
    assert_eq!(told("/a"), Ok(Some((Errno::ACCESS, None))));
    assert!(!policy.is_hidden(b"/gone/a"));

    let names = [b"/dir".as_slice()];
    let xattr = Facts {
        names: &names,
        xattr: Some((b"user.no", 0)),
        ..Facts::of(Op::Getxattr, CLIENT)
    };
    let name = XattrName::new(b"user.no").unwrap();
    let told = observed::<rows::Getxattr>(&policy, &xattr, name).unwrap();
    assert_eq!(told.unwrap().errno, Errno::NOTSUP);
    let look = Facts {
        names: &names,
        ..Facts::of(Op::Lookup, CLIENT)
    };
    assert_eq!(observed::<rows::Lookup>(&policy, &look, ()), Ok(None));
}

#[test]
fn rename_that_would_leave_its_rules_or_replace_is_done_and_told_under_observe() {
    let policy = policy(OBSERVED);
    let rename = |old: &str, new: &str| {
        let names = [old.as_bytes()];
        let facts = Facts {
            names: &names,
            second: Some(new.as_bytes()),
            kind: Some(FileKind::Regular),
            ..Facts::of(Op::Rename, CLIENT)
        };
        let permit = policy
            .decide::<rows::Rename>(&facts, RenameHow::Replace)
            .unwrap();
        assert_eq!(permit.grant(), RenameHow::Replace);
        permit.observed().map(|it| it.errno)
    };
    assert_eq!(rename("/frozen/a", "/dir/a"), Some(Errno::ACCESS));
    assert_eq!(rename("/dir/a", "/dir/b"), Some(Errno::EXIST));
}

#[test]
fn walls_stand_under_observe() {
    let policy = policy(OBSERVED);
    let at = &["/dir/a"];
    let device = birth(FileKind::CharDevice, 0);
    assert_eq!(decide::<rows::Mknod>(&policy, at, device), Err(Errno::PERM));
    let change = |ask| setattr(&policy, "/dir/a", FileKind::Regular, ask);
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0o4755)),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(change(chmod), Err(Errno::PERM), "set_id");
    let chown = ChangesAsk {
        uid: Some(GuestUid(100_000)),
        ..ChangesAsk::NOTHING
    };
    assert_eq!(change(chown), Err(Errno::PERM), "map");
    let names = [b"/dir/a".as_slice()];
    let stranger = Facts {
        names: &names,
        outside: true,
        ..Facts::of(Op::Unlink, CLIENT)
    };
    let refused = observed::<rows::Unlink>(&policy, &stranger, ());
    assert_eq!(refused, Err(Errno::ACCESS), "map");
    assert_eq!(
        decide::<rows::Unlink>(&policy, &[], ()),
        Err(Errno::ACCESS),
        "no name known"
    );
    let mut readonly = policy.clone();
    readonly.set_readonly();
    assert_eq!(
        decide::<rows::Unlink>(&readonly, at, ()),
        Err(Errno::ROFS),
        "readonly"
    );
}
