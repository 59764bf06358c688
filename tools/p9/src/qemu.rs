//! QEMU's command line: a machine without firmware's help, without a guest, with 9p devices and nothing else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::scratch::Scratch;
use crate::virtio::footprint;

/// Firmware's and the legacy hole's megabyte and some: guest memory below is left alone.
pub(crate) const FIRST_ADDRESS: u64 = 16 << 20;

/// QEMU's message size if none is asked for: 128 KiB of data and room for the largest header.
pub const DEFAULT_MSIZE: u32 = (128 << 10) + 4096;

/// `security_model=` of the local driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityModel {
    /// Owners and modes are those of the host's files: QEMU needs to be root, or a mediator below it.
    Passthrough,
    /// As passthrough, but a chown that fails is no error.
    None,
    /// Owners and modes in extended attributes `user.virtfs.*`.
    MappedXattr,
    /// Owners and modes in files beside.
    MappedFile,
}

impl SecurityModel {
    fn word(self) -> &'static str {
        match self {
            SecurityModel::Passthrough => "passthrough",
            SecurityModel::None => "none",
            SecurityModel::MappedXattr => "mapped-xattr",
            SecurityModel::MappedFile => "mapped-file",
        }
    }
}

#[derive(Debug, Clone)]
enum Driver {
    Local { path: PathBuf, model: SecurityModel },
    Proxy { socket: PathBuf },
}

/// A host directory as QEMU is to share it: an `-fsdev` and its `virtio-9p-pci`.
#[derive(Debug, Clone)]
pub struct Export {
    tag: String,
    driver: Driver,
    options: String,
}

impl Export {
    /// `-fsdev local` with `security_model=passthrough`.
    pub fn local(tag: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::local_with(tag, path, SecurityModel::Passthrough)
    }

    /// `-fsdev local` with another security model.
    pub fn local_with(
        tag: impl Into<String>,
        path: impl Into<PathBuf>,
        model: SecurityModel,
    ) -> Self {
        Self {
            tag: tag.into(),
            driver: Driver::Local {
                path: path.into(),
                model,
            },
            options: String::new(),
        }
    }

    /// `-fsdev proxy`: the socket of a running virtfs-proxy-helper (QEMU before 9.2).
    pub fn proxy(tag: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        Self {
            tag: tag.into(),
            driver: Driver::Proxy {
                socket: socket.into(),
            },
            options: String::new(),
        }
    }

    /// More options of `-fsdev`, `multidevs=remap` or `readonly=on` for two; appended after a comma.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(',');
        self.options.push_str(option);
        self
    }

    fn fsdev(&self, id: &str) -> OsString {
        let mut value = OsString::new();
        match &self.driver {
            Driver::Local { path, model } => {
                value.push(format!(
                    "local,id={id},security_model={},path=",
                    model.word()
                ));
                value.push(doubled_commas(path));
            }
            Driver::Proxy { socket } => {
                value.push(format!("proxy,id={id},socket="));
                value.push(doubled_commas(socket));
            }
        }
        value.push(&self.options);
        value
    }
}

/// A QEMU to be started. [`Qemu::command`] is the whole command line: run it as you like.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: OsString,
    exports: Vec<Export>,
    msize: u32,
    arguments: Vec<OsString>,
}

impl Default for Qemu {
    fn default() -> Self {
        Self::new()
    }
}

impl Qemu {
    /// `qemu-system-x86_64` without an export so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            exports: Vec::new(),
            msize: DEFAULT_MSIZE,
            arguments: Vec::new(),
        }
    }

    /// Another QEMU.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// One more 9p device; 24 at most fit on the bus.
    #[must_use]
    pub fn export(mut self, export: Export) -> Self {
        self.exports.push(export);
        self
    }

    /// The largest message in octets that will be proposed to the server, headers included.
    #[must_use]
    pub fn msize(mut self, octets: u32) -> Self {
        self.msize = octets;
        self
    }

    /// One more argument, `-sandbox` or its value for one.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn largest_message(&self) -> u32 {
        self.msize
    }

    /// Octets of memory the guest gets: whole MiB.
    pub(crate) fn memory(&self) -> u64 {
        let devices = self.exports.len() as u64;
        (FIRST_ADDRESS + devices * footprint(self.msize)).next_multiple_of(1 << 20)
    }

    /// The whole command line, program first, for a QEMU that meets its client in `scratch`.
    #[must_use]
    pub fn command(&self, scratch: &Scratch) -> Vec<OsString> {
        let memory = self.memory();
        let mut backend = OsString::from(format!(
            "memory-backend-file,id=ram,size={memory},share=on,mem-path="
        ));
        backend.push(doubled_commas(scratch.memory_path()));
        let mut qtest = OsString::from("unix:");
        qtest.push(doubled_commas(scratch.socket_path()));

        let mut command = vec![self.program.clone()];
        let fixed = [
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-S",
            "-accel",
            "tcg",
        ];
        command.extend(fixed.map(OsString::from));
        command.extend(["-machine", "pc,memory-backend=ram", "-m"].map(OsString::from));
        command.push(format!("{}M", memory >> 20).into());
        command.extend(["-object".into(), backend]);
        command.extend(["-qtest".into(), qtest, "-qtest-log".into(), "none".into()]);
        for (index, export) in self.exports.iter().enumerate() {
            let id = format!("fs{index}");
            command.extend(["-fsdev".into(), export.fsdev(&id), "-device".into()]);
            command.push(
                format!(
                    "virtio-9p-pci,fsdev={id},mount_tag={}",
                    export.tag.replace(',', ",,")
                )
                .into(),
            );
        }
        command.extend(self.arguments.iter().cloned());
        command
    }
}

/// A comma inside a value of QEMU's option syntax is written twice.
fn doubled_commas(path: &Path) -> OsString {
    let mut out = Vec::new();
    for &octet in OsStr::as_bytes(path.as_os_str()) {
        out.push(octet);
        if octet == b',' {
            out.push(octet);
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsdev_doubles_commas_and_appends_options() {
        let export = Export::local("t", "/a,b").option("multidevs=remap");
        assert_eq!(
            export.fsdev("fs0"),
            "local,id=fs0,security_model=passthrough,path=/a,,b,multidevs=remap"
        );
        assert_eq!(
            Export::proxy("t", "/s").fsdev("fs1"),
            "proxy,id=fs1,socket=/s"
        );
    }
}
