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
