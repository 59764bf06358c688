//! Directories as a client's kernel lists and remembers them.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::fs::{Dir, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, LIMIT, Running, Start, assert_nothing_left, await_that, ours,
    program, shown, stderr, stdout, within_as,
};
use crate::workload;

/// Tells [`client`] that it is one.
const CLIENT: &str = "VIRTFS_IT_LISTER";
const ALLOW: &str = "default = \"allow\"\n";
const HIDES: &str = "default = \"allow\"\n[[rule]]\npath = \"/dir/secret\"\naction = \"hide\"\n";
const NO_LIST: &str =
    "default = \"allow\"\n[[rule]]\npath = \"/dir\"\ndo = \"list\"\naction = \"deny\"\n";

/// Not a test by itself: the client of the others. Keeps one directory open and does what each line
/// says, with one line in return.
#[test]
fn client() {
    if std::env::var_os(CLIENT).is_none() {
        return;
    }
    println!("\nready");
    let mut kept = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (word, path) = line.split_once(' ').unwrap();
        let answer = obey(word, Path::new(path), &mut kept);
        let said = answer.unwrap_or_else(|errno| errno.to_string());
        println!("{said}");
        std::io::stdout().flush().unwrap();
    }
}

fn obey(word: &str, path: &Path, kept: &mut Option<Dir>) -> Result<String, Errno> {
    let shown = |names: Vec<String>| names.join(" ");
    match word {
        "keep" => {
            let dir = kept.insert(open(path)?);
            list(dir).map(shown)
        }
        "again" => {
            let dir = kept.as_mut().unwrap();
            dir.rewind();
            list(dir).map(shown)
        }
        "afresh" => list(&mut open(path)?).map(shown),
        "changers" => Ok(several_changers(path)),
        "readers" => several_readers(path).map(|count| format!("{count} each")),
        other => panic!("'{other}' is no word of ours"),
    }
}

fn open(path: &Path) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Dir::new(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The rest of a stream, sorted and without dots.
fn list(dir: &mut Dir) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in dir {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != "." && name != "..");
    names.sort();
    Ok(names)
}

/// Three streams of one directory, each at its own pace; then telldir(3) and seekdir(3) to places
/// all over it. How many names each found.
fn several_readers(path: &Path) -> Result<usize, Errno> {
    let mut readers = Vec::new();
    for pace in [1, 7, 50] {
        readers.push((pace, open(path)?, Vec::new(), false));
    }
    while readers.iter().any(|(.., ended)| !ended) {
        for (pace, dir, seen, ended) in readers.iter_mut().filter(|(.., ended)| !ended) {
            let wanted = seen.len() + *pace * 100;
            for entry in dir.by_ref().take(*pace * 100) {
                let entry = entry?;
                seen.push((entry.file_name().to_owned(), entry.offset()));
            }
            *ended = seen.len() < wanted;
        }
    }
    let (_, dir, whole, _) = &mut readers[0];
    for place in [whole.len() / 2, 3, whole.len() - 1, whole.len() / 3] {
        dir.seek(whole[place].1)?;
        for (name, _) in whole.iter().skip(place + 1).take(300) {
            let found = dir.next().unwrap()?;
            assert_eq!(found.file_name(), &**name, "behind place {place}");
        }
    }
    let count = readers[0].2.len();
    for (.., seen, _) in &readers {
        let distinct: std::collections::HashSet<_> = seen.iter().map(|(name, _)| name).collect();
        assert_eq!(
            (seen.len(), distinct.len()),
            (count, count),
            "lost or twice"
        );
    }
    Ok(count)
}

/// Threads that each make and remove names of their own in one directory, and list it: one's listing
/// has the names that were there when it began, and no others. What was wrong, or `fine`.
fn several_changers(path: &Path) -> String {
    let wrong = std::thread::scope(|scope| {
        let start = |who: u32| scope.spawn(move || changer(path, who));
        let all: Vec<_> = (0..4).map(start).collect();
        all.into_iter().find_map(|one| one.join().unwrap().err())
    });
    wrong.unwrap_or_else(|| "fine".to_owned())
}

