//! The product on a place, or the same program with one of the core's walls switched off.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use virtfs_mediator_core::weak::Wall;

use super::liar::{LIES, Lie};
use super::process::{Ended, Spawned, children, holds_within, scratch};
use super::role::{OUTSIDE, WITHOUT, word};
use super::{CLIENT, OrTell as _};
use crate::lab::Lab;

/// How long a view may take to answer, or a command to end. Generous: machines are shared.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How to start `run` on an export.
pub(crate) struct Start {
    before: Vec<OsString>,
    program: PathBuf,
    options: Vec<OsString>,
    policy: Option<String>,
    export: PathBuf,
    directory: PathBuf,
    name: String,
}

impl Start {
    /// The product.
    pub(crate) fn product(lab: &Lab, export: impl Into<PathBuf>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            before: Vec::new(),
            program: lab.mediator.clone(),
            options: Vec::new(),
            policy: None,
            export: export.into(),
            directory: "/".into(),
            name: format!("attack-{}-{number}", std::process::id()),
        }
    }

    /// The same program, this one, behind the same sandbox, but for these walls of the core.
    pub(crate) fn without(mut self, walls: &[Wall]) -> Result<Self, String> {
        let words: Vec<&str> = walls.iter().map(|wall| word(*wall)).collect();
        self.before.extend([
            "env".into(),
            format!("{WITHOUT}={}", words.join(",")).into(),
        ]);
        self.program = std::env::current_exe().or_tell("this program's path")?;
        Ok(self)
    }

    /// The same program, this one, but for a wall outside the mediator: a word of [`super::role`].
    pub(crate) fn without_outside(mut self, wall: &str) -> Result<Self, String> {
        self.before
            .extend(["env".into(), format!("{OUTSIDE}={wall}").into()]);
        self.program = std::env::current_exe().or_tell("this program's path")?;
        Ok(self)
    }

    /// The same program behind all walls, broken into: its control socket tells lies.
    pub(crate) fn lying(mut self, lie: Lie) -> Result<Self, String> {
        self.before
            .extend(["env".into(), format!("{LIES}={}", lie.name()).into()]);
        self.program = std::env::current_exe().or_tell("this program's path")?;
        Ok(self)
    }

    /// Through another program, which is given ours to run.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.before.splice(0..0, words.iter().map(OsString::from));
        self
    }

    pub(crate) fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// The text of a policy file.
    pub(crate) fn policy(mut self, text: impl Into<String>) -> Self {
        self.policy = Some(text.into());
        self
    }

    /// The caller's working directory.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = directory.into();
        self
    }

    pub(crate) fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The words up to `--`; the policy file goes into `dir`.
    pub(crate) fn words(&self, dir: &Path) -> Result<Vec<OsString>, String> {
        let mut words = self.before.clone();
        words.extend([self.program.clone().into(), "run".into()]);
        words.push(format!("--name={}", self.name).into());
        words.extend([
            "--client".into(),
            format!("{}:{}", CLIENT.uid, CLIENT.gid).into(),
        ]);
        words.extend(self.options.iter().cloned());
        if let Some(text) = &self.policy {
            let file = dir.join("policy.toml");
            fs::write(&file, text).or_tell("the policy file")?;
            words.extend(["--policy".into(), file.into()]);
        }
        words.extend([self.export.clone().into(), "--".into()]);
        Ok(words)
    }

    fn command(&self, dir: &Path, argv: &[&str]) -> Result<Command, String> {
        let words = self.words(dir)?;
        let (program, arguments) = words.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(argv)
            .current_dir(&self.directory);
        Ok(command)
    }

    /// Runs a command as the client, to its end.
    pub(crate) fn run(&self, argv: &[&str], limit: Duration) -> Result<Ended, String> {
        let dir = scratch()?;
        let mut spawned = Spawned::start(self.command(dir.path(), argv)?, dir, false)?;
        let status = spawned
            .wait(limit)
            .ok_or_else(|| format!("it did not end within {limit:?}: {}", spawned.err()))?;
        Ok(Ended {
            status,
            out: spawned.out(),
            err: spawned.err(),
        })
    }

    /// As [`Start::run`], with a command that the caller finished.
    pub(crate) fn run_with(
        &self,
        argv: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Ended, String> {
        let dir = scratch()?;
        let mut command = self.command(dir.path(), argv)?;
        command.stdin(std::process::Stdio::null());
        change(&mut command);
        let mut spawned = Spawned::start(command, dir, true)?;
        let status = spawned
            .wait(LIMIT)
            .ok_or_else(|| format!("it did not end within {LIMIT:?}: {}", spawned.err()))?;
        Ok(Ended {
            status,
            out: spawned.out(),
            err: spawned.err(),
        })
    }

    /// A view with a client that sleeps.
    pub(crate) fn open(&self) -> Result<View, String> {
        let dir = scratch()?;
        let command = self.command(dir.path(), &["sh", "-c", "echo ready; exec sleep 3600"])?;
        let mut spawned = Spawned::start(command, dir, false)?;
        let ready = holds_within(LIMIT, || {
            spawned.out().contains("ready") || spawned.wait(Duration::ZERO).is_some()
        });
        if !ready || !spawned.out().contains("ready") {
            return Err(format!("the view did not start: {}", spawned.err()));
        }
        View::of(spawned, self.export.clone(), self.name.clone())
    }
}

