//! Exports on other file systems than the one that the tests' own directories are on: the same
//! battery as root on the directory itself and as a user in the view, with the same outcome, and
//! with the same left behind.

mod battery;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::XattrFlags;

use crate::common::{Export, Start, assert_nothing_left, metrics, ours, shown, stderr, stdout};
use crate::doctor::elsewhere;
use crate::workload::itself;

const BATTERY: &str = "filesystems::battery::inside";

/// A program that must be there and succeed.
#[track_caller]
fn tool(argv: &[&str]) {
    // A user's PATH, which sudo may hand on, does not lead to mkfs.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}: apt-get install xfsprogs btrfs-progs squashfs-tools e2fsprogs",
                argv[0]
            )
        });
    assert!(output.status.success(), "{argv:?}: {}", stderr(&output));
}

/// An image that is made and mounted on the export, in this thread's mount namespace: unmounted
/// when that ends, and the loop device with it.
fn image(export: &Export, make: &[&str]) {
    let image = shown(&export.beside("image"));
    fs::File::create(&image)
        .unwrap()
        .set_len(400 << 20)
        .unwrap();
    tool(&[make, &[&image]].concat());
    tool(&["mount", "-o", "loop", &image, &shown(export.path())]);
}

fn ext4(export: &Export) {
    image(export, &["mkfs.ext4", "-q"]);
}

/// Its directories do not tell types.
fn ext4_without_types(export: &Export) {
    image(export, &["mkfs.ext4", "-q", "-O", "^filetype"]);
}

fn xfs(export: &Export) {
    image(export, &["mkfs.xfs", "-q"]);
}

fn btrfs(export: &Export) {
    image(export, &["mkfs.btrfs", "-q"]);
}

fn tmpfs(export: &Export) {
    tool(&["mount", "-t", "tmpfs", "it", &shown(export.path())]);
}

/// Layers on a tmpfs, with something in the lower one.
fn overlay(export: &Export) {
    let layers = export.beside("layers");
    fs::create_dir(&layers).unwrap();
    tool(&["mount", "-t", "tmpfs", "it", &shown(&layers)]);
    for name in ["lower", "upper", "work"] {
        fs::create_dir(layers.join(name)).unwrap();
    }
    fs::write(layers.join("lower/below"), vec![b'b'; 100_000]).unwrap();
    let layers = shown(&layers);
    let options = format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
    tool(&[
        "mount",
        "-t",
        "overlay",
        "it",
        "-o",
        &options,
        &shown(export.path()),
    ]);
}

/// What the battery tells, as root on a directory of the host.
fn on_the_directory(export: &Export, at: &Path) -> Vec<String> {
    let words = itself(export, BATTERY, &[(battery::AT, &shown(at))]);
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    told(&output)
}

/// What it tells in a view of the export, and how many opened files went past the mediator.
fn in_the_view(export: &Export, start: &Start, at: &Path) -> (Vec<String>, f64) {
    let view = start.mount();
    let words = itself(export, BATTERY, &[(battery::AT, &shown(at))]);
    let told = told(&entered(&view.name, &words));
    let past = metrics(&view.name)[&past(&view.name)];
    drop(view);
    assert_nothing_left(start.name());
    (told, past)
}

/// A command as the client, in its view.
fn entered<S: AsRef<str>>(view: &str, argv: &[S]) -> Output {
    let words = ["enter", view, "--"].into_iter();
    ours(words.chain(argv.iter().map(AsRef::as_ref)))
}

fn past(view: &str) -> String {
    format!("virtfs_passthrough_opened_total{{view=\"{view}\"}}")
}

#[track_caller]
fn told(output: &Output) -> Vec<String> {
    assert!(
        output.status.success(),
        "{}{}",
        stdout(output),
        stderr(output)
    );
    let text = stdout(output);
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(battery::MARK));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some("end"), "{text}");
    assert!(lines.len() > 50, "{text}");
    lines
}