fn changer(path: &Path, who: u32) -> Result<(), String> {
    let own = format!("own-{who}-");
    let mut there = std::collections::BTreeSet::new();
    for round in 0..60 {
        for number in 0..8 {
            let name = format!("{own}{round}-{number}");
            fs::write(path.join(&name), "").unwrap();
            there.insert(name);
        }
        // An old one and a new one go, one becomes another.
        let first = there.pop_first().unwrap();
        fs::remove_file(path.join(first)).unwrap();
        let last = there.pop_last().unwrap();
        fs::remove_file(path.join(last)).unwrap();
        let old = there.pop_last().unwrap();
        let new = format!("{own}{round}-moved");
        fs::rename(path.join(old), path.join(&new)).unwrap();
        there.insert(new);
        let mut listed = list(&mut open(path).unwrap()).unwrap();
        listed.retain(|name| name.starts_with(&own));
        if listed != Vec::from_iter(there.iter().cloned()) {
            return Err(format!("round {round}: {listed:?} instead of {there:?}"));
        }
    }
    Ok(())
}

/// A client that lists, in a view of its own.
struct Lister {
    running: Running,
    to: ChildStdin,
}

impl Lister {
    fn start(export: &Export, start: &Start) -> Self {
        let words = workload::itself(export, "listings::client", &[(CLIENT, "1")]);
        let mut command = start.command(words);
        command.stdin(Stdio::piped());
        let mut running = Running::spawn(command, start.name().to_owned());
        let to = running.stdin();
        running.ready();
        Self { running, to }
    }

    #[track_caller]
    fn ask(&mut self, word: &str, path: &Path) -> String {
        writeln!(self.to, "{word} {}", shown(path)).unwrap();
        self.running.stdout.next().expect("an answer")
    }
}

/// An export with a directory `dir` of the files `a`, `b` and `secret`, and a policy file.
fn site(policy: &str) -> (Export, PathBuf, PathBuf) {
    let export = Export::new();
    let dir = export.path().join("dir");
    fs::create_dir(&dir).unwrap();
    for name in ["a", "b", "secret"] {
        fs::write(dir.join(name), "").unwrap();
    }
    let file = export.beside("policy.toml");
    fs::write(&file, policy).unwrap();
    (export, dir, file)
}

fn start(export: &Export, policy: &Path, cache: &str) -> Start {
    let start = Start::new(export).option("--policy").option(shown(policy));
    start.option("--cache").option(cache)
}

#[test]
fn every_reader_of_a_large_directory_sees_every_entry_once() {
    const FILES: usize = 100_000;
    for (cache, files) in [("auto", FILES), ("exclusive", 5_000), ("none", 5_000)] {
        let (export, dir, policy) = site(ALLOW);
        for number in 3..files {
            fs::write(dir.join(format!("file-{number}")), "").unwrap();
        }
        let mut lister = Lister::start(&export, &start(&export, &policy, cache));
        let whole = format!("{} each", files + 2);
        assert_eq!(lister.ask("readers", &dir), whole, "{cache}");
        // And once more, from what the kernel remembers.
        assert_eq!(lister.ask("readers", &dir), whole, "{cache}");
    }
}

/// The kernel alone does not do that: it lets a reader go on in what another has cached before him.
#[test]
fn listing_has_what_was_there_when_it_began_whoever_else_lists() {
    for cache in ["exclusive", "auto", "none"] {
        let (export, dir, policy) = site(ALLOW);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        // More than one reply takes.
        for number in 0..700 {
            fs::write(dir.join(format!("file-{number}")), "").unwrap();
        }
        let mut lister = Lister::start(&export, &start(&export, &policy, cache));
        assert_eq!(lister.ask("changers", &dir), "fine", "{cache}");
    }
}

