//! Who gets nothing, and that the log says who and why.

use std::fs;

use crate::attach::lab::{Domain, Lab, WRAPPER};
use crate::attach::peers::{BY_HAND, Start};
use crate::common::{Export, LIMIT, Lines, await_that, shown, stderr, stdout};

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
    // The ids of the process are not those that it connected with.
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

/// Without the service, or without a view over each directory, the wrapper becomes nothing.
#[test]
fn wrapper_fails_closed() {
    let (mut lab, export) = (Lab::new(), Export::new());
    let domain = Domain::new("closed", [&export]);
    let run = |lab: &Lab| {
        let mut peer = Start::of(&domain).spawn(lab);
        peer.end()
    };
    let (status, told) = run(&lab);
    assert_eq!(status, 78);
    assert!(
        told.contains("/run/virtfs-mediator-attach.sock: No such file"),
        "{told}"
    );

    // Somebody else listens there.
    let listener = "use Socket; my $at = '/run/virtfs-mediator-attach.sock';
socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0); bind($s, sockaddr_un($at)); chmod 0666, $at;
$( = $) = 61399; $< = $> = 61399; listen($s, 1); $| = 1; print qq(ready\n);
accept(my $c, $s); recv($c, my $word, 100, 0); send($c, 'ok /bin/true', 0)";
    let mut impostor = lab
        .command("perl")
        .args(["-e", listener])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    Lines::of(impostor.stdout.take().unwrap()).until("ready");
    let (status, told) = run(&lab);
    let _may_be_gone = impostor.kill();
    impostor.wait().unwrap();
    assert_eq!(status, 78);
    assert!(told.contains("uid 61399 listens there"), "{told}");
    fs::remove_file(lab.path("/run/virtfs-mediator-attach.sock")).unwrap();

    // A directory that has no view, besides one that has.
    lab.serve();
    lab.arm(&domain);
    let other = Export::new();
    let mut start = Start::of(&domain);
    start.shares.push(shown(other.path()));
    let mut peer = start.spawn(&lab);
    let (status, told) = peer.end();
    assert_eq!(status, 78);
    assert!(
        told.contains(&format!("{} has no view", other.path().display())),
        "{told}"
    );
    lab.assert_nothing_left("closed-0");
}

/// Libvirt asks an emulator what it can do: no share, so the emulator itself, with all that it was
/// given.
#[test]
fn wrapper_without_a_share_becomes_the_emulator_untouched() {
    let lab = Lab::new();
    let mut command = lab.command("sh");
    command.args(["-c", "exec 9</dev/null 7<&- ; A=b exec /run/emulators/env"]);
    std::os::unix::fs::symlink("virtfs-mediator-qemu", lab.path("/run/emulators/env")).unwrap();
    let output = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let mut environment: Vec<String> = stdout(&output).lines().map(ToOwned::to_owned).collect();
    environment.sort();
    assert_eq!(environment, ["A=b", "PATH=/usr/bin:/bin", "PWD=/"]);

    let version = lab.command(WRAPPER).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("QEMU emulator"));

    // Descriptors: those that were open, and no more.
    std::os::unix::fs::symlink("virtfs-mediator-qemu", lab.path("/run/emulators/ls")).unwrap();
    let listed = |program: &str| {
        let script = format!("exec 9</dev/null; exec {program} /proc/self/fd");
        stdout(&lab.command("sh").args(["-c", &script]).output().unwrap())
    };
    let plain = listed("/usr/bin/ls");
    assert!(plain.lines().any(|fd| fd == "9"), "{plain}");
    assert_eq!(listed("/run/emulators/ls"), plain);

    let named = lab
        .command("/run/emulators/virtfs-mediator-qemu")
        .output()
        .unwrap();
    assert_eq!(named.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&named.stderr).contains("call it by a link"));
}

/// What the emulator is given over exec by way of an attach.
#[test]
fn wrapper_with_a_share_hands_on_descriptors_and_words() {
    let (lab, export) = (Lab::serving(), Export::new());
    let mut domain = Domain::new("words2", [&export]);
    domain.emulator = "/run/emulators/show";
    fs::write(
        lab.path(domain.emulator),
        "#!/bin/sh\nfor word; do echo \"word $word\"; done\necho /proc/$$/fd/*\n",
    )
    .unwrap();
    fs::set_permissions(
        lab.path(domain.emulator),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let share = format!(
        "local,security_model=passthrough,path={}",
        shown(export.path())
    );
    let told = |program: &str| {
        lab.arm(&domain);
        let mut command = Start::of(&domain).command(&lab);
        command.args([program, "-a", "b c", "", "-fsdev", &share, "*"]);
        let output = command.output().unwrap();
        assert_eq!(stderr(&output), "");
        stdout(&output)
    };
    let plain = told(domain.emulator);
    let words = format!("word -a\nword b c\nword \nword -fsdev\nword {share}\nword *\n");
    assert!(plain.starts_with(&words), "{plain}");
    // But for the shell's own number, which is in the paths.
    let numbers = |told: &str| -> Vec<String> {
        let last = told.lines().last().unwrap().split(' ');
        last.map(|path| path.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    let attached = told(WRAPPER);
    assert!(attached.starts_with(&words), "{attached}");
    assert_eq!(numbers(&attached), numbers(&plain));
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
