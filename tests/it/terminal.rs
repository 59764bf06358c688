//! A client on a terminal: the keys are the client's.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;

use crate::common::{Export, LIMIT, Start, assert_nothing_left};
use crate::process::{Family, Process};

/// An interactive shell with job control on a terminal of its own.
struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn new() -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let shell = Command::new("setsid")
            .args(["--ctty", "bash", "--norc", "--noprofile", "-i"])
            .env("PS1", "prompt>")
            .env("TERM", "dumb")
            .current_dir("/")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        drop(slave);
        let mut output = File::from(master.try_clone().unwrap());
        let (tx, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            // EIO once nobody has the other side open.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if tx.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            shell,
            keyboard: master.into(),
            screen,
            shown: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows a text after what was awaited before.
    #[track_caller]
    fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no '{text}' on the screen ({error}): {:?}", self.shown),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let shell = i32::try_from(self.shell.id()).ok().and_then(Process::find);
        for process in shell.map(Process::descendants).unwrap_or_default() {
            process.kill(Signal::SIGKILL);
        }
        let _status = self.shell.wait();
    }
}

/// `run` of a script, typed at the shell.
fn line(start: &Start, script: &str) -> String {
    format!(
        "{} sh -c '{script}'; echo status=$?\n",
        start.run_words().join(" ")
    )
}

#[test]
fn interrupt_key_reaches_the_client_once() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut terminal = Terminal::new();
    let script = "trap \"n=x\\$n; echo got:\\$n\" INT; echo up:; while [ \"$n\" != xx ]; do sleep 0.05; done; exit 4";
    terminal.press(&line(&start, script));
    terminal.shows("\nup:");
    terminal.press("\x03");
    terminal.shows("got:x\r");
    // A second one for the one key would have ended it.
    terminal.press("\x03");
    terminal.shows("got:xx\r");
    terminal.shows("status=4");
    assert_nothing_left(start.name());
}

#[test]
fn interrupt_key_ends_a_client_that_does_not_handle_it() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut terminal = Terminal::new();
    terminal.press(&line(&start, "echo up:; exec sleep 1000"));
    terminal.shows("\nup:");
    terminal.press("\x03");
    // The shell's list ends with a job that SIGINT ended; ours ends with a status instead.
    terminal.press("echo still=here\n");
    terminal.shows("\nstill=here");
    assert_nothing_left(start.name());
}

#[test]
fn suspend_key_stops_the_client_and_fg_continues_it() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut terminal = Terminal::new();
    let words = start.run_words().join(" ");
    terminal.press(&format!(
        "{words} sh -c 'echo up:; read line; echo read:$line; exit 3'\n"
    ));
    terminal.shows("\nup:");
    terminal.press("\x1a");
    terminal.shows("Stopped");
    // What is typed while the shell takes the terminal over may lose its first key.
    terminal.shows("prompt>");
    terminal.press("echo shell=alive\n");
    terminal.shows("\nshell=alive");
    terminal.press("fg\n");
    terminal.press("typed\n");
    terminal.shows("read:typed");
    terminal.press("echo status=$?\n");
    terminal.shows("status=3");
    assert_nothing_left(start.name());
}

#[test]
fn client_has_the_terminal() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut terminal = Terminal::new();
    terminal.press(&line(&start, "tty; echo up:; read line; echo read:$line"));
    let before = terminal.shows("\nup:");
    assert!(!before.contains("not a tty"), "{before}");
    terminal.press("words\n");
    terminal.shows("read:words");
    terminal.shows("status=0");
}

/// Process group, session and controlling terminal (proc_pid_stat(5)).
fn job(process: Process) -> [i32; 3] {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let (_name, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    [2, 3, 4].map(|at: usize| fields[at].parse().unwrap())
}

/// Where sessions share the CPU, a mediator outside its client's would have to wait for all others.
#[test]
fn those_who_serve_have_the_callers_session_without_its_terminal() {
    let export = Export::new();
    let start = Start::new(&export);
    let mut terminal = Terminal::new();
    terminal.press(&line(&start, "echo up:; read line"));
    terminal.shows("\nup:");
    let family = Family::of_view(start.name());
    let [foreground, session, tty] = job(family.client());
    assert_ne!(tty, 0);
    let serving = family.wardens.iter().chain(&family.mediators);
    for process in serving.chain(&family.registrars) {
        let [group, its, none] = job(*process);
        assert_eq!((its, none), (session, 0), "process {}", process.pid);
        assert_ne!(group, foreground, "process {}", process.pid);
    }
    terminal.press("\n");
    terminal.shows("status=0");
    assert_nothing_left(start.name());
}
