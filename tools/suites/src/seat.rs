//! A place made ready: the directory, whoever serves it, and commands that run in it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cli::Tools;
use crate::error::{Error, Result, at, step};
use crate::ground::{Ground, mount_disk, run, set_mode};
use crate::guest::Guest;
use crate::place::{Mode, Place};

/// The plain user: ids that no user of the host should have.
pub(crate) const USER: (u32, u32) = (61_238, 61_239);

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_secs(20);

/// How many times as long as on the host something may take in a guest.
const EMULATED: u64 = 5;

/// Ends what serves it when dropped; what was written stays for the comparison, until the ground goes.
pub(crate) struct Seat<'a> {
    place: Place,
    tools: &'a Tools,
    export: PathBuf,
    shown: PathBuf,
    aside: PathBuf,
    elsewhere: PathBuf,
    walker: PathBuf,
    program: PathBuf,
    path: String,
    server: Server,
    guest: Option<Guest>,
}

enum Server {
    None,
    /// The root directory of a disk.
    Disk,
    /// A view by its name, with the process whose namespaces it is seen in.
    View {
        name: String,
        init: u32,
    },
    /// Another FUSE file system.
    Other(Child),
}

impl<'a> Seat<'a> {
    /// Makes the directory below the ground, and has it served.
    pub(crate) fn take(place: Place, ground: &Ground, tools: &'a Tools) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = ground.root().join(format!("{number}"));
        let (mut export, shown) = (base.join("export"), base.join("shown"));
        for (path, mode) in [(&base, 0o755), (&export, 0o1777), (&shown, 0o755)] {
            fs::create_dir(path).map_err(at("making", path))?;
            set_mode(path, mode)?;
        }
        let server = match place {
            Place::Ext4 | Place::Ext4User => {
                // A disk of its own, since it is remounted.
                mount_disk(&shown)?;
                set_mode(&shown, 0o1777)?;
                export.clone_from(&shown);
                Server::Disk
            }
            Place::Shared(mode) => view(mode, true, number, &export, &shown, tools)?,
            Place::Client(mode) => view(mode, false, number, &export, &shown, tools)?,
            Place::Bindfs => other(place, &["bindfs", "-f"], &export, &shown)?,
            Place::PassthroughHp => passthrough_hp(place, tools, &export, &shown)?,
            // Behind QEMU.
            Place::GuestRaw | Place::GuestView => Server::None,
            Place::Plain | Place::PlainUser | Place::GuestPlain => {
                let program = tools.in_bench("passthrough_ll");
                let options = format!("allow_other,xattr,cache=never,source={}", export.display());
                let words = ["--bounding-set=-mknod", &program, "-f", "-o", &options];
                other(place, &words, Path::new(""), &shown)?
            }
        };
        let mut aside = base.clone();
        let (mut elsewhere, mut walker) = (ground.elsewhere().to_owned(), ground.walker());
        let mut guest = None;
        if place.is_guests() {
            aside.push("aside");
            fs::create_dir(&aside).map_err(at("making", &aside))?;
            set_mode(&aside, 0o777)?;
            walker = aside.join("walker");
            fs::copy(ground.walker(), &walker).map_err(at("making", &walker))?;
            elsewhere.clone_from(&aside);
            let share = if place == Place::GuestPlain {
                &shown
            } else {
                &export
            };
            guest = Some(Guest::boot(place, share, &shown, &aside, tools)?);
        }
        Ok(Self {
            place,
            tools,
            export,
            shown,
            aside,
            elsewhere,
            walker,
            program: ground.walker(),
            guest,
            path: format!(
                "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ground.programs().display()
            ),
            server,
        })
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn tools(&self) -> &Tools {
        self.tools
    }

    /// The directory as the place shows it.
    pub(crate) fn shown(&self) -> &Path {
        &self.shown
    }

    /// The same on the ground itself.
    pub(crate) fn export(&self) -> &Path {
        &self.export
    }

    /// A file that the place does not show.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.aside.join(name)
    }

    /// A directory on another file system.
    pub(crate) fn elsewhere(&self) -> &Path {
        &self.elsewhere
    }

    /// This program, where everyone may execute it.
    pub(crate) fn walker(&self) -> &Path {
        &self.walker
    }

