//! `libvirt enable`, `disable` and `status`: what becomes of a domain's definition and of the host.

use super::lab::{LINK, Lab, QEMU};
use crate::common::{Export, shown};

#[test]
fn lab_works() {
    let lab = Lab::new();
    eprintln!("{:?}", lab.processes());
    let export = Export::new();
    let name = lab.domain_name();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
         <emulator>{QEMU}</emulator>\
         <filesystem type='mount' accessmode='passthrough'><source dir='{}'/><target dir='share'/></filesystem>\
         </devices></domain>",
        shown(export.path())
    );
    lab.define(&xml);
    let before = lab.virsh(&["dumpxml", "--inactive", &name]);
    eprintln!("{}", lab.ours_ok(&["libvirt", "enable", &name, "--yes"]));
    eprintln!("{}", lab.ours_ok(&["libvirt", "enable", &name, "--yes"]));
    eprintln!("{}", lab.ours_ok(&["libvirt", "status"]));
    let after = lab.virsh(&["dumpxml", "--inactive", &name]);
    assert!(after.contains(LINK));
    eprintln!("{after}");
    eprintln!("{}", lab.ok(["ls", "-la", "/var/lib/libvirt/"]));
    eprintln!("{}", lab.ours_ok(&["libvirt", "disable", &name, "--yes"]));
    assert_eq!(before, lab.virsh(&["dumpxml", "--inactive", &name]));
    eprintln!("{}", lab.ok(["ls", "-la", "/var/lib/libvirt/"]));
}
