//! The staircase of lib.rs has no arrow back up.

use std::fs;
use std::path::{Path, PathBuf};

/// Which floor a module is on; a module may use only lower floors and itself.
const FLOORS: [(&str, u32); 12] = [
    ("weak", 0),
    ("ids", 0),
    ("name", 1),
    ("op", 2),
    ("sys", 2),
    ("backing", 2),
    ("policy", 3),
    ("recording", 4),
    ("export", 4),
    ("mediate", 5),
    ("control", 6),
    ("fuse", 7),
];

fn floor(module: &str) -> u32 {
    let found = FLOORS.iter().find(|(name, _)| *name == module);
    found
        .unwrap_or_else(|| panic!("module {module} has no floor"))
        .1
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn module_uses_only_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut arrows = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap().with_extension("");
        let module = inside.iter().next().unwrap().to_str().unwrap().to_owned();
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for used in code.flat_map(|line| line.split("crate::").skip(1)) {
            let end = used.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let used = &used[..end.unwrap_or(used.len())];
            assert!(
                !used.is_empty(),
                "{}: name one module per `use crate::`",
                file.display()
            );
            let lower = used == module || floor(used) < floor(&module);
            assert!(lower, "{}: {module} must not know {used}", file.display());
            arrows += 1;
        }
        let knows_fuser = text.contains("fuser::");
        assert!(
            !knows_fuser || module == "fuse",
            "{} knows fuser",
            file.display()
        );
    }
    assert!(arrows > 30, "the scan found next to nothing: {arrows}");
}
