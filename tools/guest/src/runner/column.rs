//! The arrangements that are compared, and the command line of each.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::workspace::{Client, Workspace};

/// One arrangement of QEMU and export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Column {
    /// QEMU as root on the raw directory: what a guest should see.
    Root,
    /// QEMU as the client on the raw directory.
    User,
    /// QEMU as the client on the view, through `virtfs-mediator run`.
    View,
    /// QEMU on the view as libvirt starts it, for a domain that `virtfs-mediator libvirt enable` set up.
    Libvirt,
    /// QEMU as the client with the packaged `virtfs-proxy-helper`.
    Proxy,
    /// QEMU as the client on a plain FUSE mount (libfuse's passthrough_ll): what any FUSE server meets.
    Plainfuse,
}

impl Column {
    /// Its name in tables and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
            Self::View => "view",
            Self::Libvirt => "libvirt",
            Self::Proxy => "proxy",
            Self::Plainfuse => "plainfuse",
        }
    }
}

/// A share as the guest mounts it: a tag and the options of mount(8).
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The mount tag.
    pub tag: &'static str,
    /// Options, with `+` between them.
    pub options: &'static str,
}

/// All shares show the same export.
pub const MATRIX_SHARES: &[Share] = &[
    Share {
        tag: "share",
        options: "cache=none",
    },
    Share {
        tag: "posix",
        options: "cache=none+access=client+posixacl",
    },
    Share {
        tag: "mmap",
        options: "cache=mmap",
    },
    Share {
        tag: "cached",
        options: "cache=loose",
    },
];

/// The one share of the short set and of the shell.
pub const PLAIN_SHARES: &[Share] = &[Share {
    tag: "share",
    options: "cache=none",
}];

/// What a boot needs besides its column.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Kernel, initrd and exports.
    pub workspace: &'a Workspace,
    /// Who QEMU runs as.
    pub client: Client,
    /// `virtfs-mediator`, for the view.
    pub mediator: &'a Path,
    /// libfuse's `passthrough_ll`, for the plain FUSE mount.
    pub passthrough: &'a Path,
    /// What the guest does: `matrix`, `try` or `shell`.
    pub run: &'a str,
    /// What it mounts.
    pub shares: &'a [Share],
}

const HELPER: &str = "/usr/lib/qemu/virtfs-proxy-helper";

/// QEMU of a column, and what must run beside it, first.
#[derive(Debug)]
pub struct Plan {
    /// Helpers that serve until QEMU ends.
    pub helpers: Vec<(Command, PathBuf)>,
    /// QEMU, perhaps inside something.
    pub qemu: Command,
}

