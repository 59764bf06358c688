//! What a rule says beyond one name and one moment.

use super::conditions::mistakes;
use super::*;

#[test]
fn rule_that_follows_files_names_each_in_full() {
    let head = "default = \"allow\"\n[[rule]]\naction = \"hide\"\ninode = true\n";
    let found = policy(&format!("{head}path = [\"/b\", '/a/\\x2a', \"/b\"]\n"));
    assert_eq!(found.followed(), [b"/a/*".to_vec(), b"/b".to_vec()]);
    assert_eq!(policy("default = \"allow\"\n").followed().len(), 0);
    let wanting = "4:9 `inode = true` needs paths without wildcards";
    assert_eq!(mistakes(head), [wanting]);
    for path in ["/a/*", "/a/**", "/[ab]"] {
        assert_eq!(
            mistakes(&format!("{head}path = [\"/a\", \"{path}\"]\n")),
            [wanting]
        );
    }
    let many: Vec<String> = (0..33).map(|at| format!("\"/f{at}\"")).collect();
    assert_eq!(
        mistakes(&format!("{head}path = [{}]\n", many.join(", "))),
        ["2:1 with this rule, 33 paths have `inode = true`"]
    );
}

#[test]
fn data_is_judged_each_time_where_an_open_does_not_say_all() {
    for (rule, each) in [
        ("path = \"/a\"\naction = \"deny\"", false),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { type = \"file\" }",
            false,
        ),
        (
            "do = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }",
            true,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { size = { min = 1 } }",
            true,
        ),
        (
            "do = \"owner\"\naction = \"deny\"\nwhen = { size = { min = 1 } }",
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { flags = \"append\" }",
            false,
        ),
        (
            "do = \"write\"\naction = \"deny\"\nwhen = { birth = false }",
            true,
        ),
        ("do = \"read\"\naction = \"allow\"\nlog = \"all\"", true),
        ("action = \"allow\"\nlimit = { file_size = 1 }", true),
    ] {
        let policy = policy(&format!("default = \"allow\"\n[[rule]]\n{rule}\n"));
        assert_eq!(policy.judges_each_io(), each, "{rule}");
    }
    assert!(policy("default = \"allow\"\nlimit = { file_size = 1 }\n").judges_each_io());
    let strict = "`strict` would say nothing: every read and write is judged by itself";
    let top = mistakes("default = \"allow\"\nstrict = true\n");
    assert_eq!(top, [format!("2:1 {strict}")]);
}