/// The octets of an ACL: owner rwx, user 1000 rwx, group r-x, mask rwx, others none.
fn acl_octets() -> Vec<u8> {
    let mut octets = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [
        (0x01_u16, 7_u16, u32::MAX),
        (0x02, 7, 1000),
        (0x04, 5, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        octets.extend(tag.to_le_bytes());
        octets.extend(bits.to_le_bytes());
        octets.extend(id.to_le_bytes());
    }
    octets
}

/// What the host gives before: a directory with a default ACL, a file with one.
fn with_acls(at: &Path) {
    let acl = at.join("acl");
    fs::create_dir_all(acl.join("default")).unwrap();
    fs::write(acl.join("file"), "listed").unwrap();
    let set = |path: &Path, name: &str| {
        rustix::fs::setxattr(path, name, &acl_octets(), XattrFlags::empty()).unwrap();
    };
    set(&acl.join("default"), "system.posix_acl_default");
    set(&acl.join("file"), "system.posix_acl_access");
}

/// All that a tree holds, as the host sees it: what the two runs must have left alike.
fn tree(at: &Path) -> String {
    let mut text = String::new();
    let mut left: Vec<PathBuf> = vec![at.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(at).unwrap();
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let _infallible = write!(
            text,
            "{name:?} {:o} {}:{} links={links}",
            meta.mode(),
            meta.uid(),
            meta.gid()
        );
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            left.sort();
        } else {
            let _infallible = write!(text, " size={}", meta.size());
        }
        if meta.is_file() {
            let _infallible = write!(text, " sum={:x}", sum(&fs::read(&path).unwrap()));
        }
        if name.starts_with("times") && meta.is_file() {
            let _infallible = write!(text, " {}.{}", meta.mtime(), meta.mtime_nsec());
        }
        if !meta.is_symlink() {
            let _infallible = write!(text, " [{}]", battery::listed(&path).unwrap());
            for name in ["system.posix_acl_access", "system.posix_acl_default"] {
                let mut octets = [0; 256];
                if let Ok(length) = rustix::fs::getxattr(&path, name, &mut octets[..]) {
                    let _infallible = write!(text, " {name}={:?}", &octets[..length]);
                }
            }
        }
        text.push('\n');
    }
    text
}

/// FNV-1a.
fn sum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Only what differs is shown.
#[track_caller]
fn alike(raw: &[String], view: &[String]) {
    let lines = raw.iter().zip(view).filter(|(raw, view)| raw != view);
    let differ: Vec<String> = lines
        .map(|(raw, view)| format!("on the directory: {raw}\nin the view:      {view}\n"))
        .collect();
    assert!(differ.is_empty(), "{}", differ.concat());
    assert_eq!(raw.len(), view.len(), "{raw:#?} {view:#?}");
}

/// Both runs, on a file system that `mount` puts on the export.
fn compare(mount: fn(&Export)) {
    compare_with(mount, &[], true);
}

