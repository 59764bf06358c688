//! What a domain's name could make of a hook.

use std::io::Write as _;
use std::process::Stdio;

use virtfs_lab::{LINK, Lab as Libvirt, QEMU};

use crate::case::{Arrangement, Attempt};
use crate::driver::{OrTell as _, Outcome, product, verdict, weaker};
use crate::lab::Lab;

const CONF: &str = "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\n";
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/virtfs-mediator";
/// Where a hook keeps its records, and what must not come to be there.
const RECORDS: &str = "/run/naive";
const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
/// A name that libvirt takes.
const SHELL: &str = "$(touch owned)";
/// A hook as one is soon written.
const NAIVE: &str = "#!/bin/sh\ncd /run/naive && eval \"echo $3 >$1.$2\"\n";
/// Names that libvirt takes, or that whoever calls the hook could give it.
const NAMES: [&[u8]; 12] = [
    SHELL.as_bytes(),
    b"`touch owned`",
    b"; touch owned",
    b"../../../run/naive/owned",
    b"..",
    b"-x",
    b"--help",
    b"a b",
    b"a\ntouch owned",
    b"\xff\xfe",
    b"",
    b"%s%n\x1b]0;x\x07",
];

fn xml(name: &str, emulator: &str) -> String {
    let name = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace(char::is_control, "?");
    format!(
        "<domain type='qemu'><name>{name}</name>\
         <uuid>{UUID}</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
         <emulator>{emulator}</emulator></devices></domain>"
    )
}

/// Row 32.
pub(super) fn names(lab: &Lab) -> Outcome {
    let naive = Libvirt::new(&lab.mediator, CONF)?;
    naive.write(HOOK, NAIVE)?;
    naive.run(["mkdir", RECORDS])?;
    naive.start_libvirtd()?;
    naive.define(&xml(SHELL, QEMU))?;
    let started = naive.virsh(&["start", "--paused", SHELL]);
    let owned = naive.path(RECORDS).join("owned").exists();
    let mut attempts = vec![weaker(
        Arrangement::Other("a hook in shell that puts the name into a command"),
        "libvirt calls the hook",
        verdict(owned, format!("owned: {owned}, started: {started:?}")),
    )];
    drop(naive);

    let libvirt = Libvirt::new(&lab.mediator, CONF)?;
    libvirt.run(["mkdir", RECORDS])?;
    libvirt.start_libvirtd()?;
    libvirt.start_service("virtfs-mediator")?;
    libvirt.define(&xml(SHELL, LINK))?;
    let started = libvirt.virsh(&["start", "--paused", SHELL]);
    let told = started
        .as_ref()
        .err()
        .filter(|why| why.contains("cannot be used"));
    let got = started.is_ok() || is_owned(&libvirt)?;
    attempts.push(product(
        "libvirt calls the hook",
        verdict(got, "the start is refused"),
        told.cloned(),
    ));
    for name in NAMES {
        attempts.push(called(&libvirt, name)?);
    }
    Ok(attempts)
}

/// Whether anything came to be that a name asked for.
fn is_owned(libvirt: &Libvirt) -> Result<bool, String> {
    let words = [
        "find",
        RECORDS,
        "/run/virtfs-mediator-libvirt",
        "/etc/virtfs-mediator",
        "-mindepth",
        "1",
        "-not",
        "-type",
        "d",
    ];
    libvirt.run(["mkdir", "-p", "/run/virtfs-mediator-libvirt"])?;
    Ok(!libvirt.run(words)?.is_empty())
}

/// The hook itself, with a name that libvirt might not let through.
fn called(libvirt: &Libvirt, name: &[u8]) -> Result<Attempt, String> {
    use std::os::unix::ffi::OsStrExt as _;

    let words = [HOOK.as_bytes(), name, b"prepare", b"begin", b"-"];
    let words = words.map(std::ffi::OsStr::from_bytes);
    let mut child = libvirt
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .or_tell("the hook")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It need not read it.
        let _may_be_gone = stdin.write_all(xml(&String::from_utf8_lossy(name), LINK).as_bytes());
    }
    let output = child.wait_with_output().or_tell("the hook")?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let forged = told.chars().any(char::is_control);
    let got = output.status.success() || forged || is_owned(libvirt)?;
    let way = format!("the hook called for '{}'", name.escape_ascii());
    let what = format!("status {:?}", output.status.code());
    let told = told.contains("cannot be used").then_some(told);
    Ok(product(way, verdict(got, what), told))
}