impl Setup<'_> {
    /// The commands of `column` on `export`; `after` resumes behind a probe.
    ///
    /// # Errors
    /// A program that is missing.
    pub fn plan(&self, column: Column, export: &Path, after: Option<&str>) -> Result<Plan, Error> {
        if column == Column::Libvirt {
            return Ok(Plan {
                helpers: Vec::new(),
                qemu: self.on_libvirt(export, after),
            });
        }
        let mut helpers = Vec::new();
        let mut devices: Vec<String> = Vec::new();
        let mut path = export.to_owned();
        if column == Column::Plainfuse {
            path = export.with_file_name("mount");
        }
        let client_dir = self.workspace.client_dir(column.name(), self.client)?;
        for share in self.shares {
            let tag = share.tag;
            if column == Column::Proxy {
                let socket = client_dir.join(format!("{tag}.sock"));
                // A helper serves one connection and leaves its socket behind.
                let _ = std::fs::remove_file(&socket);
                let mut helper = Command::new("setpriv");
                helper
                    .args(["--pdeathsig=KILL", "--", HELPER, "-n", "-p"])
                    .arg(export)
                    .arg("-s")
                    .arg(&socket)
                    .args([
                        "-u",
                        &self.client.uid.to_string(),
                        "-g",
                        &self.client.gid.to_string(),
                    ]);
                devices.push("-fsdev".into());
                devices.push(format!("proxy,id=fs-{tag},socket={}", socket.display()));
                devices.push("-device".into());
                devices.push(format!("virtio-9p-pci,fsdev=fs-{tag},mount_tag={tag}"));
                helpers.push((helper, socket));
            } else {
                devices.push("-virtfs".into());
                devices.push(format!(
                    "local,path={},mount_tag={tag},security_model=passthrough,multidevs=remap",
                    path.display()
                ));
            }
        }
        let mut qemu = self.wrapper(column, export, &path);
        qemu.args(self.machine(after)).args(devices);
        Ok(Plan { helpers, qemu })
    }

    /// Everything up to and with QEMU's name.
    fn wrapper(&self, column: Column, export: &Path, path: &Path) -> Command {
        const QEMU: &str = "qemu-system-x86_64";
        let client = format!("{}:{}", self.client.uid, self.client.gid);
        match column {
            Column::Root => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig=KILL", "--", QEMU]);
                command
            }
            Column::User | Column::Proxy => self.client.command(QEMU),
            Column::View => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--pdeathsig=TERM", "--"])
                    .arg(self.mediator)
                    .args(["run", "--client", &client]);
                // What a reader is told to type; the matrix runs with the host's files in sight,
                // as most will at first.
                if self.run != "matrix" {
                    command.arg("--isolate");
                    for file in ["vmlinuz", "initrd"] {
                        command
                            .arg("--bind-ro")
                            .arg(self.workspace.path().join(file));
                    }
                }
                command.arg(export).args(["--", QEMU]);
                command
            }
            Column::Libvirt => self.on_libvirt(export, None),
            Column::Plainfuse => {
                let this = std::env::current_exe().unwrap_or_else(|_| "virtfs-matrix".into());
                let mut command = Command::new("setpriv");
                command
                    .args(["--pdeathsig=KILL", "--", "unshare", "--mount"])
                    .args(["--propagation=private", "--"])
                    .arg(this)
                    .args(["on-plain-fuse", "--client", &client, "--server"])
                    .arg(self.passthrough)
                    .arg(export)
                    .arg(path)
                    .args(["--", QEMU]);
                command
            }
        }
    }

    /// This program, which has libvirt start QEMU and copies its console.
    fn on_libvirt(&self, export: &Path, after: Option<&str>) -> Command {
        let this = std::env::current_exe().unwrap_or_else(|_| "virtfs-matrix".into());
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig=TERM", "--"])
            .arg(this)
            .arg("on-libvirt")
            .arg("--mediator")
            .arg(self.mediator)
            .arg("--files")
            .arg(self.workspace.path())
            .arg("--export")
            .arg(export)
            .arg("--append")
            .arg(self.kernel_line(after));
        for share in self.shares {
            command.args(["--tag", share.tag]);
        }
        command
    }

    /// What the guest is told: what to mount and what to run.
    fn kernel_line(&self, after: Option<&str>) -> String {
        let shares: Vec<String> = self
            .shares
            .iter()
            .map(|share| format!("{}:{}", share.tag, share.options))
            .collect();
        let mut kernel = format!(
            "console=ttyS0 quiet panic=-1 virtfs.shares={} virtfs.run={} virtfs.canary={}",
            shares.join(";"),
            self.run,
            self.workspace.canary().display()
        );
        if let Some(after) = after {
            kernel.push_str(&format!(" virtfs.after={after}"));
        }
        kernel
    }

    /// A small machine: no default devices, no network, its console on standard output.
    fn machine(&self, after: Option<&str>) -> Vec<String> {
        let kernel = self.kernel_line(after);
        let file = |name: &str| self.workspace.path().join(name).display().to_string();
        // TCG everywhere, so that a run needs no /dev/kvm and all columns are alike.
        let mut args: Vec<String> = [
            "-M",
            "pc,vmport=off",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "256",
            "-nodefaults",
        ]
        .map(String::from)
        .into();
        let serial = if self.run == "shell" {
            "mon:stdio"
        } else {
            "stdio"
        };
        args.extend(["-nographic", "-no-reboot", "-serial", serial, "-kernel"].map(String::from));
        args.extend([
            file("vmlinuz"),
            "-initrd".into(),
            file("initrd"),
            "-append".into(),
            kernel,
        ]);
        args
    }
}

/// Checks that what `column` runs is installed.
///
/// # Errors
/// The first program that is missing, with the package that ships it.
pub fn check_programs(column: Column, mediator: &Path, passthrough: &Path) -> Result<(), Error> {
    let need = |program: &str, package| {
        let found = if program.contains('/') {
            Path::new(program).exists()
        } else {
            std::env::var_os("PATH")
                .is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(program).exists()))
        };
        if found {
            Ok(())
        } else {
            Err(Error::Missing {
                program: program.to_owned(),
                package,
            })
        }
    };
    need("qemu-system-x86_64", "qemu-system-x86")?;
    match column {
        Column::Root | Column::User => Ok(()),
        Column::Libvirt => {
            need("/usr/sbin/libvirtd", "libvirt-daemon-system")?;
            need("/usr/bin/virsh", "libvirt-clients")?;
            check_programs(Column::View, mediator, passthrough)
        }
        Column::View if mediator.exists() => Ok(()),
        Column::View => Err(Error::Io {
            what: format!("{}: cargo build --release first", mediator.display()),
            source: std::io::ErrorKind::NotFound.into(),
        }),
        Column::Proxy => need(HELPER, "qemu-system-common (QEMU before 9.2)"),
        Column::Plainfuse if passthrough.exists() => Ok(()),
        Column::Plainfuse => Err(Error::Io {
            what: format!(
                "{}: tools/guest/build --plainfuse first",
                passthrough.display()
            ),
            source: std::io::ErrorKind::NotFound.into(),
        }),
    }
}
