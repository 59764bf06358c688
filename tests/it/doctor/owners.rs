//! Policies with a `map`, and the files that it leaves out.

use std::fs;
use std::os::unix::fs::chown;

use rustix::fs::{CWD, FileType, Mode};

use super::catalogue::Problem;
use super::harness::{Doctor, Seen, elsewhere, on, provoke, tmpfs};
use crate::common::{Export, shown};

provoke! {
    root_outside_of_the_map => [RootUnmapped];
    files_outside_of_the_map => [Unmapped];
    too_many_to_look_at => [WalkCut];
}

const MAP: &str = "default = \"allow\"\nmap = [{ guest = 0, host = 700000, count = 1000 }]\n";

/// `doctor` with the map, and an export that it covers.
fn mapped() -> (Export, Doctor) {
    let export = Export::new();
    let file = export.beside("map.toml");
    fs::write(&file, MAP).unwrap();
    chown(export.path(), Some(700_000), Some(700_000)).unwrap();
    let words = ["--policy", &shown(&file), &shown(export.path())];
    let doctor = Doctor::new(words);
    (export, doctor)
}

fn root_outside_of_the_map() -> Seen {
    let (export, doctor) = mapped();
    let control = doctor.run();
    // The last id of the range is in it, the next is not; the group counts as well.
    chown(export.path(), Some(700_999), Some(700_999)).unwrap();
    assert!(!doctor.run().has(Problem::RootUnmapped));
    chown(export.path(), Some(700_000), Some(701_000)).unwrap();
    let changed = doctor.run();
    changed.says(
        Problem::RootUnmapped,
        &["700000:701000", "700000 to 700999"],
    );
    assert_eq!(changed.status, 78);
    Seen { control, changed }
}

fn files_outside_of_the_map() -> Seen {
    let (export, doctor) = mapped();
    let inside = export.path().join("d");
    fs::create_dir(&inside).unwrap();
    chown(&inside, Some(700_001), Some(700_002)).unwrap();
    let control = doctor.run();
    let owned = |name: &str, uid: u32, gid: u32| {
        let path = inside.join(name);
        fs::write(&path, "").unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
    };
    owned("in", 700_999, 700_999);
    owned("user", 0, 700_000);
    owned("group\n", 700_000, 5);
    let changed = doctor.run();
    changed.says(
        Problem::Unmapped,
        &[
            "2 files",
            "EACCES",
            "/d/user (0:700000)",
            "/d/group\n (700000:5)",
        ],
    );
    // A terminal is not told of the newline as such.
    let words = doctor.words().into_iter().filter(|word| word != "--json");
    let text = String::from_utf8(super::harness::output(words).stdout).unwrap();
    assert!(text.contains("/d/group\\n (700000:5)"), "{text}");
    Seen { control, changed }
}

/// One more than 100,000.
fn too_many_to_look_at() -> Seen {
    let export = Export::new();
    let doctor = on(export.path());
    let control = doctor.run();
    let changed = elsewhere(|| {
        tmpfs(export.path());
        for number in 0..100_001 {
            let path = export.path().join(number.to_string());
            let (kind, mode) = (FileType::RegularFile, Mode::RUSR);
            rustix::fs::mknodat(CWD, &path, kind, mode, 0).unwrap();
        }
        doctor.run()
    });
    changed.says(Problem::WalkCut, &["only 100000 entries"]);
    Seen { control, changed }
}