/// A running view.
pub(crate) struct View {
    spawned: Spawned,
    pub(crate) name: String,
    pub(crate) export: PathBuf,
    pub(crate) keeper: i32,
    pub(crate) init: i32,
    pub(crate) warden: i32,
    pub(crate) mediator: i32,
    registrars: Vec<i32>,
    /// The client's process.
    pub(crate) client: i32,
}

impl View {
    fn of(spawned: Spawned, export: PathBuf, name: String) -> Result<Self, String> {
        let only = |found: &[i32], what: &str| match found {
            [one] => Ok(*one),
            _ => Err(format!("not one {what}: {found:?}")),
        };
        let one = |pid: i32, what: &str| only(&children(pid), what);
        let namespace = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let net = |pid: i32| namespace(pid, "net");
        // `env` and `prlimit` execute what they start: the child is the launcher. Its other child,
        // which copies the log, has no namespace of its own.
        let launcher = spawned.pid();
        let mut keepers = children(launcher);
        keepers.retain(|pid| namespace(*pid, "mnt") != namespace(launcher, "mnt"));
        let keeper = only(&keepers, "keeper")?;
        let own = net(keeper);
        let (inits, wardens): (Vec<i32>, Vec<i32>) = children(keeper)
            .into_iter()
            .partition(|pid| net(*pid) == own);
        // Where data may go past the mediator; it stays in the keeper's own namespaces.
        let own = namespace(keeper, "pid");
        let (registrars, inits): (Vec<i32>, Vec<i32>) = inits
            .into_iter()
            .partition(|pid| namespace(*pid, "pid") == own);
        let ([init], [warden]) = (inits.as_slice(), wardens.as_slice()) else {
            return Err(format!("keeper's children: {inits:?} {wardens:?}"));
        };
        Ok(Self {
            export,
            name,
            keeper,
            init: *init,
            warden: *warden,
            registrars,
            mediator: one(*warden, "mediator")?,
            client: one(*init, "client")?,
            spawned,
        })
    }

    /// All that was told on standard error.
    pub(crate) fn log(&self) -> String {
        self.spawned.err()
    }

    /// The first line that holds every one of `words`, waited for a moment: the log has a thread
    /// of its own.
    pub(crate) fn told(&self, words: &[&str]) -> Option<String> {
        let mut found = None;
        holds_within(Duration::from_secs(2), || {
            found = line_with(&self.log(), words);
            found.is_some()
        });
        found
    }

    /// Whether the mediator still runs.
    pub(crate) fn lives(&self) -> bool {
        Path::new(&format!("/proc/{}", self.mediator)).exists()
    }

    /// The process that the caller started.
    pub(crate) fn launcher(&self) -> i32 {
        self.spawned.pid()
    }

    /// Waits until all of it is gone, which somebody else has asked for; tells whether it was in
    /// time.
    pub(crate) fn is_gone_within(&mut self, limit: Duration) -> bool {
        let of_it = [self.keeper, self.init, self.warden, self.mediator];
        self.spawned.wait(limit).is_some()
            && holds_within(limit, || {
                of_it
                    .iter()
                    .chain(&self.registrars)
                    .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            })
    }

    /// Ends it; the log as it was at the end.
    pub(crate) fn end(mut self) -> String {
        self.spawned.stop();
        self.spawned.err()
    }
}

/// The first line of a text that holds every one of `words`.
pub(crate) fn line_with(text: &str, words: &[&str]) -> Option<String> {
    text.lines()
        .find(|line| words.iter().all(|word| line.contains(word)))
        .map(|line| line.trim().to_owned())
}
