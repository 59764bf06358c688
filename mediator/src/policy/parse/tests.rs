use super::super::shipped;
use super::*;

struct Here;

impl Users for Here {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "qemu").then_some(64055)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "kvm").then_some(104)
    }
}

/// Each mistake as `line:column what`.
fn mistakes(text: &str) -> Vec<String> {
    let Err(mistakes) = Policy::parse("p.toml", text, &Here) else {
        return Vec::new();
    };
    let list = mistakes.list.iter();
    list.map(|at| format!("{}:{} {}", at.line, at.column, at.what))
        .collect()
}

#[test]
fn shipped_policies_parse() {
    for (name, text) in shipped::ALL {
        if let Err(mistakes) = Policy::parse(name, text, &Here) {
            panic!("{mistakes}");
        }
    }
}

#[test]
fn policy_of_every_key_parses() {
    let text = r#"
export = "/srv/share"
client = { user = "qemu", group = "kvm" }
default = "deny"
readonly = false
squash = { who = "root", uid = "qemu", gid = 104 }
map = [{ guest = 0, host = 100000, count = 65536 }, { guest = 65536, host = 1, count = 1 }]
outside = "squash"
set_id = "deny"
cache = "exclusive"
submounts = "hide"
mode = "enforce"

[[rule]]
name = "logs"
path = ["/var/**/*.log", '/a\xff']
do = ["change", "getattr", "lock"]
action = "deny"
errno = "EDQUOT"
log = "all"
[rule.when]
type = ["file", "fifo"]
mode = { any = "6000", none = 0o1000 }
owner = { uid = [0, "qemu"], gid = 5 }
requester = { uid = "qemu" }
new_owner = { uid = 0 }
new_mode = { all = "4000" }
size = { min = 1, max = 0x1000 }
nlink = { min = 2 }
offset = { max = 5 }
length = { max = 5 }
xattr = "user.*"
xattr_size = { min = 5 }
target = "../**"
birth = true
submount = false

[[rule]]
path = "/in/**"
action = "allow"
owner = { uid = "qemu", gid = "kvm" }
mode = { force = "0640", strip = "0007" }

[[rule]]
path = "/secret/**"
action = "hide"

[[xattr]]
match = "user.*"
action = "allow"

[[xattr]]
match = "*"
action = "unsupported"
"#;
    assert_eq!(mistakes(text), Vec::<String>::new());
    let policy = Policy::parse("p.toml", text, &Here).unwrap();
    assert_eq!(
        policy.settings().client_user,
        Some(crate::ids::HostUid(64055))
    );
    assert_eq!(policy.rule_name(0), Some("logs"));
    assert!(policy.rule_logs(0) && !policy.rule_logs(1));
}