/// The same of a view with options; `goes_past`: whether files' data then may go past the mediator.
fn compare_with(mount: fn(&Export), options: &'static [&str], goes_past: bool) {
    elsewhere(move || {
        let export = Export::new();
        mount(&export);
        fs::set_permissions(export.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| export.path().join(name);
        for name in ["raw", "view"] {
            fs::create_dir(at(name)).unwrap();
            with_acls(&at(name));
        }
        let raw = on_the_directory(&export, &at("raw"));
        let start = Start::new(&export);
        let start = options.iter().fold(start, |start, it| start.option(*it));
        let (view, past) = in_the_view(&export, &start, &at("view"));
        alike(&raw, &view);
        assert!(!raw.iter().any(|line| line.contains("stopped")), "{raw:#?}");
        let (raw, view) = (tree(&at("raw")), tree(&at("view")));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        alike(&lines(&raw), &lines(&view));
        assert_eq!(
            past > 0.0,
            goes_past,
            "{past} files' data went past the mediator"
        );
    });
}

#[test]
fn ext4_through_a_view_is_as_ext4() {
    compare(ext4);
}

#[test]
fn ext4_is_the_same_whichever_way_its_data_goes() {
    compare_with(ext4, &["--data=mediated"], false);
    compare_with(ext4, &["--data=passthrough"], true);
}

#[test]
fn ext4_without_types_in_its_directories_is_as_that() {
    compare_with(ext4_without_types, &["--cache=none"], true);
    elsewhere(|| {
        let export = Export::new();
        ext4_without_types(&export);
        for number in 0..600 {
            let directory = export.path().join(format!("d{number}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("file"), "").unwrap();
        }
        // find(1) goes by the types that a listing tells.
        for cache in ["--cache=auto", "--cache=none", "--cache=exclusive"] {
            let start = Start::new(&export).option(cache);
            let found = script(
                &export,
                &start,
                "find . -type f | wc -l; du -s . >/dev/null; find . -type f | wc -l",
            );
            assert_eq!(found, "600\n600", "{cache}");
        }
    });
}

#[test]
fn xfs_through_a_view_is_as_xfs() {
    compare(xfs);
}

#[test]
fn btrfs_through_a_view_is_as_btrfs() {
    compare(btrfs);
}

#[test]
fn tmpfs_through_a_view_is_as_tmpfs() {
    compare(tmpfs);
}

#[test]
fn overlayfs_through_a_view_is_as_overlayfs() {
    compare(overlay);
}

/// A script in a view of the export, as the client; what it printed.
#[track_caller]
fn script(export: &Export, start: &Start, text: &str) -> String {
    let view = start.mount();
    let text = format!("cd {}; {text}", export.path().display());
    let output = entered(&view.name, &["sh", "-euc", &text]);
    assert!(
        output.status.success(),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

#[test]
fn file_of_a_lower_layer_is_changed_through_a_view_as_on_the_host() {
    // Layers of one file system, and of two.
    for upper in ["tmpfs", "the lower one's"] {
        elsewhere(|| {
            let export = Export::new();
            let layers = export.beside("layers");
            fs::create_dir(&layers).unwrap();
            let names = ["lower", "upper", "work"].map(|name| layers.join(name));
            let mount_upper = |at: &Path| tool(&["mount", "-t", "tmpfs", "it", &shown(at)]);
            fs::create_dir(&names[0]).unwrap();
            let other = if upper == "tmpfs" {
                fs::create_dir(layers.join("other")).unwrap();
                mount_upper(&layers.join("other"));
                layers.join("other")
            } else {
                layers.clone()
            };
            for name in ["upper", "work"] {
                fs::create_dir(other.join(name)).unwrap();
            }
            fs::write(names[0].join("below"), vec![b'b'; 100_000]).unwrap();
            fs::write(names[0].join("removed"), "").unwrap();
            let options = format!(
                "lowerdir={},upperdir={}/upper,workdir={}/work",
                names[0].display(),
                other.display(),
                other.display()
            );
            let at = shown(export.path());
            tool(&["mount", "-t", "overlay", "it", "-o", &options, &at]);
            let printed = script(
                &export,
                &Start::new(&export),
                "exec 3<below; head -c 3 <&3; stat -c %s below
                 chown 5:6 below; printf end >>below; tail -c 4 below; stat -c ' %u:%g %s' below
                 rm removed; ls",
            );
            assert_eq!(printed, "bbb100000\nbend 5:6 100003\nbelow", "{upper}");
            let meta = fs::metadata(export.path().join("below")).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.len()), (5, 6, 100_003));
            assert_eq!(fs::metadata(names[0].join("below")).unwrap().uid(), 0);
        });
    }
}

#[test]
fn squashfs_through_a_view_is_read_whole_and_never_changed() {
    elsewhere(|| {
        let export = Export::new();
        let content = export.beside("content");
        fs::create_dir(&content).unwrap();
        fs::create_dir(content.join("directory")).unwrap();
        fs::write(content.join("large"), vec![b'l'; 300_000]).unwrap();
        fs::write(content.join("directory/secret"), "root's").unwrap();
        fs::set_permissions(
            content.join("directory/secret"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        fs::hard_link(content.join("large"), content.join("other")).unwrap();
        std::os::unix::fs::symlink("large", content.join("link")).unwrap();
        std::os::unix::fs::chown(content.join("large"), Some(1000), Some(4_000_000)).unwrap();
        let image = shown(&export.beside("squashed"));
        tool(&[
            "mksquashfs",
            &shown(&content),
            &image,
            "-quiet",
            "-no-progress",
        ]);
        tool(&["mount", "-o", "loop,ro", &image, &shown(export.path())]);
        let look = "find . -printf '%P %y %m %U:%G %n %s %l\\n' | sort; \
                    find . -type f -exec sha256sum {} + | sort";
        let argv = ["-euc", &format!("cd {}; {look}", export.path().display())];
        let raw = Command::new("sh").args(argv).output().unwrap();
        let start = Start::new(&export);
        assert_eq!(script(&export, &start, look), stdout(&raw));
        assert!(stdout(&raw).lines().count() > 8, "{}", stdout(&raw));
        for change in [
            "touch new",
            "chmod 600 large",
            "chown 1:1 large",
            "rm large",
            "mv large moved",
            "ln large linked",
            "mkdir new",
            "printf x >>large",
        ] {
            let text = format!("exec 2>&1; if {change}; then echo changed; fi");
            let told = script(&export, &Start::new(&export), &text);
            assert!(told.contains("Read-only file system"), "{change}: {told}");
        }
    });
}

/// A subvolume has a device number of its own and is no mount.
#[test]
fn subvolume_of_btrfs_in_an_export_is_part_of_it() {
    elsewhere(|| {
        let export = Export::new();
        btrfs(&export);
        let inner = shown(&export.path().join("inner"));
        tool(&["btrfs", "-q", "subvolume", "create", &inner]);
        fs::write(export.path().join("inner/file"), "within").unwrap();
        fs::write(export.path().join("file"), "without").unwrap();
        let printed = script(
            &export,
            &Start::new(&export),
            "cat inner/file; echo; chown 5:6 inner/file; mkdir inner/d; chmod 700 inner/d
             ln inner/file inner/link; [ inner/file -ef inner/link ]
             [ ! inner/file -ef file ] && [ ! inner -ef . ]
             if ln file inner/across 2>/dev/null; then echo linked; fi
             mv file inner/moved; cat inner/moved; ls inner",
        );
        assert_eq!(printed, "within\nwithoutd\nfile\nlink\nmoved");
        let meta = fs::metadata(export.path().join("inner/file")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (5, 6, 2));
    });
}
