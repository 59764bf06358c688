//! A contender at work on a mount: its server, and the worker that uses it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, View};
use crate::error::{Error, Result, at, step};
use crate::place::Place;
use crate::server::Server;
use crate::task::{Answer, Sample, Task};
use crate::worker;

/// The views' client: ids that no user of the host should have.
pub(crate) const CLIENT: virtfs_p9::Ids = virtfs_p9::Ids {
    uid: 61_236,
    gid: 61_237,
};

/// How long a server may take to start or to end.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A fresh mount and its worker. Both end when this is dropped.
pub(crate) struct Seat {
    contender: String,
    worker: Child,
    tasks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<Server>,
    directory: PathBuf,
    log: PathBuf,
    view: Option<String>,
}

impl Seat {
    /// Mounts, and starts a worker on it.
    pub(crate) fn take(contender: &Contender, place: &Place) -> Result<Self> {
        Self::take_with(contender, place, &[])
    }

    /// As [`Seat::take`], a view with more options.
    pub(crate) fn take_with(
        contender: &Contender,
        place: &Place,
        options: &[String],
    ) -> Result<Self> {
        let log = File::create(place.log()).map_err(at("making", &place.log()))?;
        let (server, directory) = match contender {
            Contender::Native | Contender::View(_) => (None, place.export()),
            Contender::Bindfs | Contender::PassthroughHp => {
                let server = Server::start(contender, place, place.mount_point(), &log)?;
                (Some(server), place.mount_point())
            }
            Contender::Proxy => {
                return Err(Error::Usage("the proxy helper is no mount".to_owned()));
            }
        };
        let (mut command, view) = if let Contender::View(view) = contender {
            let (command, name) = view_command(view, place, options);
            (command, Some(name))
        } else {
            (Command::new(place.worker()), None)
        };
        let mut worker = command
            .arg(worker::WORD)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(step(format!("starting the worker of {contender}")))?;
        let pipes = worker.stdin.take().zip(worker.stdout.take());
        let (tasks, answers) =
            pipes.ok_or_else(|| Error::Usage("a worker without pipes".to_owned()))?;
        Ok(Self {
            contender: contender.to_string(),
            worker,
            tasks: Some(tasks),
            answers: BufReader::new(answers),
            server,
            directory,
            log: place.log(),
            view,
        })
    }

    /// The directory that the worker works in: the export as this contender shows it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The view's name, of ours.
    pub(crate) fn view(&self) -> Option<&str> {
        self.view.as_deref()
    }

    /// The process that was started: the view's launcher, or the worker itself.
    pub(crate) fn child(&self) -> u32 {
        self.worker.id()
    }

    /// Has a task done.
    pub(crate) fn perform(&mut self, task: &Task) -> Result<Vec<Sample>> {
        let line = serde_json::to_string(task).map_err(step("telling a task"))?;
        if let Some(tasks) = &mut self.tasks {
            // A worker that is gone is told of below, with what it said.
            let _gone = tasks
                .write_all((line + "\n").as_bytes())
                .and_then(|()| tasks.flush());
        }
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .map_err(step("reading a worker's answer"))?;
        match serde_json::from_str(&answer) {
            Ok(Answer::Done(samples)) => Ok(samples),
            Ok(Answer::Failed(why)) => Err(Error::Refused {
                contender: self.contender.clone(),
                work: format!("{:?}", task.work),
                why,
            }),
            Err(_) => Err(self.failed("the worker ended early")),
        }
    }

    fn failed(&self, what: &str) -> Error {
        Error::Contender {
            contender: self.contender.clone(),
            what: format!("{what}\n{}", tail(&self.log)),
        }
    }

    /// Ends the worker, then the mount, and waits for both.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.tasks.take());
        let ended = wait(&mut self.worker, LIMIT);
        if !ended {
            let _gone = self.worker.kill();
            let _status = self.worker.wait();
        }
        let server = self.server.take().map_or(Ok(()), Server::stop);
        if !ended {
            return Err(self.failed("did not end"));
        }
        server
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _told_elsewhere = self.end();
    }
}

/// `virtfs-mediator run` up to the command that is to follow, and the view's name.
pub(crate) fn run_words(view: &View, export: &Path, options: &[String]) -> (Vec<OsString>, String) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bench-{}-{number}", std::process::id());
    let mut words: Vec<OsString> = vec![view.program.path.clone().into(), "run".into()];
    words.extend(["--name".into(), name.clone().into()]);
    let client = format!("{}:{}", CLIENT.uid, CLIENT.gid);
    words.extend(["--client".into(), client.into()]);
    words.push("--require-confinement".into());
    words.extend(view.options().into_iter().map(OsString::from));
    words.extend(options.iter().map(OsString::from));
    words.extend([export.into(), "--".into()]);
    (words, name)
}

fn view_command(view: &View, place: &Place, options: &[String]) -> (Command, String) {
    let (words, name) = run_words(view, &place.export(), options);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(place.worker());
    (command, name)
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

/// The end of what was printed.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