    /// A command in the place: where it is seen, as whoever uses it, ended after so many seconds.
    pub(crate) fn command(&self, program: &str, seconds: u64) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Server::View { init, .. } = &self.server {
            words.extend(["nsenter", "--mount", "--pid"].map(str::to_owned));
            words.extend([format!("--target={init}"), "--".to_owned()]);
        }
        let mut slower = 1;
        if let Some(guest) = &self.guest {
            slower = EMULATED;
            words = guest.errand(&self.program, seconds * slower);
        }
        if self.place.is_users() {
            words.push("setpriv".to_owned());
            words.push(format!("--reuid={}", USER.0));
            words.push(format!("--regid={}", USER.1));
            words.push("--clear-groups".to_owned());
        }
        // The directory is changed behind both: before, this process may not be let in.
        let shown = self.shown.to_string_lossy();
        let limit = format!("{}s", seconds * slower);
        words.extend(
            ["env", "-C", &shown, "timeout", "-k", "5", &limit, program].map(str::to_owned),
        );
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .env("PATH", &self.path)
            .env("HOME", &self.shown)
            .env("TMPDIR", &self.shown);
        command
    }

    /// Runs a command of the shell in the place, with an argument or more as `$1`, `$2`, ...
    pub(crate) fn shell(&self, script: &str, arguments: &[&str], seconds: u64) -> Result<Output> {
        let mut command = self.command("sh", seconds);
        command.args(["-ec", script, "sh"]).args(arguments);
        command.output().map_err(step("running sh"))
    }

    /// Ends what serves it.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let guest = self.guest.take().map_or(Ok(()), |mut guest| guest.end());
        let server = self.end_server();
        guest.and(server)
    }

    fn end_server(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.server, Server::None) {
            Server::None => Ok(()),
            Server::Disk => {
                umount2(&self.shown, MntFlags::MNT_DETACH).map_err(at("unmounting", &self.shown))
            }
            Server::View { name, .. } => {
                run(Command::new(&self.tools.mediator).args(["unmount", "--force", &name]))
                    .map(drop)
            }
            Server::Other(mut process) => {
                let unmounted = umount2(&self.shown, MntFlags::MNT_DETACH);
                if !wait(&mut process, LIMIT) {
                    let _gone = process.kill();
                    let _status = process.wait();
                }
                unmounted.map_err(at("unmounting", &self.shown))
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        // After `leave` there is nothing left to be done.
        let _told_elsewhere = self.end();
    }
}

fn view(
    mode: Mode,
    shared: bool,
    number: u32,
    export: &Path,
    shown: &Path,
    tools: &Tools,
) -> Result<Server> {
    let name = format!("suites-{}-{number}", std::process::id());
    let client = format!("{}:{}", USER.0, USER.1);
    let mut command = Command::new(&tools.mediator);
    command.args(["mount", "--name", &name, "--client", &client, "--at"]);
    command.arg(shown);
    command.args(["--cache", mode.cache, "--data", mode.data]);
    command.args(["--log-level", "error"]);
    if shared {
        command.arg("--shared");
    }
    // Not captured: what goes on in the background keeps standard error.
    let status = command
        .arg(export)
        .stdin(Stdio::null())
        .status()
        .map_err(at("starting", &tools.mediator))?;
    if !status.success() {
        return Err(Error::Other {
            who: format!("{} mount", tools.mediator.display()),
            what: format!("did not start ({status})"),
        });
    }
    let told = run(Command::new(&tools.mediator).args(["status", &name, "--json"]))?;
    let status: serde_json::Value =
        serde_json::from_str(&told).map_err(step("reading a view's status"))?;
    let init = status
        .pointer("/processes/init/pid")
        .and_then(serde_json::Value::as_u64)
        .and_then(|pid| u32::try_from(pid).ok())
        .ok_or_else(|| Error::Other {
            who: name.clone(),
            what: "its status names no init".to_owned(),
        })?;
    Ok(Server::View { name, init })
}

/// libfuse's example has no option that lets others in, and its mounts let root in alone. It serves a
/// mount that is handed to it, as any libfuse does: one as bindfs makes it.
fn passthrough_hp(place: Place, tools: &Tools, export: &Path, shown: &Path) -> Result<Server> {
    let device = Path::new("/dev/fuse");
    let device = File::options()
        .read(true)
        .write(true)
        .open(device)
        .map_err(at("opening", device))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("hpps"),
        shown,
        Some("fuse"),
        flags,
        Some(options.as_str()),
    )
    .map_err(at("mounting", shown))?;
    let mut process = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(tools.in_bench("passthrough_hp"))
        .arg("--foreground")
        .arg(export)
        .arg("/dev/fd/0")
        .current_dir("/")
        .stdin(device)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(step(format!("starting {place}")))?;
    // Waits for the server's first answer; fails if there is no server.
    if let Err(error) = fs::metadata(shown) {
        let _gone = process.kill();
        let _status = process.wait();
        return Err(at("looking at", shown)(error));
    }
    Ok(Server::Other(process))
}

/// Starts a server that ends with this process, whatever happens to it, and waits for its mount.
fn other(place: Place, words: &[&str], export: &Path, shown: &Path) -> Result<Server> {
    let device = || fs::metadata(shown).map(|metadata| metadata.dev());
    let before = device().map_err(at("looking at", shown))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).args(words);
    if !export.as_os_str().is_empty() {
        command.arg(export);
    }
    let mut process = command
        .arg(shown)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(step(format!("starting {place}")))?;
    let start = Instant::now();
    // Nothing tells that it is mounted but the mount.
    while device().is_ok_and(|now| now == before) {
        if wait(&mut process, Duration::from_millis(2)) || start.elapsed() > LIMIT {
            let _gone = process.kill();
            return Err(Error::Other {
                who: place.to_string(),
                what: "did not mount".to_owned(),
            });
        }
    }
    Ok(Server::Other(process))
}

/// Whether a child ends in time.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(1)),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}
