//! Attributes that are kept under another name, by table.

use super::*;

const RENAMING: &str = "default = \"allow\"\n\
    [[xattr]]\nmatch = \"user.plain\"\naction = \"allow\"\n\
    [[xattr]]\nmatch = \"user.*\"\naction = \"rename\"\nto = \"user.view.\"\n\
    [[xattr]]\nmatch = \"trusted.*\"\naction = \"rename\"\nto = \"user.trust.\"\n\
    [[xattr]]\nmatch = \"security.*\"\naction = \"unsupported\"\n";

#[test]
fn attribute_is_kept_under_its_new_name_and_shown_under_the_guest_s() {
    let policy = policy(RENAMING);
    for (guest, stored) in [
        ("user.plain", Some("user.plain")),
        ("user.a", Some("user.view.user.a")),
        ("trusted.a", Some("user.trust.trusted.a")),
        // Whatever the guest calls an attribute, it reaches none of the host's by that name.
        ("user.view.user.a", Some("user.view.user.view.user.a")),
        ("system.a", Some("system.a")),
        ("security.a", None),
    ] {
        let ask = XattrName::new(guest.as_bytes()).unwrap();
        let facts = Facts {
            xattr: Some((guest.as_bytes(), 0)),
            ..Facts::of(Op::Getxattr, CLIENT)
        };
        let got = policy.decide::<rows::Getxattr>(&facts, ask).ok();
        let got = got.map(|permit| permit.grant());
        let got = got
            .as_ref()
            .map(|name| str::from_utf8(name.as_bytes()).unwrap());
        assert_eq!(got, stored, "{guest}");
        if let Some(stored) = stored {
            let shown = policy.xattr_shown(stored.as_bytes());
            assert_eq!(shown, Some(guest.as_bytes()), "{stored}");
        }
    }
    for raw in [
        "user.a",
        "user.view.",
        "user.view.x",
        "user.view.user.plain",
        "security.a",
    ] {
        assert_eq!(policy.xattr_shown(raw.as_bytes()), None, "{raw}");
    }
}

#[test]
fn attribute_whose_new_name_is_too_long_is_not_there_and_cannot_be_made() {
    let policy = policy(RENAMING);
    let name = format!("user.{}", "a".repeat(250));
    let ask = XattrName::new(name.as_bytes()).unwrap();
    let at = &["/a"];
    assert_eq!(
        decide::<rows::Getxattr>(&policy, at, ask),
        Err(Errno::NODATA)
    );
    let set = decide::<rows::Setxattr>(&policy, at, ask);
    assert_eq!(set, Err(Errno::RANGE));
    let fits = XattrName::new(name.get(..245).unwrap().as_bytes()).unwrap();
    let kept = decide::<rows::Getxattr>(&policy, at, fits).unwrap();
    assert_eq!(kept.as_bytes().len(), 255);
}

#[test]
fn name_that_others_are_renamed_to_is_out_of_reach_also_under_observe() {
    let rules = "[[xattr]]\nmatch = \"trusted.*\"\naction = \"rename\"\nto = \"user.view.\"\n\
                 [[xattr]]\nmatch = \"user.view.no\"\naction = \"deny\"\n";
    for mode in ["enforce", "observe"] {
        let policy = policy(&format!("default = \"allow\"\nmode = \"{mode}\"\n{rules}"));
        for name in ["user.view.trusted.a", "user.view.x"] {
            let ask = XattrName::new(name.as_bytes()).unwrap();
            let got = decide::<rows::Setxattr>(&policy, &["/a"], ask);
            assert_eq!(got, Err(Errno::NOTSUP), "{mode} {name}");
        }
        assert_eq!(
            policy.xattr_shown(b"user.view.trusted.a"),
            Some(&b"trusted.a"[..])
        );
        assert_eq!(policy.xattr_shown(b"user.view.no"), None);
    }
}
