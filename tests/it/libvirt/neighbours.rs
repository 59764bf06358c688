//! The attacker is the QEMU of another domain that a guest has broken into: all that it may do as
//! its user, from where it runs, is tried on a neighbour. The canary in the neighbour's export is
//! root's alone (0600, in a directory 0700): whoever reads it has come through the view.
//!
//! The control: two domains that share one uid, as all do without `enable`. There the same words
//! bring the canary back, so that they are known to work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use virtfs_p9::Ids;

use super::domain::{Domain, filesystem, path};
use super::lab::{LINK, Lab};
use crate::common::{Export, stderr, stdout};

const CANARY: &str = "the neighbour's secret";

/// An attack: what it is, and a shell's words, with the neighbour's pids and places in them.
struct Attack {
    name: &'static str,
    words: String,
}

/// The domain that is attacked; it runs, with its view.
struct Victim<'a> {
    domain: Domain<'a>,
    export: Export,
}

impl<'a> Victim<'a> {
    fn new(lab: &'a Lab) -> Self {
        let export = Export::new();
        fs::write(export.path().join("canary"), CANARY).unwrap();
        let mode = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&export.path().join("canary"), 0o600);
        mode(export.path(), 0o700);
        let devices = format!(
            "{}<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
            filesystem(export.path(), "share")
        );
        let domain = Domain::of(lab, &devices, "").enabled();
        domain.start();
        Self { domain, export }
    }

    /// Everything that is tried.
    fn attacks(&self) -> Vec<Attack> {
        let lab = self.domain.lab;
        let (qemu, name) = (self.domain.qemu(), &self.domain.name);
        let canary = format!("{}/canary", path(&self.export));
        let state = lab.read(&format!(
            "/run/virtfs-mediator/{}/state.json",
            self.domain.view()
        ));
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let keeper = state["keeper"]["pid"].as_i64().unwrap();
        let warden = state["warden"].as_i64().unwrap();
        let lib = "/var/lib/libvirt/qemu";
        let attack = |name, words: String| Attack { name, words };
        vec![
            attack("its namespace through /proc", self.through_proc()),
            attack(
                "its working directory through /proc",
                format!("cat /proc/{qemu}/cwd/{canary}"),
            ),
            attack(
                "its threads",
                format!("cat /proc/{qemu}/task/{qemu}/root{canary}"),
            ),
            attack(
                "its namespace by setns",
                format!("nsenter --target {qemu} --mount cat {canary}"),
            ),
            attack(
                "its namespace in a user namespace of one's own",
                format!(
                    "unshare --user --map-root-user nsenter --target {qemu} --mount cat {canary}"
                ),
            ),
            attack("its memory", format!("head -c 1 /proc/{qemu}/mem")),
            attack("its descriptors", format!("ls /proc/{qemu}/fd/")),
            attack("its environment", format!("cat /proc/{qemu}/environ")),
            attack("ptrace", format!("strace -p {qemu} -o /dev/null")),
            attack("a signal", format!("kill -s STOP {qemu}")),
            attack(
                "the keeper",
                format!("ls /proc/{keeper}/root/ /proc/{keeper}/fd/"),
            ),
            attack(
                "the mediator's keeper",
                format!("ls /proc/{warden}/root/ /proc/{warden}/fd/"),
            ),
            attack("the export by its path", format!("cat {canary}")),
            attack(
                "the monitor",
                format!(
                    "stat {lib}/domain-*-{name}/monitor.sock {lib}/domain-1-{name}/monitor.sock"
                ),
            ),
            attack(
                "the master key",
                format!(
                    "cat {lib}/domain-1-{name}/master-key.aes {lib}/domain-2-{name}/master-key.aes"
                ),
            ),
            attack(
                "the guest agent's socket",
                format!(
                    "stat {lib}/channel/target/domain-1-{name}/org.qemu.guest_agent.0 \
                     {lib}/channel/target/domain-2-{name}/org.qemu.guest_agent.0"
                ),
            ),
            attack(
                "the view's control",
                format!("ls /run/virtfs-mediator/{}", self.domain.view()),
            ),
            attack(
                "the armed records",
                "ls /run/virtfs-mediator-libvirt/armed".to_owned(),
            ),
            attack(
                "libvirt's socket",
                "virsh -c qemu:///system list".to_owned(),
            ),
            attack(
                "the service, as a QEMU that starts",
                format!(
                    "{LINK} -fsdev local,security_model=passthrough,id=a,path={}",
                    path(&self.export)
                ),
            ),
        ]
    }

    /// The attack that works where ids are shared.
    fn through_proc(&self) -> String {
        let qemu = self.domain.qemu();
        format!("cat /proc/{qemu}/root{}/canary", path(&self.export))
    }
}

/// From where a domain's QEMU runs, as it runs: its mount namespace, its ids, its groups, no
/// capability.
fn as_qemu_of(domain: &Domain<'_>, words: &str) -> Output {
    let lab = domain.lab;
    let qemu = domain.qemu();
    let status = lab.read(&format!("/proc/{qemu}/status"));
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let words = line.split_whitespace().skip(1);
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    lab.run([
        "nsenter",
        &format!("--target={qemu}"),
        "--mount",
        "--",
        "setpriv",
        &format!("--reuid={}", field("Uid:")[0]),
        &format!("--regid={}", field("Gid:")[0]),
        &format!("--groups={}", field("Groups:").join(",")),
        "--inh-caps=-all",
        "--",
        "timeout",
        "20",
        "sh",
        "-c",
        words,
    ])
}

