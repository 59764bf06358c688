//! A guest that does errands: stock QEMU, Debian's kernel and busybox (`tools/guest/build`), the place
//! under test as a 9p share, and the host's own programs as read-only shares besides.
//!
//! An errand is a script in a directory that both see; `tools/suites/inside` runs it there and leaves what
//! it said and its status. The host's half is this program again, so that a suite runs a command in a guest
//! as it does anywhere else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::Tools;
use crate::error::{Error, Result, at, step};
use crate::ground::set_mode;
use crate::place::Place;
use crate::seat::{USER, wait};

/// The word that makes this program do an errand: `WORD DIRECTORY QEMU SECONDS -- COMMAND...`.
pub(crate) const WORD: &str = "do-an-errand";

/// Variables that go along.
const VARIABLES: [&str; 5] = ["LC_ALL", "PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"];

/// How long a guest may take to start, emulated on a busy host, and to end.
const START: Duration = Duration::from_secs(300);
const END: Duration = Duration::from_secs(60);

/// How often a file is looked for that the guest makes: nothing tells of those.
const GLANCE: Duration = Duration::from_millis(20);

/// A guest that waits for errands.
pub(crate) struct Guest {
    errands: PathBuf,
    qemu: Child,
}

impl Guest {
    /// Boots it and waits until it is ready. It shows at `shown` what QEMU sees at `share`; `errands`
    /// is there under its own path.
    pub(crate) fn boot(
        place: Place,
        share: &Path,
        shown: &Path,
        errands: &Path,
        tools: &Tools,
    ) -> Result<Self> {
        for file in ["vmlinuz", "initrd"] {
            let (from, to) = (tools.in_guest(file), errands.join(file));
            fs::copy(&from, &to).map_err(at("copying", &from))?;
            set_mode(&to, 0o644)?;
        }
        let console = errands.join("console");
        let log = File::create(&console).map_err(at("making", &console))?;
        let errors = log.try_clone().map_err(at("opening", &console))?;
        let mut command = whose(place, share, errands, tools);
        command.args(machine(errands)).arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 virtfs.run=script virtfs.shown={} virtfs.errands={} \
             virtfs.tools={} virtfs.shares=share:cache=mmap+msize=262144;errands:cache=none;\
             usr:ro+cache=loose+msize=262144;tools:ro+cache=loose+msize=262144",
            shown.display(),
            errands.display(),
            tools.directory().display()
        ));
        for (tag, path, more) in [
            ("share", share, "security_model=passthrough"),
            ("errands", errands, "security_model=none"),
            ("usr", Path::new("/usr"), "security_model=none,readonly=on"),
            (
                "tools",
                tools.directory(),
                "security_model=none,readonly=on",
            ),
        ] {
            let path = path.display();
            command.arg("-virtfs").arg(format!(
                "local,path={path},mount_tag={tag},{more},multidevs=remap"
            ));
        }
        let qemu = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(step(format!("starting QEMU for {place}")))?;
        let mut guest = Self {
            errands: errands.to_owned(),
            qemu,
        };
        let start = Instant::now();
        while !errands.join("ready").exists() {
            if wait(&mut guest.qemu, GLANCE) || start.elapsed() > START {
                let said = fs::read(&console).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let last: Vec<_> = said.lines().rev().take(6).collect();
                return Err(Error::Other {
                    who: place.to_string(),
                    what: format!("the guest did not start: {}", last.join(" | ")),
                });
            }
        }
        Ok(guest)
    }

    /// The beginning of the command line that does an errand there.
    pub(crate) fn errand(&self, this: &Path, seconds: u64) -> Vec<String> {
        vec![
            this.display().to_string(),
            WORD.to_owned(),
            self.errands.display().to_string(),
            self.qemu.id().to_string(),
            seconds.to_string(),
            "--".to_owned(),
        ]
    }

    /// Has it power itself off.
    pub(crate) fn end(&mut self) -> Result<()> {
        let stop = self.errands.join("stop");
        let asked = fs::write(&stop, "").map_err(at("writing", &stop));
        if asked.is_ok() && wait(&mut self.qemu, END) {
            return Ok(());
        }
        Err(Error::Other {
            who: self.errands.display().to_string(),
            what: "the guest did not end".to_owned(),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if wait(&mut self.qemu, Duration::ZERO) {
            return;
        }
        // A view's launcher takes everything with it; QEMU by itself just ends.
        let pid = i32::try_from(self.qemu.id()).map(Pid::from_raw);
        let _gone = pid.map(|pid| kill(pid, Signal::SIGTERM));
        if !wait(&mut self.qemu, END) {
            let _gone = self.qemu.kill();
            let _status = self.qemu.wait();
        }
    }
}

/// Everything up to and with QEMU's name: who runs it, and behind what.
fn whose(place: Place, share: &Path, errands: &Path, tools: &Tools) -> Command {
    const QEMU: &str = "qemu-system-x86_64";
    let mut command = Command::new("setpriv");
    match place {
        Place::GuestView => {
            let client = format!("{}:{}", USER.0, USER.1);
            command
                .args(["--pdeathsig", "TERM"])
                .arg(&tools.mediator)
                .args(["run", "--client", &client, "--log-level", "error"])
                .args(["--isolate", "--bind"])
                .arg(errands)
                .arg("--bind-ro")
                .arg(tools.directory())
                .arg(share)
                .args(["--", QEMU]);
        }
        Place::GuestPlain => {
            command
                .args(["--pdeathsig", "KILL", "--clear-groups", "--no-new-privs"])
                .args(["--inh-caps=-all", "--bounding-set=-all"])
                .arg(format!("--reuid={}", USER.0))
                .arg(format!("--regid={}", USER.1))
                .arg(QEMU);
        }
        Place::GuestRaw
        | Place::Ext4
        | Place::Ext4User
        | Place::Shared(_)
        | Place::Client(_)
        | Place::Bindfs
        | Place::PassthroughHp
        | Place::Plain
        | Place::PlainUser => {
            command.args(["--pdeathsig", "KILL", QEMU]);
        }
    }
    command
}

/// A small machine without default devices; emulated, so that a run needs no /dev/kvm.
fn machine(files: &Path) -> Vec<String> {
    let file = |name: &str| files.join(name).display().to_string();
    let mut words: Vec<String> = ["-M", "pc,vmport=off", "-accel", "tcg", "-cpu", "max"]
        .into_iter()
        .chain(["-m", "1024", "-nodefaults", "-nographic", "-no-reboot"])
        .chain(["-serial", "stdio", "-kernel"])
        .map(str::to_owned)
        .collect();
    words.extend([file("vmlinuz"), "-initrd".to_owned(), file("initrd")]);
    words
}

/// The host's half of an errand: the arguments behind [`WORD`]. Its output and status are the command's.
pub(crate) fn errand(arguments: &[OsString]) -> Result<ExitCode> {
    let [directory, qemu, seconds, dashes, command @ ..] = arguments else {
        return Err(Error::Usage(format!("{WORD}: too few words")));
    };
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let (Ok(seconds), "--") = (text(seconds).parse(), text(dashes).as_str()) else {
        return Err(Error::Usage(format!("{WORD}: wrong words")));
    };
    let name = std::process::id().to_string();
    let file = |kind: &str| Path::new(directory).join(format!("{name}.{kind}"));
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(step("reading standard input"))?;
    for (kind, content) in [("in", input), ("new", script(command).into_bytes())] {
        fs::write(file(kind), content).map_err(at("writing", &file(kind)))?;
        set_mode(&file(kind), 0o644)?;
    }
    // Whole when the guest sees it.
    fs::rename(file("new"), file("job")).map_err(at("renaming", &file("new")))?;
    let code = await_code(&file("code"), &text(qemu), Duration::from_secs(seconds))?;
    for (kind, to) in [
        ("out", &mut std::io::stdout() as &mut dyn Write),
        ("err", &mut std::io::stderr()),
    ] {
        let said = fs::read(file(kind)).map_err(at("reading", &file(kind)))?;
        to.write_all(&said).map_err(step("writing"))?;
    }
    for kind in ["in", "run", "out", "err", "code"] {
        let _left = fs::remove_file(file(kind));
    }
    Ok(ExitCode::from(code))
}

/// A script of the shell that becomes a command, with the variables of this process.
fn script(command: &[OsString]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let mut text = String::new();
    for name in VARIABLES {
        if let Ok(value) = std::env::var(name) {
            text.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
    }
    text.push_str("exec");
    for word in command {
        text.push(' ');
        text.push_str(&quoted(&word.to_string_lossy()));
    }
    text.push('\n');
    text
}

/// What the command ended with, once the guest has left it; not longer than QEMU lives, nor than the
/// guest's own limit and what a busy guest adds.
fn await_code(path: &Path, qemu: &str, limit: Duration) -> Result<u8> {
    let start = Instant::now();
    let lives = Path::new("/proc").join(qemu).join("cmdline");
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text.trim().parse().map_err(|error| Error::Other {
                who: path.display().to_string(),
                what: format!("no status ({error})"),
            });
        }
        // Empty for one that has ended and is not waited for yet.
        let gone = fs::read(&lives).map_or(true, |line| line.is_empty());
        if gone || start.elapsed() > limit + END {
            let what = if gone { "ended" } else { "does not answer" };
            return Err(Error::Other {
                who: "the guest".to_owned(),
                what: what.to_owned(),
            });
        }
        thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let words = ["echo", "a b", "it's", "$HOME"].map(OsString::from);
        let told = Command::new("sh")
            .args(["-c", &script(&words)])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), "a b it's $HOME\n");
    }
}
