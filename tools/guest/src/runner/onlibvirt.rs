//! A guest that libvirt starts, on a domain that `virtfs-mediator libvirt enable` has set up: real
//! libvirtd and virsh in a lab that is thrown away.
//!
//! QEMU connects its serial console to a socket of ours, so that no line is lost and its end is seen.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use virtfs_lab::{Lab, QEMU};

use super::Error;
use super::interrupt;

/// As Debian's qemu.conf has it.
const CONF: &str = "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\n";
/// How often a wait looks up.
const GLANCE: Duration = Duration::from_millis(100);

/// What is booted.
#[derive(Debug, clap::Args)]
pub struct Guest {
    /// The program under test; its wrapper for QEMU lies beside it.
    #[arg(long)]
    pub mediator: PathBuf,
    /// Where `vmlinuz` and `initrd` are.
    #[arg(long)]
    pub files: PathBuf,
    /// The directory that is shared.
    #[arg(long)]
    pub export: PathBuf,
    /// The kernel's command line.
    #[arg(long)]
    pub append: String,
    /// A mount tag; each shows the same export.
    #[arg(long = "tag")]
    pub tags: Vec<String>,
}

impl Guest {
    /// The definition as somebody would have it before there was a view, with the first tag.
    fn definition(&self, name: &str, console: &Path) -> String {
        let file = |name: &str| escaped(&self.files.join(name).display().to_string());
        let first = self.tags.first().map_or("share", String::as_str);
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{}</kernel>\
             <initrd>{}</initrd><cmdline>{}</cmdline></os>\
             <features><acpi/><vmport state='off'/></features><cpu mode='maximum'/>\
             <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>\
             <devices><emulator>{QEMU}</emulator>{}\
             <controller type='usb' model='none'/>\
             <serial type='unix'><source mode='connect' path='{}'/><target port='0'/></serial>\
             <memballoon model='none'/></devices></domain>",
            file("vmlinuz"),
            file("initrd"),
            escaped(&self.append),
            self.filesystem(first),
            escaped(&console.display().to_string()),
        )
    }

    fn filesystem(&self, tag: &str) -> String {
        format!(
            "<filesystem type='mount' accessmode='passthrough' multidevs='remap'>\
             <source dir='{}'/><target dir='{tag}'/></filesystem>",
            escaped(&self.export.display().to_string())
        )
    }
}

/// Starts it, and copies its console to standard output until it ends.
///
/// # Errors
/// A lab that does not start, or a domain that libvirt does not.
pub fn run(guest: &Guest) -> Result<(), Error> {
    let lab = Lab::new(&guest.mediator, CONF).map_err(Error::Libvirt)?;
    lab.start_libvirtd().map_err(Error::Libvirt)?;
    lab.start_service("virtfs-mediator")
        .map_err(Error::Libvirt)?;
    let console = guest.export.with_file_name("console.sock");
    // An earlier boot's.
    let _ = std::fs::remove_file(&console);
    let listener =
        UnixListener::bind(&console).map_err(Error::io(format!("{}", console.display())))?;
    start(guest, &lab, &console).map_err(Error::Libvirt)?;
    // QEMU has connected before libvirt calls the domain started.
    let (mut stream, _) = listener
        .accept()
        .map_err(Error::io("the guest's console"))?;
    stream
        .set_read_timeout(Some(GLANCE))
        .map_err(Error::io("the guest's console"))?;
    let mut bytes = [0; 4096];
    let mut out = io::stdout().lock();
    while !interrupt::asked() {
        let count = match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(_) => break,
        };
        let copied = out.write_all(bytes.get(..count).unwrap_or_default());
        if copied.and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

fn start(guest: &Guest, lab: &Lab, console: &Path) -> Result<(), String> {
    let name = format!("virtfs-guest-{}", std::process::id());
    lab.define(&guest.definition(&name, console))?;
    lab.run(["virtfs-mediator", "libvirt", "enable", "--yes", &name])?;
    // Further tags of a directory that has its view.
    let more: String = guest
        .tags
        .iter()
        .skip(1)
        .map(|tag| guest.filesystem(tag))
        .collect();
    let flags = ["--inactive", "--security-info"];
    let enabled = lab.virsh(&["dumpxml", &name, flags[0], flags[1]])?;
    lab.define(&enabled.replace("</devices>", &format!("{more}</devices>")))?;
    lab.virsh(&["start", &name])
        .map(|_| ())
        .map_err(|why| format!("{why}; the service: {}", lab.service_log()))
}

/// Text for an element or an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}