#[test]
fn mistake_is_told_with_its_place() {
    let default = "default = \"allow\"\n";
    let rule = "default = \"allow\"\n[[rule]]\naction = \"deny\"\n";
    let allow = "default = \"deny\"\n[[rule]]\naction = \"allow\"\n";
    for (head, text, want) in [
        ("", "", "1:1 `default` is missing"),
        (
            "",
            "default = 3",
            "1:11 `default` is an integer, but must be a string",
        ),
        (
            "",
            "default = \"alow\"",
            "1:11 `alow` is no word for `default`",
        ),
        (
            default,
            "  defalt = 1",
            "2:3 unknown key `defalt` in a policy",
        ),
        (
            default,
            "readonly = \"yes\"",
            "2:12 `readonly` is a string, but must be true or false",
        ),
        (
            default,
            "export = \"share\"",
            "2:10 `export` is not an absolute path",
        ),
        (
            default,
            "client = { user = \"nobody-here\" }",
            "2:19 there is no user `nobody-here` on this host",
        ),
        (
            default,
            "client = { group = \"x\" }",
            "2:20 there is no group `x` on this host",
        ),
        (
            default,
            "client = { usr = 1 }",
            "2:12 unknown key `usr` in `client`",
        ),
        (
            default,
            "client = 1",
            "2:10 `client` is an integer, but must be a table: { key = value }",
        ),
        (
            default,
            "submounts = \"big\"",
            "2:13 `big` is no word for `submounts`",
        ),
        (
            default,
            "cache = \"big\"",
            "2:9 `big` is no word for `cache`",
        ),
        (
            default,
            "mode = \"watch\"",
            "2:8 `watch` is no word for `mode`",
        ),
        (
            default,
            "squash = { uid = 5 }",
            "2:10 `squash` does not say who",
        ),
        (
            default,
            "squash = { who = \"some\" }",
            "2:18 `some` is no word for `who`",
        ),
        (
            default,
            "outside = \"squash\"",
            "2:11 `outside` means nothing without `map`",
        ),
        (
            default,
            "map = 1",
            "2:7 `map` is an integer, but must be an array of tables",
        ),
        (
            default,
            "map = [{ guest = 0, host = 1 }]",
            "2:8 a range of `map` lacks `count`",
        ),
        (
            default,
            "map = [{ guest = 0, host = 1, count = 0 }]",
            "2:39 `count` = 0 is out of range",
        ),
        (
            default,
            "map = [{ guest = 4294967294, host = 1, count = 2 }]",
            "2:8 a range of `map` goes past the highest id",
        ),
        (
            default,
            "map = [{ guest = 0, host = 10, count = 5 },\n { guest = 4, host = 20, count = 5 }]",
            "3:2 the guest ids of this range overlap an earlier range's",
        ),
        (
            default,
            "map = [{ guest = 0, host = 10, count = 5 },\n { guest = 5, host = 6, count = 5 }]",
            "3:2 the host ids of this range overlap an earlier range's",
        ),
        (
            default,
            "[[rule]]\npath = \"/a\"",
            "2:1 a rule lacks `action`",
        ),
        (
            default,
            "[[rule]]\naction = \"denie\"",
            "3:10 `denie` is no word for `action`",
        ),
        (
            default,
            "[[rule]]\naction = \"pretend\"",
            "2:1 `pretend` must say what is pretended, and not everything can be",
        ),
        (
            default,
            "[[rule]]\naction = \"pretend\"\ndo = [\"owner\", \"write\"]",
            "4:16 `write` cannot be pretended: a client builds on what it is told is done",
        ),
        (
            default,
            "[[rule]]\naction = \"pretend\"\ndo = [\"setattr\"]",
            "4:7 `setattr` cannot be pretended: a client builds on what it is told is done",
        ),
        (
            default,
            "[[rule]]\naction = \"pretend\"\ndo = \"mode\"\nerrno = \"EPERM\"",
            "5:9 `errno` goes with `action = \"deny\"` only",
        ),
        (
            allow,
            "limit = 5",
            "4:9 `limit` is an integer, but must be a table: { key = value }",
        ),
        (
            rule,
            "limit = { file_size = 5 }",
            "4:9 `limit` goes with `action = \"allow\"` only",
        ),
        (allow, "limit = {}", "4:9 `limit` limits nothing"),
        (
            allow,
            "limit = { file_size = \"5X\" }",
            "4:23 `file_size = \"5X\"` is no size",
        ),
        (
            allow,
            "limit = { file_size = \"99999999T\" }",
            "4:23 `file_size = \"99999999T\"` is no size",
        ),
        (
            allow,
            "when = { birth = true }\nlimit = { total = \"1G\" }",
            "4:8 a limit of `total` or `entries` is for paths, and takes no `when`",
        ),
        (
            allow,
            "limit = { entries = \"many\" }",
            "4:21 `entries` is a string, but must be an integer",
        ),
        (
            allow,
            "do = \"read\"\nlimit = { file_size = 5 }",
            "5:9 `limit` never holds: no operation of this rule's `do` writes",
        ),
        (rule, "pth = \"/\"", "4:1 unknown key `pth` in a rule"),
        (
            rule,
            "path = \"a\"",
            "4:8 `a`: a path starts with `/`, the top of the view",
        ),
        (
            rule,
            "path = [\"/a\", \"/b/\"]",
            "4:15 `/b/`: a component is empty",
        ),
        (
            rule,
            "path = \"/a/..\"",
            "4:8 `/a/..`: `.` and `..` are never names",
        ),
        (rule, "path = []", "4:8 `path` is an empty list"),
        (
            rule,
            "do = [\"look\", \"reed\"]",
            "4:15 `reed` is no word for `do`",
        ),
        (rule, "do = []", "4:6 `do` is an empty list"),
        (
            rule,
            "do = \"lock\"",
            "4:6 a rule for `lock` alone never decides",
        ),
        (
            rule,
            "errno = \"EIO\"",
            "4:9 `errno = \"EIO\"` would pass a refusal off as a fault",
        ),
        (
            rule,
            "errno = \"ENOSYS\"",
            "4:9 `errno = \"ENOSYS\"` would pass a refusal off as a fault",
        ),
        (
            rule,
            "errno = \"ENOTCONN\"",
            "4:9 `errno = \"ENOTCONN\"` would pass a refusal off as a fault",
        ),
        (
            rule,
            "errno = \"EFOO\"",
            "4:9 `EFOO` is no word for `errno`",
        ),
        (
            rule,
            "owner = { uid = 0 }",
            "4:9 `owner` goes with `action = \"allow\"` only",
        ),
        (
            rule,
            "mode = { strip = \"1\" }",
            "4:8 `mode` goes with `action = \"allow\"` only",
        ),
        (
            allow,
            "errno = \"EPERM\"",
            "4:9 `errno` goes with `action = \"deny\"` only",
        ),
        (
            allow,
            "mode = { force = 640 }",
            "4:18 `force` is not a set of permission bits",
        ),
        (
            allow,
            "mode = { force = \"17777\" }",
            "4:18 `force` is not a set of permission bits",
        ),
        (
            allow,
            "owner = { uid = 4294967295 }",
            "4:17 `uid` = 4294967295 is out of range",
        ),
        (allow, "log = \"some\"", "4:7 `some` is no word for `log`"),
        (
            rule,
            "when = { typ = 1 }",
            "4:10 unknown key `typ` in `when`",
        ),
        (
            rule,
            "when = { type = \"device\" }",
            "4:17 `device` is no word for `type`",
        ),
        (
            rule,
            "when = { birth = 1 }",
            "4:18 `birth` is an integer, but must be true or false",
        ),
        (
            rule,
            "when = { size = { min = 5, max = 4 } }",
            "4:17 `size`: `min` is greater than `max`, so that nothing is within",
        ),
        (
            rule,
            "do = \"read\"\nwhen = { xattr = \"user.*\" }",
            "5:18 `xattr` never holds: no operation of this rule's `do` has one",
        ),
        (
            default,
            "[[rule]]\naction = \"hide\"\ndo = \"look\"",
            "4:6 `hide` takes no `do`: what is hidden is hidden from all",
        ),
        (
            default,
            "[[rule]]\naction = \"hide\"\nwhen = { birth = true }",
            "4:8 `hide` takes no `when`: what is hidden is hidden from all",
        ),
        (
            rule,
            "path = \"/a/**\"\n[[rule]]\npath = \"/a/b\"\naction = \"allow\"",
            "5:1 this rule never decides: rule 1, before it, takes all of it",
        ),
        (
            "default = \"allow\"\nreadonly = true\n",
            "[[rule]]\ndo = \"write\"\naction = \"deny\"",
            "3:1 this rule never decides: `readonly` refuses all of its `do`",
        ),
        (
            default,
            "[[xattr]]\naction = \"deny\"",
            "2:1 an `[[xattr]]` lacks `match`",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"*\"",
            "2:1 an `[[xattr]]` lacks `action`",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"*\"\naction = \"rename\"",
            "4:10 an `[[xattr]]` that renames lacks `to`",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"*\"\naction = \"rename\"\nto = \"security.\"",
            "5:6 `to = \"security.\"` does not begin with `user.`",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"*\"\naction = \"deny\"\nto = \"user.v.\"",
            "5:6 `to` goes with `action = \"rename\"` only",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"user.*\"\naction = \"rename\"\nto = \"user.v.\"\n\
             [[xattr]]\nmatch = \"*\"\naction = \"rename\"\nto = \"user.v.w.\"",
            "9:6 two names of the guest could be one on the host: of `user.v.` and `user.v.w.` \
             one begins with the other",
        ),
        (
            default,
            "[[xattr]]\nmatch = \"[\"\naction = \"deny\"",
            "3:9 `[` is never closed",
        ),
    ] {
        assert_eq!(mistakes(&format!("{head}{text}")), [want], "{head}{text}");
    }
}

