//! Who gets nothing, and that the log says who and why.

use std::fs;

use crate::attach::lab::{Domain, Lab};
use crate::attach::peers::{BY_HAND, Start};
use crate::common::{Export, LIMIT, await_that, shown, stderr, stdout};

/// A peer that is refused: what it was told, and what the log says.
#[track_caller]
fn refused(lab: &Lab, start: &Start, told: &str, logged: &str) {
    let mut peer = start.spawn(lab);
    let pid = peer.process.pid;
    let (status, said) = peer.end();
    if start.through.is_empty() {
        assert_eq!(status, 78, "{said}");
        assert!(said.starts_with("virtfs-mediator-qemu: "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(said.contains(told), "{said}");
    let line = lab.logged(logged);
    if line.contains("refused: ") {
        let who = format!("process {pid} of {}:{}", start.uid, start.gid);
        assert!(line.contains(&who), "{line}");
    }
    lab.assert_unseen();
}

#[test]
fn strangers_get_nothing_and_the_domains_own_qemu_still_does() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("web", [&export]);
    let of = || Start::of(&domain);

    // Nothing is armed.
    lab.define(&domain);
    let nobody = "no domain with its user is about to start";
    refused(&lab, &of(), nobody, nobody);

    lab.arm(&domain);
    // Another user, although the pid file names it.
    let stranger = Start {
        uid: 61_399,
        ..of()
    };
    refused(&lab, &stranger, nobody, nobody);
    // Root, who may do all else.
    let root = Start { uid: 0, ..of() };
    refused(&lab, &root, nobody, nobody);
    // Another group.
    let group = Start {
        gid: 61_399,
        ..of()
    };
    refused(&lab, &group, "runs with group 61302", "runs with group");
    // Another process of the same user: the pid file names the one before, or one that lives.
    let other = Start {
        pid_file: None,
        ..of()
    };
    let by_record = "by libvirt's record process";
    refused(&lab, &other, by_record, by_record);
    // No pid file, one without a number, one that others may write to.
    let pid_file = lab.path("/run/libvirt/qemu/web.pid");
    fs::remove_file(&pid_file).unwrap();
    refused(
        &lab,
        &other,
        "web.pid: No such file",
        "web.pid: No such file",
    );
    fs::write(&pid_file, "12x\n").unwrap();
    refused(&lab, &other, "no process id", "no process id");
    std::os::unix::fs::chown(&pid_file, Some(domain.uid), None).unwrap();
    let writable = Start {
        before: "chmod 666 /run/libvirt/qemu/web.pid".to_owned(),
        ..of()
    };
    refused(&lab, &writable, "others than root", "others than root");
    fs::remove_file(&pid_file).unwrap();
    std::os::unix::fs::symlink("/run/other.pid", &pid_file).unwrap();
    refused(&lab, &of(), "web.pid", "web.pid");
    fs::remove_file(&pid_file).unwrap();

    // All of that took nothing away.
    assert!(lab.is_armed("web"));
    let mut peer = of().spawn(&lab);
    peer.ready();
    // And the second of one start gets nothing, pid file or not.
    refused(&lab, &of(), nobody, nobody);
    peer.does(&format!("echo x >{}", shown(&export.path().join("file"))));
}

/// A pid file that an earlier start left, and a process that has the number by now.
#[test]
fn process_that_is_older_than_the_start_is_refused() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("stale", [&export]);
    lab.define(&domain);
    // It waits until the domain is armed, which is after its own start.
    let go = lab.path("/run/go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let mut start = Start::of(&domain);
    start.before = "read -r now </run/go".to_owned();
    let mut peer = start.spawn(&lab);
    // A clock tick, by which the kernel counts starts, goes by.
    let ticks = || fs::read_to_string("/proc/uptime").unwrap();
    let first = ticks();
    await_that(LIMIT, "a clock tick goes by", || ticks() != first);
    lab.arm(&domain);
    fs::write(&go, "now\n").unwrap();
    let (status, told) = peer.end();
    assert_eq!(status, 78);
    assert!(told.contains("it started before domain 'stale'"), "{told}");
    lab.logged("it started before");
    assert!(lab.is_armed("stale"));
}

/// What a peer of the right ids is refused for takes its start's one attach with it: each is armed anew.
#[test]
fn peers_that_are_not_as_libvirt_makes_them_are_refused() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("odd", [&export]);
    let place = shown(export.path());
    let elsewhere = Export::new();
    let cases: Vec<(&str, Start, &str)> = vec![
        (
            "in the service's namespace",
            Start {
                unshare: Vec::new(),
                ..Start::of(&domain)
            },
            "is in the mount namespace of process",
        ),
        (
            "in a user namespace of its own making",
            Start {
                through: vec![
                    "setpriv", "--no-new-privs", "--", "unshare", "-U", "--", "perl", "-e", "\"$CLIENT\"",
                ],
                ..Start::of(&domain)
            },
            "user namespace of its own",
        ),
        (
            "in user and mount namespaces of its own making",
            Start {
                through: vec![
                    "setpriv", "--no-new-privs", "--", "unshare", "-U", "-m", "--", "perl", "-e",
                    "\"$CLIENT\"",
                ],
                ..Start::of(&domain)
            },
            "user namespace of its own",
        ),
        (
            "another directory in the place",
            Start {
                before: format!("mount --bind {} {place}", shown(elsewhere.path())),
                ..Start::of(&domain)
            },
            "is another directory than the export",
        ),
        (
            "a symbolic link in the way",
            Start {
                before: format!(
                    "mount -t tmpfs t {0}; ln -s /run {0}/export",
                    shown(export.path().parent().unwrap())
                ),
                ..Start::of(&domain)
            },
            "no symlinks): Not a directory",
        ),
        (
            "a symbolic link above it",
            Start {
                before: format!(
                    "mount -t tmpfs t /tmp; ln -s /run {}",
                    shown(export.path().parent().unwrap())
                ),
                ..Start::of(&domain)
            },
            "no symlinks): Too many levels of symbolic links",
        ),
        (
            "no such directory there",
            Start {
                before: format!("mount -t tmpfs t {}", shown(export.path().parent().unwrap())),
                ..Start::of(&domain)
            },
            "No such file or directory",
        ),
        (
            "shared mounts",
            Start {
                unshare: vec!["-m", "--propagation", "shared"],
                ..Start::of(&domain)
            },
            "is a shared mount",
        ),
        (
            "a root directory beside its namespace's",
            Start {
                before: "mkdir /run/root; mount --rbind / /run/root; \
                         exec chroot /run/root setpriv --reuid=61301 --regid=61302 --clear-groups -- \"$@\""
                    .to_owned(),
                ..Start::of(&domain)
            },
            "lies on a mount that the client does not see",
        ),
        (
            "ids of another besides those that it connects with",
            Start {
                before: "exec setpriv --ruid=61309 --euid=61301 --regid=61302 --clear-groups \
                         --inh-caps=-all --no-new-privs -- \"$@\""
                    .to_owned(),
                ..Start::of(&domain)
            },
            "is not 61301:61302 in all of its ids",
        ),
        (
            "capabilities",
            Start {
                before: "exec setpriv --reuid=61301 --regid=61302 --clear-groups \
                         --inh-caps=+sys_admin --ambient-caps=+sys_admin -- \"$@\""
                    .to_owned(),
                ..Start::of(&domain)
            },
            "has capabilities",
        ),
    ];
    for (what, start, told) in cases {
        eprintln!("{what}");
        lab.arm(&domain);
        refused(&lab, &start, told, told);
        assert!(!lab.is_armed("odd"), "{what}");
        lab.assert_nothing_left("odd-0");
    }
    // And as libvirt makes it:
    lab.arm(&domain);
    Start::of(&domain).spawn(&lab).ready();
}

#[test]
fn words_that_are_none_and_askers_that_are_gone_get_nothing() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("words", [&export]);
    lab.arm(&domain);
    let ask = |what: &str| {
        let mut start = Start::of(&domain);
        start.pid_file = Some("words".to_owned());
        let mut command = start.command(&lab);
        command.args(["perl", "-e", BY_HAND, what]);
        let output = command.output().unwrap();
        assert_eq!(stderr(&output), "");
        stdout(&output)
    };
    for (what, logged) in [
        ("word", "no word of the protocol"),
        ("empty", "it said nothing"),
        ("silent", "it said nothing"),
    ] {
        let answer = ask(what);
        assert!(answer.starts_with("no "), "{what}: {answer}");
        lab.logged(logged);
        assert!(lab.is_armed("words"), "{what}");
    }
    // Whoever connected has ended: its child speaks, with the same connection.
    let answer = ask("orphan");
    assert!(answer.starts_with("no "), "{answer}");
    assert!(answer.contains("ended"), "{answer}");
    lab.logged("ended");
    assert!(lab.is_armed("words"));
    // All is right but that it might still run set-user-id programs.
    let answer = ask("privileged");
    assert!(answer.contains("no_new_privs"), "{answer}");
    lab.assert_unseen();
}

