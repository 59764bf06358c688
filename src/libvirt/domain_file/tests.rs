use super::*;

const WEB: &str = r#"domain = "web"
uuid = "4DEA22B3-1d52-d8f3-2516-782e98ab3fa0"
emulator = "/usr/bin/qemu-system-x86_64"
audit = ["journald", "/var/log/web.audit"]
client = { user = 2000001001, group = 2000001002 }

[[view]]
name = "web-share"
export = "/srv/web"
policy = "/etc/virtfs-mediator/web.toml"
data = "mediated"

[[view]]
name = "web-docs"
export = "/srv/docs"
readonly = true
"#;

fn mistake(from: &str, to: &str) -> String {
    assert!(WEB.contains(from), "{from}");
    let error = DomainFile::parse(&WEB.replacen(from, to, 1)).unwrap_err();
    error.within(Path::new("/web.toml")).to_string()
}

#[test]
fn file_that_was_written_reads_the_same() {
    let file = DomainFile::parse(WEB).unwrap();
    assert_eq!(file.uuid, "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
    let ids = file.client.ids().unwrap();
    assert_eq!((ids.uid, ids.gid), (2_000_001_001, 2_000_001_002));
    assert_eq!(file.views[0].data, Some(DataOption::Mediated));
    assert!(file.views[1].readonly && !file.require_confinement);
    assert_eq!(DomainFile::parse(&file.text().unwrap()).unwrap(), file);
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    for (from, to, told) in [
        (
            "name = \"web-share\"",
            "nam = 1",
            "/web.toml, line 8: unknown field `nam`",
        ),
        ("user = 2000001001", "user = -1", "line 5"),
        (
            "\"mediated\"",
            "\"fast\"",
            "line 11: unknown variant `fast`",
        ),
        ("4DEA22B3-", "4DEA22B3", "`uuid` is"),
        ("\"/srv/web\"", "\"srv/web\"", "`export` is 'srv/web'"),
        ("\"/srv/web\"", "\"/srv/../web\"", "`export` is"),
        (
            "\"/srv/docs\"",
            "\"/srv/web/docs\"",
            "would cover each other",
        ),
        ("\"web-docs\"", "\"web-share\"", "two views"),
        ("\"web-share\"", "\"../x\"", "the view name '../x'"),
        ("domain = \"web\"", "domain = \"../web\"", "the domain name"),
        ("\"journald\"", "\"syslog\"", "`audit` names 'syslog'"),
        (
            "/usr/bin/qemu-system-x86_64",
            "/usr/lib/virtfs-mediator/emulators/qemu-system-x86_64",
            "the wrapper",
        ),
    ] {
        let error = mistake(from, to);
        assert!(error.contains(told), "{to}: {error}");
    }
    let none = WEB.split("\n[[view]]").next().unwrap();
    let error = DomainFile::parse(none).unwrap_err().what;
    assert!(error.contains("no `[[view]]`"), "{error}");
}

#[test]
fn names_that_could_leave_a_directory_or_look_like_an_option_are_refused() {
    for bad in [
        "",
        ".",
        "..",
        "-x",
        ".x",
        "a/b",
        "a b",
        "a\n",
        "é",
        &"x".repeat(201),
    ] {
        assert!(checked_name(bad).is_err(), "{bad:?}");
    }
    assert!(checked_name("vm-1_a.b").is_ok());
}

#[test]
fn file_of_others_or_a_link_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        // What is tested is that files are root's: nobody else can make one.
        panic!("run the tests as root");
    }
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("libvirt");
    let web = DomainFile::parse(WEB).unwrap();
    assert_eq!(DomainFile::read_in(&directory, "web").unwrap(), None);
    let path = web.write_in(&directory).unwrap();
    assert_eq!(DomainFile::read_in(&directory, "web").unwrap(), Some(web));
    assert_eq!(DomainFile::read_in(&directory, "other").unwrap(), None);

    let refused = |told: &str| {
        let error = DomainFile::read_in(&directory, "web")
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{error}");
    };
    let mode = |of: &Path, mode| {
        std::fs::set_permissions(of, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&path, 0o664);
    refused("mode 0664");
    mode(&path, 0o644);
    mode(&directory, 0o777);
    refused("mode 0777");
    mode(&directory, 0o755);
    mode(above.path(), 0o775);
    refused("mode 0775");
    mode(above.path(), 0o700);
    std::os::unix::fs::chown(&path, Some(61_234), None).unwrap();
    refused("uid 61234");
    let moved = directory.join("moved");
    std::fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    refused("symbolic link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("neither");
}
