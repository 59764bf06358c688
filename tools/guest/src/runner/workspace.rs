//! A directory for one run that root writes and the client can reach, gone when the run ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// The user that QEMU runs as wherever it does not run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Client {
    /// From `NAME`, `UID` or `UID:GID`; without, whoever called sudo, else `nobody`'s ids.
    ///
    /// # Errors
    /// A name that the system does not know.
    pub fn find(asked: Option<&str>) -> Result<Self, Error> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let Some(asked) = asked else {
            return Ok(match (number("SUDO_UID"), number("SUDO_GID")) {
                (Some(uid), Some(gid)) if uid != 0 => Self { uid, gid },
                _ => Self {
                    uid: 65534,
                    gid: 65534,
                },
            });
        };
        let unknown = || Error::NoUser(asked.to_owned());
        if let Some((uid, gid)) = asked.split_once(':') {
            let id = |text: &str| text.parse().map_err(|_| unknown());
            return Ok(Self {
                uid: id(uid)?,
                gid: id(gid)?,
            });
        }
        let ask = |flag: &str| {
            let output = Command::new("id").args([flag, asked]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        match (ask("-u"), ask("-g"), asked.parse()) {
            (Some(uid), Some(gid), _) => Ok(Self { uid, gid }),
            (_, _, Ok(uid)) => Ok(Self { uid, gid: uid }),
            _ => Err(unknown()),
        }
    }

    /// A command of the client's, without capabilities, that dies with the runner.
    #[must_use]
    pub fn command(self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid))
            .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
            .args(["--no-new-privs", "--pdeathsig=KILL", "--", program]);
        command
    }

    fn reaches(self, dir: &Path) -> bool {
        let mut test = Command::new("test");
        test.arg("-x").arg(dir).stdin(Stdio::null());
        test.uid(self.uid).gid(self.gid);
        test.status().is_ok_and(|status| status.success())
    }
}

/// The directory; removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Makes one in `preferred`, or in the temporary directory if the client cannot reach that
    /// (a checkout in root's home) or libvirt's lab has something else there, and copies kernel and initrd there.
    ///
    /// # Errors
    /// A directory that cannot be made, or a guest that was not built.
    pub fn new(
        preferred: &Path,
        guest: &Path,
        client: Client,
        with_libvirt: bool,
    ) -> Result<Self, Error> {
        let name = format!("virtfs-guest.{}", std::process::id());
        fs::create_dir_all(preferred).map_err(Error::io(format!("{}", preferred.display())))?;
        let hidden = with_libvirt && virtfs_lab::is_overlaid(preferred);
        let base = if client.reaches(preferred) && !hidden {
            preferred.to_owned()
        } else {
            std::env::temp_dir()
        };
        let root = base.join(name);
        fs::create_dir(&root).map_err(Error::io(format!("{}", root.display())))?;
        let workspace = Self { root };
        open_to_all(&workspace.root, 0o755)?;
        for file in ["vmlinuz", "initrd"] {
            let from = guest.join(file);
            let to = workspace.root.join(file);
            fs::copy(&from, &to).map_err(Error::io(format!(
                "{}: run tools/guest/build first",
                from.display()
            )))?;
            open_to_all(&to, 0o644)?;
        }
        Ok(workspace)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A new export, open to everybody, with a secret beside it that no guest may read.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn export(&self, column: &str) -> Result<PathBuf, Error> {
        let dir = self.root.join(column);
        let export = dir.join("export");
        fs::create_dir_all(&export).map_err(Error::io(format!("{}", export.display())))?;
        open_to_all(&dir, 0o755)?;
        open_to_all(&export, 0o777)?;
        let canary = self.canary();
        fs::write(&canary, "CANARY\n").map_err(Error::io(format!("{}", canary.display())))?;
        open_to_all(&canary, 0o644)?;
        Ok(export)
    }

    /// The secret: outside every export, readable for every user of the host.
    #[must_use]
    pub fn canary(&self) -> PathBuf {
        self.root.join("canary")
    }

    /// A file that belongs to the client, for logs and sockets beside the export.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn client_dir(&self, column: &str, client: Client) -> Result<PathBuf, Error> {
        let dir = self.root.join(column).join("client");
        fs::create_dir_all(&dir).map_err(Error::io(format!("{}", dir.display())))?;
        chown(&dir, Some(client.uid), Some(client.gid))
            .map_err(Error::io(format!("{}", dir.display())))?;
        Ok(dir)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What a guest left there is of no use, and the next run has a name of its own.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn open_to_all(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io(format!("{}", path.display())))
}
