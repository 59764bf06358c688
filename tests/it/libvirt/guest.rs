//! A real guest, as libvirt starts it: it owns files, reboots, owns more, and ends.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::domain::{Domain, filesystem, on_host};
use super::lab::{Lab, QEMU};
use super::life::nothing_left;
use crate::common::{Export, holds_within, shown};

/// Two boots without KVM, on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// What the guest does as its init goes on; by what is in the share it knows which boot it is.
const SCRIPT: &str = "cd /mnt/share
if [ ! -e first ]; then
  echo one >first; chown 1234:4321 first; chmod 6755 first
  mkdir dir; chown 1000:1000 dir
  ln -s /etc/passwd link; chown -h 7:8 link
  su ann -c 'echo two >dir/hers'
  sync
  reboot -f
  sleep 60
fi
[ \"$(stat -c %u:%g:%a first)\" = 1234:4321:6755 ] && echo three >second
cd /
";

/// The test guest's kernel, and its initrd with a script in it.
fn boot_files(beside: &Export) -> (PathBuf, PathBuf) {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = built.parent().unwrap().join("guest");
    assert!(
        built.join("vmlinuz").exists() && built.join("initrd").exists(),
        "there is no guest in {}: run tools/guest/build",
        built.display()
    );
    let (kernel, initrd) = (beside.beside("vmlinuz"), beside.beside("initrd"));
    fs::copy(built.join("vmlinuz"), &kernel).unwrap();
    fs::copy(built.join("initrd"), &initrd).unwrap();
    // The kernel takes a further archive that is not compressed only where one can begin.
    let file = fs::File::options().write(true).open(&initrd).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.next_multiple_of(512)).unwrap();
    let tree = beside.beside("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("script"), SCRIPT).unwrap();
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(&tree)
        .stdin(Stdio::piped())
        .stdout(fs::File::options().append(true).open(&initrd).unwrap())
        .spawn()
        .unwrap();
    cpio.stdin.take().unwrap().write_all(b"script\n").unwrap();
    assert!(cpio.wait().unwrap().success());
    (kernel, initrd)
}

#[test]
#[ignore = "needs the guest that tools/guest/build makes; tools/test runs it behind that"]
fn guest_owns_files_over_a_reboot_and_powers_off() {
    let (lab, export) = (Lab::new(), Export::new());
    let (kernel, initrd) = boot_files(&export);
    let console = lab.path("/run/console.log");
    let name = lab.domain_name();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type>\
         <kernel>{}</kernel><initrd>{}</initrd>\
         <cmdline>console=ttyS0 panic=-1 virtfs.shares=share:msize=262144 virtfs.run=script</cmdline>\
         </os><features><acpi/></features><devices><emulator>{QEMU}</emulator>{}\
         <serial type='file'><source path='/run/console.log'/></serial></devices></domain>",
        shown(&kernel),
        shown(&initrd),
        filesystem(export.path(), "share"),
    );
    lab.define(&xml);
    let domain = Domain { lab: &lab, name }.enabled();
    domain.start();
    let qemu = domain.qemu();
    let said = || fs::read_to_string(&console).unwrap_or_default();
    let boots = || said().matches("@BOOT").count();
    let comes_to = |what: &str, condition: &dyn Fn() -> bool| {
        assert!(holds_within(LIMIT, condition), "{what}: {}", said());
    };
    comes_to("the guest boots", &|| boots() == 1);
    comes_to("the guest boots again", &|| boots() == 2);
    // A guest's reboot is no start: QEMU and its view are the same.
    assert_eq!(domain.qemu(), qemu);
    assert_eq!(lab.who_sees_view_at(export.path()).len(), 1);
    comes_to("the guest powers off", &|| domain.state() == "shut off");
    let said = said();
    assert!(said.contains("@END") && !said.contains("@ERROR"), "{said}");

    assert_eq!(on_host(&export, "first"), (1234, 4321, 0o106_755), "{said}");
    assert_eq!(on_host(&export, "dir"), (1000, 1000, 0o040_755));
    assert_eq!(on_host(&export, "link"), (7, 8, 0o120_777));
    let hers = fs::metadata(export.path().join("dir/hers")).unwrap();
    assert_eq!((hers.uid(), hers.gid()), (1000, 1000));
    assert_eq!(fs::read(export.path().join("second")).unwrap(), b"three\n");
    nothing_left(&domain, &export);
}