#[test]
fn reload_is_seen_by_whoever_has_the_directory_open() {
    for cache in ["exclusive", "auto", "none"] {
        let (export, dir, policy) = site(ALLOW);
        let start = start(&export, &policy, cache);
        let mut lister = Lister::start(&export, &start);
        let reload = |text: &str| {
            fs::write(&policy, text).unwrap();
            let output = ours(["reload", start.name()]);
            assert!(output.status.success(), "{}", stderr(&output));
        };
        assert_eq!(lister.ask("keep", &dir), "a b secret", "{cache}");
        assert_eq!(lister.ask("again", &dir), "a b secret", "{cache}");
        reload(HIDES);
        for word in ["again", "afresh", "again"] {
            assert_eq!(lister.ask(word, &dir), "a b", "{cache} {word}");
        }
        reload(NO_LIST);
        let refused = Errno::ACCESS.to_string();
        for word in ["again", "afresh", "keep"] {
            assert_eq!(lister.ask(word, &dir), refused, "{cache} {word}");
        }
        reload(ALLOW);
        for word in ["again", "afresh"] {
            assert_eq!(lister.ask(word, &dir), "a b secret", "{cache} {word}");
        }
    }
}

/// What a request of the older policy was answered may still be on its way into the kernel's cache
/// when `reload` drops the pages.
#[test]
fn reload_while_others_list_leaves_nothing_of_the_older_listing() {
    let (export, dir, policy) = site(ALLOW);
    // A directory of several pages, so that a listing is under way most of the time.
    for number in 0..2_000 {
        fs::write(dir.join(format!("file-{number}")), "").unwrap();
    }
    let start = start(&export, &policy, "exclusive");
    let view = start.mount();
    let at = shown(&dir);
    // A change makes the kernel list anew.
    let script =
        format!("while :; do ls -f {at} >/dev/null; : > {at}/new-$$; rm -f {at}/new-$$; done");
    let noise: Vec<Child> = (0..3)
        .map(|_| {
            Command::new(program())
                .args(["enter", &view.name, "--", "sh", "-c", &script])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for round in 0..15 {
        for (text, listed) in [(HIDES, false), (ALLOW, true)] {
            fs::write(&policy, text).unwrap();
            let output = ours(["reload", &view.name]);
            assert!(output.status.success(), "{}", stderr(&output));
            let found = within_as(&view.name, CLIENT_UID, CLIENT_GID, &["ls", "-f", &at]);
            let names = stdout(&found);
            let there = names.lines().any(|name| name == "secret");
            assert_eq!(there, listed, "round {round}: {}", stderr(&found));
        }
    }
    drop(view);
    for mut child in noise {
        child.wait().unwrap();
    }
    assert_nothing_left(start.name());
}

/// Who unpacks an archive sets a directory's time back, so that the kernel, which looks at nothing
/// else, takes its listing for good.
#[test]
fn name_that_the_host_makes_without_a_trace_in_the_mtime_is_listed() {
    for cache in ["auto", "none"] {
        let (export, dir, policy) = site(ALLOW);
        let before = fs::metadata(&dir).unwrap();
        let mut lister = Lister::start(&export, &start(&export, &policy, cache));
        assert_eq!(lister.ask("keep", &dir), "a b secret");
        fs::write(dir.join("c"), "").unwrap();
        let time = Timespec {
            tv_sec: std::os::linux::fs::MetadataExt::st_mtime(&before),
            tv_nsec: std::os::linux::fs::MetadataExt::st_mtime_nsec(&before),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::utimensat(rustix::fs::CWD, &dir, &times, flags).unwrap();
        for word in ["again", "afresh"] {
            await_that(LIMIT, "the name is listed", || {
                lister.ask(word, &dir) == "a b c secret"
            });
        }
    }
}