#[test]
fn mistakes_are_told_all_at_once_and_in_order() {
    let text = "defalt = 1\n[[rule]]\npath = \"x\"\ndo = \"reed\"\n[[rule]]\n";
    let found = mistakes(text);
    let places: Vec<&str> = found.iter().filter_map(|at| at.split(' ').next()).collect();
    assert_eq!(places, ["1:1", "1:1", "2:1", "3:8", "4:6", "5:1"]);
}

#[test]
fn mistake_in_toml_itself_is_told_with_its_place() {
    let found = mistakes("default = \"allow\"\nfoo = = 3\n");
    assert!(
        found.first().is_some_and(|first| first.starts_with("2:")),
        "{found:?}"
    );
    let twice = mistakes("default = \"allow\"\ndefault = \"deny\"\n");
    assert!(
        twice.first().is_some_and(|first| first.starts_with("2:1 ")),
        "{twice:?}"
    );
}

#[test]
fn mistakes_are_printed_with_file_and_hint() {
    let error = Policy::parse("p.toml", "defult = \"allow\"\n", &Here).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(
            "p.toml:1:1: unknown key `defult` in a policy\n  hint: did you mean `default`?"
        ),
        "{text}"
    );
}

#[test]
fn rule_in_reach_is_not_reported() {
    for rules in [
        // Conditions of the earlier rule leave something over.
        "[[rule]]\naction = \"deny\"\nwhen = { birth = true }\n[[rule]]\naction = \"allow\"\n",
        // Other words.
        "[[rule]]\naction = \"deny\"\ndo = \"write\"\n[[rule]]\ndo = [\"write\", \"read\"]\naction = \"allow\"\n",
        // Other paths.
        "[[rule]]\naction = \"deny\"\npath = \"/a/*\"\n[[rule]]\npath = \"/a/**\"\naction = \"allow\"\n",
        "[[rule]]\naction = \"deny\"\ndo = \"setattr\"\n[[rule]]\ndo = \"write\"\naction = \"allow\"\n",
    ] {
        assert_eq!(
            mistakes(&format!("default = \"allow\"\n{rules}")),
            Vec::<String>::new(),
            "{rules}"
        );
    }
}
