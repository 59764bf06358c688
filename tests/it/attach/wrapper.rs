//! The wrapper: when it becomes the emulator, with what, and when it becomes nothing.

use std::fs;

use crate::attach::lab::{Domain, Lab, WRAPPER};
use crate::attach::peers::Start;
use crate::common::{Export, Lines, shown, stderr, stdout};

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
    let words =
        |share: &str| format!("word -a\nword b c\nword \nword -fsdev\nword {share}\nword *\n");
    assert!(plain.starts_with(&words(&share)), "{plain}");
    // But for the shell's own number, which is in the paths.
    let numbers = |told: &str| -> Vec<String> {
        let last = told.lines().last().unwrap().split(' ');
        last.map(|path| path.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    // All are as they were, but for the share's path, and the one descriptor that it names.
    let attached = told(WRAPPER);
    let (before, after) = (numbers(&plain), numbers(&attached));
    let word = attached
        .lines()
        .find_map(|line| line.split_once("path=/proc/self/fd/"));
    let (_, fd) = word.unwrap_or_else(|| panic!("{attached}"));
    let pinned = share.replace(&shown(export.path()), &format!("/proc/self/fd/{fd}"));
    assert!(attached.starts_with(&words(&pinned)), "{attached}");
    // The shell's own among them may have another number, where the view has its.
    assert!(after.iter().any(|one| one == fd), "{attached}");
    assert_eq!(after.len(), before.len() + 1, "{plain} {attached}");
}
