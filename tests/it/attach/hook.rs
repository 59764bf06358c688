//! What libvirt calls: a domain of ours is let through only if all agrees, others always.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::attach::lab::{Domain, Lab, UUID, WRAPPER};
use crate::common::{Export, Lines, code, stderr};

/// A domain that has nothing to do with us.
const OTHER: &str = "<domain type='qemu'><name>other</name>\
<uuid>11111111-2222-3333-4444-555555555555</uuid><devices>\
<emulator>/usr/bin/qemu-system-x86_64</emulator>\
<filesystem type='mount' accessmode='passthrough'><source dir='/srv/x'/><target dir='x'/></filesystem>\
</devices></domain>";

/// The start of a domain with this XML and file is refused, with a sentence that holds `told`.
#[track_caller]
fn refused(lab: &Lab, name: &str, xml: &str, told: &str) {
    let output = lab.hook(name, "prepare", "begin", xml);
    let said = stderr(&output);
    assert!(!output.status.success(), "{told}");
    assert!(said.starts_with("virtfs-mediator: domain '"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(told), "{said}");
    assert!(!lab.is_armed("web"));
}

#[test]
fn domain_whose_file_and_xml_disagree_is_refused() {
    let (lab, export) = (Lab::serving(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.define(&web);
    let xml = web.xml();
    let dir = export.path().display().to_string();
    for (from, to, told) in [
        (
            UUID,
            "4dea22b3-1d52-d8f3-2516-782e98ab3fa1",
            "left of an earlier domain",
        ),
        ("<name>web<", "<name>wab<", "the XML about wab"),
        (
            WRAPPER,
            "/usr/bin/qemu-system-x86_64",
            "<emulator> is not virtfs-mediator's",
        ),
        ("+61301:", "+61309:", "says 61309:61302"),
        ("+61302<", "+61309<", "says 61301:61309"),
        (
            "type='static'",
            "type='dynamic'",
            "type 'dynamic', not 'static'",
        ),
        ("model='dac'", "model='apparmor'", "no DAC label"),
        ("<label>+61301:+61302</label>", "", "is no USER:GROUP"),
        (&dir, "/srv/elsewhere", "/srv/elsewhere has no view"),
        (
            "accessmode='passthrough'><source dir='",
            "accessmode='passthrough'><source dir='/x",
            "has no view",
        ),
        ("type='mount'", "type='ram'", "which no <filesystem> with"),
        (
            "'passthrough'",
            "'mapped'",
            "accessmode='passthrough' shares",
        ),
        (
            "</devices>",
            "<disk><source dev='/dev/sdx'><reservations managed='yes'/></source></disk></devices>",
            "qemu-pr-helper",
        ),
        ("</domain>", "", "the domain's XML:"),
    ] {
        let changed = xml.replace(from, to);
        assert_ne!(changed, xml, "{from}");
        refused(&lab, "web", &changed, told);
    }
    // What makes no difference: order and white space, slashes, other file systems and labels.
    let same = xml
        .replace(&dir, &format!("{dir}/"))
        .replace("<devices>", "<devices>\n <filesystem type='mount'><driver type='virtiofs'/><source dir='/v'/></filesystem>")
        .replace("<seclabel", "<seclabel type='dynamic' model='apparmor' relabel='yes'/><seclabel");
    let output = lab.hook("web", "prepare", "begin", &same);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(lab.is_armed("web"));
}

#[test]
fn file_that_is_missing_broken_or_not_roots_is_told() {
    let (lab, export) = (Lab::serving(), Export::new());
    let web = Domain::new("web", [&export]);
    let file = lab.path("/etc/virtfs-mediator/libvirt/web.toml");
    refused(
        &lab,
        "web",
        &web.xml(),
        "there is no /etc/virtfs-mediator/libvirt/web.toml",
    );
    lab.define(&web);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    refused(&lab, "web", &web.xml(), "others than root may write to it");
    let directory = lab.path("/etc/virtfs-mediator/libvirt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o775)).unwrap();
    refused(&lab, "web", &web.xml(), "others than root may write to it");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, web.file().replace("uuid", "uid")).unwrap();
    refused(
        &lab,
        "web",
        &web.xml(),
        "web.toml, line 2: unknown field `uid`",
    );
    fs::write(&file, web.file().replace("\"web\"", "\"wob\"")).unwrap();
    refused(&lab, "web", &web.xml(), "it is about domain 'wob'");
    // A domain of the same user would be no wall.
    lab.define(&web);
    lab.define(&Domain::new("twin", [&export]));
    refused(
        &lab,
        "web",
        &web.xml(),
        "domain 'twin' runs as uid 61301 as well",
    );
}

#[test]
fn hostile_names_of_our_domains_are_refused_and_others_pass() {
    let (lab, export) = (Lab::serving(), Export::new());
    let web = Domain::new("web", [&export]);
    let long = "x".repeat(300);
    for name in [
        "../web",
        "..",
        ".",
        ".web",
        "-web",
        "--help",
        "--log-level",
        "--",
        "a b",
        "a\nb",
        "$(reboot)",
        "a/b",
        "é",
        "",
        &long,
    ] {
        let xml = web.xml().replace(
            "<name>web<",
            &format!("<name>{}<", name.replace('&', "&amp;")),
        );
        let output = lab.hook(name, "prepare", "begin", &xml);
        assert_eq!(code(output.status), 78, "{name:?}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("cannot be used"), "{name:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{name:?}: {said}");
        // The same name with an emulator that is not ours.
        for operation in ["prepare", "release"] {
            let output = lab.hook(
                name,
                operation,
                if operation == "prepare" {
                    "begin"
                } else {
                    "end"
                },
                OTHER,
            );
            assert!(output.status.success(), "{name:?}: {}", stderr(&output));
            assert_eq!(stderr(&output), "");
        }
    }
    assert!(!lab.path("/run/virtfs-mediator-libvirt").exists());
}

/// Domains that are not ours never depend on us: neither on the service nor on what their XML is.
#[test]
fn other_domains_and_operations_are_untouched() {
    let lab = Lab::new();
    for xml in [OTHER, "", "<domain", "<!DOCTYPE x []><domain/>", "\u{0}"] {
        for (operation, suboperation) in [
            ("prepare", "begin"),
            ("start", "begin"),
            ("started", "begin"),
            ("stopped", "end"),
            ("release", "end"),
            ("migrate", "begin"),
            ("restore", "begin"),
            ("reconnect", "begin"),
            ("attach", "begin"),
            ("no-such-operation", "-"),
        ] {
            let output = lab.hook("other", operation, suboperation, xml);
            assert!(
                output.status.success(),
                "{operation} {xml}: {}",
                stderr(&output)
            );
            assert_eq!(stderr(&output), "");
        }
    }
    assert!(!lab.path("/run/virtfs-mediator-libvirt").exists());
}

#[test]
fn service_that_does_not_listen_refuses_ours_alone() {
    let (mut lab, export) = (Lab::new(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.define(&web);
    refused(
        &lab,
        "web",
        &web.xml(),
        "/run/virtfs-mediator-attach.sock: No such file",
    );
    lab.serve();
    lab.crash_service();
    refused(&lab, "web", &web.xml(), "Connection refused");
    lab.serve();
    lab.arm(&web);
    // The end of a domain takes back what its start was given, whether it came for it or not.
    let output = lab.hook("web", "release", "end", &web.xml());
    assert!(output.status.success());
    assert!(!lab.is_armed("web"));
    // Twice is no mistake.
    assert!(lab.hook("web", "release", "end", "").status.success());
}

/// A start that was armed and never came, and the next one: the record is the last start's.
#[test]
fn domain_can_be_armed_again_with_a_changed_file() {
    let (lab, export, other) = (Lab::serving(), Export::new(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.arm(&web);
    lab.arm(&Domain::new("web", [&other]));
    let record = lab.path("/run/virtfs-mediator-libvirt/armed/web.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains(other.path().to_str().unwrap()), "{text}");
    assert!(!text.contains(export.path().to_str().unwrap()), "{text}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&lab.path("/run/virtfs-mediator-libvirt")), 0o700);
}

/// A user is nobody else's: not that of domains without a label, nor of a domain whose file says
/// something else by now.
#[test]
fn user_of_another_domain_is_refused_whatever_the_files_say() {
    let (lab, export) = (Lab::serving(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.define(&web);
    let conf = lab.path("/etc/libvirt/qemu.conf");
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(&conf, "user = \"+61301\"\n").unwrap();
    refused(
        &lab,
        "web",
        &web.xml(),
        "every domain without a label of its own runs as uid 61301 as well",
    );
    fs::write(&conf, "user = \"root\"\n").unwrap();

    let other = Domain::new("other", [&export]);
    fs::remove_file(lab.path("/etc/virtfs-mediator/libvirt/web.toml")).unwrap();
    lab.arm(&other);
    fs::remove_file(lab.path("/etc/virtfs-mediator/libvirt/other.toml")).unwrap();
    lab.define(&web);
    let told = "domain 'other', which runs, is of uid 61301 as well";
    refused(&lab, "web", &web.xml(), told);
    // Attached is no less running.
    let records = lab.path("/run/virtfs-mediator-libvirt");
    fs::rename(
        records.join("armed/other.json"),
        records.join("attached/other.json"),
    )
    .unwrap();
    refused(&lab, "web", &web.xml(), told);
    let ended = lab.hook("other", "release", "end", &other.xml());
    assert!(ended.status.success(), "{}", stderr(&ended));
    lab.arm(&web);
}

/// A record that cannot be read may be of the same user: whoever has that one reaches this one's views.
#[test]
fn record_that_cannot_be_read_ends_a_start() {
    let (lab, export) = (Lab::serving(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.arm(&web);
    let ended = lab.hook("web", "release", "end", &web.xml());
    assert!(ended.status.success());
    let record = "/run/virtfs-mediator-libvirt/attached/other.json";
    fs::write(lab.path(record), "{").unwrap();
    refused(&lab, "web", &web.xml(), &format!("remove {record}"));
    fs::remove_file(lab.path(record)).unwrap();
    lab.arm(&web);
}

/// A service that takes no connection keeps libvirtd from nothing but this start, and not for ever.
#[test]
fn service_that_takes_no_connection_is_not_waited_for_without_end() {
    let (lab, export) = (Lab::new(), Export::new());
    let web = Domain::new("web", [&export]);
    lab.define(&web);
    let listener = "use Socket; my $at = sockaddr_un('/run/virtfs-mediator-attach.sock');
socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0); bind($s, $at); listen($s, 0); my @held; $| = 1;
for (;;) { socket(my $c, AF_UNIX, SOCK_SEQPACKET | Socket::SOCK_NONBLOCK(), 0); connect($c, $at) or last; push @held, $c }
print qq(ready\n); sleep 60";
    let mut silent = lab
        .command("perl")
        .args(["-e", listener])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    Lines::of(silent.stdout.take().unwrap()).until("ready");
    refused(&lab, "web", &web.xml(), "the service does not answer");
    let _may_be_gone = silent.kill();
    silent.wait().unwrap();
}