/// Whoever may rename a directory above the export could otherwise have the whole host shared: another
/// domain's guest, if it shares that directory, or a local user.
#[test]
fn export_below_a_directory_that_became_a_link_is_refused() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("link", [&export]);
    let at = |name: &str| export.path().join(name);
    for name in ["above/share", "elsewhere/share"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("elsewhere/share/secret"), "secret").unwrap();
    let (whole, below) = (shown(export.path()), shown(&at("above/share")));
    lab.define(&domain);
    let file = domain.file().replace(&whole, &below);
    fs::write(lab.path("/etc/virtfs-mediator/libvirt/link.toml"), file).unwrap();
    let xml = domain.xml().replace(&whole, &below);
    let start = Start {
        shares: vec![below.clone()],
        ..Start::of(&domain)
    };
    let armed = || {
        let output = lab.hook("link", "prepare", "begin", &xml);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    armed();
    let mut peer = start.spawn(&lab);
    peer.ready();
    peer.does(&format!("echo x >{below}/file"));
    peer.kill();
    lab.assert_nothing_left("link-0");

    fs::rename(at("above"), at("moved")).unwrap();
    std::os::unix::fs::symlink("elsewhere", at("above")).unwrap();
    armed();
    let told = format!("{below} is {}", shown(&at("elsewhere/share")));
    refused(&lab, &start, &told, &told);
}