#[track_caller]
fn refused(attack: &Attack, output: &Output) {
    let (out, told) = (stdout(output), stderr(output));
    let name = attack.name;
    assert!(!output.status.success(), "{name}: {out} {told}");
    assert!(!out.contains(CANARY), "{name}: {out}");
    // What failed is the access, and not the attack: each tool is there and says why.
    let why = [
        "Permission denied",
        "Operation not permitted",
        "not permitted",
        "about to start",
    ];
    assert!(why.iter().any(|why| told.contains(why)), "{name}: {told}");
    assert!(!told.contains("not found"), "{name}: {told}");
}

#[test]
fn neighbour_with_a_user_of_its_own_reaches_nothing() {
    let lab = Lab::new();
    let victim = Victim::new(&lab);
    let other = Export::new();
    let attacker = Domain::plain(&lab, &other).enabled();
    attacker.start();
    assert_ne!(attacker.ids().uid, victim.domain.ids().uid);
    assert_ne!(attacker.ids().gid, victim.domain.ids().gid);
    for attack in victim.attacks() {
        refused(&attack, &as_qemu_of(&attacker, &attack.words));
    }
    // Its own view is there, which shows that it is where a QEMU is.
    fs::write(other.path().join("own"), "own").unwrap();
    let own = as_qemu_of(&attacker, &format!("cat {}/own", path(&other)));
    assert_eq!(stdout(&own), "own", "{}", stderr(&own));
    // And the victim has noticed nothing.
    assert_eq!(victim.domain.state(), "running");
    let log = lab.service_log();
    let refusal = format!("of {}:{}", attacker.ids().uid, attacker.ids().gid);
    let lines = log.lines().filter(|line| line.contains("refused"));
    assert_eq!(
        lines.filter(|line| line.contains(&refusal)).count(),
        1,
        "{log}"
    );
}

/// Nor does a domain that is not enabled, which runs as all the others do.
#[test]
fn neighbour_that_is_not_enabled_reaches_nothing() {
    let lab = Lab::new();
    let victim = Victim::new(&lab);
    let other = Export::new();
    let attacker = Domain::plain(&lab, &other);
    attacker.start();
    for attack in victim.attacks() {
        refused(&attack, &as_qemu_of(&attacker, &attack.words));
    }
}

/// The control.
#[test]
fn neighbour_of_the_same_uid_reaches_the_view_through_proc() {
    let lab = Lab::new();
    let victim = Victim::new(&lab);
    let Ids { uid, gid } = victim.domain.ids();
    let other = Export::new();
    // By hand: `enable` gives no two domains one user, and refuses to keep it.
    let label = format!(
        "<seclabel type='static' model='dac' relabel='yes'><label>+{uid}:+{gid}</label></seclabel>"
    );
    let attacker = Domain::of(&lab, &filesystem(other.path(), "share"), &label);
    let (_, told) = attacker.enable_fails(&[]);
    assert!(told.contains(&victim.domain.name), "{told}");
    attacker.start();
    let output = as_qemu_of(&attacker, &victim.through_proc());
    assert_eq!(stdout(&output), CANARY, "{}", stderr(&output));
}

/// A domain is about to start: whoever is not its QEMU gets nothing, and takes nothing from it.
#[test]
fn domain_that_is_armed_is_attached_to_its_own_qemu_alone() {
    let lab = Lab::new();
    let (first, second) = (Export::new(), Export::new());
    let attacker = Domain::plain(&lab, &first).enabled();
    let victim = Domain::plain(&lab, &second).enabled();
    attacker.start();
    let hook = |operation: &str, sub: &str| {
        lab.write("/run/victim.xml", &victim.definition());
        let words = format!(
            "/etc/libvirt/hooks/qemu.d/virtfs-mediator {} {operation} {sub} - </run/victim.xml",
            victim.name
        );
        lab.ok(["sh", "-c", &words])
    };
    hook("prepare", "begin");
    let armed = format!("/run/virtfs-mediator-libvirt/armed/{}.json", victim.name);
    assert!(lab.path(&armed).exists());
    let ask = format!(
        "{LINK} -fsdev local,security_model=passthrough,id=a,path={}",
        path(&second)
    );
    let output = as_qemu_of(&attacker, &ask);
    assert!(stderr(&output).contains("about to start"), "{output:?}");
    // As the victim's own user, but not by its pid file.
    let Ids { uid, gid } = victim.ids();
    let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
    let outside = [
        "unshare",
        "--mount",
        "setpriv",
        &uid,
        &gid,
        "--clear-groups",
        "sh",
        "-c",
        &ask,
    ];
    let output = lab.run(outside);
    assert!(!output.status.success(), "{output:?}");
    assert!(stderr(&output).contains(".pid"), "{output:?}");
    // It is armed as before: what was refused has used nothing up.
    assert!(lab.path(&armed).exists());
    hook("release", "end");
    victim.start();
    assert_eq!(lab.who_sees_view_at(second.path()).len(), 1);
    assert_eq!(lab.who_sees_view_at(first.path()).len(), 1);
}
