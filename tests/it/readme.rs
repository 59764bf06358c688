//! What the README shows is what the program takes.

use std::fs;
use std::path::Path;

use crate::common::{ours, stderr};

#[test]
fn policies_of_the_readme_and_the_shipped_ones_have_no_mistake() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let examples: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(example, _)| example))
        .collect();
    assert_eq!(examples.len(), 5, "the README promises five examples");
    let directory = tempfile::tempdir().unwrap();
    for (number, example) in examples.iter().enumerate() {
        let file = directory.path().join(format!("example{number}.toml"));
        fs::write(&file, example).unwrap();
        let output = ours([Path::new("policy"), Path::new("check"), &file]);
        assert!(output.status.success(), "{example}{}", stderr(&output));
    }
    let shipped = fs::read_dir(root.join("tools/policies")).unwrap();
    let names = shipped.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names
        .filter(|name| !name.ends_with(".cases.toml"))
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in &names {
        let printed = ours(["policy", "init", name]);
        assert!(printed.status.success(), "{name}: {}", stderr(&printed));
        let file = directory.path().join(name);
        fs::write(&file, printed.stdout).unwrap();
        let output = ours([Path::new("policy"), Path::new("check"), &file]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
    }
}