/// The unit gives the service no capability that goes past mode bits: what is below somebody's closed
/// directory is out of its reach, and that is what is said.
#[test]
fn export_that_the_service_has_no_way_to_is_told_with_its_cure() {
    let (mut lab, export) = (Lab::new(), Export::new());
    lab.serve_by(|_| "exec setpriv --bounding-set=-dac_override,-dac_read_search -- \"$@\"");
    let home = export.path().parent().unwrap();
    std::os::unix::fs::chown(home, Some(61_301), None).unwrap();
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(home, mode).unwrap();
    };
    mode(0o700);
    let domain = Domain::new("home", [&export]);
    lab.arm(&domain);
    let told = "chmod o+x";
    refused(&lab, &Start::of(&domain), told, told);
    lab.arm(&domain);
    let told = "CapabilityBoundingSet=CAP_DAC_READ_SEARCH";
    refused(&lab, &Start::of(&domain), told, told);
    // Root's group is root's own: the directory's.
    mode(0o711);
    lab.arm(&domain);
    Start::of(&domain).spawn(&lab).ready();
}

/// A policy that the guest could write, or another user, would be theirs from the next start on.
#[test]
fn policy_that_is_not_roots_alone_is_refused() {
    let (lab, export) = (Lab::serving(), Export::new());
    let domain = Domain::new("policy", [&export]);
    let start = |policy: &std::path::Path| {
        let file = format!("{}policy = \"{}\"\n", domain.file(), shown(policy));
        fs::write(lab.path("/etc/virtfs-mediator/libvirt/policy.toml"), file).unwrap();
        let armed = lab.hook("policy", "prepare", "begin", &domain.xml());
        assert!(armed.status.success(), "{}", stderr(&armed));
        Start::of(&domain)
    };
    let write = |path: &std::path::Path| fs::write(path, "default = \"allow\"\n").unwrap();
    let (inside, beside) = (
        export.path().join("policy.toml"),
        export.beside("policy.toml"),
    );
    // By a link from outside too.
    let link = export.beside("link.toml");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    write(&inside);
    for path in [&inside, &link] {
        // Root's alone, so that it is for its place that it is refused.
        fs::set_permissions(
            export.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        refused(&lab, &start(path), "which is shared", "which is shared");
    }
    write(&beside);
    std::os::unix::fs::chown(&beside, Some(domain.uid), None).unwrap();
    let others = "others than root may write";
    refused(&lab, &start(&beside), others, others);
    std::os::unix::fs::chown(&beside, Some(0), None).unwrap();
    start(&beside).spawn(&lab).ready();

    // Nor does `run` take one from inside.
    let (share, inside) = (shown(export.path()), shown(&inside));
    let client = "61301:61302";
    let run = lab.ours(&[
        "run", "--client", client, "--policy", &inside, &share, "--", "true",
    ]);
    assert_eq!(run.status.code(), Some(78));
    assert!(stderr(&run).contains("which is shared"), "{}", stderr(&run));
}
